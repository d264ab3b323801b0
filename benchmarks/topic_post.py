"""What does a frame cost from the network to another process's numpy array, with no handler?

The frame routes (`--topics`) against FastAPI on uvicorn and on granian with the best ring that can
be written by hand (`handmade_ring.py`), and against FastAPI that hands whole bodies to pyzmq or to
a Redis stream (the server is Debian's; its CPU counts, too). Three sizes by HTTP POST, the largest
by WebSocket too. The consumer is the same everywhere, touches every page, and its CPU counts. The
limit reads the socket and copies once, in Rust, for nobody; the one beside it does not even copy.
"""

from dataclasses import replace

from framegate_bench.__main__ import main
from framegate_bench.question import Bar, Consumer, Phase, Question
from framegate_bench.servers import framegate, granian, receive, uvicorn

FRAME_BYTES = 1080 * 1920 * 3
RULE = f'frames {{{{"create": true, "slots": 8, "slot_bytes": {FRAME_BYTES}}}}}'
"""Braces are doubled: the command is a format."""
POST = ("http", "--path", "/topics/frames", "--conns", "1", "--size")
ACK_BYTES = "9"
WEBSOCKET = (
    "ws", "--path", "/topics/frames?mode=publish", "--conns", "1", "--frames", "1",
    "--answer", ACK_BYTES, "--inflight", "2", "--burst", "1", "--size", str(FRAME_BYTES),
)  # fmt: skip
TAKES_MESSAGES = ("framegate", "uvicorn, ring", "granian, ring")

QUESTION = Question(
    name="topic_post",
    title="Frame routes: frames by HTTP POST and WebSocket to a consumer's numpy view",
    unit="frame",
    servers=(
        framegate(
            "hello_app:app",
            Consumer("topic"),
            ("--topics", "/topics", "--topic-rules", RULE),
        ),
        replace(
            uvicorn("frames_handmade:app", Consumer("handmade")), name="uvicorn, ring"
        ),
        replace(
            granian("frames_handmade:app", consumer=Consumer("handmade")), name="granian, ring"
        ),
        replace(uvicorn("frames_pyzmq:app", Consumer("pyzmq")), name="uvicorn, pyzmq"),
        replace(
            uvicorn("frames_redis:app", Consumer("redis")), name="uvicorn, Redis", venv="redis"
        ),
        receive(copies=True),
        receive(),
    ),
    phases=(
        Phase(
            "large", "6.2 MB, 60 frames/s", (*POST, str(FRAME_BYTES)), rate=60,
            consumer_mode="touch",
        ),
        Phase(
            "medium", "1 MiB, 200 frames/s", (*POST, str(2**20)), rate=200, consumer_mode="touch"
        ),
        Phase(
            "small", "64 KiB, 1,000 frames/s", (*POST, str(2**16)), rate=1000,
            consumer_mode="touch",
        ),
        Phase("closed", "6.2 MB, closed loop", (*POST, str(FRAME_BYTES)), consumer_mode="touch"),
        Phase(
            "websocket", "6.2 MB by WebSocket, 30 frames/s", WEBSOCKET, rate=30,
            servers=TAKES_MESSAGES, consumer_mode="touch",
        ),
        Phase(
            "websocket_closed", "6.2 MB by WebSocket, closed loop", WEBSOCKET,
            servers=TAKES_MESSAGES, consumer_mode="touch",
        ),
    ),
    bars=(
        Bar("recv() and memcpy", "large", 0.7),
        Bar("uvicorn, ring", "large", 4.0),
        Bar("granian, ring", "large", 4.0),
        Bar("granian, ring", "closed", 4.0),
    ),
    probe="/topics/frames",
    probe_body_bytes=FRAME_BYTES,
)  # fmt: skip

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
