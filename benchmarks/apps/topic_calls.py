"""A call over HTTP, a plain POST of the same bytes, and the call alone: medians in microseconds.

Beside them, on the same cores, what no call can do without: the futex wake and the wake by a
descriptor that it adds to a bare request (`native/src/bin/wakes.rs`). What is beyond those is ours.

With `--count KIND` one kind alone, between two marks in a log of strace.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import framegate

WARM_UP = 500
BLOCK = 200
COUNTED = 500
PATIENCE_S = 60.0
SLOTS = 16
RULES = 'plain {"create": true, "slots": %d, "slot_bytes": %d}'


def respond(size: int) -> None:
    """The responder's process: answers until it is ended."""
    with framegate.Responder("calls", slots=SLOTS, slot_bytes=max(size, 4096)) as responder:
        print("ready", flush=True)
        for request in responder:
            with request:
                request.reply(request.array)


def post(peer: socket.socket, request: bytes) -> None:
    """One request with its response."""
    peer.sendall(request)
    data = bytearray()
    while b"\r\n\r\n" not in data:
        piece = peer.recv(1 << 18)
        assert piece, data
        data += piece
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    assert b" 200 " in head[:16] or b" 201 " in head[:16], head
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    left = length - len(body)
    while left:
        piece = peer.recv(left)
        assert piece
        left -= len(piece)


def wakes_us(tools: Path, server_core: int, other_core: int) -> float:
    """What the two wakes of a call add to a request where nothing else is done."""
    command = [str(tools / "wakes"), "--first", str(server_core), "--second", str(other_core)]
    plain, call = map(int, subprocess.check_output(command).split())
    return (call - plain) / 1000


def median_us(samples: list[int]) -> float:
    """In microseconds, of nanoseconds."""
    return statistics.median(samples) / 1000


def measure(
    size: int, cores: tuple[int, int], seconds: float, counted: str | None, tools: Path
) -> dict[str, float]:
    """Start the server and the responder, and ask."""
    server_core, other_core = cores
    responder = subprocess.Popen(
        [
            "taskset",
            "-c",
            str(other_core),
            sys.executable,
            __file__,
            "--respond",
            "--bytes",
            str(size),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert responder.stdout is not None and responder.stdout.readline() == "ready\n"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    command = [
        "taskset", "-c", str(server_core), str(Path(sys.executable).parent / "platform"), "serve",
        "hello_app:app", "--no-access-log", "--port", str(port), "--topics", "/topics",
        "--topic-rules", RULES % (SLOTS, max(size, 4096)),
    ]  # fmt: skip
    server = subprocess.Popen(command, cwd=Path(__file__).parent, stdout=sys.stderr)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                peer = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
                break
            except OSError:
                assert time.monotonic() < deadline and server.poll() is None, "no server"
                time.sleep(0.05)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        os.sched_setaffinity(0, {other_core})
        body = bytes(size)
        fields = f"host: localhost\r\ncontent-length: {size}\r\n\r\n".encode()
        plain = b"POST /topics/plain HTTP/1.1\r\n" + fields + body
        call = b"POST /call/calls HTTP/1.1\r\n" + fields + body
        with framegate.Caller("calls") as caller, peer:

            def alone() -> None:
                with caller.call(body) as reply:
                    assert reply.nbytes == size

            kinds: dict[str, Callable[[], None]] = {
                "plain": lambda: post(peer, plain),
                "call": lambda: post(peer, call),
                "alone": alone,
            }
            samples: dict[str, list[int]] = {name: [] for name in kinds}
            wakes: list[float] = []
            for one in kinds.values():
                for _ in range(WARM_UP):
                    one()
            if counted is not None:
                os.getppid()
                for _ in range(COUNTED):
                    kinds[counted]()
                os.getppid()
                return {"operations": COUNTED}
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for name, one in kinds.items():
                    for _ in range(BLOCK):
                        before = time.perf_counter_ns()
                        one()
                        samples[name].append(time.perf_counter_ns() - before)
                wakes.append(wakes_us(tools, server_core, other_core))
    finally:
        for process in (server, responder):
            process.terminate()
            process.wait(PATIENCE_S)
    found = {f"{name}_us": median_us(times) for name, times in samples.items()}
    found["wakes_us"] = statistics.median(wakes)
    found["added_us"] = found["call_us"] - found["plain_us"]
    return found | {"beyond_us": found["added_us"] - found["wakes_us"]}


def main() -> None:
    """Measure, print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--respond", action="store_true")
    parser.add_argument("--tools", type=Path)
    parser.add_argument("--cores", default="0,0")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--kind", choices=("plain", "call"), default="call")
    parser.add_argument("--count", action="store_true")
    words = parser.parse_args()
    if words.respond:
        respond(words.bytes)
        return
    first, second = map(int, words.cores.split(","))
    counted = words.kind if words.count else None
    print(json.dumps(measure(words.bytes, (first, second), words.seconds, counted, words.tools)))


if __name__ == "__main__":
    main()
