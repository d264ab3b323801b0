"""What do 1,000 streams of server-sent events cost, ten events a second each?"""

from framegate_bench.__main__ import main
from framegate_bench.comparison import Case, Comparison, Limit, program

QUESTION = Comparison(
    name="event_streams",
    title="Server-sent events by ASGI: 1,000 streams, ten events/s each",
    unit="CPU microseconds of an event; bytes of PSS of a stream",
    contestants=tuple(
        program("event_streams", name) for name in ("framegate", "granian", "uvicorn")
    ),
    cases=(
        Case("cpu", "CPU of an event", (), ("cpu_us",)),
        Case("memory", "memory of a stream", (), ("stream_bytes",)),
    ),
    limits=(
        Limit(
            "CPU of an event: framegate / uvicorn",
            ("framegate", "cpu", "cpu_us"),
            ("uvicorn", "cpu", "cpu_us"),
            1.0,
            at_most=True,
        ),
    ),
    has_tools=True,
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
