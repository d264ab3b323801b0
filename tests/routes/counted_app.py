"""An app that counts what Python does between two requests."""

from __future__ import annotations

import dataclasses
import sys
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

from framegate import App

app = App()
counts = {"calls": 0, "before": 0}


@dataclasses.dataclass
class Item:
    name: str
    price: float


def count(frame: Any, event: str, argument: Any) -> None:
    counts["calls"] += 1


@app.get("/begin")
async def begin() -> None:
    counts["calls"] = 0
    tracemalloc.start()
    counts["before"] = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    sys.setprofile(count)


@app.get("/end")
async def end() -> dict[str, int]:
    sys.setprofile(None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"calls": counts["calls"], "bytes": peak - counts["before"]}


@app.post("/items")
async def create(item: Item, limit: int = 0) -> str:
    return f"{item.name} {limit}"


@app.post("/length")
async def length(body: AsyncIterator[bytes]) -> int:
    return sum([len(piece) async for piece in body])
