"""Binding for real: families, overlaps, busy ports, inherited descriptors."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from framegate.config import Config
from framegate.errors import ListenError
from framegate.listener import Listeners, _explain, open_listeners, start_listening
from framegate.socket_holder import command_of, holder_of_port


@contextmanager
def listening(*binds: str, workers: int = 1, **options: Any) -> Iterator[Listeners]:
    if binds:
        options["bind"] = binds
    listeners = open_listeners(Config(app="a:b", workers=workers, **options))
    try:
        for sockets in listeners.of_worker:
            start_listening(sockets, 16)
        yield listeners
    finally:
        listeners.close()


def refuse(*binds: str, workers: int = 1, **options: Any) -> ListenError:
    with pytest.raises(ListenError) as caught:
        with listening(*binds, workers=workers, **options):
            pass
    return caught.value


def can_connect(family: int, host: str, port: int) -> bool:
    with socket.socket(family) as peer:
        peer.settimeout(10)
        return peer.connect_ex((host, port)) == 0


@pytest.fixture
def busy() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield holder.getsockname()[1]


class TestFamilies:
    @pytest.mark.parametrize("workers", [1, 3])
    @pytest.mark.parametrize("host", ["localhost", "LocalHost", "*"])
    def test_localhost_and_star_are_both_families_on_one_port(
        self, host: str, workers: int
    ) -> None:
        with listening(f"{host}:0", workers=workers) as listeners:
            (v4, port), (v6, port6) = listeners.addresses
            assert (v4, v6) == (("0.0.0.0", "::") if host == "*" else ("127.0.0.1", "::1"))
            assert port == port6 != 0
            assert can_connect(socket.AF_INET, "127.0.0.1", port)
            assert can_connect(socket.AF_INET6, "::1", port)
            assert [len(sockets) for sockets in listeners.of_worker] == [2] * workers
            for sockets in listeners.of_worker:
                assert [item.getsockname()[1] for item in sockets] == [port, port]

    def test_host_option_knows_the_same_names(self) -> None:
        with listening(host="localhost", port=0) as listeners:
            assert [address[0] for address in listeners.addresses] == ["127.0.0.1", "::1"]
        with listening(host="[::1]", port=0) as listeners:
            assert listeners.urls == [f"http://[::1]:{listeners.addresses[0][1]}"]

    def test_v6_wildcard_is_v6_alone(self) -> None:
        with listening("[::]:0") as listeners:
            ((_, port),) = listeners.addresses
            assert can_connect(socket.AF_INET6, "::1", port)
            assert not can_connect(socket.AF_INET, "127.0.0.1", port)

    def test_machine_without_v6_serves_v4(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = socket.socket

        class WithoutV6(socket.socket):
            def __init__(self, family: int = -1, *arguments: Any, **options: Any) -> None:
                if family == socket.AF_INET6:
                    raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
                super().__init__(family, *arguments, **options)

        monkeypatch.setattr("framegate.listener.socket.socket", WithoutV6)
        with listening("localhost:0") as listeners:
            ((host, port),) = listeners.addresses
            assert host == "127.0.0.1"
            monkeypatch.setattr("framegate.listener.socket.socket", real)
            assert can_connect(socket.AF_INET, "127.0.0.1", port)
        monkeypatch.setattr("framegate.listener.socket.socket", WithoutV6)
        assert "this machine has no IPv6" in refuse("[::1]:0").problem

    def test_free_port_is_one_that_is_free_in_both_families(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The first free ports of IPv4 are taken in IPv6: the search goes on.
        from framegate import listener

        real, refused = listener._bind_tcp, []

        def bind(family: int, address: Any, *, share: bool) -> socket.socket:
            if family == socket.AF_INET6 and len(refused) < 3:
                refused.append(address[1])
                raise OSError(errno.EADDRINUSE, "Address already in use")
            return real(family, address, share=share)

        monkeypatch.setattr(listener, "_bind_tcp", bind)
        with listening("localhost:0", workers=2) as listeners:
            (_, port), (_, port6) = listeners.addresses
            assert port == port6
            assert len(refused) == 3

    def test_link_local_address_without_its_interface_is_explained(self) -> None:
        error = refuse("[fe80::1]:8000")
        assert "link-local" in error.problem or "no address of this machine" in error.problem


class TestOverlap:
    def test_two_names_of_one_address(self, busy: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        error = refuse(f"127.0.0.1:{port}", f"localhost:{port}")
        assert error.problem == f"localhost:{port} and 127.0.0.1:{port} are the same address"
        error = refuse(f"0.0.0.0:{port}", f"127.0.0.1:{port}", workers=2)
        assert "overlap: one of them is all addresses" in error.problem
        with listening(f"127.0.0.1:{port}", f"127.0.0.2:{port}", f"[::1]:{port}") as listeners:
            assert len(listeners.addresses) == 3

    def test_one_descriptor_twice(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as bound:
            other = os.dup(bound.fileno())
            error = refuse(f"fd://{bound.fileno()}", f"fd://{other}")
            os.close(other)
        assert error.problem.endswith("are the same socket")

    def test_one_unix_path_twice(self, tmp_path: Path) -> None:
        error = refuse(f"unix:{tmp_path}/s", f"unix:{tmp_path}/./s")
        assert "another server listens" in error.problem
        assert f"held by pid {os.getpid()}" in error.cause
        assert not (tmp_path / "s").exists()


class TestBusyPort:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_names_who_holds_it(self, busy: int, workers: int) -> None:
        error = refuse(f"127.0.0.1:{busy}", workers=workers)
        assert error.problem == f"port {busy} on 127.0.0.1 is in use"
        # As it was started, which may have been by a relative path.
        word = Path("/proc/self/cmdline").read_text().split("\0")[0]
        assert f"held by pid {os.getpid()} ({word}" in error.cause
        assert "(0 takes a free one)" in error.fix

    def test_wildcard_meets_a_single_address(self, busy: int) -> None:
        error = refuse(f"0.0.0.0:{busy}")
        assert f"held by pid {os.getpid()}" in error.cause

    def test_holder_of_another_address_is_not_named(self, busy: int) -> None:
        assert holder_of_port(socket.AF_INET, "127.0.0.2", busy) == ""
        assert holder_of_port(socket.AF_INET6, "::1", busy) == ""
        assert holder_of_port(socket.AF_INET, "0.0.0.0", busy).startswith("held by pid")

    def test_dual_stack_holder_is_named(self) -> None:
        with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as holder:
            error = refuse(f"127.0.0.1:{holder.getsockname()[1]}")
        assert f"held by pid {os.getpid()}" in error.cause

    def test_failed_bind_leaves_nothing_open(self, busy: int, tmp_path: Path) -> None:
        # Warnings are errors: an unclosed socket would fail this test.
        refuse(f"unix:{tmp_path}/s", "127.0.0.1:0", f"127.0.0.1:{busy}", workers=2)
        assert list(tmp_path.iterdir()) == []

    def test_servers_that_start_at_once_do_not_share_a_port(self) -> None:
        # Both are bound and neither listens: SO_REUSEPORT would let both have it.
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        config = Config(app="a:b", workers=2, bind=(f"127.0.0.1:{port}",))
        with ExitStack() as stack:
            stack.callback(open_listeners(config).close)
            with pytest.raises(ListenError, match="is in use") as caught:
                open_listeners(config)
            assert f"held by pid {os.getpid()}" in caught.value.cause
        with listening(f"127.0.0.1:{port}", workers=2):  # closed: free again
            pass

    def test_command_is_shortened(self) -> None:
        assert len(command_of(os.getpid())) <= 80
        assert command_of(2**22 + 1) == "?"


@pytest.mark.parametrize(
    ("number", "problem", "fix"),
    [
        (errno.EACCES, "port 80 on 127.0.0.1 may not be bound by this user", "NET_BIND_SERVICE"),
        (errno.EADDRNOTAVAIL, "127.0.0.1 is no address of this machine", "ip address"),
        (errno.ENOBUFS, "cannot listen on 127.0.0.1 port 80", ""),
    ],
)
def test_error_that_root_does_not_meet_says_what_to_do(number: int, problem: str, fix: str) -> None:
    error = _explain(OSError(number, "reason"), socket.AF_INET, "127.0.0.1", 80)
    assert error.problem == problem
    assert fix in error.fix


@pytest.mark.parametrize(
    ("host", "problem", "fix"),
    [
        ("no.such.host.invalid", 'host "no.such.host.invalid" cannot be resolved', "check the"),
        ("256.1.1.1", 'host "256.1.1.1" cannot be resolved', "four numbers from 0 to 255"),
        ("203.0.113.1", "203.0.113.1 is no address of this machine", "ip address"),
    ],
)
def test_host_that_is_none_is_named(host: str, problem: str, fix: str) -> None:
    for error in (refuse(f"{host}:8000"), refuse(host=host)):
        assert error.problem == problem
        assert fix in error.fix


class TestInheritedDescriptor:
    def test_bound_and_listening_ones_are_served(self) -> None:
        with socket.socket() as bound, socket.create_server(("127.0.0.1", 0)) as listener:
            bound.bind(("127.0.0.1", 0))
            with listening(f"fd://{bound.fileno()}", f"fd://{listener.fileno()}") as listeners:
                assert listeners.addresses == [bound.getsockname(), listener.getsockname()]
            assert bound.fileno() >= 0  # ours is still open

    @pytest.mark.parametrize(
        ("make", "problem", "fix"),
        [
            (lambda: socket.socket(), "is not bound to an address", "bind()"),
            (lambda: socket.socket(socket.AF_UNIX), "is not bound to an address", "bind()"),
            (
                lambda: socket.socket(type=socket.SOCK_DGRAM),
                "is no stream socket, but SOCK_DGRAM",
                "ListenStream=",
            ),
            (lambda: socket.socketpair()[0], "is a connection", "Accept=no"),
            (lambda: open(os.devnull), "is no socket", "bound stream socket"),
            (
                lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
                "is a socket of family",
                "a TCP or a Unix socket",
            ),
        ],
    )
    @pytest.mark.filterwarnings("ignore::ResourceWarning")  # the other half of the pair
    def test_what_cannot_accept_is_refused(self, make: Any, problem: str, fix: str) -> None:
        with make() as item:
            for error in (
                refuse(f"fd://{item.fileno()}"),
                refuse(fd=item.fileno()),
            ):
                assert problem in error.problem
                assert fix in error.fix

    def test_closed_one_is_refused(self) -> None:
        error = refuse("fd://9999")
        assert error.problem == "fd://9999 cannot be used"
        assert "pass_fds" in error.fix
