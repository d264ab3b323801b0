"""Debian's Redis as a child of this process, on a Unix socket and with nothing on disk."""

import shutil
import subprocess
import time
from pathlib import Path

STARTUP_S = 10.0


def start(folder: str) -> Path:
    """Start it; the path of its socket."""
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("redis-server was not found; on Debian: apt-get install redis-server")
    path = Path(folder) / "redis.sock"
    subprocess.Popen(
        [program, "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no",
         "--dir", folder, "--loglevel", "warning"],
    )  # fmt: skip
    deadline = time.monotonic() + STARTUP_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise SystemExit("redis-server does not listen")
        time.sleep(0.01)
    return path
