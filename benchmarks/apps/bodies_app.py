"""Raw ASGI with bodies: /large answers 1 MiB, /upload takes what comes, /echo is JSON both ways."""

import hello_app
import msgspec

LARGE = bytes(range(256)) * 4096
LARGE_HEADERS = [
    (b"content-type", b"application/octet-stream"),
    (b"content-length", b"%d" % len(LARGE)),
]
JSON = (b"content-type", b"application/json")


async def app(scope, receive, send):
    """Answer by the path; anything else is a greeting."""
    path = scope.get("path")
    if path == "/large":
        await send({"type": "http.response.start", "status": 200, "headers": LARGE_HEADERS})
        await send({"type": "http.response.body", "body": LARGE})
    elif path == "/upload":
        while (await receive()).get("more_body", False):
            pass
        await hello_app.app(scope, receive, send)
    elif path == "/echo":
        message = await receive()
        body = message["body"]
        while message.get("more_body", False):
            message = await receive()
            body += message["body"]
        answer = msgspec.json.encode(msgspec.json.decode(body))
        headers = [JSON, (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})
    else:
        await hello_app.app(scope, receive, send)
