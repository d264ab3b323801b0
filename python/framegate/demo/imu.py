"""A synthetic motion sensor: six numbers, a hundred times a second.

Acceleration in m/s2 (x, y, z; gravity is in z) and rotation in rad/s, as `float32`.
"""

from __future__ import annotations

import contextlib
import math
import random
import struct
import time

from framegate.demo import IMU_TOPIC
from framegate.demo.parent import Stop
from framegate.errors import TopicNotFound
from framegate.shm import Publisher, unlink

__all__ = ["main", "sample"]

SAMPLES_PER_SECOND = 100
GRAVITY = 9.81
SAMPLE = struct.Struct("<6f")


def sample(number: int, noise: random.Random) -> bytes:
    """Return sample `number`: something that sways once in three seconds, with noise."""
    phase = 2 * math.pi * number / (3 * SAMPLES_PER_SECOND)
    still = (
        *(2 * math.sin(phase), 1.5 * math.cos(phase), GRAVITY + 0.5 * math.sin(2 * phase)),
        *(0.4 * math.cos(phase), -0.3 * math.sin(phase), 0.1 * math.cos(2 * phase)),
    )
    return SAMPLE.pack(*(value + noise.gauss(0, 0.05) for value in still))


def main() -> None:
    """Publish until the server goes away."""
    stop = Stop()
    noise = random.Random(1)
    period = 1 / SAMPLES_PER_SECOND
    try:
        with Publisher(IMU_TOPIC, dtype="float32", shape=(6,), slots=16) as publisher:
            number, due = 0, time.monotonic()
            while not stop.wait(max(0.0, due - time.monotonic())):
                publisher.send(sample(number, noise))
                number += 1
                due = max(due + period, time.monotonic())
    finally:
        with contextlib.suppress(TopicNotFound):
            unlink(IMU_TOPIC)


if __name__ == "__main__":
    main()
