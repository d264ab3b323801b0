"""Publish a video file, a webcam or a folder of pictures, as fast as it was taken.

python examples/video_ingest.py holiday.mp4        needs OpenCV: pip install opencv-python-headless
python examples/video_ingest.py 0                  the first webcam; likewise
python examples/video_ingest.py pictures/ --fps 5  .jpg and .png in the order of their names; alone
"""

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import framegate

MEDIA_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}


def paced(per_second: float) -> Iterator[int]:
    """Count, that often per second."""
    due = time.monotonic()
    for number in itertools.count():
        time.sleep(max(0.0, due - time.monotonic()))
        yield number
        due = max(due + 1 / per_second, time.monotonic() - 1)


def pictures(folder: Path, topic: str, per_second: float, loop: bool) -> int:
    """Publish files as they are: who watches gets pixels, a browser gets the file."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in MEDIA_TYPES)
    if not files:
        raise SystemExit(f"there is no .jpg and no .png in {folder}")
    largest = max(path.stat().st_size for path in files)
    with framegate.Publisher(topic, slot_bytes=largest) as publisher:
        for number in paced(per_second):
            if number >= len(files) and not loop:
                return number
            path = files[number % len(files)]
            kind = MEDIA_TYPES[path.suffix.lower()]
            publisher.send(path.read_bytes(), content_type=kind, metadata={"file": path.name})
    return 0


def video(source: int | str, topic: str, per_second: float | None, loop: bool) -> int:
    """Let OpenCV decode each frame straight into a slot of shared memory."""
    try:
        import cv2
    except ImportError:
        raise SystemExit(
            "videos and webcams need OpenCV: pip install opencv-python-headless"
        ) from None
    capture: Any = cv2.VideoCapture(source)
    is_there, first = capture.read()
    if not is_there:
        raise SystemExit(f"OpenCV cannot read {source!r}")
    is_live = isinstance(source, int)
    rate = per_second or (1000.0 if is_live else capture.get(cv2.CAP_PROP_FPS) or 25.0)
    with framegate.Publisher(topic, dtype="uint8", shape=first.shape) as publisher:
        for number in paced(rate):
            with publisher.loan(timeout=None) as loan:
                if number == 0:
                    loan.array[:] = first
                elif not capture.read(loan.array)[0]:
                    # The end of a file; a webcam has none.
                    if not loop or is_live or not capture.set(cv2.CAP_PROP_POS_FRAMES, 0):
                        return number
                    capture.read(loan.array)
                loan.publish(timestamp=time.time(), metadata={"encoding": "bgr8"})
    return 0


def main() -> None:
    """Publish what is named on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source", help="a video file, the number of a webcam, or a folder")
    parser.add_argument("--topic", default="camera/video")
    parser.add_argument("--fps", type=float, help="frames per second; default: those of the video")
    parser.add_argument("--loop", action="store_true", help="begin again at the end")
    options = parser.parse_args()
    print(f"publishing {options.source} on {options.topic}", flush=True)
    if Path(options.source).is_dir():
        count = pictures(Path(options.source), options.topic, options.fps or 10.0, options.loop)
    else:
        source = int(options.source) if options.source.isdigit() else options.source
        count = video(source, options.topic, options.fps, options.loop)
    print(f"{count} frames")


if __name__ == "__main__":
    main()
