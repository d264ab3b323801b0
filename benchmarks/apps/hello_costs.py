"""What a hello costs in numbers that no noise touches: user instructions, system calls.

`hello_costs.py SERVER instructions|syscalls --bin FOLDER --tools FOLDER --cores S,L --seconds T`
prints one line of JSON. Instructions are callgrind's, of the process that answers, over 2,000
requests that come on 16 connections, one on each, before any answer is read; system calls are
strace's, of all threads, while the load generator keeps 16 connections busy.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from framegate_bench import servers
from framegate_bench.loadgen import Times, warm_load
from framegate_bench.own_server import (
    PATIENCE_S,
    connect,
    read_words,
    scratch_folder,
    serving,
)
from framegate_bench.procfs import session_pids, session_usage
from framegate_bench.question import Server
from framegate_bench.scratch import scratch

HYPER = {"hyper": servers.hyper()}
BODIES = Path(__file__).parent.parent / "bodies"


def post(path: str, body: str) -> bytes:
    """A POST of `bodies/BODY.json`."""
    content = (BODIES / f"{body}.json").read_bytes()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: example.com\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


GREETING = b"GET / HTTP/1.1\r\nhost: example.com\r\n\r\n"
HELLO = (servers.by_asgi("hello_app:app") | HYPER, GREETING)
KINDS: dict[str, tuple[dict[str, Server], bytes]] = {
    "instructions": HELLO,
    "syscalls": HELLO,
    "echo": (servers.by_asgi("bodies_app:app") | HYPER, post("/echo", "echo")),
    # FastAPI by pydantic, and ours by msgspec.
    "order": (
        servers.by_asgi("fastapi_app:app")
        | HYPER
        | {"framegate": servers.framegate("native_app:app")},
        post("/orders", "order"),
    ),
}
"""Who is asked what; all but `syscalls` count instructions."""
CONNECTIONS = 16
WARM_UP = 480
REQUESTS = 2000


def read_answer(peer: socket.socket) -> None:
    """One answer, whole: all of them say how long they are."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += peer.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    assert b" 200 " in head[:20], head
    size = re.search(rb"^content-length: (\d+)", head, re.M | re.I)
    assert size is not None, head
    while len(body) < int(size[1]):
        body += peer.recv(65536)


def ask(peers: list[socket.socket], request: bytes, count: int) -> None:
    """One request on each connection, then all answers, until there were so many."""
    for _ in range(count // len(peers)):
        for peer in peers:
            peer.sendall(request)
        for peer in peers:
            read_answer(peer)


def answering(session: int, port: int, request: bytes) -> int:
    """The process of a session that has used the most time since some requests."""
    before = {pid: ticks(pid) for pid in session_pids(session)}
    peer = connect(port)
    ask([peer], request, WARM_UP)
    peer.close()
    return max(before, key=lambda pid: ticks(pid) - before[pid])


def ticks(pid: int) -> int:
    """CPU time of a process, in ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


def control(pid: int, *words: str) -> None:
    """Tell callgrind something."""
    command = ["callgrind_control", *words, str(pid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    if "OK" not in done.stdout:
        sys.exit(f"callgrind_control {words}: {done.stdout}{done.stderr}")


def instructions(session: int, port: int, request: bytes) -> float:
    """User instructions of one request."""
    pid = answering(session, port, request)
    control(pid, "-i", "on")
    peers = [connect(port) for _ in range(CONNECTIONS)]
    ask(peers, request, WARM_UP)
    control(pid, "-z")
    ask(peers, request, REQUESTS)
    control(pid, "-d")
    for peer in peers:
        peer.close()
    profile = (scratch_folder() / f"callgrind.{pid}.1").read_text()
    total = re.search(r"^summary: (\d+)", profile, re.M)
    assert total is not None
    return int(total[1]) / REQUESTS


def system_calls(session: int, port: int, tools: Path, core: int, seconds: float) -> float:
    """System calls of one request, in a closed loop."""
    load = ("http", "--path", "/", "--conns", str(CONNECTIONS))
    with scratch() as folder, ExitStack() as stack:
        times = Times(seconds, warmup_s=0.3)
        log = folder / "log"
        warm = stack.enter_context(warm_load(tools / "loadgen", load, None, port, times, core, log))
        traces = []
        for pid in session_pids(session):
            trace = folder / f"trace.{pid}"
            command = ["strace", "-f", "-qq", "-c", "-U", "calls,name", "-o", str(trace)]
            traces.append((trace, subprocess.Popen([*command, "-p", str(pid)])))
            while "TracerPid:\t0" in Path(f"/proc/{pid}/status").read_text():
                time.sleep(0.01)
        completed = warm.measure().completed
        calls = 0
        for trace, tracer in traces:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(PATIENCE_S)
            calls += sum(map(int, re.findall(r"^ *(\d+) +(?!total)\w+$", trace.read_text(), re.M)))
        return calls / completed


def main() -> None:
    """Measure, print the numbers."""
    words = read_words(__doc__, HELLO[0], KINDS)
    os.sched_setaffinity(0, {words.load_core})
    contestants, request = KINDS[words.kind]
    through: tuple[str, ...] = ()
    if words.kind != "syscalls":
        through = (
            "valgrind", "-q", "--tool=callgrind", "--trace-children=yes",
            "--instr-atstart=no", f"--callgrind-out-file={scratch_folder()}/callgrind.%p",
        )  # fmt: skip
    with serving(contestants[words.server], words, through) as (session, port):
        if words.kind == "syscalls":
            found = system_calls(session, port, words.tools, words.load_core, words.seconds)
        else:
            found = instructions(session, port, request)
        assert session_usage(session).cpu_s > 0
    print(json.dumps({words.kind: found}))


if __name__ == "__main__":
    main()
