"""What `platform serve` shows without arguments: a synthetic camera, a detector and a page.

Four processes and no queue between them::

    camera.py --(topic demo/camera)--> detector.py --(topic demo/ball)--> app.py --> browser
         `-----(the same frame, no copy)---------------------------------^

The camera fills slots of shared memory in place, the detector and the app read the very same bytes.
Nothing here needs numpy: frames are used as memoryviews.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator

__all__ = ["APP", "BALL_TOPIC", "CAMERA_TOPIC", "HEIGHT", "WIDTH", "processes"]

APP = "framegate.demo.app:app"
CAMERA_TOPIC = "demo/camera"
BALL_TOPIC = "demo/ball"
WIDTH = 480
"""Width of the picture in pixels."""
HEIGHT = 270
"""Height of the picture in pixels."""
CHANNELS = 4
"""Red, green, blue, alpha: what a browser's canvas takes as it is."""
FRAMES_PER_SECOND = 30


@contextlib.contextmanager
def processes() -> Iterator[None]:
    """Run camera and detector beside the server; they end with the block, or by themselves when
    this process dies.
    """
    children = [
        # A pipe on standard input that nobody writes to: its end of file tells the child that this
        # process is gone.
        subprocess.Popen([sys.executable, "-m", f"framegate.demo.{name}"], stdin=subprocess.PIPE)
        for name in ("camera", "detector")
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
