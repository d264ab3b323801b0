"""Rounds of measurements: in each, every server is started, asked everything and ended.

A sample is one window on one server in one round. CPU time is read while no request is under way,
before and after the window, for the server's whole session and for the consumer where there is one;
so it is the cost of exactly the requests that were counted.
"""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from framegate_bench.environments import HOME, LOGS
from framegate_bench.loadgen import Times, WarmLoad, warm_load
from framegate_bench.processes import (
    BenchError,
    free_port,
    last_words,
    read_line,
    running,
    write_line,
)
from framegate_bench.procfs import NOTHING, core_time, session_usage
from framegate_bench.question import Phase, Question, Server
from framegate_bench.scratch import scratch

START_TIMEOUT_S = 20.0
CONSUMER_PAUSE_S = 0.05
FAILURES_BEFORE_GIVING_UP = 2


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where."""

    server: int
    load: int


@dataclass(frozen=True, slots=True)
class Bench:
    """Where everything is, and how long to measure."""

    venvs: Mapping[str, Path]
    native: Path
    cores: Cores
    times: Times
    rounds: int


def choose_cores() -> Cores:
    """Two of the cores that this process may use."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchError("two cores are needed: one for the server, one for the load")
    return Cores(cores[0], cores[1])


def _answers(port: int, question: Question) -> bool:
    """Whether the server is up; an answer that is no success is an error at once."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_TIMEOUT_S)
    try:
        if question.probe_body_bytes:
            connection.request("POST", question.probe, bytes(question.probe_body_bytes))
        else:
            connection.request("GET", question.probe)
        response = connection.getresponse()
        body = response.read()
    except ConnectionRefusedError:
        return False
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(f"{question.probe}: {error!r}") from None
    finally:
        connection.close()
    if response.status not in (200, 201):
        raise BenchError(f"{question.probe} answered {response.status}: {body[:200]!r}")
    return True


class Running:
    """A server that is up, and its consumer if one is running."""

    def __init__(self, bench: Bench, question: Question, server: Server, stack: ExitStack) -> None:
        self.bench = bench
        self.server = server
        name = server.name.replace(" ", "-")
        self.log = LOGS / f"{question.name}-{name}.log"
        self.load_log = LOGS / f"{question.name}-{name}-load.log"
        self._consumer_log = LOGS / f"{question.name}-{name}-consumer.log"
        self.port = free_port()
        self._stack = stack
        folder = stack.enter_context(scratch())
        self._environment = {
            "PYTHONPATH": f"{HOME / 'apps'}{os.pathsep}{HOME}",
            "HANDMADE_RING_DIR": str(folder),
            "FRAMEGATE_RUNTIME_DIR": str(folder),
        }
        self._bin = bench.native if server.venv is None else bench.venvs[server.venv] / "bin"
        values = {"bin": str(self._bin), "port": str(self.port), "folder": str(folder)}
        self._process = self._start([word.format(**values) for word in server.command])
        self._consumer: subprocess.Popen[bytes] | None = None
        self._consumer_stack = stack.enter_context(ExitStack())
        self._consumer_mode: str | None = None
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(self.port, question):
            if self._process.poll() is not None:
                raise BenchError(f"ended with {self._process.returncode}: {last_words(self.log)}")
            if time.monotonic() > deadline:
                raise BenchError(f"not up after {START_TIMEOUT_S:.0f} s: {last_words(self.log)}")
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        """The server's; further ones are of its session."""
        return self._process.pid

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return self._stack.enter_context(
            running(
                command,
                core=self.bench.cores.server,
                log=self.log,
                environment=self._environment,
                folder=HOME / "apps",
            )
        )

    def consume(self, mode: str | None) -> None:
        """Have a consumer of this mode running."""
        if mode == self._consumer_mode or self.server.consumer is None:
            return
        self._consumer_stack.close()
        self._consumer_mode = mode
        self._consumer = None
        if mode is None:
            return
        script = HOME / "apps/consume.py"
        self._consumer = self._consumer_stack.enter_context(
            running(
                [self._bin / "python", script, self.server.consumer.source, mode],
                core=self.bench.cores.server,
                log=self._consumer_log,
                environment=self._environment,
                piped=True,
            )
        )
        read_line(self._consumer, START_TIMEOUT_S, self._consumer_log)

    def _let_consumer_finish(self) -> None:
        """A request is answered when its frame is published, a moment before it is consumed."""
        if self._consumer:
            time.sleep(CONSUMER_PAUSE_S)

    def ask_consumer(self) -> dict[str, Any] | None:
        """What the consumer has seen since it was last asked."""
        if self._consumer is None:
            return None
        write_line(self._consumer, "report")
        answer: dict[str, Any] = json.loads(
            read_line(self._consumer, START_TIMEOUT_S, self._consumer_log)
        )
        return answer

    def load(self, phase: Phase, times: Times) -> AbstractContextManager[WarmLoad]:
        """A phase's load, which waits for its "go"; the consumer of that phase is running."""
        self.consume(phase.consumer_mode)
        program, core = self.bench.native / "loadgen", self.bench.cores.load
        return warm_load(program, phase.load, phase.rate, self.port, times, core, self.load_log)

    def sample(self, phase: Phase) -> dict[str, Any]:
        """One window."""
        bench = self.bench
        with self.load(phase, bench.times) as load:
            self._let_consumer_finish()
            self.ask_consumer()
            core_before = core_time(bench.cores.server)
            server_before = session_usage(self._process.pid)
            consumer_before = session_usage(self._consumer.pid) if self._consumer else NOTHING
            began = time.monotonic()
            result = load.measure()
            self._let_consumer_finish()
            server = session_usage(self._process.pid) - server_before
            consumer = (
                session_usage(self._consumer.pid) - consumer_before if self._consumer else NOTHING
            )
            core = core_time(bench.cores.server)
            window_s = time.monotonic() - began
            seen = self.ask_consumer()
        total = server + consumer
        ticks_s = total.user_s + total.system_s
        return {
            **asdict(result),
            "cpu_us": total.cpu_s / result.completed * 1e6,
            "consumer_cpu_us": consumer.cpu_s / result.completed * 1e6 if self._consumer else None,
            "system_share": total.system_s / ticks_s if ticks_s > 0 else None,
            "switches": total.voluntary_switches / result.completed,
            "core_share": total.cpu_s / window_s,
            "foreign_share": max(0.0, (core.busy_s - core_before.busy_s - total.cpu_s) / window_s),
            "stolen_share": (core.stolen_s - core_before.stolen_s) / window_s,
            "kept_rate": None if phase.rate is None else result.per_s / phase.rate,
            "consumer": seen,
        }


