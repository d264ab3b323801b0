"""Errors of sockets that a privileged test run would not meet."""

from __future__ import annotations

import errno

import pytest

from framegate.config import Config
from framegate.errors import ListenError
from framegate.listener import _explain, open_listeners


@pytest.mark.parametrize(
    ("number", "problem", "fix"),
    [
        (errno.EACCES, "port 80 on 127.0.0.1 may not be bound by this user", "a higher --port"),
        (errno.EADDRNOTAVAIL, "127.0.0.1 is no address of this machine", "ip address"),
        (errno.ENOBUFS, "cannot listen on 127.0.0.1 port 80", ""),
    ],
)
def test_error_says_what_to_do(number: int, problem: str, fix: str) -> None:
    error = _explain(OSError(number, "reason"), ("127.0.0.1", 80))
    assert error.problem == problem
    assert fix in error.fix


def test_name_that_does_not_resolve_is_named() -> None:
    with pytest.raises(ListenError, match=r'host "no\.such\.host\.invalid" cannot be resolved'):
        open_listeners(Config(host="no.such.host.invalid"))


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
