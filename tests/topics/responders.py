"""A responder in a process of its own: `python responders.py TOPIC KIND`."""

from __future__ import annotations

import sys
from typing import Any

import framegate


def echo(request: Any) -> Any:
    if request.content_type is not None or request.dtype == "uint8":
        return bytes(request)[::-1]
    return request.array + 1


def main() -> None:
    topic, kind = sys.argv[1:]
    with framegate.Responder(topic, slots=8, slot_bytes=1 << 20) as responder:
        print("ready", flush=True)
        for request in responder:
            match kind:
                case "echo":
                    with request:
                        request.reply(echo(request), content_type=request.content_type)
                case "fail":
                    request.fail("no paper in /etc/secret")
                case "hold":  # takes it up, says so, and never answers
                    print(f"took {bytes(request).decode()}", flush=True)
                    held.append(request)


held: list[Any] = []

if __name__ == "__main__":
    main()
