"""The order that is posted, as a model of pydantic: for FastAPI and robyn."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field


class Order(BaseModel):
    """Ten fields, all required."""

    id: Annotated[int, Field(ge=1)]
    customer: Annotated[str, Field(min_length=1, max_length=80)]
    email: Annotated[str, Field(max_length=120)]
    country: Literal["DE", "FR", "GB", "US"]
    sku: Annotated[str, Field(max_length=40)]
    quantity: Annotated[int, Field(ge=1, le=1000)]
    # Strict, as JSON Schema is: a price in quotes is no number.
    price: Annotated[float, Field(ge=0, strict=True)]
    express: bool
    tags: Annotated[list[str], Field(max_length=10)]
    note: str | None


class Receipt(BaseModel):
    """What the route answers."""

    id: int
    total: float
