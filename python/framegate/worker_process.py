"""One worker process as the supervisor has it: spawned, listened to, ended.

    STARTING --ready--> READY --retire--> RETIRING --> (it ends)

It dies in any of them. What follows from that is the supervisor's business.

A worker is a new program, never a fork: no lock, thread or native runtime is inherited half-way.
It has a process group of its own, so that Ctrl-C at the terminal reaches the supervisor only;
otherwise one key press would be two requests to stop.
"""

from __future__ import annotations

import contextlib
import enum
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from framegate.channel import Channel, Order, WorkerSpec
from framegate.config import Config
from framegate.listener import KindCounts, by_kind
from framegate.recycling import Allotment
from framegate.threading_model import name_of

__all__ = [
    "ListenerSet",
    "Phase",
    "WorkerProcess",
    "start_process",
    "status_text",
    "worker_command",
]

FDS_PER_ORDER: Final = 32


class Phase(enum.Enum):
    """How far a process is."""

    STARTING = enum.auto()
    READY = enum.auto()
    RETIRING = enum.auto()


@dataclass
class ListenerSet:
    """Sockets to accept from.

    Attributes:
        kinds: Those of each kind, in the order of `by_kind`.
    """

    kinds: list[list[socket.socket]]

    @classmethod
    def of(cls, sockets: Sequence[socket.socket], counts: KindCounts) -> ListenerSet:
        """Split what `Listeners` has in one list."""
        return cls(by_kind(sockets, counts))

    def less(self, other: ListenerSet) -> ListenerSet:
        """Return those that the other one has not; some are shared by all."""
        return ListenerSet(
            [
                [item for item in ours if item not in theirs]
                for ours, theirs in zip(self.kinds, other.kinds, strict=True)
            ]
        )

    def plus(self, other: ListenerSet) -> ListenerSet:
        """Return those of both, each once."""
        rest = other.less(self)
        return ListenerSet(
            [ours + theirs for ours, theirs in zip(self.kinds, rest.kinds, strict=True)]
        )

    def common(self, other: ListenerSet) -> ListenerSet:
        """Return those that both have."""
        return self.less(self.less(other))

    def copy(self) -> ListenerSet:
        """Return the same sockets in lists of their own."""
        return ListenerSet([list(kind) for kind in self.kinds])

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors, in the order of the kinds."""
        return tuple(item.fileno() for kind in self.kinds for item in kind)

    @property
    def counts(self) -> KindCounts:
        """How many of them are of what kind."""
        return KindCounts(*(len(kind) for kind in self.kinds[1:]))

    def __bool__(self) -> bool:
        return any(self.kinds)


@dataclass(eq=False)
class WorkerProcess:
    """A process that was started.

    Attributes:
        index: Which worker it is.
        row: Its row of the runtime segment, or the first of them; -1 if there is none.
        threads: How many workers it has.
        process: To signal and to wait for.
        channel: To talk to it.
        listeners: What it accepts from, or will.
        allotment: What it may use before it is replaced.
        deadline: Starting: when it must be ready. Retiring: when it must be gone.
        ready_at: When it was.
        killed_because: Why we killed it.
        has_worker_scope: Whether its stop includes a shutdown of `framegate.worker`.
        is_due: Whether it waits to be replaced.
        recycled_after: Not to be replaced before.
        attempts: How often its successor was started again.
        stalled_count: How many times in a row its loop was found standing still.
    """

    index: int
    row: int
    threads: int
    process: subprocess.Popen[bytes]
    channel: Channel
    listeners: ListenerSet
    allotment: Allotment
    deadline: float
    phase: Phase = Phase.STARTING
    ready_at: float = 0.0
    killed_because: str = ""
    build: dict[str, Any] = field(default_factory=dict)
    has_worker_scope: bool = False
    is_due: bool = False
    recycled_after: float = 0.0
    attempts: int = 0
    stalled_count: int = 0

    @classmethod
    def spawn(
        cls,
        command: Sequence[str],
        config: Config,
        *,
        index: int,
        worker_count: int,
        threads: int,
        generation: int,
        row: int,
        listeners: ListenerSet,
        runtime_path: str,
        allotment: Allotment,
        deadline: float,
        environment: Mapping[str, str] | None = None,
        admin_fds: tuple[int, ...] = (),
    ) -> WorkerProcess:
        """Start it.

        Raises:
            OSError: There are no processes, descriptors or memory left; may be better in a moment.
        """
        spec = WorkerSpec(
            config=config,
            index=index,
            worker_count=worker_count,
            row=row,
            generation=generation,
            supervisor_pid=os.getpid(),
            listener_fds=listeners.fds,
            counts=listeners.counts,
            runtime_path=runtime_path,
            threads=threads,
            admin_fds=admin_fds,
        )
        process, channel = start_process(
            command, spec, stdin=subprocess.DEVNULL, environment=environment
        )
        return cls(index, row, threads, process, channel, listeners.copy(), allotment, deadline)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def name(self) -> str:
        """What the log calls it."""
        return name_of(self.index, self.threads)

    @property
    def rows(self) -> range:
        """Its rows of the runtime segment, one per worker."""
        return range(self.row, self.row + self.threads) if self.row >= 0 else range(0)

    def retire(self, seconds: float) -> None:
        """Ask it to stop without losing anybody who is connected: others accept already."""
        self.phase = Phase.RETIRING
        self.deadline = time.monotonic() + seconds
        if not self.channel.send_order(Order("retire")):
            self.process.send_signal(signal.SIGTERM)

    def adopt(self, listeners: ListenerSet) -> None:
        """Have it accept from more sockets.

        Orders that do not arrive are no loss: a worker that reads none is about to be replaced, and
        its successor begins with all of them.
        """
        missing = listeners.less(self.listeners)
        self.listeners = self.listeners.plus(missing)
        for number, sockets in enumerate(missing.kinds):
            for at in range(0, len(sockets), FDS_PER_ORDER):
                fds = tuple(item.fileno() for item in sockets[at : at + FDS_PER_ORDER])
                counts = [0] * len(missing.kinds)
                counts[number] = len(fds)
                self.channel.send_order(Order("adopt", fds, tuple(counts[1:])))

    def kill(self, reason: str) -> bool:
        """Kill it, once; return whether this was the time."""
        if self.killed_because:
            return False
        self.killed_because = reason
        self.process.kill()
        return True


def start_process(
    command: Sequence[str],
    spec: WorkerSpec,
    *,
    stdin: int | None,
    environment: Mapping[str, str] | None,
) -> tuple[subprocess.Popen[bytes], Channel]:
    """Start a worker and tell it what it is; the channel does not block.

    Its environment is that of this process, if none is given.

    Raises:
        OSError: There are no processes, descriptors or memory left; may be better in a moment.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                stdin=stdin,
                pass_fds=(*spec.listener_fds, *spec.admin_fds, theirs.fileno()),
                process_group=0,
                env=environment,
            )
        except BaseException:
            ours.close()
            raise
    channel = Channel(ours)
    with contextlib.suppress(OSError):  # it is dead already: the exit status will tell
        channel.send_spec(spec)
    ours.setblocking(False)
    return process, channel


def status_text(status: int) -> str:
    """Return how a process ended, in words."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def worker_command() -> list[str]:
    """Return what starts a worker; the descriptor of its channel is appended."""
    # -P: the directory of the application gets into sys.path by app_dir, not by where we stand; a
    # file there must not hide a module of the standard library from our own start.
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [sys.executable, *flags, "-P", "-m", "framegate.worker"]
