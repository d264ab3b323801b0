"""An endless stream of server-sent events, ten a second."""

import asyncio

import hello_app

PERIOD_S = 0.1
HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
EVENT = b'data: {"topic": "camera/front", "sequence": 123456, "age_ms": 1.5}\n\n'


async def app(scope, receive, send):
    """Events at /events; anything else is a greeting."""
    if scope.get("path") != "/events":
        await hello_app.app(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    try:
        while True:
            await send({"type": "http.response.body", "body": EVENT, "more_body": True})
            await asyncio.sleep(PERIOD_S)
    except OSError:
        pass  # the client has gone
