"""Reads every batch of samples, in order, on an event loop.

python examples/sensor_consumer.py [COUNT]
"""

import asyncio
import sys

import framegate


async def main(count: int) -> None:
    """Print the mean acceleration of `count` batches."""
    with framegate.Subscriber("sensor/imu", policy="queue", wait=10) as sensor:
        async for frame in sensor:
            with frame:
                mean = frame.arrays["acceleration"].mean(axis=0)
                print(f"batch {frame.sequence}: mean {mean.round(3).tolist()}, lost {sensor.lost}")
            if frame.sequence >= count:
                return


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
