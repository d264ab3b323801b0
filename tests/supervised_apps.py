"""Applications that the tests of this directory start in processes of their own.

`EVENTS` names a file; what happens in a worker is appended there, one line per event.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
import time
from typing import Any

Scope = dict[str, Any]

LEAK: list[bytearray] = []


def note(event: str) -> None:
    with open(os.environ["EVENTS"], "a") as file:
        file.write(f"{event} {os.getpid()}\n")


async def forever() -> None:
    await asyncio.Event().wait()


async def answer(send: Any, text: str) -> None:
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


async def lifespan(receive: Any, send: Any) -> None:
    await receive()
    note("startup")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    note("shutdown")
    await send({"type": "lifespan.shutdown.complete"})


async def app(scope: Scope, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    match scope["path"]:
        case "/pid":
            await answer(send, str(os.getpid()))
        case "/slow":  # until the test removes the file
            note("slow")
            while os.path.exists(os.environ["HOLD"]):
                await asyncio.sleep(0.01)
            await answer(send, "done")
        case "/endless":
            note("endless")
            await forever()
        case "/block":
            note("block")
            time.sleep(600)
        case "/pause":  # with the GIL, now and then
            note("pause")
            time.sleep(2.5)
            await answer(send, str(os.getpid()))
        case "/compute":  # with the GIL, all the time: what a regular expression does that explodes
            note("compute")
            re.match(r"(a|a)*b", "a" * int(os.environ.get("EXPONENT", "24")))
            await answer(send, str(os.getpid()))
        case "/leak":
            LEAK.append(bytearray(b"x") * (64 << 20))
            await answer(send, str(os.getpid()))
        case "/kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "/exit":
            os._exit(0)
    return None


async def crashing(scope: Scope, receive: Any, send: Any) -> None:
    """Dies as soon as it has started."""
    note("startup")
    os._exit(9)


async def failing(scope: Scope, receive: Any, send: Any) -> None:
    await receive()
    note("startup")
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def hanging(scope: Scope, receive: Any, send: Any) -> None:
    await receive()
    note("startup")
    await forever()


async def failing_later(scope: Scope, receive: Any, send: Any) -> None:
    """The first worker starts; its successor does not."""
    if scope["type"] == "lifespan" and os.path.exists(os.environ["HOLD"]):
        return await failing(scope, receive, send)
    return await app(scope, receive, send)


async def hanging_later(scope: Scope, receive: Any, send: Any) -> None:
    """The first worker starts; its successor never does."""
    if scope["type"] == "lifespan" and os.path.exists(os.environ["HOLD"]):
        return await hanging(scope, receive, send)
    return await app(scope, receive, send)


async def waiting_later(scope: Scope, receive: Any, send: Any) -> None:
    """The first worker starts at once, its successor when the test's file is gone."""
    if scope["type"] == "lifespan" and os.path.exists(os.environ["HOLD"]):
        await receive()
        note("startup")
        while os.path.exists(os.environ["HOLD"]):
            await asyncio.sleep(0.01)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        note("shutdown")
        await send({"type": "lifespan.shutdown.complete"})
        return None
    return await app(scope, receive, send)


async def streams(scope: Scope, receive: Any, send: Any) -> None:
    """Whatever keeps a server from stopping."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        note("websocket")
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return None
    match scope["path"]:
        case "/events":  # server-sent events, as libraries for it do them
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
            await receive()
            note("events")
            while (await receive())["type"] != "http.disconnect":
                pass
            note("told")
            await send({"type": "http.response.body", "body": b"data: bye\n\n"})
        case "/upload":
            note("upload")
            count = 0
            while True:
                event = await receive()
                if event["type"] == "http.disconnect":
                    note("upload-cut")
                    return None
                count += len(event["body"])
                if not event["more_body"]:
                    break
            await answer(send, str(count))
        case "/stuck":
            note("stuck")
            try:
                await forever()
            except asyncio.CancelledError:
                note("cancelled")
                raise
        case "/stubborn":
            note("stubborn")
            while True:
                try:
                    await forever()
                except asyncio.CancelledError:
                    note("not-cancelled")
        case _:
            await app(scope, receive, send)
    return None


async def bad_shutdown(scope: Scope, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "still busy"})


def blocking_factory() -> Any:
    note("import")
    time.sleep(600)


async def lingering(scope: Scope, receive: Any, send: Any) -> None:
    """Leaves a thread behind that never ends."""
    await receive()
    threading.Thread(target=threading.Event().wait).start()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def with_worker_scope(scope: Scope, receive: Any, send: Any) -> None:
    """Knows framegate.worker; worker 1 fails as long as the test's file is there."""
    if scope["type"] != "framegate.worker":
        if scope["type"] == "http" and scope["path"] == "/worker":
            return await answer(send, str(scope["state"]["place"]))
        return await app(scope, receive, send)
    worker = scope["worker"]
    await receive()
    note(f"worker-startup-{worker['index']}-{worker['generation']}-{worker['count']}")
    if worker["index"] == 1 and os.path.exists(os.environ["HOLD"]):
        match os.environ.get("FAILURE", "failed"):
            case "failed":
                failed = {"type": "framegate.worker.startup.failed", "message": "no device"}
                return await send(failed)
            case "raise":
                raise RuntimeError("no device")
            case "late":
                await forever()
            case "block":
                time.sleep(600)
    scope["state"]["place"] = worker["index"]
    await send({"type": "framegate.worker.startup.complete"})
    await receive()
    note("worker-shutdown")
    await send({"type": "framegate.worker.shutdown.complete"})
    return None


async def worker_scope_fails(scope: Scope, receive: Any, send: Any) -> None:
    if scope["type"] == "framegate.worker":
        await receive()
        await send({"type": "framegate.worker.startup.failed", "message": "no device"})
    else:
        await app(scope, receive, send)


async def without_lifespan(scope: Scope, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise RuntimeError("what is a lifespan?")
    await app(scope, receive, send)


async def broken_startup(scope: Scope, receive: Any, send: Any) -> None:
    """Raises in its startup hook, as a typo there does."""
    if scope["type"] == "lifespan":
        await receive()
        note("startup")
        raise LookupError("typo in a hook")
    await app(scope, receive, send)


async def broken_shutdown(scope: Scope, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise LookupError("typo in a hook")
    await app(scope, receive, send)


async def with_state(scope: Scope, receive: Any, send: Any) -> None:
    """Each request sees what the lifespan put into the state, and not what other requests did."""
    if scope["type"] == "lifespan":
        scope["state"] |= {"shared": [], "name": "lifespan"}
        return await lifespan(receive, send)
    if scope["type"] != "http":
        raise RuntimeError(scope["type"])
    state = scope["state"]
    text = f"{sorted(state)} {state['name']} {len(state['shared'])}"
    state |= {"mine": 1, "name": "request"}
    state["shared"].append(1)
    await answer(send, text)
    return None
