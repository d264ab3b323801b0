"""How long until a server answers 200: after its start, and after its code was saved.

`start`: from the start of the process, and CPU time of all its processes until then. `reload`: from
the moment at which the application's file is written until the new text is served. Both are medians
of several times. The application imports nothing, or sleeps while it is imported.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from framegate_bench.processes import free_port
from framegate_bench.procfs import session_usage

SERVERS = {
    "framegate": ("platform", "serve", "saved_app:app", "--no-access-log"),
    "uvicorn": ("uvicorn", "saved_app:app", "--no-access-log"),
    "granian": ("granian", "--interface", "asgi", "--no-access-log", "saved_app:app"),
}
TIMES = {"start": 10, "reload": 5}
PATIENCE_S = 30.0
PAUSE_S = 0.5
SOURCE = """
import time
time.sleep({import_s})
TEXT = b"{text}"
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(TEXT))]

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({{"type": message["type"] + ".complete"}})
            if message["type"] == "lifespan.shutdown":
                return
    await send({{"type": "http.response.start", "status": 200, "headers": HEADERS}})
    await send({{"type": "http.response.body", "body": TEXT}})
"""


def write(folder: Path, text: str, import_s: float) -> None:
    """Save the application, as an editor does: a new file in place of the old one."""
    saving = folder / "saving.tmp"
    saving.write_text(SOURCE.format(text=text, import_s=import_s))
    saving.rename(folder / "saved_app.py")


def answer(port: int) -> bytes:
    """What is served now; nothing if there is nobody, or the connection was cut."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as peer:
            peer.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            received = b""
            while piece := peer.recv(65536):
                received += piece
    except OSError:
        return b""
    head, _, body = received.partition(b"\r\n\r\n")
    return body if b" 200 " in head[:20] else b""


def wait_for(process: subprocess.Popen[bytes], port: int, text: str) -> None:
    """Ask until this text is served."""
    deadline = time.monotonic() + PATIENCE_S
    while answer(port) != text.encode():
        assert process.poll() is None, "the server has ended"
        assert time.monotonic() < deadline, f"{text!r} was not served"
        time.sleep(0.0005)


def start(server: str, folder: Path, core: int, port: int, *more: str) -> subprocess.Popen[bytes]:
    """The server, in a session of its own, on a core of its own."""
    program, *words = SERVERS[server]
    command = [Path(sys.executable).parent / program, *words, "--port", str(port), *more]
    if server != "granian":
        command += ["--host", "127.0.0.1"]
    return subprocess.Popen(
        ["taskset", "-c", str(core), *map(str, command)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=sys.stderr,
        start_new_session=True,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to stop; then nothing of it may be left."""
    process.terminate()
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def starts(server: str, folder: Path, core: int) -> dict[str, float]:
    """Milliseconds until the first answer of a start, and of CPU time."""
    seconds, cpu = [], []
    write(folder, "1", 0.0)
    for turn in range(TIMES["start"] + 1):
        port = free_port()
        begin = time.monotonic()
        process = start(server, folder, core, port)
        try:
            wait_for(process, port, "1")
            # The first one compiles what it imports.
            if turn:
                seconds.append(time.monotonic() - begin)
                cpu.append(session_usage(process.pid).cpu_s)
        finally:
            end(process)
    return {"wall_ms": statistics.median(seconds) * 1e3, "cpu_ms": statistics.median(cpu) * 1e3}


def reloads(server: str, folder: Path, core: int, import_s: float) -> dict[str, float]:
    """Milliseconds from save to the new answer, beyond the sleep in the application's import."""
    write(folder, "0", import_s)
    port = free_port()
    process = start(server, folder, core, port, "--reload")
    seconds = []
    try:
        wait_for(process, port, "0")
        for turn in range(1, TIMES["reload"] + 1):
            time.sleep(PAUSE_S)  # nobody saves twice a second
            begin = time.monotonic()
            write(folder, str(turn), import_s)
            wait_for(process, port, str(turn))
            seconds.append(time.monotonic() - begin - import_s)
    finally:
        end(process)
    return {"wall_ms": statistics.median(seconds) * 1e3}


def main() -> None:
    """Measure, print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", choices=SERVERS)
    parser.add_argument("what", choices=TIMES)
    parser.add_argument("--import-seconds", type=float, default=0.0)
    parser.add_argument("--cores", default="0,0")
    parser.add_argument("--seconds", type=float, help="has no meaning here")
    words = parser.parse_args()
    server_core, own_core = map(int, words.cores.split(","))
    os.sched_setaffinity(0, {own_core})
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if words.what == "start":
            found = starts(words.server, folder, server_core)
        else:
            found = reloads(words.server, folder, server_core, words.import_seconds)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
