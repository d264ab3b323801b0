"""A dashboard without a front end: whatever is published appears on the live page.

platform serve examples.machine_dashboard:app --topics /topics --live /live
then open http://127.0.0.1:8000/live/
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import numpy as np
from fastapi import FastAPI
from fastapi.responses import RedirectResponse

import framegate

HISTORY = 120


async def measure() -> None:
    """Publish load, memory and the time of each core four times a second."""
    load = np.zeros(HISTORY, np.float32)
    with ExitStack() as stack:

        def topic(name: str, values: int) -> framegate.Publisher:
            shape = (values,)
            return stack.enter_context(framegate.Publisher(name, dtype="float32", shape=shape))

        loads, memory = topic("machine/load", HISTORY), topic("machine/free-memory-share", 1)
        cores = topic("machine/seconds-of-cores", os.cpu_count() or 1)
        while True:
            load = np.roll(load, -1)
            load[-1] = os.getloadavg()[0]
            loads.send(load)
            memory.send(
                np.array([os.sysconf("SC_AVPHYS_PAGES") / os.sysconf("SC_PHYS_PAGES")], "f4")
            )
            lines = Path("/proc/stat").read_text().splitlines()
            ticks = [int(line.split()[1]) for line in lines if line[:3] == "cpu" and line[3] != " "]
            cores.send(np.resize(np.array(ticks, np.float32) / 100, os.cpu_count() or 1))
            await asyncio.sleep(0.25)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Measure as long as the server runs."""
    task = asyncio.create_task(measure())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def page() -> RedirectResponse:
    """To the page."""
    return RedirectResponse("/live/")
