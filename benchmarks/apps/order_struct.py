"""The order that is posted, as a Struct of msgspec: for framegate, Litestar and spikard."""

from typing import Annotated, Literal

from msgspec import Meta, Struct


class Order(Struct):
    """Ten fields, all required."""

    id: Annotated[int, Meta(ge=1)]
    customer: Annotated[str, Meta(min_length=1, max_length=80)]
    email: Annotated[str, Meta(max_length=120)]
    country: Literal["DE", "FR", "GB", "US"]
    sku: Annotated[str, Meta(max_length=40)]
    quantity: Annotated[int, Meta(ge=1, le=1000)]
    price: Annotated[float, Meta(ge=0)]
    express: bool
    tags: Annotated[list[str], Meta(max_length=10)]
    note: str | None


class Receipt(Struct):
    """What the route answers."""

    id: int
    total: float
