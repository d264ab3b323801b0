"""How many cores may be used: affinity, and quotas of control groups of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from framegate.cores import quota_cores, usable_cores
from server_process import Launch

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "31 23 0:27 {top} /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"


class Machine:
    """A /proc/self and a tree of control groups."""

    def __init__(self, directory: Path, groups: str, mounts: str) -> None:
        self.root = directory
        self.proc = directory / "proc"
        self.proc.mkdir()
        (self.proc / "cgroup").write_text(groups)
        (self.proc / "mountinfo").write_text(mounts)

    def write(self, path: str, text: str) -> None:
        file = self.root / "sys/fs/cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")

    @property
    def cores(self) -> float | None:
        return quota_cores(self.proc, self.root)


def test_version_2_binds_with_the_smallest_quota_of_all_groups_above(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/site/web\n", V2)
    machine.write("site/web/cpu.max", "400000 100000")
    assert machine.cores == 4
    machine.write("site/cpu.max", "150000 100000")
    assert machine.cores == 1.5
    machine.write("site/web/cpu.max", "max 100000")
    assert machine.cores == 1.5
    machine.write("site/cpu.max", "max 100000")
    assert machine.cores is None


def test_version_2_in_a_container_that_sees_its_own_group_only(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/docker/0123\n", V2)
    machine.write("cpu.max", "200000 100000")
    assert machine.cores == 2


@pytest.mark.parametrize("top", ["/", "/docker"])
def test_version_1(tmp_path: Path, top: str) -> None:
    groups = "5:memory:/elsewhere\n4:cpu,cpuacct:/docker/0123\n0::/\n"
    machine = Machine(tmp_path, groups, V1.format(top=top))
    below = f"cpu{'/docker' if top == '/' else ''}/0123"
    machine.write(f"{below}/cpu.cfs_period_us", "50000")
    machine.write(f"{below}/cpu.cfs_quota_us", "-1")
    assert machine.cores is None
    machine.write(f"{below}/cpu.cfs_quota_us", "150000")
    assert machine.cores == 3


def test_nonsense_is_no_quota(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/web\nnonsense\n", V2 + "nonsense\n")
    machine.write("web/cpu.max", "lots")
    assert machine.cores is None
    assert quota_cores(tmp_path / "missing", tmp_path) is None


def test_cores_are_those_of_the_affinity_mask() -> None:
    allowed = os.sched_getaffinity(0)
    assert 1 <= usable_cores() <= len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_no_number_of_workers_is_one_per_core(launch: Launch) -> None:
    server = launch("supervised_apps:app", "--workers", "0").wait_ready()
    assert len(server.worker_pids) == usable_cores()
    assert server.stop() == 0
