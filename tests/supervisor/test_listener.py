"""The sockets of several workers."""

from __future__ import annotations

import socket

import pytest

from framegate.config import Config
from framegate.errors import ListenError
from framegate.listener import UNSENT_BYTES_MAX, open_listeners, start_listening


def test_several_workers_get_sockets_of_the_same_port() -> None:
    listeners = open_listeners(Config(app="a:b", port=0, workers=3))
    ports = {sockets[0].getsockname()[1] for sockets in listeners.of_worker}
    assert len(listeners.of_worker) == 3
    assert ports == {listeners.addresses[0][1]}
    listeners.close()


def test_failed_bind_leaves_no_socket_open() -> None:
    # Warnings are errors: an unclosed socket would fail this test.
    with pytest.raises(ListenError):
        open_listeners(Config(app="a:b", host="203.0.113.1", workers=3))


def test_the_kernel_holds_little_for_a_client_that_does_not_read() -> None:
    listeners = open_listeners(Config(app="a:b", port=0))
    (bound,) = listeners.of_worker[0]
    start_listening([bound], 16)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(bound.getsockname())
        accepted, _ = bound.accept()
        with accepted:
            accepted.setblocking(False)
            taken = 0
            with pytest.raises(BlockingIOError):
                while True:
                    taken += accepted.send(bytes(2**16))
    listeners.close()
    assert taken < 2 * UNSENT_BYTES_MAX
