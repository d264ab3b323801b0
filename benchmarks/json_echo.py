"""What does it cost a raw ASGI app to read 1 KiB of JSON and to write it again, by msgspec?"""

from framegate_bench.__main__ import main
from framegate_bench.question import Bar, Question
from framegate_bench.routes import phases, post
from framegate_bench.servers import framegate, granian, hyper, uvicorn

APP = "bodies_app:app"

QUESTION = Question(
    name="json_echo",
    title="JSON echo: raw ASGI and msgspec, POST of 1 KiB, 64 connections (hyper: serde)",
    unit="request",
    servers=(framegate(APP), granian(APP), uvicorn(APP), hyper()),
    phases=phases(post("/echo", "echo"), 10_000, 30_000),
    bars=(Bar("hyper", "high", 0.75),),
    probe="/",
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
