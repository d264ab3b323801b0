"""The consumer of the frame path: another process, which looks at each new frame as a numpy array.

`consume.py framegate|topic|handmade|pyzmq|redis touch|read`. `touch` reads one byte of every page,
`read` every pixel (the largest one). It prints `ready`, then for every line on its standard input
one line of JSON: the frames seen since the last one and how old they were, from the time at which
their request was due to the moment after the consumer had read them.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy

FRAME_BYTES = 1080 * 1920 * 3
PAGE_BYTES = 4096

NextFrame = Callable[[], AbstractContextManager[numpy.ndarray]]


def open_framegate(topic: str = "camera/front") -> NextFrame:
    """Frames of the topic as framegate hands them out."""
    import framegate

    subscriber = framegate.Subscriber(topic, policy="latest")

    @contextmanager
    def frame() -> Iterator[numpy.ndarray]:
        while (taken := subscriber.take(timeout=60.0)) is None:
            pass  # a load that has not begun
        with taken:
            yield taken.array

    return frame


def open_handmade() -> NextFrame:
    """Frames of the ring written by hand."""
    from handmade_ring import RingReader

    reader = RingReader(os.environ["HANDMADE_RING_DIR"], FRAME_BYTES)

    @contextmanager
    def frame() -> Iterator[numpy.ndarray]:
        with reader.newest() as pixels:
            yield numpy.frombuffer(pixels, numpy.uint8)
        if reader.torn:
            sys.exit("consume: a frame was overwritten while it was read")

    return frame


def open_pyzmq() -> NextFrame:
    """Frames as messages, whose bytes are not copied again."""
    import zmq

    socket = zmq.Context.instance().socket(zmq.PULL)
    socket.set_hwm(8)
    socket.bind(f"ipc://{os.environ['HANDMADE_RING_DIR']}/frames.zmq")

    @contextmanager
    def frame() -> Iterator[numpy.ndarray]:
        yield numpy.frombuffer(socket.recv(copy=False).buffer, numpy.uint8)

    return frame


def open_redis() -> NextFrame:
    """Frames of a Redis stream, one after the other."""
    from redis import Redis

    redis = Redis(unix_socket_path=f"{os.environ['HANDMADE_RING_DIR']}/redis.sock")
    # What is there already was nobody's frame.
    newest = redis.xrevrange("frames", count=1)
    last = newest[0][0] if newest else b"0"

    @contextmanager
    def frame() -> Iterator[numpy.ndarray]:
        nonlocal last
        [(_, [(last, fields)])] = redis.xread({"frames": last}, count=1, block=0)
        yield numpy.frombuffer(fields[b"pixels"], numpy.uint8)

    return frame


OPEN = {
    "framegate": open_framegate,
    "topic": lambda: open_framegate("frames"),
    "handmade": open_handmade,
    "pyzmq": open_pyzmq,
    "redis": open_redis,
}


def main() -> None:
    """Consume until the standard input ends."""
    source, mode = sys.argv[1:]
    ages_ns: list[int] = []

    def answer() -> None:
        for _ in sys.stdin:
            seen = sorted(ages_ns)
            ages_ns.clear()
            count = len(seen)
            report = {"frames": count}
            if count:
                report["p50_us"] = seen[count // 2] / 1000
                report["p99_us"] = seen[min(count - 1, count * 99 // 100)] / 1000
            print(json.dumps(report), flush=True)
        os._exit(0)  # the main thread waits for a frame that will not come

    next_frame = OPEN[source]()
    print("ready", flush=True)
    threading.Thread(target=answer, daemon=True).start()
    while True:
        with next_frame() as array:
            flat = array.reshape(-1)
            # `max` is the cheapest look at a pixel that numpy has (SIMD on bytes).
            (flat if mode == "read" else flat[::PAGE_BYTES]).max()
            due_ns = int.from_bytes(flat[:8].tobytes(), "little")
            del array, flat
        ages_ns.append(time.time_ns() - due_ns)


if __name__ == "__main__":
    main()
