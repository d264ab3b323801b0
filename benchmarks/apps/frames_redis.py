"""Frames by HTTP POST to a consumer over a Redis stream: FastAPI, the whole body, XADD."""

import os

import redis_server
from fastapi import FastAPI, Request
from redis.asyncio import Redis

path = redis_server.start(os.environ["HANDMADE_RING_DIR"])
app = FastAPI()
redis = Redis(unix_socket_path=str(path))


@app.post("/topics/frames")
async def frames(request: Request) -> dict[str, str]:
    """Add the body to the stream, of which as many are kept as a ring has slots."""
    body = await request.body()
    await redis.xadd("frames", {"pixels": body}, maxlen=8, approximate=False)
    return {"status": "published"}
