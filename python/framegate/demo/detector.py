"""The consumer: looks at each newest picture where it lies in shared memory, finds the ball,
publishes where it is, and answers calls: a picture in, a place out.
"""

from __future__ import annotations

import contextlib
import json
import struct
import threading

from framegate.calls import Request, Responder
from framegate.demo import (
    BALL_TOPIC,
    CAMERA_TOPIC,
    CHANNELS,
    DETECTOR_TOPIC,
    HEIGHT,
    WIDTH,
)
from framegate.demo.parent import Stop
from framegate.errors import TopicNotFound
from framegate.shm import Publisher, Subscriber, unlink

__all__ = ["BALL", "answer", "find_ball", "main"]

BALL = struct.Struct("<2f")
"""What is published: x and y in pixels; -1, -1 without a ball."""

ROW_BYTES = WIDTH * CHANNELS
ROW_STEP = 4
RUN = b"\xff" * (4 * CHANNELS)


def find_ball(pixels: memoryview) -> tuple[int, int]:
    """Centre of the white ball in a flat (HEIGHT, WIDTH, 4) uint8 picture, or (-1, -1)."""
    top, bottom, left, right = HEIGHT, -1, WIDTH, -1
    for y in range(0, HEIGHT, ROW_STEP):
        row = bytes(pixels[y * ROW_BYTES : (y + 1) * ROW_BYTES])
        first = row.find(RUN)
        if first >= 0:
            last = row.rfind(RUN) + len(RUN)
            top, bottom = min(top, y), max(bottom, y)
            left, right = min(left, first // CHANNELS), max(right, last // CHANNELS)
    return ((left + right) // 2, (top + bottom) // 2) if bottom >= 0 else (-1, -1)


def _subscribe(stop: Stop) -> Subscriber | None:
    """The camera's topic, waiting until the camera has made it."""
    while not stop.is_set():
        try:
            return Subscriber(CAMERA_TOPIC, policy="latest")
        except TopicNotFound:
            stop.wait(0.05)
    return None


def answer(request: Request) -> bytes:
    """Return where the ball is in the picture of a call, as JSON.

    Raises:
        ValueError: It has not the bytes of a picture.
    """
    with memoryview(request) as picture, picture.cast("B") as pixels:
        if len(pixels) != HEIGHT * ROW_BYTES:
            raise ValueError(
                f"{len(pixels)} bytes are no picture of ({HEIGHT}, {WIDTH}, {CHANNELS}) uint8"
            )
        x, y = find_ball(pixels)
    return json.dumps({"x": x, "y": y}).encode() + b"\n"


def main() -> None:
    """Detect until the server goes away."""
    stop = Stop()
    try:
        with Responder(DETECTOR_TOPIC) as responder:
            answering = threading.Thread(
                target=_answer_calls, args=(responder,), name="framegate-demo-calls"
            )
            answering.start()
            try:
                _look(stop)
            finally:
                responder.close()
                answering.join()
    finally:
        for topic in (BALL_TOPIC, DETECTOR_TOPIC):
            with contextlib.suppress(TopicNotFound):
                unlink(topic)


def _answer_calls(responder: Responder) -> None:
    responder.serve(answer)


def _look(stop: Stop) -> None:
    subscriber = _subscribe(stop)
    if subscriber is None:
        return
    with subscriber, Publisher(BALL_TOPIC, dtype="float32", shape=(2,)) as publisher:
        while not stop.is_set():
            frame = subscriber.take(timeout=0.2)
            if frame is None:
                continue
            with frame:
                with memoryview(frame) as picture, picture.cast("B") as pixels:
                    x, y = find_ball(pixels)
                publisher.send(BALL.pack(x, y))


if __name__ == "__main__":
    main()
