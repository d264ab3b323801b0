"""`--slow-request`: what the log says of requests that take long.

The core notes them (rust/py/src/slow.rs) and calls `report` on the loop's thread, at most once a
second. A request is told of once while it runs, found by the sweep that keeps all limits of time,
and once when it is over. Streams of events are judged by how long they took to begin.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any, Final

__all__ = ["report"]

LOGGER: Final = logging.getLogger("framegate.slow")


def report(notes: Sequence[tuple[bool, str]], more: int) -> None:
    """Log slow requests.

    Args:
        notes: Whether it still runs, and its line of the access log as JSON.
        more: How many others there were.
    """
    for is_running, line in notes:
        request = json.loads(line)
        LOGGER.warning("%s", _sentence(request, is_running), extra={"request": request})
    if more:
        LOGGER.warning("%d more requests were slow", more)


def _sentence(request: dict[str, Any], is_running: bool) -> str:
    seconds = request["milliseconds"] / 1000
    verb = "has been running for" if is_running else "took"
    words = [f"slow request: {request['method']} {request['target']} {verb} {seconds:.3f} s"]
    first = request["first_byte_milliseconds"]
    words.append("no response yet" if first is None else f"first byte after {first / 1000:.3f} s")
    if request["status"] is not None:
        words.append(f"status {request['status']}")
    elif not is_running:
        words[-1] = "no response"
    if request["aborted"]:
        words.append("cut before its end")
    if "id" in request:
        words.append(f"id {request['id']}")
    return ", ".join([*words, f"client {request['client']}", f"worker {request['worker']}"])
