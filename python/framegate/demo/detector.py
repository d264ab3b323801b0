"""The consumer: looks at each newest picture where it lies in shared memory, finds the ball,
publishes where it is.
"""

from __future__ import annotations

import contextlib
import struct
import time

from framegate.demo import BALL_TOPIC, CAMERA_TOPIC, CHANNELS, HEIGHT, WIDTH
from framegate.demo.parent import Stop
from framegate.errors import TopicNotFound
from framegate.shm import Publisher, Subscriber, unlink

__all__ = ["BALL", "find_ball", "main"]

BALL = struct.Struct("<QhhI")
"""What is published: sequence of the picture, x, y (-1, -1: no ball), age of the picture in
microseconds.
"""

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


def main() -> None:
    """Detect until the server goes away."""
    stop = Stop()
    subscriber = _subscribe(stop)
    if subscriber is None:
        return
    try:
        with subscriber, Publisher(BALL_TOPIC, slot_bytes=BALL.size) as publisher:
            while not stop.is_set():
                frame = subscriber.take(timeout=0.2)
                if frame is None:
                    continue
                with frame:
                    with memoryview(frame) as picture, picture.cast("B") as pixels:
                        x, y = find_ball(pixels)
                    age_us = (time.monotonic_ns() - frame.published_ns) // 1000
                    publisher.send(BALL.pack(frame.sequence, x, y, min(age_us, 0xFFFFFFFF)))
    finally:
        with contextlib.suppress(TopicNotFound):
            unlink(BALL_TOPIC)


if __name__ == "__main__":
    main()
