"""Servers under test, started by a command template.

A template names `{app}` and `{port}`; what is added for TLS names `{cert}` and `{key}`. The
command runs in a process group of its own with `tests/` on its path.
"""

from __future__ import annotations

import os
import random
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

__all__ = ["FRAMEGATE", "FRAMEGATE_TLS", "Running", "certificate"]

TESTS = Path(__file__).parent.parent
FRAMEGATE = "{python} -m framegate serve {app} --port {port} --lifespan on"
FRAMEGATE_TLS = "--ssl-certfile {cert} --ssl-keyfile {key}"
STARTUP_SECONDS = 30.0
STOP_SECONDS = 10.0


def certificate(directory: Path) -> tuple[Path, Path]:
    """Make a certificate for localhost and its key."""
    cert, key = directory / "cert.pem", directory / "key.pem"
    subject = "-subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 "
        f"-keyout {key} -out {cert} {subject}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return cert, key


def free_port() -> int:
    """Return a port that nobody uses, outside of the range that the kernel gives out."""
    while True:
        port = random.SystemRandom().randrange(15_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Running:
    """A server process."""

    def __init__(
        self,
        template: str,
        python: str,
        app: str = "conformance.application:app",
        **places: str,
    ) -> None:
        self.port = free_port()
        self.directory = tempfile.TemporaryDirectory(prefix="conformance-")
        self.log = Path(self.directory.name, "log")
        command = [
            word.format(app=app, port=self.port, python=python, **places)
            for word in shlex.split(template)
        ]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("FRAMEGATE_")
        }
        environment |= {
            "PYTHONPATH": str(TESTS),
            "FRAMEGATE_RUNTIME_DIR": str(Path(self.directory.name, "run")),
            # Programs of the interpreter's environment first: a template may name them alone.
            "PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.directory.name,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self) -> Running:
        """Wait until it accepts connections."""
        poll = threading.Event()
        for _ in range(int(STARTUP_SECONDS / 0.05)):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return self
            except OSError:
                if self.process.poll() is not None:
                    break
                poll.wait(0.05)  # nothing that any server tells
        self.stop()
        raise RuntimeError(f"the server did not start:\n{self.text}")

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, seconds: float = STARTUP_SECONDS) -> int:
        """Wait for its own end; return the exit status."""
        return self.process.wait(seconds)

    def stop(self) -> int:
        """End it, by force if need be; return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()

    def close(self) -> None:
        """End it and forget its files."""
        if self.process.poll() is None:
            self.stop()
        self.directory.cleanup()
