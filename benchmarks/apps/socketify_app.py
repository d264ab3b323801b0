"""The routes of `native_app.py` in socketify: `python socketify_app.py PORT`.

It has no validation: msgspec is called by hand, for all JSON. Without the factory socketify 0.0.31
dies of bodies within a second (`ffi.from_handle() ... already been garbage collected`).
"""

import sys
from typing import Any

from msgspec import ValidationError, json
from order_struct import Order, Receipt
from socketify import App, AppListenOptions, Request, Response

# As many as the benchmarks of its repository keep for use again.
app = App(request_response_factory_max_items=200_000)
orders = json.Decoder(Order)
anything = json.Decoder()


def answer(response: Response, value: Any, status: str = "200 OK") -> None:
    """Send a value as JSON."""

    def send(corked: Response) -> None:
        corked.write_status(status).write_header("content-type", "application/json")
        corked.end(json.encode(value))

    response.cork(send)


def hello(response: Response, _request: Request) -> None:
    """Greet."""
    answer(response, {"message": "Hello, world!"})


def read_item(response: Response, request: Request) -> None:
    """Echo the parameters."""
    answer(response, {"item_id": int(request.get_parameter(0)), "q": request.get_query("q")})


async def echo(response: Response, _request: Request) -> None:
    """Answer the body."""
    body = await response.get_data()
    answer(response, anything.decode(body.getbuffer()))


async def place(response: Response, _request: Request) -> None:
    """Answer what the order costs."""
    body = await response.get_data()
    try:
        order = orders.decode(body.getbuffer())
    except ValidationError as error:
        answer(response, {"detail": str(error)}, "422 Unprocessable Content")
        return
    answer(response, Receipt(order.id, order.quantity * order.price))


async def count(response: Response, _request: Request) -> None:
    """Count the items."""
    body = await response.get_data()
    answer(response, {"count": len(anything.decode(body.getbuffer())["items"])})


app.get("/hello-json", hello)
app.get("/items/:item_id", read_item)
app.post("/echo", echo)
app.post("/orders", place)
app.post("/documents", count)

if __name__ == "__main__":
    app.listen(AppListenOptions(port=int(sys.argv[1]), host="127.0.0.1"))
    app.run()
