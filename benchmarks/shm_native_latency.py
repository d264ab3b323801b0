"""How long until a sleeping process holds a frame, without Python? One way, five sizes, two cores.

framegate from C++, woken by its futex, by the descriptor that event loops use, or not sleeping at
all; iceoryx2 from Rust, woken by its event service or not sleeping. `read` means that the reader
has looked at every cache line, so that a copy cannot look fast by leaving the work to the reader.
"""

from framegate_bench import transports
from framegate_bench.__main__ import main
from framegate_bench.comparison import Comparison

FRAMEGATE = (
    transports.cpp("framegate C++", "latency"),
    transports.cpp("framegate C++, descriptor", "latency", "--wake", "fd"),
    transports.cpp("framegate C++, spinning", "latency", "--wake", "spin"),
    transports.cpp("framegate C++, read", "latency", "--touch"),
)
ICEORYX2 = (
    transports.rust("iceoryx2 Rust", "latency"),
    transports.rust("iceoryx2 Rust, spinning", "latency", "--wake", "spin"),
    transports.rust("iceoryx2 Rust, read", "latency", "--touch"),
)
FUTEX = transports.cpp("futex wake alone", "futex", is_limit=True)
COPY = transports.cpp("memcpy alone", "memcpy", is_limit=True)
TITLES = tuple(transports.SIZES)

QUESTION = Comparison(
    name="shm_native_latency",
    title="Shared memory from C++ and Rust: one-way latency",
    unit="Microseconds, median / 99th percentile",
    contestants=(*FRAMEGATE, *ICEORYX2, FUTEX, COPY),
    cases=transports.by_size(
        (),
        ("p50_us", "p99_us"),
        {FUTEX.name: TITLES[:1], COPY.name: TITLES},
        (*FRAMEGATE, *ICEORYX2),
    ),
    limits=(),
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
