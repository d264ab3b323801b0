"""The routes of `native_app.py` in spikard: `python spikard_app.py PORT`.

Handlers are no coroutines: those spikard would carry to the thread of an event loop and back. Its
`ServerConfig` has no effect on `App.run`; the port comes by an environment variable.
"""

import os
import sys
from typing import Any

from order_struct import Order, Receipt
from spikard import App, Body

app = App()


@app.get("/hello-json")
def hello() -> dict[str, str]:
    """Greet."""
    return {"message": "Hello, world!"}


@app.get("/items/{item_id:int}")
def read_item(item_id: int, q: str | None = None) -> dict[str, int | str | None]:
    """Echo the parameters."""
    return {"item_id": item_id, "q": q}


@app.post("/echo")
def echo(body: Body[dict[str, Any]]) -> dict[str, Any]:
    """Answer the body."""
    return body


@app.post("/orders")
def place(order: Body[Order]) -> Receipt:
    """Answer what the order costs."""
    return Receipt(order.id, order.quantity * order.price)


@app.post("/documents")
def count(document: Body[dict[str, Any]]) -> dict[str, int]:
    """Count the items."""
    return {"count": len(document["items"])}


if __name__ == "__main__":
    os.environ["SPIKARD_SERVER_PORT"] = sys.argv[1]
    app.run()
