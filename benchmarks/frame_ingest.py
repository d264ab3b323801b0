"""What does a 1080p RGB frame cost from an HTTP POST to another process's numpy array?

framegate.ingest against FastAPI on uvicorn with the best ring that can be written by hand
(`handmade_ring.py`: mmap, one copy, `request.stream()`). The CPU is the server's and the
consumer's. Two consumers: one touches every page of the frame, which is what the path itself must
make possible; the other reads every pixel.
"""

from dataclasses import replace

from framegate_bench.__main__ import main
from framegate_bench.question import Bar, Consumer, Phase, Question
from framegate_bench.servers import framegate, receive, uvicorn

FRAME_BYTES = 1080 * 1920 * 3
LOAD = ("http", "--path", "/frames", "--conns", "1", "--size", str(FRAME_BYTES))

QUESTION = Question(
    name="frame_ingest",
    title="Frames: 1080p RGB (6.2 MB) by HTTP POST to a consumer's numpy view, one camera",
    unit="frame",
    servers=(
        framegate("frames_framegate:app", Consumer("framegate")),
        replace(uvicorn("frames_handmade:app", Consumer("handmade")), name="handmade ring"),
        receive(),
    ),
    phases=(
        Phase("touch", "60 frames/s, every page touched", LOAD, rate=60, consumer_mode="touch"),
        Phase("fast", "100 frames/s, every page touched", LOAD, rate=100, consumer_mode="touch"),
        Phase("read", "60 frames/s, every pixel read", LOAD, rate=60, consumer_mode="read"),
        Phase("closed", "closed loop, every page touched", LOAD, consumer_mode="touch"),
    ),
    bars=(Bar("handmade ring", "touch", 3.0),),
    probe="/frames",
    probe_body_bytes=FRAME_BYTES,
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
