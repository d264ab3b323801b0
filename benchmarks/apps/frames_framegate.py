"""Frames by HTTP POST into shared memory, the framegate way."""

from fastapi import FastAPI, Request

import framegate

SHAPE = (1080, 1920, 3)

app = FastAPI()


@app.post("/frames")
async def frames(request: Request) -> dict[str, str]:
    """Move the body into a slot of the topic and publish it."""
    await framegate.ingest(request, "camera/front", dtype="uint8", shape=SHAPE)
    return {"status": "published"}
