"""Do two workers on two cores do twice the work of one?

Here is no third core for the load, so it is no rate that is compared but the CPU time of a request.
At these rates much of it is waking, which gets rarer the more there is to do: a number above one
says that a second worker costs nothing beyond the work, not how much faster two are.
"""

from framegate_bench.__main__ import main
from framegate_bench.comparison import Case, Comparison, Limit, program

METRICS = ("cpu_us", "kept_percent", "mib")

QUESTION = Comparison(
    name="workers",
    title="Two workers: hello, 10,000 requests/s for each, 64 connections",
    unit="CPU us per request / requests answered, % / memory of all processes, MiB",
    contestants=tuple(program("workers", name) for name in ("framegate", "granian", "uvicorn")),
    cases=(
        Case("one", "one worker", ("one",), METRICS),
        Case("two", "two workers", ("two",), METRICS),
    ),
    limits=(
        # 0.9: 1.8 times of one.
        Limit(
            "CPU of a request to one of one worker / to one of two",
            ("framegate", "one", "cpu_us"),
            ("framegate", "two", "cpu_us"),
            0.9,
            at_most=False,
        ),
    ),
    has_tools=True,
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
