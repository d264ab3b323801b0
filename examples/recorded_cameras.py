"""Two workers and one recorder: cameras post to whichever worker, one file has all of it in order.

platform serve examples.camera_ingest:app --workers 2
python examples/recorded_cameras.py run.mcap 100
"""

import sys
import time

from framegate import recording, shm


def main(path: str, count: int) -> None:
    """Record `count` frames of every camera that there is, then say what the file holds."""
    while not (topics := [name for name in shm.topics() if name.startswith("camera/")]):
        time.sleep(0.1)
    with recording.Recorder(path, topics) as recorder:
        print(f"recording {', '.join(topics)}", flush=True)
        while min(stats.frames for stats in recorder.stats().values()) < count:
            time.sleep(0.05)
    for topic, frames in recording.contents(path).topics().items():
        print(f"{topic}: {frames} frames")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10)
