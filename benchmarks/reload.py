"""How long after a save does `--reload` serve the new code?

From the moment the file is written to the first answer with the new text, beyond the time that the
application sleeps while it is imported: noticing, stopping, starting anew. uvicorn's reloader looks
for changes by watchfiles, too (`--reload-delay` of both is the default).
"""

from framegate_bench.__main__ import main
from framegate_bench.comparison import Case, Comparison, Contestant, Limit


def server(name: str) -> Contestant:
    """One that `apps/first_answer.py` knows how to start."""
    return Contestant(name, name, ("{bin}/python", "{apps}/first_answer.py", name, "reload"))


QUESTION = Comparison(
    name="reload",
    title="From a save to the first 200 of the new code",
    unit="Milliseconds beyond the import of the application, median of five saves",
    contestants=(server("framegate"), server("uvicorn")),
    cases=(
        Case("plain", "imports nothing", (), ("wall_ms",)),
        Case("slow", "import of 0.3 s", ("--import-seconds", "0.3"), ("wall_ms",)),
    ),
    limits=(
        Limit(
            "save to first 200 beyond the import, ms",
            ("framegate", "plain", "wall_ms"),
            None,
            500.0,
            at_most=True,
        ),
        Limit(
            "the same of an application that takes 0.3 s",
            ("framegate", "slow", "wall_ms"),
            None,
            500.0,
            at_most=True,
        ),
    ),
    rounds_max=3,
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
