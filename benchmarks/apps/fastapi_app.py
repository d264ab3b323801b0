"""The routes of `native_app.py` in FastAPI, with models of pydantic."""

from typing import Any

from fastapi import FastAPI
from order_model import Order, Receipt
from pydantic import BaseModel

app = FastAPI()


class Item(BaseModel):
    """What the route with parameters answers."""

    item_id: int
    q: str | None


@app.get("/hello-json")
async def hello() -> dict[str, str]:
    """Greet."""
    return {"message": "Hello, world!"}


@app.get("/items/{item_id}")
async def read_item(item_id: int, q: str | None = None) -> Item:
    """Echo the parameters."""
    return Item(item_id=item_id, q=q)


@app.post("/echo")
async def echo(body: dict[str, Any]) -> dict[str, Any]:
    """Answer the body."""
    return body


@app.post("/orders")
async def place(order: Order) -> Receipt:
    """Answer what the order costs."""
    return Receipt(id=order.id, total=order.quantity * order.price)


@app.post("/documents")
async def count(document: dict[str, Any]) -> dict[str, int]:
    """Count the items."""
    return {"count": len(document["items"])}
