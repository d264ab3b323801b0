"""How long does a server take from its start to its first answer?

One worker in its defaults, and an application that imports nothing: what is measured is what the
server itself imports and prepares. uvicorn is uvicorn[standard], which takes uvloop and httptools.
"""

from framegate_bench.__main__ import main
from framegate_bench.comparison import Case, Comparison, Contestant, Limit


def server(name: str) -> Contestant:
    """One that `apps/first_answer.py` knows how to start."""
    return Contestant(name, name, ("{bin}/python", "{apps}/first_answer.py", name, "start"))


QUESTION = Comparison(
    name="start",
    title="From the start of a server to its first 200",
    unit="Milliseconds, median of ten starts",
    contestants=(server("framegate"), server("uvicorn"), server("granian")),
    cases=(
        Case("wall", "until the first 200", (), ("wall_ms",)),
        Case("cpu", "CPU time until then", (), ("cpu_ms",)),
    ),
    limits=(
        Limit(
            "start to first 200: framegate / uvicorn",
            ("framegate", "wall", "wall_ms"),
            ("uvicorn", "wall", "wall_ms"),
            1.0,
            at_most=True,
        ),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
