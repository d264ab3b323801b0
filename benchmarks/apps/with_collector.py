"""Start a collector of spans, then become the server that reports to it.

python with_collector.py RATIO COMMAND...

The collector takes what comes by OTLP over HTTP and looks at nothing. It is in a session of its own
and on the other cores, so that its CPU is not the server's, and ends with the server.
"""

import os
import re
import select
import socket
import subprocess
import sys


def collect(listener: socket.socket, life: int) -> None:
    """Answer every message, until the other end of `life` is gone."""
    others = set(range(os.cpu_count() or 1)) - os.sched_getaffinity(0)
    if others:
        os.sched_setaffinity(0, others)
    received: dict[int, tuple[socket.socket, bytearray]] = {}
    poll = select.poll()
    for watched in (life, listener.fileno()):
        poll.register(watched, select.POLLIN)
    while True:
        for found, _ in poll.poll():
            if found == life:
                return
            if found == listener.fileno():
                peer, _ = listener.accept()
                received[peer.fileno()] = (peer, bytearray())
                poll.register(peer, select.POLLIN)
                continue
            peer, data = received[found]
            piece = peer.recv(1 << 20)
            data += piece
            if not piece:
                poll.unregister(peer)
                del received[found]
                peer.close()
                continue
            while (end := data.find(b"\r\n\r\n")) >= 0:
                length = re.search(rb"content-length: (\d+)", data[:end], re.I)
                assert length is not None, data[:end]
                whole = end + 4 + int(length[1])
                if len(data) < whole:
                    break
                del data[:whole]
                peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


def main() -> None:
    """Be the collector, or start it and become the server."""
    if sys.argv[1] == "--collect":
        collect(socket.socket(fileno=int(sys.argv[2])), int(sys.argv[3]))
        return
    ratio, *command = sys.argv[1:]
    listener = socket.create_server(("127.0.0.1", 0))
    life, ours = os.pipe()
    fds = (listener.fileno(), life)
    subprocess.Popen(
        [sys.executable, __file__, "--collect", *map(str, fds)],
        pass_fds=fds,
        start_new_session=True,
    )
    os.close(life)
    os.set_inheritable(ours, True)
    os.environ |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{listener.getsockname()[1]}",
        "OTEL_TRACES_SAMPLER": "traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": ratio,
    }
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
