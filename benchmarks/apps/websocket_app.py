"""A raw ASGI WebSocket echo (and a greeting over HTTP, by which the driver sees that it is up)."""

import hello_app


async def app(scope, receive, send):
    """Send every binary message back."""
    if scope["type"] != "websocket":
        return await hello_app.app(scope, receive, send)
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return None
        await send({"type": "websocket.send", "bytes": message["bytes"]})
