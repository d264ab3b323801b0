"""What does a large WebSocket message cost? Echo of 1 MiB, 4 connections, one message under way."""

from framegate_bench.__main__ import main
from framegate_bench.question import Bar, Phase, Question
from framegate_bench.servers import framegate, granian, hyper, uvicorn

APP = "websocket_app:app"
# Random-looking or not makes no difference: nobody negotiates compression here.
LOAD = ("ws", "--path", "/ws", "--conns", "4", "--inflight", "1", "--size", str(2**20))

QUESTION = Question(
    name="websocket_large",
    title="WebSocket: echo of 1 MiB, 4 connections x 1 under way (hyper: the bare echo in Rust)",
    unit="message",
    servers=(framegate(APP), granian(APP), uvicorn(APP), hyper()),
    phases=(
        Phase("fixed", "100 messages/s", LOAD, rate=100),
        Phase("closed", "closed loop", LOAD),
    ),
    bars=(Bar("hyper", "closed", 0.85),),
    probe="/",
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
