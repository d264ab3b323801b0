"""A topic to many viewers: starts publisher, server and viewers, and measures the server.

`fan_out.py framegate|uvicorn|granian|pyzmq|redis|sender --viewers N --rate R --bin FOLDER
--tools FOLDER --cores S,L --seconds T` prints one line of JSON. The server is on core S, the rest
on core L.
"""

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from framegate_bench.procfs import session_pids, session_usage

APPS = Path(__file__).parent
FRAME_BYTES = 100_000
PATIENCE_S = 30.0
SETTLE_S = 0.5
PATHS = {
    "framegate": "/topics/camera?view=mjpeg&framing=length",
    "uvicorn": "/camera",
    "granian": "/camera",
    "pyzmq": "/camera",
    "redis": "/camera",
    "sender": "/camera",
}


@contextmanager
def running(command: list[str], core: int, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own, on a core, that is ended on leaving."""
    pinned = ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", str(core), *command]
    process = subprocess.Popen(pinned, text=True, start_new_session=True, cwd=APPS, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE_S)


def server_command(kind: str, folder: str, tools: str, port: int, rate: float) -> list[str]:
    """How a server is started, as `framegate_bench.servers` has it."""
    if kind == "sender":
        words = ("--port", port, "--rate", rate, "--bytes", FRAME_BYTES)
        return [f"{tools}/sender", *map(str, words)]
    if kind == "framegate":
        viewers = ("--topics", "/topics", "--topics-viewers", "2000")
        words = ("serve", "hello_app:app", "--no-access-log", "--port", port, *viewers)
        return [f"{folder}/platform", *map(str, words)]
    from framegate_bench.servers import granian, uvicorn

    make = granian if kind == "granian" else uvicorn
    return [
        word.format(bin=folder, port=port, folder="") for word in make("fan_out_app:app").command
    ]


def rss_mib(session: int) -> float:
    """Memory of all processes of a session that is in RAM."""
    total = 0
    for pid in session_pids(session):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total / 1024


def wait_for(port: int, path: str, server: subprocess.Popen[str]) -> None:
    """Wait until the server shows the topic."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        if server.poll() is not None:
            sys.exit(f"the server ended with {server.returncode}")
        if time.monotonic() > deadline:
            sys.exit(f"the server shows nothing at {path}")
        time.sleep(0.05)


def read_line(process: subprocess.Popen[str]) -> str:
    """The next line; its end is an error."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        sys.exit("a program of the measurement ended; its last words are above")
    return line


def measure(words: argparse.Namespace) -> dict[str, float]:
    """One window."""
    server_core, load_core = map(int, words.cores.split(","))
    os.sched_setaffinity(0, {load_core})
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    path = PATHS[words.kind]
    command = server_command(words.kind, words.bin, words.tools, port, words.rate)
    source = words.kind if words.kind in {"framegate", "pyzmq", "redis"} else "ring"
    os.environ["FAN_OUT_SOURCE"] = source
    with ExitStack() as stack:
        if words.kind != "sender":
            publish = [f"{words.bin}/python", "fan_out_publish.py", source]
            publisher = stack.enter_context(
                running([*publish, str(words.rate)], load_core, stdout=subprocess.PIPE)
            )
            assert read_line(publisher) == "ready\n"
        server = stack.enter_context(running(command, server_core, stdout=sys.stderr))
        wait_for(port, path, server)
        viewers = stack.enter_context(
            running(
                [
                    f"{words.tools}/viewers", "--port", str(port), "--path", path,
                    "--conns", str(words.viewers),
                ],
                load_core,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )  # fmt: skip
        assert read_line(viewers) == "ready\n"
        time.sleep(SETTLE_S)

        def seen() -> int:
            assert viewers.stdin is not None
            viewers.stdin.write("?\n")
            viewers.stdin.flush()
            total: int = json.loads(read_line(viewers))["bytes"]
            return total

        # At least some frames at the slowest rate; whole ones, so that a window cuts none.
        frames = max(4, round(words.rate * words.seconds))
        seen()
        before, began = session_usage(server.pid), time.monotonic()
        time.sleep(frames / words.rate)
        count = seen() / FRAME_BYTES
        used, elapsed = session_usage(server.pid) - before, time.monotonic() - began
        if count < 1:
            sys.exit("no viewer got a frame")
        return {
            "cpu_us": used.cpu_s / count * 1e6,
            "delivered_percent": 100 * count / (words.viewers * words.rate * elapsed),
            "rss_mib": rss_mib(server.pid),
        }


def main() -> None:
    """Measure, print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=PATHS)
    parser.add_argument("--viewers", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--tools", required=True)
    parser.add_argument("--cores", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
