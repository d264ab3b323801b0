"""What does a native route cost that says hello in JSON, beside everybody else's?"""

from framegate_bench.__main__ import main
from framegate_bench.question import Bar, Question
from framegate_bench.routes import CONTESTANTS, PROBE, RIVALS, get, phases

QUESTION = Question(
    name="native_hello",
    title="Native hello: GET /hello-json, 64 connections",
    unit="request",
    servers=CONTESTANTS,
    phases=phases(get("/hello-json"), 3_000, 60_000),
    bars=(
        Bar("hyper", "high", 0.74),
        # Where the core is full: socketify polls, which at a low rate costs whatever is left of it.
        *(Bar(rival.name, "closed", 1.0) for rival in RIVALS),
    ),
    probe=PROBE,
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
