"""Frames by HTTP POST into shared memory, the framegate way."""

from fastapi import FastAPI, HTTPException, Request

import framegate

SHAPE = (1080, 1920, 3)

app = FastAPI()


@app.post("/frames")
async def frames(request: Request) -> dict[str, str]:
    """Move the body into a slot of the topic and publish it."""
    frame = await framegate.ingest(request, "camera/front", dtype="uint8", shape=SHAPE)
    if not frame.native:
        raise HTTPException(500, "the body went through Python: this is not what is measured")
    return {"status": "published"}
