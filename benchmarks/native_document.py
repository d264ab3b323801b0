"""What does a long JSON body cost, of which the answer is a count?"""

from framegate_bench.__main__ import main
from framegate_bench.question import Question
from framegate_bench.routes import CONTESTANTS, PROBE, phases, post

QUESTION = Question(
    name="native_document",
    title="Native document: POST /documents, 100 KB of JSON, 64 connections",
    unit="request",
    servers=CONTESTANTS,
    phases=phases(post("/documents", "document"), 20),
    bars=(),
    probe=PROBE,
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
