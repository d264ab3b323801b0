"""What does a request cost when the app does nothing? 64 connections, 13 bytes."""

from framegate_bench.__main__ import main
from framegate_bench.question import Bar, Phase, Question
from framegate_bench.servers import framegate, granian, hyper, uvicorn

APP = "hello_app:app"
LOAD = ("http", "--path", "/", "--conns", "64")
ONE = ("http", "--path", "/", "--conns", "1")

QUESTION = Question(
    name="hello",
    title="Hello: raw ASGI, 13 bytes, 64 connections",
    unit="request",
    servers=(framegate(APP), granian(APP), uvicorn(APP), hyper()),
    phases=(
        Phase("fixed", "20,000 requests/s", LOAD, rate=20_000),
        # The servers that can; here the kernel's share of waking up is small and the servers' own
        # cost shows.
        Phase("high", "60,000 requests/s", LOAD, rate=60_000, servers=("framegate", "hyper")),
        Phase("closed", "closed loop", LOAD),
        # Every request pays for a turn of the loop and for waking up.
        Phase("one", "1 connection, closed loop", ONE),
    ),
    # 0.75 and 1.7 are what the foundation was held to.
    bars=(
        Bar("hyper", "high", 0.75),
        Bar("hyper", "high", 0.9),
        Bar("hyper", "one", 0.92),
        Bar("granian", "fixed", 1.7),
    ),
    probe="/",
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