def _samples(
    bench: Bench, question: Question, server: Server, phases: list[Phase]
) -> dict[str, dict[str, Any]]:
    """All windows on one server in one round; a phase that failed has its error instead."""
    found: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        try:
            up = Running(bench, question, server, stack)
        except BenchError as error:
            return {phase.name: {"error": f"did not start: {error}"} for phase in phases}
        for phase in phases:
            try:
                found[phase.name] = up.sample(phase)
            except (BenchError, OSError, ValueError, subprocess.SubprocessError) as error:
                found[phase.name] = {"error": str(error)}
    return found


def ask(bench: Bench, question: Question, missing: Mapping[str, str]) -> dict[str, Any]:
    """Measure a question; `missing` are environments that could not be made, and why."""
    rows: dict[str, dict[str, dict[str, Any]]] = {
        phase.name: {
            server.name: {"samples": [], "error": missing.get(server.venv or "")}
            for server in question.servers
            if phase.servers is None or server.name in phase.servers
        }
        for phase in question.phases
    }
    failures = dict.fromkeys((server.name for server in question.servers), 0)
    for turn in range(bench.rounds):
        # Rotated, so that no server always runs behind the same one.
        shift = turn % len(question.servers)
        for server in question.servers[shift:] + question.servers[:shift]:
            phases = [phase for phase in question.phases if server.name in rows[phase.name]]
            if server.venv in missing or failures[server.name] >= FAILURES_BEFORE_GIVING_UP:
                for phase in phases:
                    rows[phase.name][server.name]["samples"].append(None)
                continue
            print(
                f"  {question.name} round {turn + 1}/{bench.rounds} {server.name}",
                file=sys.stderr,
                flush=True,
            )
            samples = _samples(bench, question, server, phases)
            failures[server.name] += any("error" in sample for sample in samples.values())
            for phase in phases:
                sample = samples[phase.name]
                row = rows[phase.name][server.name]
                if "error" in sample:
                    row["error"] = sample["error"]
                    print(f"    {server.name}, {phase.name}: {sample['error']}", file=sys.stderr)
                row["samples"].append(None if "error" in sample else sample)
    return {
        "name": question.name,
        "title": question.title,
        "unit": question.unit,
        "phases": [
            {
                "name": phase.name,
                "title": phase.title,
                "rate": phase.rate,
                "consumer": phase.consumer_mode,
                "rows": rows[phase.name],
            }
            for phase in question.phases
        ],
        "bars": [asdict(bar) for bar in question.bars],
    }
