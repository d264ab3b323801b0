"""Publishes a JPEG of 100 KB at a rate: `fan_out_publish.py framegate|ring|pyzmq|redis RATE`."""

import base64
import os
import sys
import time

FRAME_BYTES = 100_000
# 8x8 pixels; what follows the end of a picture belongs to nobody.
PICTURE = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAP//////////////////////////////////////////////////////"
    "////////////////////////////////wAALCAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAAP/EABQQAQAA"
    "AAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8AP//Z"
)
JPEG = PICTURE + bytes(FRAME_BYTES - len(PICTURE))


def main() -> None:
    """Publish until ended."""
    kind, rate = sys.argv[1], float(sys.argv[2])
    if kind == "framegate":
        import framegate

        publisher = framegate.Publisher("camera", slots=16, slot_bytes=FRAME_BYTES)

        def publish() -> None:
            publisher.send(JPEG, content_type="image/jpeg")
    elif kind == "pyzmq":
        import zmq

        socket = zmq.Context.instance().socket(zmq.PUB)
        socket.set_hwm(8)
        socket.bind(f"ipc://{os.environ['BENCH_FOLDER']}/frames.zmq")

        def publish() -> None:
            socket.send(JPEG, copy=False)
    elif kind == "redis":
        import contextlib

        from redis import ConnectionError as NotThere
        from redis import Redis

        redis = Redis(unix_socket_path=f"{os.environ['BENCH_FOLDER']}/redis.sock")

        def publish() -> None:
            # The server brings Redis with it, and starts later.
            with contextlib.suppress(NotThere):
                redis.publish("frames", JPEG)
    else:
        from handmade_ring import RingWriter

        ring = RingWriter(os.environ["BENCH_FOLDER"], slot_bytes=FRAME_BYTES)

        def publish() -> None:
            slot = ring.loan()
            slot.pixels[:] = JPEG
            ring.publish(slot)

    publish()
    print("ready", flush=True)
    due = time.monotonic()
    while True:
        due += 1 / rate
        time.sleep(max(0.0, due - time.monotonic()))
        publish()


if __name__ == "__main__":
    main()
