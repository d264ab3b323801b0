"""What does a typed FastAPI route cost, from a request line to a JSON answer?"""

from framegate_bench.__main__ import main
from framegate_bench.question import Bar, Phase, Question
from framegate_bench.servers import app_alone, framegate, granian, hyper, uvicorn

APP = "fastapi_app:app"
PATH = "/items/42?q=abc"
LOAD = ("http", "--path", PATH, "--conns", "64")

QUESTION = Question(
    name="fastapi_route",
    title="FastAPI: GET /items/42?q=abc, 64 connections (hyper: the same JSON by serde)",
    unit="request",
    servers=(framegate(APP), granian(APP), uvicorn(APP), app_alone(APP, PATH), hyper()),
    phases=(
        Phase("fixed", "3,000 requests/s", LOAD, rate=3_000),
        Phase("calm", "1,000 requests/s", LOAD, rate=1_000),
        Phase("closed", "closed loop", LOAD),
    ),
    bars=(
        Bar("granian", "fixed", 1.4),
        Bar("granian", "fixed", 1.5),
    ),
    probe=PATH,
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
