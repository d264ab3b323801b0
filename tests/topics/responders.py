"""Responders in processes of their own; as a program: `responders.py TOPIC KIND`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import framegate

TOPIC = "resize"


class Process:
    """A responder that can be killed."""

    def __init__(self, kind: str, topic: str = TOPIC, through: Sequence[str] = ()) -> None:
        words = [*through, sys.executable, __file__, topic, kind]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.wait_for("ready")

    def wait_for(self, word: str) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line == word, f"expected {word!r}, got {line!r}"

    def tell(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


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
                case "wait":  # takes it up, says so, and replies when it is told
                    with request:
                        print("took", flush=True)
                        sys.stdin.readline()
                        request.reply(echo(request))
                case "fail":
                    request.fail("no paper in /etc/secret")
                case "hold":  # takes it up, says so, and never answers
                    print(f"took {bytes(request).decode()}", flush=True)
                    held.append(request)


held: list[Any] = []

if __name__ == "__main__":
    main()
