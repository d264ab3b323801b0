"""What does an upload of 10 MiB cost that the app takes piece by piece and throws away?"""

from framegate_bench.__main__ import main
from framegate_bench.question import Bar, Phase, Question
from framegate_bench.servers import framegate, granian, hyper, uvicorn

APP = "bodies_app:app"
LOAD = ("http", "--path", "/upload", "--conns", "4", "--size", str(10 * 2**20))

QUESTION = Question(
    name="upload",
    title="Upload: raw ASGI, 10 MiB taken piece by piece, 4 connections",
    unit="request",
    servers=(framegate(APP), granian(APP), uvicorn(APP), hyper()),
    phases=(
        Phase("fixed", "30 requests/s", LOAD, rate=30),
        Phase("closed", "closed loop", LOAD),
    ),
    bars=(Bar("granian", "fixed", 1.2),),
    probe="/",
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
