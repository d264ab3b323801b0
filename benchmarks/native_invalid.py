"""What does a body cost that is refused: two of its ten fields are wrong?"""

from framegate_bench.__main__ import main
from framegate_bench.question import Bar, Question
from framegate_bench.routes import CONTESTANTS, PROBE, phases, post

QUESTION = Question(
    name="native_invalid",
    title="Native refusal: POST /orders, two of ten fields wrong, 64 connections",
    unit="request",
    servers=CONTESTANTS,
    phases=phases(post("/orders", "order_invalid", 422), 2_000, 20_000),
    bars=(Bar("hyper", "high", 0.9),),
    probe=PROBE,
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
