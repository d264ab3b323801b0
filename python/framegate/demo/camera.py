"""The synthetic camera: a white ball that bounces over a scrolling gradient, 30 times a second, and
ten times a second how far everything is away.

Each picture is written straight into a loaned slot: rows are slices of strips that were made once.
"""

from __future__ import annotations

import contextlib
import time
from array import array

from framegate.demo import (
    CAMERA_TOPIC,
    CHANNELS,
    DEPTH_TOPIC,
    FRAMES_PER_SECOND,
    HEIGHT,
    WIDTH,
)
from framegate.demo.parent import Stop
from framegate.errors import TopicNotFound
from framegate.shm import Publisher, unlink

__all__ = ["Scene", "main"]

BALL_RADIUS = 18
ROW_BYTES = WIDTH * CHANNELS
DEPTH_SCALE = 8
"""Pixels of the picture to one of the depth map, each way."""
DEPTH_SHAPE = (HEIGHT // DEPTH_SCALE, WIDTH // DEPTH_SCALE)
DEPTH_EVERY = 3
"""Pictures to one depth map."""


def _bounce(step: int, span: int) -> int:
    """Position of a point that goes to and fro over `span` positions, one step at a time."""
    step %= 2 * span
    return step if step < span else 2 * span - step


class Scene:
    """The picture as a function of the frame's number."""

    def __init__(self) -> None:
        # One strip per row, two pictures wide: scrolling is a slice. No byte of colour reaches 255,
        # so white is the ball's alone (the detector looks for it).
        strip = bytearray(2 * ROW_BYTES)
        strip[1::CHANNELS] = bytes(60 + 120 * _bounce(x, WIDTH) // WIDTH for x in range(2 * WIDTH))
        strip[3::CHANNELS] = bytes([254]) * (2 * WIDTH)
        self._strips = []
        for y in range(HEIGHT):
            # By planes: the demo's first picture waits for this.
            strip[0::CHANNELS] = bytes([40 + 150 * y // HEIGHT]) * (2 * WIDTH)
            strip[2::CHANNELS] = bytes([190 - 110 * y // HEIGHT]) * (2 * WIDTH)
            self._strips.append(bytes(strip))
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

    def depth(self, number: int) -> array[float]:
        """Metres to what is seen in picture `number`: DEPTH_SHAPE, a floor and the ball."""
        rows, columns = DEPTH_SHAPE
        x, y = self.ball(number)
        found = array("f")
        for row in range(rows):
            floor = 4.0 - 2.5 * row / rows
            found.extend([floor] * columns)
            dy = (row + 0.5) * DEPTH_SCALE - y
            if abs(dy) < BALL_RADIUS:
                half = (BALL_RADIUS**2 - dy**2) ** 0.5 / DEPTH_SCALE
                for column in range(int(x / DEPTH_SCALE - half), int(x / DEPTH_SCALE + half) + 1):
                    found[row * columns + min(column, columns - 1)] = 1.0
        return found


def main() -> None:
    """Publish until the server goes away."""
    stop = Stop()
    scene = Scene()
    period = 1 / FRAMES_PER_SECOND
    try:
        with (
            Publisher(CAMERA_TOPIC, dtype="uint8", shape=(HEIGHT, WIDTH, CHANNELS)) as pictures,
            Publisher(DEPTH_TOPIC, dtype="float32", shape=DEPTH_SHAPE) as depths,
        ):
            number, due = 0, time.monotonic()
            while not stop.wait(max(0.0, due - time.monotonic())):
                with pictures.loan() as loan:
                    scene.draw(number, memoryview(loan).cast("B"))
                    loan.publish()
                if number % DEPTH_EVERY == 0:
                    depths.send(scene.depth(number).tobytes())
                number += 1
                due = max(due + period, time.monotonic())
    finally:
        for topic in (CAMERA_TOPIC, DEPTH_TOPIC):
            with contextlib.suppress(TopicNotFound):
                unlink(topic)


if __name__ == "__main__":
    main()
