"""Workers that have served long enough are replaced like those of a reload."""

from __future__ import annotations

import mmap
import os
import random

import pytest

from framegate.config import Config
from framegate.recycling import Allotment, Usage
from framegate.system import private_bytes
from server_process import Launch
from supervisor.load import Load

APP = "supervised_apps:app"
NOTHING = Usage(requests=0, seconds=0, memory_bytes=0)


def allotment(**options: object) -> Allotment:
    return Allotment.draw(Config(app="a:b", **options), random.Random(1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "below", "at", "reason"),
    [
        ({"limit_max_requests": 10}, Usage(9, 0, 0), Usage(10, 0, 0), "10 requests of 10"),
        ({"limit_max_lifetime": 60}, Usage(0, 59, 0), Usage(0, 60, 0), "lived for 60 s of 60"),
        (
            {"limit_max_rss": 2**30},
            Usage(0, 0, 2**30 - 1),
            Usage(0, 0, 2**30),
            "1024 MiB of memory and may have 1024",
        ),
    ],
)
def test_each_limit_has_two_sides(
    options: dict[str, object], below: Usage, at: Usage, reason: str
) -> None:
    assert allotment(**options).spent(below) == ""
    assert reason in allotment(**options).spent(at)
    assert allotment().spent(at) == ""


def test_jitter_spreads_workers_and_never_shortens() -> None:
    config = Config(app="a:b", limit_max_requests=100, limit_max_requests_jitter=50)
    chance = random.Random(1)
    drawn = {Allotment.draw(config, chance).requests for _ in range(1000)}
    assert drawn == set(range(100, 151))


def test_jitter_alone_limits_nothing() -> None:
    assert allotment(limit_max_requests_jitter=5).spent(Usage(10**9, 0, 0)) == ""


def test_memory_counts_what_the_process_has_for_itself() -> None:
    size = 32 << 20
    before = private_bytes(os.getpid())
    # Not from the heap, which may have as much to spare.
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as data:
        data.write(b"x" * size)
        assert private_bytes(os.getpid()) - before > size * 0.9
    assert private_bytes(0) == 0


def test_replaced_by_requests_without_losing_one(launch: Launch) -> None:
    words = ("--limit-max-requests", "100", "--limit-max-requests-jitter", "20")
    server = launch(APP, "--workers", "2", "--no-access-log", *words).wait_ready()
    with Load(server.port) as load:
        server.wait_for(r"worker 1 \(pid \d+\) is replaced: it has served \d+ requests of 1[0-2]\d")
        server.wait_for(r"worker 1: pid \d+ serves in place of pid")
        server.wait_for(r"worker 2: pid \d+ serves in place of pid")
    assert load.errors == []
    assert server.stop() == 0


def test_one_worker_gets_a_supervisor_for_it(launch: Launch) -> None:
    server = launch(APP, "--limit-max-lifetime", "0.5").wait_ready()
    (pid,) = server.worker_pids
    assert pid != server.pid
    server.wait_for(rf"worker 1 \(pid {pid}\) is replaced: it has lived for \d+ s of 0.5")
    server.wait_for(rf"worker 1: pid \d+ serves in place of pid {pid}")
    assert server.stop() == 0


def test_replaced_by_memory(launch: Launch) -> None:
    server = launch(APP, "--limit-max-rss", "100MiB").wait_ready()
    (pid,) = server.worker_pids
    for _ in range(2):
        server.get("/leak")
    server.wait_for(rf"\(pid {pid}\) is replaced: it has \d+ MiB of memory and may have 100")
    server.wait_for(rf"serves in place of pid {pid}")
    assert server.stop() == 0
