"""What Linux tells about processes and cores: CPU time, context switches, who belongs to whom."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """The fields of `/proc/PID/stat` that are used here."""

    pid: int
    is_zombie: bool
    session: int
    user_s: float
    system_s: float


def parse_stat(text: str) -> ProcessStat:
    """Read a line of `/proc/PID/stat`; the name in it may hold spaces and brackets."""
    head, _, rest = text.rpartition(")")
    pid = int(head.split(" (", 1)[0])
    fields = rest.split()
    return ProcessStat(
        pid=pid,
        is_zombie=fields[0] == "Z",
        session=int(fields[3]),
        user_s=int(fields[11]) / TICKS_PER_S,
        system_s=int(fields[12]) / TICKS_PER_S,
    )


def parse_voluntary_switches(text: str) -> int:
    """Read `voluntary_ctxt_switches` from a `/proc/.../status` text."""
    for line in text.splitlines():
        if line.startswith("voluntary_ctxt_switches:"):
            return int(line.split()[1])
    return 0


@dataclass(frozen=True, slots=True)
class CoreTime:
    """Seconds that a core spent working, and taken away by the hypervisor."""

    busy_s: float
    stolen_s: float


def parse_core(text: str, core: int) -> CoreTime:
    """Read the line of `core` from a `/proc/stat` text."""
    for line in text.splitlines():
        name, *numbers = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, stolen = map(int, numbers[:8])
            busy = user + nice + system + irq + softirq
            return CoreTime(busy / TICKS_PER_S, stolen / TICKS_PER_S)
    raise ValueError(f"/proc/stat has no line for core {core}")


def core_time(core: int) -> CoreTime:
    """What `core` has done since it was started."""
    return parse_core((PROC / "stat").read_text(), core)


def session_pids(session: int) -> list[int]:
    """The living processes of a session: a server and all that it started."""
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            stat = parse_stat((entry / "stat").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue  # gone since the directory was listed
        if stat.session == session and not stat.is_zombie:
            found.append(stat.pid)
    return found


@dataclass(frozen=True, slots=True)
class Usage:
    """What a group of processes has used up to some moment."""

    cpu_s: float
    user_s: float
    system_s: float
    voluntary_switches: int

    def __sub__(self, earlier: "Usage") -> "Usage":
        return Usage(
            self.cpu_s - earlier.cpu_s,
            self.user_s - earlier.user_s,
            self.system_s - earlier.system_s,
            self.voluntary_switches - earlier.voluntary_switches,
        )

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.cpu_s + other.cpu_s,
            self.user_s + other.user_s,
            self.system_s + other.system_s,
            self.voluntary_switches + other.voluntary_switches,
        )


NOTHING = Usage(0.0, 0.0, 0.0, 0)


def cpu_clock_s(pid: int) -> float:
    """User and system time of a process with all its threads, living and dead, to the nanosecond.

    The sum of `/proc/PID/stat` is the same figure cut to ticks of 10 ms, twice; too coarse for a
    window of seconds. The clock's number is `clock_getcpuclockid(pid)`, which Python does not have.
    """
    return time.clock_gettime((~pid << 3) | 2)


def process_usage(pid: int) -> Usage:
    """What one process has used; nothing if it is gone."""
    try:
        stat = parse_stat((PROC / str(pid) / "stat").read_text())
        switches = 0
        for thread in (PROC / str(pid) / "task").iterdir():
            try:
                switches += parse_voluntary_switches((thread / "status").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue  # a thread that has just ended
        return Usage(cpu_clock_s(pid), stat.user_s, stat.system_s, switches)
    except (FileNotFoundError, ProcessLookupError, OSError):
        return NOTHING


def session_usage(session: int) -> Usage:
    """What all living processes of a session have used."""
    return sum((process_usage(pid) for pid in session_pids(session)), NOTHING)
