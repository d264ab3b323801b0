"""Frames by HTTP POST and WebSocket into shared memory, by hand: FastAPI and an mmap ring."""

import os

from fastapi import FastAPI, HTTPException, Request, WebSocket, WebSocketDisconnect
from handmade_ring import RingWriter

FRAME_BYTES = 1080 * 1920 * 3
HEAD_BYTES = 32
"""A message begins with so many that are no part of the frame, as in framegate's protocol."""

app = FastAPI()
ring = RingWriter(os.environ["HANDMADE_RING_DIR"], slot_bytes=FRAME_BYTES)


@app.post("/topics/frames")
@app.post("/frames")
async def frames(request: Request) -> dict[str, str]:
    """Copy each chunk of the body to its place in the next slot, once, and publish the slot."""
    size = int(request.headers["content-length"])
    if size > FRAME_BYTES:
        raise HTTPException(413, "larger than a frame")
    slot = ring.loan()
    offset = 0
    async for chunk in request.stream():
        end = offset + len(chunk)
        slot.pixels[offset:end] = chunk
        offset = end
    if offset != size:
        raise HTTPException(400, "shorter than a frame")
    ring.publish(slot, size)
    return {"status": "published"}


@app.websocket("/topics/frames")
async def messages(websocket: WebSocket) -> None:
    """Copy each message into the next slot and say that it is there."""
    await websocket.accept()
    try:
        while True:
            frame = memoryview(await websocket.receive_bytes())[HEAD_BYTES:]
            slot = ring.loan()
            slot.pixels[: len(frame)] = frame
            ring.publish(slot, len(frame))
            await websocket.send_bytes(b"published")
    except WebSocketDisconnect:
        pass
