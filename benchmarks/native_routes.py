"""What does a native route cost beside a typed FastAPI one, from request line to JSON answer?"""

from framegate_bench.__main__ import main
from framegate_bench.question import Bar, Question
from framegate_bench.routes import CONTESTANTS, ON_GRANIAN, get, phases
from framegate_bench.servers import framegate

PATH = "/items/42?q=abc"

QUESTION = Question(
    name="native_routes",
    title="Native route: GET /items/42?q=abc, 64 connections (hyper: the same JSON by serde)",
    unit="request",
    servers=(*CONTESTANTS, framegate("fastapi_app:app", name="framegate, FastAPI")),
    phases=phases(get(PATH), 3_000, 20_000),
    bars=(Bar(ON_GRANIAN.name, "fixed", 4.0), Bar("hyper", "high", 0.5)),
    probe=PATH,
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
