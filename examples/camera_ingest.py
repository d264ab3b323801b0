"""POST a raw 1080p RGB picture; every local process that subscribes to `camera/front` sees it.

platform serve examples.camera_ingest:app
curl -X POST --data-binary @picture.rgb http://127.0.0.1:8000/frames
"""

from fastapi import FastAPI, Request

import framegate

app = FastAPI()


@app.post("/frames")
async def frames(request: Request) -> dict[str, int]:
    """Move the body from the socket into shared memory, without Python in the path."""
    frame = await framegate.ingest(request, "camera/front", dtype="uint8", shape=(1080, 1920, 3))
    return {"sequence": frame.sequence, "size": frame.size}
