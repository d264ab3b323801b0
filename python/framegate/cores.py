"""How many cores this process may really use: `--workers 0` starts a worker for each.

The smaller one of two numbers:

- the affinity mask (taskset, `cpuset` of a container), which the kernel answers itself;
- the CPU quota of the control groups that this process is in: of containers, of systemd's
  `CPUQuota=`, of CI machines. `os.cpu_count()` knows nothing of it, and a server with 64 workers in
  a container with two cores' worth of time spends its quota at once and stands still for the rest
  of each period.

Quotas bind together with those of all groups above. Version 2 has `cpu.max` (`200000 100000`, or
`max`) in each directory of the one tree; version 1 has `cpu.cfs_quota_us` (-1: none) and
`cpu.cfs_period_us` in the tree of the controller `cpu`. /proc/self/mountinfo tells where a tree is
mounted, /proc/self/cgroup which directory of it is ours. A container may see the tree from its own
group downwards, so that the path does not exist below the mount: then the mount is our group.

A fraction of a core is rounded down, but for the first: a worker that does not fit waits in a
throttled group for up to a tenth of a second again and again.

macOS has neither masks nor such groups: there it is the number of cores.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from framegate import system

__all__ = ["quota_cores", "usable_cores"]

_PROC: Final = Path("/proc/self")


def usable_cores() -> int:
    """Return the number of cores that this process may use at once; at least 1."""
    cores = system.allowed_cores()
    quota = quota_cores()
    if quota is not None:
        cores = min(cores, int(quota))
    return max(1, cores)


def quota_cores(proc: Path = _PROC, root: Path = Path("/")) -> float | None:
    """Return how many cores' worth of time the control groups grant, or None without a limit.

    Args:
        proc: Directory of the process in /proc.
        root: Where the paths of mounts begin.
    """
    quotas = list(_quotas(proc, root))
    return min(quotas) if quotas else None


def _quotas(proc: Path, root: Path) -> Iterator[float]:
    try:
        groups = (proc / "cgroup").read_text().splitlines()
        mounts = (proc / "mountinfo").read_text().splitlines()
    except OSError:
        return
    for line in groups:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            kind, read = "cgroup2", _quota_v2
        elif "cpu" in controllers.split(","):
            kind, read = "cgroup", _quota_v1
        else:
            continue
        for mount, top in _mounted(mounts, kind):
            for directory in _upwards(root / mount.lstrip("/"), path, top):
                if (quota := read(directory)) is not None:
                    yield quota


def _mounted(mounts: list[str], kind: str) -> Iterator[tuple[str, str]]:
    """Give where the tree is mounted, and which directory of it (proc_pid_mountinfo(5))."""
    for line in mounts:
        before, _, after = line.partition(" - ")
        fields, filesystem = before.split(), after.split()
        if len(fields) < 5 or not filesystem or filesystem[0] != kind:
            continue
        if kind == "cgroup" and "cpu" not in filesystem[-1].split(","):
            continue
        yield fields[4], fields[3]


def _upwards(mount: Path, path: str, top: str) -> Iterator[Path]:
    """Give our group's directory and all above it, as far as they can be seen."""
    if top != "/" and path.startswith(top):
        path = path[len(top) :]
    directory = mount / path.lstrip("/")
    if not directory.is_dir():
        directory = mount
    while True:
        yield directory
        if directory == mount or mount not in directory.parents:
            return
        directory = directory.parent


def _quota_v2(directory: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        quota, period = (directory / "cpu.max").read_text().split()
        return int(quota) / int(period)
    return None


def _quota_v1(directory: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota = int((directory / "cpu.cfs_quota_us").read_text())
        period = int((directory / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else None
    return None
