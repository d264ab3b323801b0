"""The event loop: asyncio whose selector is the Rust runtime.

`EventLoop` is an `asyncio.SelectorEventLoop` in every respect that Python code can see. What
differs is what happens while it waits: its selector runs the Rust runtime that serves connections,
on the same thread.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import cast

from framegate import _http

__all__ = ["EventLoop", "new_event_loop"]


class EventLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop that serves connections while it waits.

    Make one with `new_event_loop`. Everything that works on asyncio's own loop works here: timers,
    signals, subprocesses, `add_reader`, thread pools, transports.

    The loop may be made on one thread and run on another. Once it serves connections it stays on
    its thread. A forked child cannot use it.
    """

    def __init__(self) -> None:
        self._tokio = _http.Selector()
        super().__init__(cast(selectors.BaseSelector, self._tokio))

    def run_forever(self) -> None:
        """Run until `stop` is called."""
        try:
            super().run_forever()
        finally:
            # A loop that does not run keeps neither the process's wake-up fd nor an idle runtime.
            self._tokio.rest()

    def stop(self) -> None:
        """Stop running after the callbacks that are ready now."""
        super().stop()
        # Rust code may have called the callback that stops, inside `select`.
        self._tokio.interrupt()

    def remove_signal_handler(self, sig: int) -> bool:
        """Remove a handler; True if there was one."""
        removed = super().remove_signal_handler(sig)
        if removed and self.is_running():
            # asyncio has switched the wake-up fd off together with its last handler.
            self._tokio.watch_signals()
        return removed


def new_event_loop() -> EventLoop:
    """Make the event loop that framegate serves on.

    Returns:
        A new loop, not yet the thread's current one.

    Example:
        >>> import asyncio
        >>> async def main() -> str:
        ...     return type(asyncio.get_running_loop()).__name__
        >>> with asyncio.Runner(loop_factory=new_event_loop) as runner:
        ...     runner.run(main())
        'EventLoop'
    """
    return EventLoop()
