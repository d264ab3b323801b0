"""What do send, take and release cost in Python, with nobody to wake? 64 bytes, one process.

Beside the time: system calls (by strace) and allocations (by a preloaded counter, with Python's own
allocator turned off) of the same operations.
"""

from framegate_bench import transports
from framegate_bench.__main__ import main
from framegate_bench.comparison import Case, Comparison, Limit

CORE = ("framegate", "iceoryx2", transports.SHMX.name)
CONTESTANTS = (
    transports.FRAMEGATE, transports.ICEORYX2, transports.SHMX, transports.ZMQ, transports.SOCKET,
    transports.PIPE, transports.PICKLED,
)  # fmt: skip

QUESTION = Comparison(
    name="shm_cycle",
    title="Shared memory from Python: the calls, 64 B, one process",
    unit="Nanoseconds per operation; then system calls and allocations per operation",
    contestants=CONTESTANTS,
    cases=(
        Case("send", "send, ns", ("cycle", "--kind", "send"), ("ns",), CORE),
        Case("empty", "take of nothing, ns", ("cycle", "--kind", "empty"), ("ns",), CORE),
        Case("cycle", "send, take, release, ns", ("cycle", "--kind", "cycle"), ("ns",)),
        Case("view", "the same with a memoryview, ns", ("cycle", "--kind", "view"), ("ns",), CORE),
        Case(
            "send-syscalls",
            "send, syscalls",
            ("cycle", "--kind", "send"),
            ("syscalls",),
            CORE,
            count="syscalls",
        ),
        Case(
            "cycle-syscalls",
            "send, take, release, syscalls",
            ("cycle", "--kind", "cycle"),
            ("syscalls",),
            count="syscalls",
        ),
        Case(
            "cycle-allocations",
            "allocations",
            ("cycle", "--kind", "cycle"),
            ("allocations",),
            count="allocations",
        ),
    ),
    limits=(
        Limit(
            "send, take, release: time of iceoryx2 / of framegate",
            ("iceoryx2", "cycle", "ns"),
            ("framegate", "cycle", "ns"),
            4.0,
            at_most=False,
        ),
        Limit(
            "send, take, release: time of shmx / of framegate",
            (transports.SHMX.name, "cycle", "ns"),
            ("framegate", "cycle", "ns"),
            6.0,
            at_most=False,
        ),
        Limit(
            "system calls of a send that nobody waits for",
            ("framegate", "send-syscalls", "syscalls"),
            None,
            0.0,
            at_most=True,
        ),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
