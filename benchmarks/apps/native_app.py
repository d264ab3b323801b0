"""Native routes: hello, path and query, an echo, an order that is validated, a long document."""

from typing import Any

from order_struct import Order, Receipt

from framegate import App

app = App()


@app.get("/hello-json")
async def hello() -> dict[str, str]:
    """Greet."""
    return {"message": "Hello, world!"}


@app.get("/items/{item_id:int}")
async def read_item(item_id: int, q: str | None = None) -> dict[str, int | str | None]:
    """Echo the parameters."""
    return {"item_id": item_id, "q": q}


@app.post("/echo")
async def echo(body: dict[str, Any]) -> dict[str, Any]:
    """Answer the body."""
    return body


@app.post("/orders")
async def place(order: Order) -> Receipt:
    """Answer what the order costs."""
    return Receipt(order.id, order.quantity * order.price)


@app.post("/documents")
async def count(document: dict[str, Any]) -> dict[str, int]:
    """Count the items."""
    return {"count": len(document["items"])}
