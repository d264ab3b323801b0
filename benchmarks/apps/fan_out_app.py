"""A topic to many viewers, by hand: one reader, one copy per frame, many streams.

`FAN_OUT_SOURCE` says whence: the ring, or publish and subscribe by pyzmq or Redis.
"""

import asyncio
import os
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

FRAME_BYTES = 100_000
HEAD = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {FRAME_BYTES}\r\n\r\n".encode()
FOLDER = os.environ["BENCH_FOLDER"]
SOURCE = os.environ.get("FAN_OUT_SOURCE", "ring")

if SOURCE == "redis":
    import redis_server

    redis_path = redis_server.start(FOLDER)


class Newest:
    """The newest frame, and who waits for the next."""

    def __init__(self) -> None:
        self.part = b""
        self.waiting: asyncio.Future[None] | None = None
        self.is_started = False

    def start(self) -> None:
        """Read the frames from now on."""
        if self.is_started:
            return
        self.is_started = True
        if SOURCE == "ring":
            self.read_ring()
        else:
            self.task = asyncio.ensure_future(
                self.read_pyzmq() if SOURCE == "pyzmq" else self.read_redis()
            )

    def read_ring(self) -> None:
        """Copy each frame out of its slot."""
        from handmade_ring import RingReader

        reader = RingReader(FOLDER, FRAME_BYTES)

        def read() -> None:
            with reader.newest() as pixels:
                self.arrived(pixels)

        asyncio.get_running_loop().add_reader(reader.fileno(), read)

    async def read_pyzmq(self) -> None:
        """Take messages of a SUB socket, without a copy of its own."""
        import zmq
        import zmq.asyncio

        socket = zmq.asyncio.Context.instance().socket(zmq.SUB)
        socket.set_hwm(8)
        socket.subscribe(b"")
        socket.connect(f"ipc://{FOLDER}/frames.zmq")
        while True:
            self.arrived((await socket.recv(copy=False)).buffer)

    async def read_redis(self) -> None:
        """Take messages of a channel."""
        from redis.asyncio import Redis

        channel = Redis(unix_socket_path=str(redis_path)).pubsub(ignore_subscribe_messages=True)
        await channel.subscribe("frames")
        async for message in channel.listen():
            self.arrived(message["data"])

    def arrived(self, pixels: bytes | memoryview) -> None:
        """Copy the frame once, for all."""
        self.part = b"".join((HEAD, pixels, b"\r\n"))
        if self.waiting is not None:
            self.waiting.set_result(None)
            self.waiting = None

    async def parts(self) -> AsyncIterator[bytes]:
        """The newest frame each time that the one before has left."""
        sent = b""
        while True:
            if self.part is sent:
                if self.waiting is None:
                    self.waiting = asyncio.get_running_loop().create_future()
                await asyncio.shield(self.waiting)
            sent = self.part
            yield sent


app = FastAPI()
newest = Newest()


@app.get("/camera")
async def camera() -> StreamingResponse:
    """The frames, one after the other."""
    newest.start()
    return StreamingResponse(newest.parts(), media_type="multipart/x-mixed-replace; boundary=frame")
