"""What a request, a message and a frame cost, in numbers that no noise touches.

User instructions and allocations are callgrind's, system calls strace's, each over a few hundred
operations of a server that has warmed up. They are held to `expected.json`, which is of the
development build: it is changes that these tests are for (`task test:costs -- write` takes the new
numbers), the absolute ones of a release are in benchmarks/.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from server_process import PATIENCE_SECONDS, Launch, ServerProcess, launch
from websocket.raw import BINARY, HANDSHAKE, RawWebSocket, frame

__all__ = ["launch"]

EXPECTED = Path(__file__).with_name("expected.json")
WRITES = os.environ.get("FRAMEGATE_WRITE_COSTS") == "1"
WARM_UP = 200
OPERATIONS = 400
TOLERANCE = 0.06
OTHER_TOOLCHAIN_TOLERANCE = 0.3
"""Where compiler or interpreter are not those of the expected numbers."""
ALLOCATORS = {
    "malloc", "calloc", "realloc", "aligned_alloc", "posix_memalign",
    "mi_malloc_aligned", "mi_zalloc_aligned", "mi_realloc_aligned",
    "_PyObject_Malloc", "_PyObject_Calloc", "_PyObject_Realloc",
}  # fmt: skip
TIMER = re.compile(
    r"^epoll_wait\(.*, [1-9]\d*\) += 0\n"
    r"(?:write\(.*\n(?:epoll_wait\(\d+, \[\{events=EPOLLIN, data=\{u32=0, u64=0\}\}\], .*\n)?)?",
    re.M,
)
"""A wait that nothing but the clock ended, and the loop's waking of itself behind it. A wait of no
time belongs to an operation."""
BURST = 16

Operate = Callable[[int], None]


def ask(peer: socket.socket, request: bytes, answers: int = 1) -> None:
    """Send requests in one piece, wait for all of their answers."""
    peer.sendall(request)
    received = b""
    while received.count(b" 200 OK\r\n") < answers or not received.endswith((b"world!", b"}")):
        piece = peer.recv(1 << 20)
        assert piece, received
        received += piece


def single(port: int) -> Iterator[Operate]:
    """One request after another."""
    with connected(port) as peer:
        yield lambda count: [ask(peer, head("GET /")) for _ in range(count)].clear()


def pipelined(port: int) -> Iterator[Operate]:
    """16 requests in one piece: what is left when nothing waits."""
    with connected(port) as peer:
        burst = head("GET /") * BURST
        yield lambda count: [ask(peer, burst, BURST) for _ in range(count // BURST)].clear()


def messages(port: int) -> Iterator[Operate]:
    """WebSocket messages of 128 bytes, 16 in one piece."""
    with RawWebSocket(connected(port)) as peer:
        peer.open(headers=HANDSHAKE, target="/")
        burst = frame(BINARY, bytes(128)) * BURST

        def operate(count: int) -> None:
            for _ in range(count // BURST):
                peer.send(burst)
                for _ in range(BURST):
                    assert peer.read_frame() == (BINARY, bytes(128))

        yield operate


def frames(port: int) -> Iterator[Operate]:
    """Frames of 64 KiB into shared memory."""
    with connected(port) as peer:
        request = head("POST /frames", "content-length: 65536") + bytes(65536)
        yield lambda count: [ask(peer, request) for _ in range(count)].clear()


def posted(port: int) -> Iterator[Operate]:
    """Bodies of 1 KiB that come with their heads, and that the application reads."""
    with connected(port) as peer:
        request = head("POST /read", "content-length: 1024") + bytes(1024)
        yield lambda count: [ask(peer, request) for _ in range(count)].clear()


def validated(port: int) -> Iterator[Operate]:
    """Bodies of a native route that are made an object, and answered."""
    with connected(port) as peer:
        body = json.dumps({"sensor": "front", "value": 1.5, "count": 3}).encode()
        fields = ("content-type: application/json", f"content-length: {len(body)}")
        request = head("POST /readings", *fields) + body
        yield lambda count: [ask(peer, request) for _ in range(count)].clear()


def routed(port: int) -> Iterator[Operate]:
    """Requests of a native route."""
    with connected(port) as peer:
        request = head("GET /items/42?word=abc")
        yield lambda count: [ask(peer, request) for _ in range(count)].clear()


APPS: dict[str, dict[str, Callable[[int], Iterator[Operate]]]] = {
    "app": {
        "request": single,
        "pipelined request": pipelined,
        "WebSocket message": messages,
        "frame": frames,
        "posted body": posted,
    },
    "routes": {"native route": routed, "validated body": validated},
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("app", APPS)
def test_costs_are_as_expected(launch: Launch, tmp_path: Path, app: str) -> None:
    costs = instructions_and_allocations(launch, tmp_path, app)
    for name, calls in system_calls(launch, tmp_path, app).items():
        costs[name]["system calls"] = calls
    print(costs)
    python = ".".join(platform.python_version_tuple()[:2])
    recorded = json.loads(EXPECTED.read_text())
    entry = recorded.setdefault(python, {"toolchain": "", "costs": {}})
    if WRITES:
        entry["toolchain"] = toolchain()
        entry["costs"] |= costs
        EXPECTED.write_text(json.dumps(recorded, indent=2, sort_keys=True) + "\n")
    is_same = entry["toolchain"] == toolchain()
    tolerance = TOLERANCE if is_same else OTHER_TOOLCHAIN_TOLERANCE
    # Timers add a call or two to hundreds of operations.
    wanted = {
        name: pytest.approx(entry["costs"][name], rel=tolerance, abs=0.05) for name in APPS[app]
    }
    assert costs == wanted, "if that is meant, `task test:costs -- write` takes the new numbers"


def toolchain() -> str:
    """What the numbers depend on besides the code."""
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True)
    return f"{rustc.stdout.strip()}, Python {platform.python_version()}, {platform.libc_ver()[1]}"


def head(line: str, *fields: str) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "host: x", *fields, "", ""]).encode()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)


def serve(launch: Launch, app: str, through: tuple[str, ...] = ()) -> ServerProcess:
    words = ("--no-access-log", "--port", "0", "--lifespan", "off")
    # Sets and dicts are as deep in every run.
    extra = {"PYTHONHASHSEED": "0"}
    return launch(f"costs.costs_app:{app}", *words, through=through, extra=extra).wait_ready()


def instructions_and_allocations(
    launch: Launch, tmp_path: Path, app: str
) -> dict[str, dict[str, float]]:
    """Of one operation of each case, by callgrind."""
    out = tmp_path / "callgrind"
    tool = ("valgrind", "-q", "--tool=callgrind", "--trace-children=yes", "--instr-atstart=no")
    server = serve(launch, app, (*tool, f"--callgrind-out-file={out}"))

    def control(*words: str) -> None:
        command = ["callgrind_control", *words, str(server.pid)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert "OK" in done.stdout, done

    costs = {}
    control("-i", "on")
    for dump, (name, case) in enumerate(APPS[app].items(), start=1):
        with closing(case(server.port)) as cases:
            operate = next(cases)
            operate(WARM_UP)
            control("-z")
            operate(OPERATIONS)
            control("-d")
        profile = out.with_name(f"callgrind.{dump}").read_text()
        total = re.search(r"^summary: (\d+)", profile, re.M)
        assert total is not None
        costs[name] = {
            "instructions": round(int(total[1]) / OPERATIONS),
            "allocations": round(allocations(profile) / OPERATIONS, 2),
        }
    assert server.stop() == 0
    return costs


def allocations(profile: str) -> int:
    """Calls of allocators in a profile, where a name is a number after its first use."""
    names: dict[str, str] = {}
    called = ""
    calls = 0
    for line in profile.splitlines():
        if found := re.match(r"c?fn=\((\d+)\)(?: (.*))?", line):
            if found[2]:
                names[found[1]] = found[2]
            called = names[found[1]] if line.startswith("c") else ""
        elif line.startswith("calls=") and called in ALLOCATORS:
            calls += int(line[6:].split()[0])
    return calls


def system_calls(launch: Launch, tmp_path: Path, app: str) -> dict[str, float]:
    """Of one operation of each case, of the loop's thread, by strace.

    What the other threads do goes by the clock; what they were asked for is a call of the loop.
    """
    server = serve(launch, app)
    costs = {}
    for name, case in APPS[app].items():
        trace = tmp_path / "trace"
        with closing(case(server.port)) as cases:
            operate = next(cases)
            operate(WARM_UP)
            command = ["strace", "-qq", "-o", str(trace), "-p", str(server.pid)]
            tracer = subprocess.Popen(command)
            try:
                wait_until_traced(server.pid)
                operate(OPERATIONS)
            finally:
                tracer.send_signal(signal.SIGINT)
                tracer.wait(PATIENCE_SECONDS)
        calls = re.findall(r"^\w+\(", TIMER.sub("", trace.read_text()), re.M)
        costs[name] = round(len(calls) / OPERATIONS, 2)
    assert server.stop() == 0
    return costs


def wait_until_traced(pid: int) -> None:
    for _ in range(int(PATIENCE_SECONDS / 0.02)):
        if "TracerPid:\t0" not in Path(f"/proc/{pid}/status").read_text():
            return
        signal.sigtimedwait([], 0.02)
    pytest.fail("strace did not attach")
