"""What does a small WebSocket message cost? Echo of 128 bytes, 32 connections, 16 under way."""

from framegate_bench.__main__ import main
from framegate_bench.question import Bar, Phase, Question
from framegate_bench.servers import framegate, granian, hyper, uvicorn

APP = "websocket_app:app"
LOAD = ("ws", "--path", "/ws", "--conns", "32", "--inflight", "16", "--size", "128")

QUESTION = Question(
    name="websocket_small",
    title="WebSocket: echo of 128 B, 32 connections x 16 under way",
    unit="message",
    servers=(framegate(APP), granian(APP), uvicorn(APP), hyper()),
    phases=(
        # A burst is what 16 in flight means at a fixed rate: they arrive together, as from a client
        # that batches.
        Phase("fixed", "16,000 messages/s in bursts of 16", LOAD, rate=16_000),
        # The other end: every message alone, so every one pays for waking the server up.
        Phase("single", "10,000 messages/s, one by one", (*LOAD, "--burst", "1"), rate=10_000),
        Phase("closed", "closed loop", LOAD),
    ),
    bars=(Bar("uvicorn", "fixed", 3.0), Bar("uvicorn", "closed", 12.0)),
    probe="/",
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
