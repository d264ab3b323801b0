"""A subscriber that is closed by another thread just when a loop begins to wait for it."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest
import trio

from framegate.shm import _EventFd


@pytest.fixture
def pipe() -> tuple[int, int]:
    return os.pipe()


def failing_dup(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def dup(_: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "dup", dup)


def test_closed_before_its_descriptor_was_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_dup(monkeypatch, errno.EBADF)
    assert asyncio.run(_EventFd().wait_readable(0, None))


def test_too_many_open_files_is_still_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_dup(monkeypatch, errno.EMFILE)
    with pytest.raises(OSError, match="Too many open files"):
        asyncio.run(_EventFd().wait_readable(0, None))


def test_closed_before_anybody_waited(pipe: tuple[int, int]) -> None:
    event = _EventFd()
    event.close()
    # Nothing will ever be readable there: it may be somebody else's by now.
    assert asyncio.run(event.wait_readable(pipe[0], None))
    assert event._fd < 0
    for end in pipe:
        os.close(end)


def test_closed_in_trio_before_anybody_waited(pipe: tuple[int, int]) -> None:
    event = _EventFd()
    event.close()
    assert trio.run(event.wait_readable, pipe[0], None)
    assert event._fd < 0
    for end in pipe:
        os.close(end)
