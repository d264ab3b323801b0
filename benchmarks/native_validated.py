"""What does a body of ten fields cost that is validated and made an object?"""

from framegate_bench.__main__ import main
from framegate_bench.question import Bar, Question
from framegate_bench.routes import CONTESTANTS, ON_GRANIAN, PROBE, phases, post

QUESTION = Question(
    name="native_validated",
    title="Native validation: POST /orders, ten fields, 64 connections",
    unit="request",
    servers=CONTESTANTS,
    phases=phases(post("/orders", "order"), 2_000, 20_000),
    bars=(Bar("hyper", "high", 0.5), Bar(ON_GRANIAN.name, "fixed", 4.0)),
    probe=PROBE,
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
