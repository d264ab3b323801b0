"""Frames by HTTP POST to a consumer over pyzmq: FastAPI, the whole body, a PUSH socket."""

import os

import zmq
from fastapi import FastAPI, Request

app = FastAPI()
# The consumer binds; what it does not take in time is lost, as in the ring.
socket = zmq.Context.instance().socket(zmq.PUSH)
socket.set_hwm(8)
socket.connect(f"ipc://{os.environ['HANDMADE_RING_DIR']}/frames.zmq")


@app.post("/topics/frames")
async def frames(request: Request) -> dict[str, str]:
    """Hand the body on without a copy of our own."""
    body = await request.body()
    try:
        socket.send(body, flags=zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return {"status": "dropped"}
    return {"status": "published"}
