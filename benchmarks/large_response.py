"""What does a response of 1 MiB cost? Raw ASGI, one `bytes`, 16 connections."""

from framegate_bench.__main__ import main
from framegate_bench.question import Bar, Phase, Question
from framegate_bench.servers import framegate, granian, hyper, uvicorn

APP = "bodies_app:app"
LOAD = ("http", "--path", "/large", "--conns", "16")

QUESTION = Question(
    name="large_response",
    title="Large response: raw ASGI, 1 MiB in one piece, 16 connections",
    unit="request",
    servers=(framegate(APP), granian(APP), uvicorn(APP), hyper()),
    phases=(
        Phase("fixed", "500 requests/s", LOAD, rate=500),
        Phase("closed", "closed loop", LOAD),
    ),
    bars=(Bar("hyper", "fixed", 0.9),),
    probe="/",
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
