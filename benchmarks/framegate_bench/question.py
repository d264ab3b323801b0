"""The words in which a benchmark is described; a question is a file beside the package."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from framegate_bench.comparison import Comparison
from framegate_bench.processes import BenchError


@dataclass(frozen=True, slots=True)
class Consumer:
    """A process that takes what the server publishes; its CPU counts as the server's."""

    source: str


@dataclass(frozen=True, slots=True)
class Server:
    """One contestant: where it is installed and how it is started.

    `{bin}`, `{port}` and `{folder}` are replaced in the command; `{bin}` is the folder of its
    programs, `{folder}` one for its files, in memory.
    """

    name: str
    """The name in the tables."""
    venv: str | None
    """Which environment it is in; None for the Rust limit."""
    command: tuple[str, ...]
    consumer: Consumer | None = None


@dataclass(frozen=True, slots=True)
class Phase:
    """One kind of load on every server, measured in one window per round."""

    name: str
    title: str
    load: tuple[str, ...]
    """Arguments of `loadgen` without port, rate and times."""
    rate: float | None = None
    """Units per second; None is a closed loop."""
    servers: tuple[str, ...] | None = None
    """Those that take part; None is all."""
    consumer_mode: str | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """What framegate is held to: so many times less CPU than another server, in one phase."""

    other: str
    phase: str
    factor: float


@dataclass(frozen=True, slots=True)
class Question:
    """Servers, what is asked of them, and what we want to be the answer."""

    name: str
    title: str
    unit: str
    servers: tuple[Server, ...]
    phases: tuple[Phase, ...]
    bars: tuple[Bar, ...]
    probe: str
    """A path whose 200 (or 201) says that the server is up."""
    probe_body_bytes: int = 0
    """More than 0: the probe is a POST of so many bytes."""


def with_servers(question: Question, servers: tuple[Server, ...]) -> Question:
    """The same question to fewer servers."""
    names = {server.name for server in servers}
    phases = tuple(
        phase for phase in question.phases if phase.servers is None or names & set(phase.servers)
    )
    kept = {phase.name for phase in phases}
    bars = tuple(bar for bar in question.bars if bar.phase in kept)
    return replace(question, servers=servers, phases=phases, bars=bars)


GROUPS = {
    "http": (
        "hello",
        "hello_costs",
        "half_load",
        "workers",
        "hello_h2",
        "tls_handshakes",
        "json_echo",
        "large_response",
        "upload",
        "event_streams",
        "fastapi_route",
        "native_hello",
        "native_routes",
        "native_echo",
        "native_validated",
        "native_invalid",
        "native_document",
        "websocket_small",
        "websocket_large",
        "websocket_codec",
        "websocket_idle",
        "client_echo",
        "frame_ingest",
        "static_files",
        "start",
        "reload",
        "observability",
        "tracing",
        "scrape_while_blocked",
        "topic_call",
        "topic_post",
        "topic_fanout",
        "bridge_frames",
        "live_page",
    ),
    "shm": (
        "shm_cycle",
        "shm_native_cycle",
        "shm_latency",
        "shm_native_latency",
        "shm_throughput",
        "shm_native_throughput",
        "shm_loan",
        "shm_idle",
    ),
}
"""What belongs into one table of the documents."""
ORDER = tuple(name for names in GROUPS.values() for name in names)


def expand(names: Sequence[str]) -> list[str]:
    """The names of questions, where a group may stand for its own; none is all."""
    wanted: list[str] = []
    for name in names or GROUPS:
        if name not in ORDER and name not in GROUPS:
            known = ", ".join((*GROUPS, *ORDER))
            raise BenchError(f"no question is called {name!r}; there are {known}")
        wanted += [one for one in GROUPS.get(name, (name,)) if one not in wanted]
    return wanted


def load(home: Path, names: Sequence[str]) -> list[Question | Comparison]:
    """The questions with these names, or all of them, from their files in `home`."""
    questions = []
    for name in expand(names):
        spec = importlib.util.spec_from_file_location(
            f"framegate_bench_{name}", home / f"{name}.py"
        )
        assert spec is not None and spec.loader is not None, "a file name always gives a loader"
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        questions.append(module.QUESTION)
    return questions
