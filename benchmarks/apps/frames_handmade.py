"""Frames by HTTP POST into shared memory, by hand: FastAPI, `request.stream()` and an mmap ring."""

import os

from fastapi import FastAPI, HTTPException, Request
from handmade_ring import RingWriter

FRAME_BYTES = 1080 * 1920 * 3

app = FastAPI()
ring = RingWriter(os.environ["HANDMADE_RING_DIR"], slot_bytes=FRAME_BYTES)


@app.post("/frames")
async def frames(request: Request) -> dict[str, str]:
    """Copy each chunk of the body to its place in the next slot, once, and publish the slot."""
    slot = ring.loan()
    offset = 0
    async for chunk in request.stream():
        end = offset + len(chunk)
        if end > FRAME_BYTES:
            raise HTTPException(413, "larger than a frame")
        slot.pixels[offset:end] = chunk
        offset = end
    if offset != FRAME_BYTES:
        raise HTTPException(400, "shorter than a frame")
    ring.publish(slot)
    return {"status": "published"}
