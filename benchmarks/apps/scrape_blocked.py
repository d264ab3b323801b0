"""Scrapes a server while its only worker computes; as an application, what it computes."""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

BLOCK_S = 5.0
SCRAPES = 250
PATIENCE_S = 30.0
REQUEST = b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"


async def app(scope, receive, send):
    """`/block` holds the loop and the GIL; everything else answers."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/block":
        end = time.monotonic() + BLOCK_S
        while time.monotonic() < end:
            pass
    await send({"type": "http.response.start", "status": 204})
    await send({"type": "http.response.body"})


def ask(port: int, request: bytes) -> bytes:
    """One request on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as peer:
        peer.sendall(request)
        answer = b""
        while piece := peer.recv(1 << 20):
            answer += piece
    assert b" 20" in answer[:16], answer[:200]
    return answer


def free_ports(count: int) -> list[int]:
    """Ports that were free just now."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def scrape(admin: int) -> list[float]:
    """Milliseconds of each scrape, evenly over the time of a block."""
    found = []
    begin = time.monotonic()
    # All of them lie inside of the block, the first and the last as well.
    pause = BLOCK_S * 0.9 / SCRAPES
    for number in range(SCRAPES):
        time.sleep(max(0.0, begin + number * pause - time.monotonic()))
        before = time.monotonic()
        answer = ask(admin, REQUEST)
        found.append((time.monotonic() - before) * 1e3)
        assert b"http_requests_total" in answer, answer[-200:]
    return found


def serve_bare(port: int, case: str) -> None:
    """Answer a scrape as fast as the machine lets anybody: a process that does nothing else.

    Where something computes, that is another process on the same core, so what is left is how long
    the kernel takes to let one run that was woken.
    """
    with socket.create_server(("127.0.0.1", port)) as listener:
        if case == "blocked":
            parent = os.getpid()
            if os.fork() == 0:
                while os.getppid() == parent:
                    pass
                os._exit(0)
        body = b"http_requests_total 0\n".ljust(8192, b"#")
        head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
        while True:
            peer, _ = listener.accept()
            with peer:
                if peer.recv(65536):
                    peer.sendall(head + body)


def measure_bare(case: str, core: int) -> list[float]:
    """Scrape a process that only answers."""
    (port,) = free_ports(1)
    words = [sys.executable, __file__, case, "--bare", str(port)]
    process = subprocess.Popen(["taskset", "-c", str(core), *words], stdout=sys.stderr)
    try:
        wait_for(port, process)
        return scrape(port)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until somebody answers."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            ask(port, b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            return
        except OSError:
            assert time.monotonic() < deadline and process.poll() is None, "no server"
            time.sleep(0.05)


def measure(case: str, core: int) -> list[float]:
    """Start a server, scrape it in this case."""
    port, admin = free_ports(2)
    command = [
        str(Path(sys.executable).parent / "platform"), "serve", "scrape_blocked:app",
        "--workers", "1", "--no-access-log", "--host", "127.0.0.1", "--port", str(port),
        "--admin-bind", f"127.0.0.1:{admin}",
    ]  # fmt: skip
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *command], cwd=Path(__file__).parent, stdout=sys.stderr
    )
    try:
        wait_for(port, process)
        if case == "idle":
            return scrape(admin)
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as blocking:
            blocking.sendall(b"GET /block HTTP/1.1\r\nhost: a\r\n\r\n")
            time.sleep(0.1)
            found = scrape(admin)
            blocking.setblocking(False)
            try:
                early = blocking.recv(100)
            except BlockingIOError:
                return found
            raise AssertionError(f"the block ended before the scrapes: {early!r}")
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def main() -> None:
    """Measure, print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=("idle", "blocked"))
    parser.add_argument("--cores", default="0,0")
    parser.add_argument("--seconds", type=float, help="has no meaning here")
    parser.add_argument("--floor", action="store_true", help="a process that only answers")
    parser.add_argument("--bare", type=int, metavar="PORT", help="be that process")
    words = parser.parse_args()
    if words.bare is not None:
        serve_bare(words.bare, words.case)
    server_core, load_core = map(int, words.cores.split(","))
    os.sched_setaffinity(0, {load_core})
    found = sorted((measure_bare if words.floor else measure)(words.case, server_core))
    numbers = {
        "p50_ms": found[len(found) // 2],
        "p99_ms": found[len(found) * 99 // 100],
        "max_ms": found[-1],
    }
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()
