"""What does a request of HTTP/2 cost when the app does nothing? 8 connections of 8 requests."""

from framegate_bench.__main__ import main
from framegate_bench.question import Bar, Phase, Question
from framegate_bench.servers import framegate, granian

APP = "hello_app:app"
LOAD = ("h2", "--path", "/", "--conns", "8", "--inflight", "8", "--answer", "13")

QUESTION = Question(
    name="hello_h2",
    title="Hello over HTTP/2: raw ASGI, 13 bytes, 8 connections, 8 requests on each",
    unit="request",
    servers=(framegate(APP), granian(APP)),
    phases=(
        Phase("fixed", "10,000 requests/s", LOAD, rate=10_000),
        Phase("closed", "closed loop", LOAD),
    ),
    # At saturation is what was asked for; at a rate that granian just keeps is our own wish.
    bars=(Bar("granian", "closed", 2.0), Bar("granian", "fixed", 2.0)),
    probe="/",
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
