"""What programs that measure themselves share: their words, and a server started on a core."""

import argparse
import os
import re
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from framegate_bench.processes import free_port, running
from framegate_bench.procfs import session_pids
from framegate_bench.question import Server

PATIENCE_S = 60.0


def read_words(
    description: str | None, servers: Collection[str], kinds: Collection[str] = ()
) -> argparse.Namespace:
    """What `comparison.program` puts behind a program: `server`, `kind` where there are several,
    `bin`, `tools`, `server_core`, `load_core`, `seconds`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("server", choices=servers)
    parser.add_argument("--bin", type=Path, required=True)
    parser.add_argument("--tools", type=Path, required=True)
    if kinds:
        parser.add_argument("kind", choices=kinds)
    parser.add_argument("--cores", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    words = parser.parse_args()
    words.server_core, words.load_core = map(int, words.cores.split(","))
    return words


def connect(port: int) -> socket.socket:
    """Wait until the server is there."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def pss(pid: int) -> int:
    """Bytes that a process has to itself, and its share of the rest."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+)", text, re.M)
    assert found is not None, "the kernel says it of every process"
    return int(found[1]) * 1024


def session_pss(session: int) -> int:
    """The same of all processes of a session."""
    return sum(map(pss, session_pids(session)))


def scratch_folder() -> Path:
    """The folder that the runner has made for this program."""
    return Path(os.environ["BENCH_FOLDER"])


@contextmanager
def serving(
    server: Server, words: argparse.Namespace, through: tuple[str, ...] = ()
) -> Iterator[tuple[int, int]]:
    """Its session and port, once it accepts connections; `through` is what it is started by."""
    port = free_port()
    programs = words.tools if server.venv is None else words.bin
    places = {"bin": str(programs), "port": str(port), "folder": ""}
    command = [*through, *(word.format(**places) for word in server.command)]
    log = scratch_folder() / "server.log"
    # Dicts are as deep in every run; applications are found by the runner's PYTHONPATH.
    environment = {"PYTHONHASHSEED": "0"}
    with running(command, core=words.server_core, log=log, environment=environment) as process:
        connect(port).close()
        yield process.pid, port
