"""Sees each newest picture of `camera/front` as a numpy array that lies in shared memory.

python examples/camera_consumer.py [COUNT]
"""

import sys

import framegate


def main(count: int) -> None:
    """Print the mean brightness of `count` pictures."""
    with framegate.Subscriber("camera/front", policy="latest", wait=10) as camera:
        for _ in range(count):
            frame = camera.take(timeout=10)
            if frame is None:
                sys.exit("no picture for 10 seconds")
            with frame:
                picture = frame.array  # (1080, 1920, 3) uint8, read-only, not a copy
                print(f"frame {frame.sequence}: {picture.shape}, mean {picture.mean():.1f}")
                del picture


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
