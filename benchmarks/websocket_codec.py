"""What does the WebSocket codec cost, without server and Python?

Echo of 128 bytes, many messages per read, and of 1 MiB.
"""

from framegate_bench.__main__ import main
from framegate_bench.question import Bar, Phase, Question
from framegate_bench.servers import codec, hyper

LOAD = ("ws", "--path", "/ws", "--conns", "32", "--inflight", "16", "--size", "128")
BURSTS = (
    "ws",
    "--path",
    "/ws",
    "--conns",
    "32",
    "--inflight",
    "64",
    "--burst",
    "64",
    "--size",
    "128",
)
LARGE = ("ws", "--path", "/ws", "--conns", "4", "--inflight", "1", "--size", "1048576")

QUESTION = Question(
    name="websocket_codec",
    title="WebSocket codec in Rust: echo of 128 B, 32 connections",
    unit="message",
    servers=(codec("framegate"), codec("fastwebsockets"), hyper()),
    phases=(
        # A burst arrives in one read; a write for each of its messages is a call for each.
        Phase("fixed", "100,000 messages/s in bursts of 64", BURSTS, rate=100_000),
        Phase("closed", "closed loop, 16 under way", LOAD),
        Phase("large", "1 MiB, 4 connections, closed loop", LARGE),
    ),
    bars=(Bar("fastwebsockets", "fixed", 5.0),),
    probe="/",
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
