"""Start a process on a core, and end it, with all it started, whatever happens."""

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from framegate_bench.procfs import session_pids

GRACE_S = 5.0


class BenchError(Exception):
    """Something could not be measured; the message says what and why."""


def free_port() -> int:
    """A port that was free just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str | Path],
    *,
    core: int,
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    piped: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process pinned to `core`, in a session of its own, that is ended on leaving.

    Its standard error (and output, unless `piped`) goes to `log`. It dies with the driver even when
    that is killed.
    """
    # Both replace themselves by what they are to start: the process has the number that we see.
    prefix = ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", str(core)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        output.write(f"\n$ {' '.join(map(str, command))}\n".encode())
        output.flush()
        process = subprocess.Popen(
            prefix + [str(word) for word in command],
            stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else output,
            stderr=output,
            env={**os.environ, **(environment or {})},
            cwd=folder,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to stop, then kill by number what is left of its session."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    # Killed is not yet gone, and a process that is just starting another is asked twice.
    deadline = time.monotonic() + GRACE_S
    while (pids := session_pids(process.pid)) and time.monotonic() < deadline:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()
    process.wait(GRACE_S)


def read_line(process: subprocess.Popen[bytes], timeout_s: float, log: Path) -> str:
    """The next line of a piped process; whole lines are what ours write."""
    assert process.stdout is not None, "the process was started with piped=True"
    ready, _, _ = select.select([process.stdout], [], [], timeout_s)
    line = process.stdout.readline().decode() if ready else ""
    if line:
        return line
    if ready:
        process.wait(GRACE_S)
        raise BenchError(f"{log.stem} ended with {process.returncode}: {last_words(log)}")
    raise BenchError(f"{log.stem} said nothing for {timeout_s:.0f} s: {last_words(log)}")


def write_line(process: subprocess.Popen[bytes], text: str) -> None:
    """Send a line to a piped process."""
    assert process.stdin is not None, "the process was started with piped=True"
    process.stdin.write(text.encode() + b"\n")
    process.stdin.flush()


def last_words(log: Path) -> str:
    """The last line behind the last command in a log, for an error message."""
    said = log.read_text(errors="replace").rpartition("\n$ ")[2].strip().splitlines()[1:]
    return said[-1].strip()[:300] if said else f"no message (log: {log})"
