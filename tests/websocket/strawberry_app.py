"""GraphQL subscriptions of strawberry, on its ASGI view."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import strawberry
from strawberry.asgi import GraphQL

ended: asyncio.Queue[str] = asyncio.Queue()


@strawberry.type
class Query:
    @strawberry.field
    async def next_end(self) -> str:
        """Which subscription ended, once one has."""
        return await ended.get()


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, to: int) -> AsyncGenerator[int, None]:
        for number in range(to):
            yield number

    @strawberry.subscription
    async def fail(self) -> AsyncGenerator[int, None]:
        yield 1
        raise ValueError("two is too much")

    @strawberry.subscription
    async def forever(self, name: str) -> AsyncGenerator[str, None]:
        try:
            while True:
                yield name
                await asyncio.sleep(0.001)
        finally:
            ended.put_nowait(name)


app = GraphQL[None, None](strawberry.Schema(Query, subscription=Subscription))
