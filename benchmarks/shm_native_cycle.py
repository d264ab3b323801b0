"""What do loan, publish, take and release cost in C++, with nobody to wake? 64 bytes, one process.

The rival is iceoryx2 from Rust, its own language, with a payload of fixed type.
"""

from framegate_bench import transports
from framegate_bench.__main__ import main
from framegate_bench.comparison import Case, Comparison, Limit

OURS = ("framegate C++",)

QUESTION = Comparison(
    name="shm_native_cycle",
    title="Shared memory from C++ and Rust: the calls, 64 B, one process",
    unit="Nanoseconds per operation; then system calls and allocations per operation",
    contestants=(transports.cpp("framegate C++"), transports.rust("iceoryx2 Rust")),
    cases=(
        Case("send", "loan, publish, no subscriber, ns", ("send",), ("ns",)),
        Case("empty", "take of nothing, ns", ("empty",), ("ns",)),
        Case("cycle", "loan, publish, take, release, ns", ("cycle",), ("ns",)),
        Case("syscalls", "syscalls", ("cycle",), ("syscalls",), OURS, count="syscalls"),
        Case("allocations", "allocations", ("cycle",), ("allocations",), OURS, count="allocations"),
    ),
    limits=(
        Limit(
            "loan, publish, take, release: time of iceoryx2 Rust / of framegate C++",
            ("iceoryx2 Rust", "cycle", "ns"),
            ("framegate C++", "cycle", "ns"),
            3.0,
            at_most=False,
        ),
        Limit(
            "system calls of a publish that nobody waits for",
            ("framegate C++", "syscalls", "syscalls"),
            None,
            0.0,
            at_most=True,
        ),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
