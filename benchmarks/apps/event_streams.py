"""CPU time of a server for an event, and its memory for a stream, of many that are open.

`event_streams.py SERVER --bin FOLDER --tools FOLDER --cores S,L --seconds T` prints one line of
JSON.
"""

import json
import os
import resource
import selectors
import socket
import time

from framegate_bench import servers
from framegate_bench.own_server import connect, read_words, serving, session_pss
from framegate_bench.procfs import session_usage

SERVERS = servers.by_asgi("events_app:app")
STREAMS = 1000
WARM_UP = 20
REQUEST = b"GET /events HTTP/1.1\r\nhost: example.com\r\n\r\n"
END = b"\n\n"


def open_streams(port: int, count: int) -> list[socket.socket]:
    """So many streams, each with its first event."""
    streams = []
    for _ in range(count):
        stream = connect(port)
        stream.sendall(REQUEST)
        streams.append(stream)
    for stream in streams:
        received = b""
        while END not in received.partition(b"\r\n\r\n")[2]:
            piece = stream.recv(65536)
            assert piece, received
            received += piece
        stream.setblocking(False)
    return streams


def take_events(selector: selectors.BaseSelector, seconds: float) -> int:
    """How many events come in that time."""
    events = 0
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        for key, _ in selector.select(left):
            piece = key.fileobj.recv(65536)
            assert piece, "a stream has ended"
            events += piece.count(END)
    return events


def main() -> None:
    """Measure, print the numbers."""
    words = read_words(__doc__, SERVERS)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.sched_setaffinity(0, {words.load_core})
    with serving(SERVERS[words.server], words) as (session, port):
        streams = open_streams(port, WARM_UP)
        before = session_pss(session)
        streams += open_streams(port, STREAMS)
        selector = selectors.DefaultSelector()
        for stream in streams:
            selector.register(stream, selectors.EVENT_READ)
        take_events(selector, 1.0)
        stream_bytes = (session_pss(session) - before) / STREAMS
        cpu_s = session_usage(session).cpu_s
        events = take_events(selector, words.seconds)
        cpu_s = session_usage(session).cpu_s - cpu_s
        for stream in streams:
            stream.close()
    print(json.dumps({"cpu_us": cpu_s / events * 1e6, "stream_bytes": stream_bytes}))


if __name__ == "__main__":
    main()
