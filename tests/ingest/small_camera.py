"""App of `test_workers.py`: tiny frames into one topic, and which worker took each."""

import os

from fastapi import FastAPI, Request

import framegate

app = FastAPI()


@app.post("/frames")
async def frames(request: Request) -> dict[str, int]:
    frame = await framegate.ingest(request, "camera/small", dtype="uint8", shape=(4,))
    return {"sequence": frame.sequence, "pid": os.getpid()}
