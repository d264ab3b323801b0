"""CPU time of a server for each of many TLS connections that ask for a greeting.

`tls_handshakes.py SERVER --bin FOLDER --tools FOLDER whole|resumed --cores S,L --seconds T` prints
one line of JSON. The request is there because tickets come behind the handshake; it costs every
server little beside it.
"""

import json
import os
import socket
import ssl
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from framegate_bench import servers
from framegate_bench.own_server import PATIENCE_S, read_words, scratch_folder, serving
from framegate_bench.procfs import session_usage
from framegate_bench.question import Server

APP = "hello_app:app"
WARM_UP = 50
REQUEST = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
END = b"Hello, world!"


def secured(name: str, certificate: Path, key: Path) -> Server:
    """The server in TLS."""
    words = ("--ssl-certfile", str(certificate), "--ssl-keyfile", str(key))
    if name == "framegate":
        return servers.framegate(APP, options=words)
    if name == "granian":
        return servers.granian(APP, ("--ssl-certificate", *words[1:]))
    uvicorn = servers.uvicorn(APP)
    return replace(uvicorn, command=(*uvicorn.command, *words))


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of ECDSA P-256 that signs itself, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
        "-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
        "-days", "2", "-keyout", str(key), "-out", str(certificate),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)
    return certificate, key


class Client:
    """Connects, asks, goes away."""

    def __init__(self, port: int, certificate: Path, *, resumes: bool) -> None:
        self.port = port
        self.context = ssl.create_default_context(cafile=str(certificate))
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.resumes = resumes
        self.session: ssl.SSLSession | None = None

    def ask(self) -> None:
        """One connection with one request."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        with self.context.wrap_socket(
            plain, server_hostname="localhost", session=self.session
        ) as peer:
            assert peer.session_reused == (self.session is not None)
            peer.sendall(REQUEST)
            answer = b""
            while not answer.endswith(END):
                piece = peer.recv(65536)
                assert piece, answer
                answer += piece
            if self.resumes:
                self.session = peer.session


def main() -> None:
    """Measure, print the numbers."""
    words = read_words(__doc__, ("framegate", "granian", "uvicorn"), ("whole", "resumed"))
    os.sched_setaffinity(0, {words.load_core})
    certificate, key = make_certificate(scratch_folder())
    with serving(secured(words.server, certificate, key), words) as (session, port):
        client = Client(port, certificate, resumes=words.kind == "resumed")
        for _ in range(WARM_UP):
            client.ask()
        before, count = session_usage(session).cpu_s, 0
        deadline = time.monotonic() + words.seconds
        while time.monotonic() < deadline:
            client.ask()
            count += 1
        cpu_s = session_usage(session).cpu_s - before
    print(json.dumps({"cpu_us": cpu_s / count * 1e6}))


if __name__ == "__main__":
    main()
