"""What does it cost to read 1 KiB of JSON and to write it again?"""

from framegate_bench.__main__ import main
from framegate_bench.question import Question
from framegate_bench.routes import CONTESTANTS, PROBE, phases, post

QUESTION = Question(
    name="native_echo",
    title="Native echo: POST /echo, 1 KiB of JSON, 64 connections",
    unit="request",
    servers=CONTESTANTS,
    phases=phases(post("/echo", "echo"), 2_000, 20_000),
    bars=(),
    probe=PROBE,
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
