"""The routes of `native_app.py` in robyn: `python robyn_app.py PORT [options of robyn]`.

Handlers are no coroutines: those robyn calls on the thread that has the request. No route is
`const`, which robyn answers without Python.
"""

import sys
from typing import Any

from order_model import Order, Receipt
from robyn import Request, Robyn

app = Robyn(__file__)


@app.get("/hello-json")
def hello() -> dict[str, str]:
    """Greet."""
    return {"message": "Hello, world!"}


@app.get("/items/:item_id")
def read_item(item_id: int, q: str | None = None) -> dict[str, int | str | None]:
    """Echo the parameters."""
    return {"item_id": item_id, "q": q}


@app.post("/echo")
def echo(request: Request) -> Any:
    """Answer the body."""
    return request.json()


@app.post("/orders")
def place(order: Order) -> Receipt:
    """Answer what the order costs."""
    return Receipt(id=order.id, total=order.quantity * order.price)


@app.post("/documents")
def count(request: Request) -> dict[str, int]:
    """Count the items."""
    return {"count": len(request.json()["items"])}


if __name__ == "__main__":
    app.start(host="127.0.0.1", port=int(sys.argv[1]))
