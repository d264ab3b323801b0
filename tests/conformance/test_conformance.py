"""Every case of the suite on framegate, over every transport that it has."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from conformance import application  # registers the cases
from conformance.lifespans import LIFESPANS
from conformance.peer import Peer
from conformance.process import FRAMEGATE, FRAMEGATE_TLS, Running, certificate
from conformance.registry import CASES, TRANSPORTS, Case
from framegate.config import Config

#: Transports that this build serves.
SERVED = [
    transport
    for transport in TRANSPORTS
    if not transport.endswith("-tls") or hasattr(Config(), "ssl_certfile")
]

assert application.app


@dataclass
class Servers:
    """One server for all plain transports, one for all with TLS; started when they are needed."""

    directory: Path
    running: dict[bool, Running]

    def port(self, transport: str) -> int:
        tls = transport.endswith("-tls")
        if tls not in self.running:
            template, places = FRAMEGATE, {}
            if tls:
                cert, key = certificate(self.directory)
                template += " " + FRAMEGATE_TLS
                places = {"cert": str(cert), "key": str(key)}
            self.running[tls] = Running(template, sys.executable, **places).wait_ready()
        return self.running[tls].port


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("conformance"), {})
    yield servers
    for server in servers.running.values():
        server.stop()
        print(server.text)
        server.close()


def cases() -> Iterator[object]:
    for case in CASES.values():
        for transport in SERVED:
            if transport in case.transports:
                yield pytest.param(case, transport, id=f"{case.name}-{transport}")


@pytest.mark.parametrize(("case", "transport"), list(cases()))
def test_case(case: Case, transport: str, servers: Servers) -> None:
    # `NotOfferedError` fails here: framegate offers everything.
    assert case.check is not None
    with Peer(transport, servers.port(transport), case.name, str(servers.directory)) as peer:
        case.check(peer)


@pytest.mark.parametrize("name", list(LIFESPANS))
def test_lifespan(name: str) -> None:
    started: list[Running] = []

    def start(app: str) -> Running:
        template = FRAMEGATE.replace("--lifespan on", "--lifespan auto")
        server = Running(template, sys.executable, f"conformance.lifespans:{app}")
        started.append(server)
        return server

    check: Callable[[Callable[[str], Running]], None] = LIFESPANS[name][1]
    try:
        check(start)
    finally:
        for server in started:
            server.close()


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 100
    assert all(case.check for case in CASES.values())
    everywhere = [case for case in CASES.values() if len(case.transports) == len(TRANSPORTS)]
    assert len(everywhere) >= 100
