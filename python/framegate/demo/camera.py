"""The synthetic camera: a white ball that bounces over a scrolling gradient, published 30 times a
second.

Each picture is written straight into a loaned slot: rows are slices of strips that were made once.
"""

from __future__ import annotations

import contextlib
import time

from framegate.demo import CAMERA_TOPIC, CHANNELS, FRAMES_PER_SECOND, HEIGHT, WIDTH
from framegate.demo.parent import Stop
from framegate.errors import TopicNotFound
from framegate.shm import Publisher, unlink

__all__ = ["Scene", "main"]

BALL_RADIUS = 18
ROW_BYTES = WIDTH * CHANNELS


def _bounce(step: int, span: int) -> int:
    """Position of a point that goes to and fro over `span` positions, one step at a time."""
    step %= 2 * span
    return step if step < span else 2 * span - step


class Scene:
    """The picture as a function of the frame's number."""

    def __init__(self) -> None:
        # One strip per row, two pictures wide: scrolling is a slice. No byte of colour reaches 255,
        # so white is the ball's alone (the detector looks for it).
        self._strips = [
            b"".join(
                bytes(
                    (
                        40 + 150 * y // HEIGHT,
                        60 + 120 * _bounce(x, WIDTH) // WIDTH,
                        190 - 110 * y // HEIGHT,
                        254,
                    )
                )
                for x in range(2 * WIDTH)
            )
            for y in range(HEIGHT)
        ]
        self._white = b"\xff" * (2 * BALL_RADIUS * CHANNELS)
        self._spans = [
            int((BALL_RADIUS**2 - dy**2) ** 0.5) for dy in range(-BALL_RADIUS, BALL_RADIUS + 1)
        ]

    def ball(self, number: int) -> tuple[int, int]:
        """Centre of the ball (x, y), in pixels."""
        x = BALL_RADIUS + _bounce(4 * number, WIDTH - 2 * BALL_RADIUS)
        y = BALL_RADIUS + _bounce(3 * number, HEIGHT - 2 * BALL_RADIUS)
        return x, y

    def draw(self, number: int, pixels: memoryview) -> None:
        """Write picture `number` into `pixels`: (HEIGHT, WIDTH, 4) uint8 as one flat writable
        buffer of bytes.
        """
        offset = (2 * number % WIDTH) * CHANNELS
        for y, strip in enumerate(self._strips):
            pixels[y * ROW_BYTES : (y + 1) * ROW_BYTES] = strip[offset : offset + ROW_BYTES]
        x, y = self.ball(number)
        for dy, half in enumerate(self._spans, start=-BALL_RADIUS):
            start = (y + dy) * ROW_BYTES + (x - half) * CHANNELS
            length = 2 * half * CHANNELS
            pixels[start : start + length] = self._white[:length]


def main() -> None:
    """Publish until the server goes away."""
    stop = Stop()
    scene = Scene()
    period = 1 / FRAMES_PER_SECOND
    try:
        with Publisher(CAMERA_TOPIC, dtype="uint8", shape=(HEIGHT, WIDTH, CHANNELS)) as publisher:
            number, due = 0, time.monotonic()
            while not stop.wait(max(0.0, due - time.monotonic())):
                with publisher.loan() as loan:
                    scene.draw(number, memoryview(loan).cast("B"))
                    loan.publish()
                number += 1
                due = max(due + period, time.monotonic())
    finally:
        with contextlib.suppress(TopicNotFound):
            unlink(CAMERA_TOPIC)


if __name__ == "__main__":
    main()
