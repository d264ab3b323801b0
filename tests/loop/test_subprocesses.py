"""Subprocesses and child watchers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from loop.helpers import Run

COPY = "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.stderr.write('error')"


def test_pipes_of_a_subprocess(run: Run) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", COPY,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        payload = b"text" * 50_000
        out, err = await process.communicate(payload)
        assert (out, err, process.returncode) == (payload.upper(), b"error", 0)

    run(main())


def test_shells_and_exit_codes(run: Run) -> None:
    async def main() -> list[int]:
        processes = [await asyncio.create_subprocess_shell(f"exit {n}") for n in range(4)]
        return [await process.wait() for process in processes]

    assert run(main()) == [0, 1, 2, 3]


def test_a_killed_subprocess_reports_its_signal(run: Run) -> None:
    async def main() -> int:
        process = await asyncio.create_subprocess_exec("sleep", "60")
        process.kill()
        return await process.wait()

    assert run(main()) == -signal.SIGKILL


def test_a_child_does_not_inherit_descriptors_of_the_loop(run: Run) -> None:
    async def main() -> bytes:
        process = await asyncio.create_subprocess_exec(
            "ls", "-l", "/proc/self/fd", stdout=asyncio.subprocess.PIPE, close_fds=False
        )
        out, _ = await process.communicate()
        return out

    out = run(main()).decode()
    assert "anon_inode" not in out
    assert len([line for line in out.splitlines() if "socket:" in line]) <= 1


def test_every_child_watcher_of_this_python_works(run: Run) -> None:
    if sys.version_info >= (3, 12):
        # Watchers are deprecated: asyncio chooses between pidfd and thread by itself.
        names = [""]
    else:
        names = ["ThreadedChildWatcher", "PidfdChildWatcher", "SafeChildWatcher"]

    async def main() -> int:
        process = await asyncio.create_subprocess_exec("sh", "-c", "exit 7")
        return await process.wait()

    for name in names:
        if not name:
            assert run(main()) == 7
            continue
        policy = asyncio.get_event_loop_policy()
        watcher = getattr(asyncio, name)()
        if name == "PidfdChildWatcher" and not hasattr(os, "pidfd_open"):
            continue

        async def watched(watcher: asyncio.AbstractChildWatcher = watcher) -> int:
            watcher.attach_loop(asyncio.get_running_loop())
            try:
                return await main()
            finally:
                watcher.attach_loop(None)

        policy.set_child_watcher(watcher)
        try:
            assert run(watched()) == 7, name
        finally:
            policy.set_child_watcher(None)  # type: ignore[arg-type]
            watcher.close()


@pytest.mark.parametrize("count", [20])
def test_many_subprocesses_at_once(run: Run, count: int) -> None:
    async def one(number: int) -> bytes:
        process = await asyncio.create_subprocess_exec(
            "echo", str(number), stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        return out

    async def main() -> list[bytes]:
        return await asyncio.gather(*(one(number) for number in range(count)))

    assert run(main()) == [b"%d\n" % number for number in range(count)]
