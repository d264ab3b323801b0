"""What does a span per request cost? hello, plain and with spans of all or of one in a hundred.

The spans go to a collector that takes everything and looks at nothing, on the core of the load. One
that is not recorded has ids all the same, which `traceparent` in the scope and in logs tell.
"""

from dataclasses import replace

from framegate_bench.__main__ import main
from framegate_bench.question import Bar, Phase, Question, Server
from framegate_bench.servers import framegate

APP = "hello_app:app"
LOAD = ("http", "--path", "/", "--conns", "64")


def traced(name: str, ratio: str) -> Server:
    """framegate with a collector of its own."""
    server = framegate(APP, options=("--otel",), name=name)
    wrapper = ("{bin}/python", "with_collector.py", ratio)
    return replace(server, command=(*wrapper, *server.command))


QUESTION = Question(
    name="tracing",
    title="Hello with a span for each request: 13 bytes, 64 connections",
    unit="request",
    # Ours is the one that records everything: bars divide the others by it.
    servers=(
        traced("framegate", "1"),
        traced("framegate, one in 100", "0.01"),
        framegate(APP, name="framegate, plain"),
    ),
    phases=(
        Phase("fixed", "20,000 requests/s", LOAD, rate=20_000),
        Phase("closed", "closed loop", LOAD),
    ),
    bars=(Bar("framegate, plain", "fixed", 0.7),),
    probe="/",
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
