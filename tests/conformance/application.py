"""The application that a server under test runs: `conformance.application:app`.

`/CASE/...?id=ID` goes to the case. `/started?id=ID` answers once its application runs.
`/notes?id=ID` gives what that noted, once it has ended; what it raised is noted last. The scope
is the server's, untouched; `id` is the end of the query.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from .registry import CASES, IN_LIFESPAN

for module in sorted(Path(__file__).parent.glob("cases_*.py")):
    importlib.import_module(f"{__package__}.{module.stem}")

PATIENCE_SECONDS = 5.0

notes: defaultdict[str, list[Any]] = defaultdict(list)
started: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
ended: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Dispatch to a case."""
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    if scope["type"] != "http":
        return
    _, _, request = scope["query_string"].decode("latin-1").rpartition("id=")
    # By the raw path: what becomes of the decoded one is the server's business.
    name = scope["raw_path"].split(b"/")[1].decode() if scope["raw_path"] != b"*" else "asterisk"
    if name == "started":
        async with asyncio.timeout(PATIENCE_SECONDS):
            await started[request].wait()
        await answer(send, b"yes")
        return
    if name == "notes":
        await tell(request, send)
        return
    case = CASES[name]
    raised = None
    started[request].set()
    try:
        await case.app(scope, receive, send, notes[request].append)
    except BaseException as error:
        raised = error
        raise
    finally:
        notes[request].append(["end", [each.__name__ for each in type(raised).__mro__]])
        ended[request].set()


async def lifespan(scope: dict[str, Any], receive: Any, send: Any) -> None:
    IN_LIFESPAN.set("set")
    if "state" in scope:
        scope["state"]["made at startup"] = ["an object"]
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def tell(request: str, send: Any) -> None:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await ended[request].wait()
    except TimeoutError:
        notes[request].append(["end", ["it did not end"]])
    body = json.dumps(notes.pop(request, []), default=repr).encode()
    started.pop(request, None)
    ended.pop(request, None)
    await answer(send, body)


async def answer(send: Any, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
