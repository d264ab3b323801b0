"""How long until a sleeping process in Python holds a frame? One way, five sizes, two cores.

From before send(), its copy included, to the moment at which the reader has the bytes. Beside it
the two things that nobody can save: waking a process that sleeps on a futex, and copying the bytes.
"""

from framegate_bench import transports
from framegate_bench.__main__ import main
from framegate_bench.comparison import Comparison, Limit

FUTEX = transports.cpp("futex wake alone", "futex", is_limit=True)
COPY = transports.cpp("memcpy alone", "memcpy", is_limit=True)
TITLES = tuple(transports.SIZES)


def bar(size: str, bound: float) -> Limit:
    """Against iceoryx2."""
    return Limit(
        f"{size}, median: framegate / iceoryx2",
        ("framegate", size, "p50_us"),
        ("iceoryx2", size, "p50_us"),
        bound,
        at_most=True,
        floor=((FUTEX.name, TITLES[0], "p50_us"), (COPY.name, size, "p50_us")),
    )


QUESTION = Comparison(
    name="shm_latency",
    title="Shared memory from Python: one-way latency",
    unit="Microseconds, median / 99th percentile",
    contestants=(*transports.ALL, FUTEX, COPY),
    cases=transports.by_size(
        ("latency",),
        ("p50_us", "p99_us"),
        {FUTEX.name: TITLES[:1], COPY.name: TITLES},
    ),
    limits=(bar("4 KiB", 0.5), bar("1 MiB", 0.6), bar("6.2 MB", 0.7)),
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
