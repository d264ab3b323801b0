"""Whose memory the Rust code takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from server_process import Launch

NAME = "FRAMEGATE_ALLOCATOR"
#: What mimalloc reserves at a time, and never fills: a mapping that nothing else here makes.
RESERVED_BYTES = 1 << 30


def reserves(pid: int) -> bool:
    """A mapping of that size is in the process."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ 00:00 ", line):
            begin, end = (int(place, 16) for place in found.groups())
            if end - begin >= RESERVED_BYTES:
                return True
    return False


@pytest.mark.parametrize(
    ("choice", "own"), [({}, True), ({NAME: ""}, True), ({NAME: "system"}, False)]
)
def test_small_pieces_are_mimallocs_unless_the_system_is_asked_for(
    launch: Launch, choice: dict[str, str], own: bool
) -> None:
    server = launch("supervised_apps:app", "--no-access-log", extra=choice).wait_ready()
    assert server.get("/pid") == str(server.pid)
    assert reserves(server.pid) is own
    assert NAME not in server.text
    assert server.stop() == 0
