"""The routes of `native_app.py` in Litestar, with its own msgspec."""

from typing import Any

from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.exceptions import ValidationException
from order_struct import Order, Receipt


@get("/hello-json")
async def hello() -> dict[str, str]:
    """Greet."""
    return {"message": "Hello, world!"}


@get("/items/{item_id:int}")
async def read_item(item_id: int, q: str | None = None) -> dict[str, int | str | None]:
    """Echo the parameters."""
    return {"item_id": item_id, "q": q}


@post("/echo", status_code=200)
async def echo(data: dict[str, Any]) -> dict[str, Any]:
    """Answer the body."""
    return data


@post("/orders", status_code=200)
async def place(data: Order) -> Receipt:
    """Answer what the order costs."""
    return Receipt(data.id, data.quantity * data.price)


@post("/documents", status_code=200)
async def count(data: dict[str, Any]) -> dict[str, int]:
    """Count the items."""
    return {"count": len(data["items"])}


def refuse(_request: Request[Any, Any, Any], error: ValidationException) -> Response[Any]:
    """Answer 422 as the others do; Litestar's own answer is a 400."""
    content = {"detail": error.detail, "errors": error.extra}
    return Response(content, media_type=MediaType.JSON, status_code=422)


app = Litestar(
    [hello, read_item, echo, place, count],
    exception_handlers={ValidationException: refuse},
    openapi_config=None,
    logging_config=None,
)
