"""A login in front of frames: Python decides who may look, the bytes do not pass through it.

CAMERA_TOKEN=secret platform serve examples.camera_login:app
curl -H "Authorization: Bearer secret" http://127.0.0.1:8000/cameras/front > live.mjpeg
"""

import os
import secrets
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

import framegate

app = FastAPI()
bearer = HTTPBearer()


def user(shown: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> None:
    """Any rule of yours: a session, a database, a role. Here, one token."""
    if not secrets.compare_digest(shown.credentials, os.environ["CAMERA_TOKEN"]):
        raise HTTPException(403, "this token may not see cameras")


@app.get("/cameras/{name}", dependencies=[Depends(user)], response_model=None)
async def watch(name: str) -> framegate.FrameStream:
    """The camera as pictures in a browser, made once for all who look."""
    return framegate.FrameStream(f"camera/{name}", quality=70, rate=15)


@app.post("/cameras/{name}", dependencies=[Depends(user)])
async def publish(name: str, request: Request) -> dict[str, int]:
    """A picture of 640 x 480, RGB."""
    frame = await framegate.ingest(request, f"camera/{name}", dtype="uint8", shape=(480, 640, 3))
    return {"sequence": frame.sequence}
