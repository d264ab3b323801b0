"""The sockets of several workers."""

from __future__ import annotations

import pytest

from framegate.config import Config
from framegate.errors import ListenError
from framegate.listener import open_listeners


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
