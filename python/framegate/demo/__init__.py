"""What `platform serve` shows without arguments: topics that move, a detector, and the live page.

Five processes and no queue between them::

    camera.py --(demo/camera, demo/depth)--> detector.py --(demo/ball)--> native routes --> page
    imu.py -----(demo/imu)------------------------------------------------------^
    POST /call/demo/detector --> native routes --(call)--> detector.py

The camera fills slots of shared memory in place; the detector and the native routes read the very
same bytes. Nothing here needs numpy: frames are used as memoryviews.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from framegate.config import Config

__all__ = [
    "APP",
    "BALL_TOPIC",
    "CAMERA_TOPIC",
    "DEPTH_TOPIC",
    "DETECTOR_TOPIC",
    "HEIGHT",
    "IMU_TOPIC",
    "WIDTH",
    "configured",
    "hints",
    "processes",
]

APP = "framegate.demo.app:app"
CAMERA_TOPIC = "demo/camera"
DEPTH_TOPIC = "demo/depth"
IMU_TOPIC = "demo/imu"
BALL_TOPIC = "demo/ball"
DETECTOR_TOPIC = "demo/detector"
WIDTH = 480
"""Width of the picture in pixels."""
HEIGHT = 270
"""Height of the picture in pixels."""
CHANNELS = 4
"""Red, green, blue, alpha."""
FRAMES_PER_SECOND = 30


def configured(config: Config) -> Config:
    """Return the settings with the demo as the application, with frame routes and live page."""
    found = config.replace(app=APP, topics=config.topics or "/topics", live=config.live or "/live")
    # Workers inherit it, and the application's one page leads there.
    os.environ["FRAMEGATE_LIVE"] = str(found.live)
    return found


def hints(url: str, config: Config) -> list[str]:
    """Return lines that say what to type next: a picture, a call, a consumer.

    Args:
        url: Where the server listens.
        config: Of the server.
    """
    camera = f"{url}{config.topics}/{CAMERA_TOPIC}?view=latest"
    lines = [
        "try, in another terminal:",
        f"  curl -s -o camera.jpg '{camera}&format=jpeg'",
    ]
    if config.topics_calls:
        ask = f"{url}{config.topics_calls}/{DETECTOR_TOPIC}"
        lines.append(f"  curl -s '{camera}' | curl -s --data-binary @- {ask}")
    take = f"framegate.Subscriber('{IMU_TOPIC}').take(timeout=5).array"
    lines.append(f'  python -c "import framegate; print({take})"')
    return lines


@contextlib.contextmanager
def processes() -> Iterator[None]:
    """Run cameras and detector beside the server; they end with the block, or by themselves when
    this process dies.
    """
    children = [
        # A pipe on standard input that nobody writes to: its end of file tells the child that this
        # process is gone.
        subprocess.Popen([sys.executable, "-m", f"framegate.demo.{name}"], stdin=subprocess.PIPE)
        for name in ("camera", "imu", "detector")
    ]
    try:
        yield
    finally:
        # Ctrl-C under `uv run` comes twice: the second must not end this halfway. Children end
        # within seconds, and this process with them.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for child in children:
            child.send_signal(signal.SIGTERM)
        for child in children:
            if child.stdin is not None:
                child.stdin.close()
            try:
                child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
