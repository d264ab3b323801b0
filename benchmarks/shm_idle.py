"""What does a subscriber cost while nothing is published?

CPU time of the waiting process while two seconds pass, the wake at their end included. A thousand
milliseconds per second are a whole core.
"""

from framegate_bench import transports
from framegate_bench.__main__ import main
from framegate_bench.comparison import Case, Comparison, Limit

QUESTION = Comparison(
    name="shm_idle",
    title="Shared memory from Python: a subscriber that waits",
    unit="Milliseconds of CPU time per second",
    contestants=transports.ALL,
    cases=(Case("idle", "waiting, ms/s", ("idle",), ("cpu_ms_per_s",)),),
    limits=(
        # Once a second it looks whether a publisher died; a thousandth of a core would be 1.
        Limit(
            "CPU time of a waiting subscriber, ms per s",
            ("framegate", "idle", "cpu_ms_per_s"),
            None,
            1.0,
            at_most=True,
        ),
    ),
    rounds_max=3,
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
