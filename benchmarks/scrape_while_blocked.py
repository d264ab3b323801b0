"""How long does a scrape take while the application computes for five seconds?

One worker and its scraper on different cores; the handler never gives the GIL away by itself. The
thread that answers shares the core with it, so the kernel has to take the core from what computes.
How long that takes is the kernel's: since Linux 6.12 a thread may ask for short turns, and ours
does. Beside it is a process that only answers and asks for nothing, on the core on which another
one computes.
"""

from framegate_bench.__main__ import main
from framegate_bench.comparison import Case, Comparison, Contestant, Limit

METRICS = ("p50_ms", "p99_ms", "max_ms")

QUESTION = Comparison(
    name="scrape_while_blocked",
    title="Scrapes of /metrics, each on a connection of its own",
    unit="ms from connect to the last byte: p50 / p99 / longest of 250",
    contestants=(
        Contestant("framegate", "framegate", ("{bin}/python", "{apps}/scrape_blocked.py")),
        Contestant(
            "a process that only answers",
            "framegate",
            ("{bin}/python", "{apps}/scrape_blocked.py", "--floor"),
            is_limit=True,
        ),
    ),
    cases=(
        Case("idle", "nothing runs", ("idle",), METRICS),
        Case("blocked", "Python computes for 5 s", ("blocked",), METRICS),
    ),
    limits=(
        Limit(
            "ms of the longest scrape while Python computes",
            ("framegate", "blocked", "max_ms"),
            None,
            10.0,
            at_most=True,
        ),
        Limit(
            "times the median of a process that only answers, while something computes",
            ("framegate", "blocked", "p50_ms"),
            ("a process that only answers", "blocked", "p50_ms"),
            1.25,
            at_most=True,
        ),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
