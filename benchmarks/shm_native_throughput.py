"""How many frames go through in a second, without Python? Five sizes, two cores.

The writer sends as fast as it can. `read` means that the reader looks at every cache line of every
frame that it gets. Both sides skip frames when the reader is behind; what was received counts.
"""

from framegate_bench import transports
from framegate_bench.__main__ import main
from framegate_bench.comparison import Comparison

CONTESTANTS = (
    transports.cpp("framegate C++", "throughput"),
    transports.cpp("framegate C++, asleep", "throughput", "--wake", "asleep"),
    transports.cpp("framegate C++, spinning", "throughput", "--wake", "spin"),
    transports.cpp("framegate C++, read", "throughput", "--touch"),
    transports.rust("iceoryx2 Rust", "throughput"),
    transports.rust("iceoryx2 Rust, spinning", "throughput", "--wake", "spin"),
    transports.rust("iceoryx2 Rust, read", "throughput", "--touch"),
)

QUESTION = Comparison(
    name="shm_native_throughput",
    title="Shared memory from C++ and Rust: frames received",
    unit="Frames per second / GB per second",
    contestants=CONTESTANTS,
    cases=transports.by_size((), ("frames_per_s", "gb_per_s"), others=CONTESTANTS),
    limits=(),
    rounds_max=3,
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
