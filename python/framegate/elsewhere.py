"""What `send` gives to a caller on another thread than the event loop's."""

import types
from collections.abc import Awaitable, Callable
from typing import Any


async def send_later(send: Callable[[Any], Awaitable[None]], message: Any) -> None:
    """Call `send` on the thread where this is awaited, which has to be its loop's."""
    sent = send(message)
    if isinstance(sent, types.CoroutineType):  # another one of these
        sent.close()
        raise RuntimeError(
            "this `send` belongs to an event loop in another thread: await it there, for example "
            "by asyncio.run_coroutine_threadsafe(send(message), loop)"
        )
    await sent
