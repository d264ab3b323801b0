"""How long does an answer take at half of what the server can do?

Each server is first asked for all it can do, by 64 connections in a closed loop, and then at half
of that rate.
"""

from framegate_bench.__main__ import main
from framegate_bench.comparison import Case, Comparison, Limit, program

QUESTION = Comparison(
    name="half_load",
    title="Hello at half of the server's own load, 64 connections",
    unit="Microseconds until the answer, median; the rate that was half",
    contestants=(
        program("half_load", "framegate"),
        program("half_load", "granian"),
        program("half_load", "uvicorn"),
        # Its program is one of the tools.
        program("half_load", "hyper", "framegate", is_limit=True),
    ),
    cases=(
        Case("p50", "median", (), ("p50_us",)),
        Case("rate", "requests/s", (), ("rate",)),
    ),
    limits=(
        Limit(
            "median at half load: framegate / hyper",
            ("framegate", "p50", "p50_us"),
            ("hyper", "p50", "p50_us"),
            2.0,
            at_most=True,
        ),
    ),
    has_tools=True,
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
