"""Networks of namespaces: each host has its own, with a wire to a hub. Needs root and iproute2."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bridge.conftest import Host

# CI sets the variable: there such a test fails instead of being left out, unless the kernel has no
# TUN devices.
needs_namespaces = pytest.mark.skipif(
    not os.path.exists("/dev/net/tun")
    or (
        (os.geteuid() != 0 or not shutil.which("ip"))
        and "FRAMEGATE_TESTS_AS_ROOT" not in os.environ
    ),
    reason=(
        "bridges between networks are NOT tested: run pytest as root, with `ip` (iproute2) and "
        "/dev/net/tun"
    ),
)

PORT = 7447
WIRE = Path(__file__).with_name("wire_between.py")


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


@dataclass
class _Link:
    device: str
    """At the hub."""
    process: subprocess.Popen[str]

    def say(self, **how: float) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(how), file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "changed\n"

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Network:
    """A hub, and hosts around it. What a host sends and gets passes its wire."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._mark = secrets.token_hex(3)
        self._hub = self._namespace("hub")
        self._links: dict[str, _Link] = {}

    def _namespace(self, name: str) -> str:
        namespace = f"fg-{self._mark}-{name}"
        _run("ip", "netns", "add", namespace)
        self._stack.callback(_run, "ip", "netns", "delete", namespace)
        _run("ip", "-n", namespace, "link", "set", "lo", "up")
        return namespace

    def be_hub(self, host: Host) -> str:
        """Let the host be the hub; the endpoint on which it listens."""
        host.prefix = ["ip", "netns", "exec", self._hub]
        return f"tcp/0.0.0.0:{PORT}"

    def join(self, host: Host) -> str:
        """Give the host a namespace and a wire; the endpoint of the hub as the host sees it."""
        number = len(self._links) + 1
        namespace, device = self._namespace(host.name), f"wire{number}"
        wire = subprocess.Popen(
            [sys.executable, str(WIRE), self._hub, device, namespace, "wire"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._links[host.name] = link = _Link(device, wire)
        self._stack.callback(link.close)
        assert wire.stdout is not None
        assert wire.stdout.readline() == "up\n"
        near, far = f"10.77.{number}.2", f"10.77.{number}.1"
        for where, which, own, other in (
            (self._hub, device, far, near),
            (namespace, "wire", near, far),
        ):
            _run("ip", "-n", where, "address", "add", own, "peer", other, "dev", which)
            # Large packets, so that a wire in Python is no bottleneck of its own.
            _run("ip", "-n", where, "link", "set", which, "mtu", "9000", "up")
        host.prefix = ["ip", "netns", "exec", namespace]
        return f"tcp/{far}:{PORT}"

    def shape(self, host: Host, **how: float) -> None:
        """What the wire does in both directions; see wire_between.py."""
        self._links[host.name].say(**how)

    def cut(self, host: Host) -> None:
        """Nothing passes, and nobody is told."""
        self.shape(host, loss=1)

    def heal(self, host: Host) -> None:
        """Everything passes again."""
        self.shape(host, loss=0)

    def unplug(self, host: Host) -> None:
        """The hub's device goes down."""
        _run("ip", "-n", self._hub, "link", "set", self._links[host.name].device, "down")

    def plug(self, host: Host) -> None:
        """It comes up again."""
        _run("ip", "-n", self._hub, "link", "set", self._links[host.name].device, "up")


@pytest.fixture
def network() -> Iterator[Network]:
    with contextlib.ExitStack() as stack:
        yield Network(stack)
