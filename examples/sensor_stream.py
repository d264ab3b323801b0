"""Sensor samples come in over a WebSocket and become frames of two named arrays.

platform serve examples.sensor_stream:app
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

import framegate


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One publisher for the worker's life."""
    with framegate.Publisher("sensor/imu", slot_bytes=64 * 1024, slots=64) as publisher:
        app.state.publisher = publisher
        yield


app = FastAPI(lifespan=lifespan)


@app.websocket("/samples")
async def samples(websocket: WebSocket) -> None:
    """Each message is a JSON list of [time, x, y, z] rows; the answer is the frame's sequence."""
    await websocket.accept()
    try:
        while True:
            rows = np.asarray(await websocket.receive_json(), dtype=np.float64)
            sequence = app.state.publisher.send(
                {"time": rows[:, 0], "acceleration": np.ascontiguousarray(rows[:, 1:], dtype="f4")},
                timestamp=float(rows[-1, 0]),
            )
            await websocket.send_json({"sequence": sequence})
    except WebSocketDisconnect:
        return
