"""A typed FastAPI route: path and query parameters in, a pydantic model out."""

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Item(BaseModel):
    """What the route answers."""

    item_id: int
    q: str | None


@app.get("/items/{item_id}")
async def read_item(item_id: int, q: str | None = None) -> Item:
    """Echo the parameters."""
    return Item(item_id=item_id, q=q)
