"""Driver and load generator together, for a second each; nothing here looks at speed."""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from framegate_bench import comparison, environments, measure, procfs, question, report
from framegate_bench.comparison import Case, Comparison
from framegate_bench.loadgen import Times
from framegate_bench.processes import BenchError, running
from framegate_bench.question import Bar, Phase, Question, Server

# The first run compiles the load generator.
pytestmark = pytest.mark.timeout(600)

TRIVIAL = Server(
    "trivial", None, (sys.executable, str(Path(__file__).with_name("trivial_server.py")), "{port}")
)
LIMIT = Server("limit", None, ("{bin}/limit", "--port", "{port}"))
FLOOR = Server("floor", None, ("{bin}/receive", "--port", "{port}"))
ABSENT = Server("absent", "absent", ("{bin}/absent",))
BROKEN = Server("broken", None, (sys.executable, "-c", "raise SystemExit('no such app')"))


@pytest.fixture(scope="module")
def native() -> Path:
    return environments.native("dev")


@pytest.fixture
def bench(native: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> measure.Bench:
    monkeypatch.setattr(measure, "LOGS", tmp_path)
    cores = sorted(os.sched_getaffinity(0))
    return measure.Bench({}, native, measure.Cores(cores[0], cores[-1]), Times(1.0, 0.1), rounds=1)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No process and no folder of a benchmark outlives it."""

    def children() -> set[int]:
        tasks = Path("/proc/self/task").glob("*/children")
        return {int(pid) for task in tasks for pid in task.read_text().split()}

    def folders() -> set[Path]:
        # Named by the process that made them; those of others that live are at work.
        found = set(Path("/dev/shm").glob("framegate-bench-*"))
        owners = {folder: folder.name.split("-")[2] for folder in found}
        mine = str(os.getpid())
        # Looked for again: an owner that has ended since may have taken it along.
        return {
            folder
            for folder, pid in owners.items()
            if (pid == mine or not Path("/proc", pid).exists()) and folder.exists()
        }

    running, there = children(), folders()
    yield
    assert children() <= running
    assert folders() <= there


def test_a_question_is_measured_from_start_to_table(bench: measure.Bench) -> None:
    load = ("http", "--path", "/", "--conns", "4")
    asked = Question(
        name="smoke",
        title="Smoke",
        unit="request",
        servers=(TRIVIAL, LIMIT, ABSENT, BROKEN),
        phases=(
            Phase("fixed", "20 requests/s", load, rate=20),
            Phase("closed", "closed loop", load, servers=("trivial",)),
        ),
        bars=(Bar("limit", "fixed", 0.5),),
        probe="/",
    )
    answer = measure.ask(bench, asked, {"absent": "not installed: it does not exist"})
    fixed, closed = answer["phases"]
    for name in ("trivial", "limit"):
        (sample,) = fixed["rows"][name]["samples"]
        assert sample["completed"] == 20
        assert sample["cpu_us"] > 0
        assert 0 < sample["p50_us"] <= sample["p99_us"] <= sample["max_us"] * 1.01
    assert closed["rows"]["trivial"]["samples"][0]["completed"] > 0
    assert list(closed["rows"]) == ["trivial"]
    table = report.phase_table(fixed, "request")
    reasons = {line[0]: line[1] for line in table.rows if len(line) == 2}
    assert reasons["absent"] == "not measured: not installed: it does not exist"
    assert "no such app" in reasons["broken"]


@pytest.mark.parametrize(
    ("load", "rate"),
    [
        (("ws", "--conns", "4", "--inflight", "8", "--size", "128"), None),
        (("ws", "--conns", "4", "--inflight", "8", "--size", "70000"), 160),
        (("ws", "--conns", "4", "--inflight", "8", "--size", "128", "--burst", "1"), 160),
    ],
)
def test_websocket_echo(bench: measure.Bench, load: tuple[str, ...], rate: float | None) -> None:
    asked = Question(
        "smoke-ws", "Smoke", "message", (LIMIT,), (Phase("ws", "echo", load, rate),), (), "/"
    )
    answer = measure.ask(bench, asked, {})
    (sample,) = answer["phases"][0]["rows"]["limit"]["samples"]
    assert sample is not None, answer["phases"][0]["rows"]["limit"]["error"]
    assert sample["completed"] == 160 if rate else sample["completed"] > 0


@pytest.mark.parametrize("rate", [None, 20])
def test_http2_hello(bench: measure.Bench, rate: float | None) -> None:
    command = (sys.executable, "-m", "framegate", "serve", "hello_app:app", "--port", "{port}")
    server = Server("framegate", None, (*command, "--no-access-log"))
    load = ("h2", "--conns", "2", "--inflight", "4", "--answer", "13")
    phases = (Phase("h2", "hello", load, rate),)
    asked = Question("smoke-h2", "Smoke", "request", (server,), phases, (), "/")
    row = measure.ask(bench, asked, {})["phases"][0]["rows"]["framegate"]
    assert row["samples"][0] is not None, row["error"]
    completed = row["samples"][0]["completed"]
    assert completed == 20 if rate else completed > 0


def test_bodies_are_posted_whole(bench: measure.Bench) -> None:
    size = 6_220_800
    load = ("http", "--path", "/frames", "--conns", "1", "--size", str(size))
    phases = (Phase("post", "10 frames/s", load, 10),)
    asked = Question("smoke-post", "Smoke", "frame", (FLOOR,), phases, (), "/frames", size)
    row = measure.ask(bench, asked, {})["phases"][0]["rows"]["floor"]
    assert row["samples"][0] is not None, row["error"]
    assert row["samples"][0]["completed"] == 10


OWN = Path(sys.prefix)
"""What the tests run in, as if it were a venv of the driver; of the rivals it has uvicorn."""


def test_topic_post_takes_frames_on_every_way(bench: measure.Bench) -> None:
    (asked,) = question.load(environments.HOME, ["topic_post"])
    assert isinstance(asked, Question)
    servers = tuple(
        # The tests have no httptools.
        replace(one, command=tuple("h11" if word == "httptools" else word for word in one.command))
        for one in asked.servers
        if one.name in ("framegate", "uvicorn, ring", "recv() and memcpy")
    )
    asked = question.with_servers(asked, servers)
    phases = tuple(
        replace(phase, rate=phase.rate and 10, servers=phase.servers and ("framegate",))
        for phase in asked.phases
    )
    bench = replace(bench, venvs={"framegate": OWN, "uvicorn": OWN})
    answer = measure.ask(bench, replace(asked, phases=phases), {})
    for phase in answer["phases"]:
        for name, row in phase["rows"].items():
            assert row["samples"][0] is not None, (phase["name"], name, row["error"])
            sample = row["samples"][0]
            assert sample["completed"] > 0
            if name != "recv() and memcpy":
                assert sample["consumer"]["frames"] > 0, (phase["name"], name)
                assert 0 < sample["consumer"]["p50_us"] < 60e6


NATIVE = (
    "native_hello", "native_routes", "native_echo", "native_validated", "native_invalid",
    "native_document",
)  # fmt: skip


@pytest.mark.parametrize("name", NATIVE)
def test_native_routes_answer_what_the_limit_does(bench: measure.Bench, name: str) -> None:
    (asked,) = question.load(environments.HOME, [name])
    assert isinstance(asked, Question)
    servers = tuple(
        # The tests have no httptools.
        replace(one, command=tuple("h11" if word == "httptools" else word for word in one.command))
        for one in asked.servers
        if one.name in ("framegate", "uvicorn, FastAPI", "hyper")
    )
    # A window each at a low rate: the status of every answer is looked at.
    phases = (replace(asked.phases[0], rate=20),)
    asked = replace(question.with_servers(asked, servers), phases=phases, bars=())
    bench = replace(bench, venvs={"framegate": OWN, "uvicorn": OWN})
    rows = measure.ask(bench, asked, {})["phases"][0]["rows"]
    assert set(rows) == {one.name for one in servers}
    for server, row in rows.items():
        assert row["samples"][0] is not None, (server, row["error"])
        assert row["samples"][0]["completed"] == 20


def _compared(
    asked: Comparison, cases: tuple[Case, ...], names: set[str], tools: Path
) -> dict[str, dict[str, float]]:
    asked = comparison.with_contestants(replace(asked, cases=cases), names)
    cores = sorted(os.sched_getaffinity(0))
    answer = comparison.ask(
        asked,
        folders={"framegate": OWN},
        missing={},
        tools=tools,
        cores=(cores[0], cores[-1]),
        seconds=0.2,
        rounds=1,
    )
    rows = answer["cases"][0]["rows"]
    for name, row in rows.items():
        assert row["samples"][0] is not None, (name, row["error"])
    return {name: row["samples"][0] for name, row in rows.items()}


def test_topic_fanout_shows_a_topic_to_viewers(
    native: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "LOGS", tmp_path)
    (asked,) = question.load(environments.HOME, ["topic_fanout"])
    assert isinstance(asked, Comparison)
    case = replace(asked.cases[0], arguments=("--viewers", "3", "--rate", "20"))
    found = _compared(asked, (case,), {"framegate", "epoll alone"}, native)
    assert set(found) == {"framegate", "epoll alone"}
    for numbers in found.values():
        assert numbers["cpu_us"] > 0
        assert numbers["delivered_percent"] > 10
        assert numbers["rss_mib"] > 0.5


def test_topic_call_is_measured_beside_a_plain_request(
    native: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "LOGS", tmp_path)
    (asked,) = question.load(environments.HOME, ["topic_call"])
    assert isinstance(asked, Comparison)
    (numbers,) = _compared(asked, asked.cases[:1], {"framegate"}, native).values()
    assert numbers["call_us"] > 0 and numbers["plain_us"] > 0 and numbers["alone_us"] > 0
    assert 0 < numbers["wakes_us"] < 10_000
    beyond = numbers["call_us"] - numbers["plain_us"] - numbers["wakes_us"]
    assert numbers["beyond_us"] == pytest.approx(beyond)


def test_the_bridge_is_measured_beside_plain_zenoh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "LOGS", tmp_path)
    (asked,) = question.load(environments.HOME, ["bridge_frames"])
    assert isinstance(asked, Comparison)
    (numbers,) = _compared(asked, asked.cases[:1], {"framegate"}, tmp_path).values()
    assert numbers["bridge_us"] > 0 and numbers["plain_us"] > 0
    assert numbers["share"] > 0 and numbers["plain_mb_s"] > 0


def test_live_page_moves_and_scrolls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "LOGS", tmp_path)
    (asked,) = question.load(environments.HOME, ["live_page"])
    assert isinstance(asked, Comparison)
    start, scrolled = (
        _compared(asked, (case,), {"framegate"}, tmp_path) for case in asked.cases[:2]
    )
    assert start["framegate"]["moving_ms"] > 100
    assert scrolled["framegate"]["frames_per_s"] > 0
    assert scrolled["framegate"]["gap_p99_ms"] > 0


@pytest.mark.parametrize("case", [0, 1, 2])
def test_client_echo_counts_what_comes_back(
    native: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: int
) -> None:
    monkeypatch.setattr(comparison, "LOGS", tmp_path)
    (asked,) = question.load(environments.HOME, ["client_echo"])
    assert isinstance(asked, Comparison)
    # The tests have no picows.
    names = {one.name for one in asked.contestants} - {"picows, uvloop"}
    contestants = tuple(replace(one, venv="framegate") for one in asked.contestants)
    asked = replace(asked, contestants=contestants)
    found = _compared(asked, (asked.cases[case],), names, native)
    assert set(found) == names
    for numbers in found.values():
        assert numbers["messages_per_s"] > 0
        assert 0 < numbers["cpu_us"] < 1e6


def test_a_process_is_ended_with_all_it_started(tmp_path: Path) -> None:
    program = (
        "import signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        "print('ready', flush=True)\n"
        "signal.pause()\n"
    )
    core = min(os.sched_getaffinity(0))
    command = [sys.executable, "-c", program]
    with running(command, core=core, log=tmp_path / "log", piped=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert len(procfs.session_pids(process.pid)) == 2
        assert os.sched_getaffinity(process.pid) == {core}
    assert procfs.session_pids(process.pid) == []


def test_all_questions_load_and_their_bars_name_what_they_measure() -> None:
    questions = question.load(environments.HOME, [])
    assert [one.name for one in questions] == list(question.ORDER)
    assert [one.name for one in question.load(environments.HOME, ["shm", "shm_idle"])] == list(
        question.GROUPS["shm"]
    )
    for one in questions:
        if isinstance(one, Comparison):
            cases = {case.name: case for case in one.cases}
            contestants = {contestant.name for contestant in one.contestants}
            for limit in one.limits:
                for number in filter(None, (limit.number, limit.per, *limit.floor)):
                    case = cases[number[1]]
                    assert number[0] in set(case.contestants or contestants)
                    assert number[2] in case.metrics
            continue
        phases = {phase.name: phase for phase in one.phases}
        servers = {server.name for server in one.servers}
        for bar in one.bars:
            assert {bar.other, report.OURS} <= servers & set(phases[bar.phase].servers or servers)
            # At a fixed rate, unless the question is how many it can do.
            assert phases[bar.phase].rate is not None or bar.phase in {"closed", "one"}
        for load in (phase.load for phase in one.phases if "--body-file" in phase.load):
            assert Path(load[load.index("--body-file") + 1]).stat().st_size > 0
    with pytest.raises(BenchError, match="no question is called"):
        question.load(environments.HOME, ["helo"])


RIVALS = (
    "clients", "framegate", "granian", "iceoryx2", "pyzmq", "redis", "robyn", "shmx", "socketify",
    "spikard", "uvicorn",
)  # fmt: skip


def test_rivals_are_pinned_with_hashes() -> None:
    sources = sorted(environments.RIVALS.glob("*.in"))
    assert {source.stem for source in sources} == set(RIVALS)
    for source in sources:
        text = source.with_suffix(".txt").read_text()
        assert "--hash=sha256:" in text
        for line in source.read_text().splitlines():
            if line and not line.startswith("#"):
                assert f"\n{line.split('[')[0]}==" in f"\n{text}" or f"\n{line}==" in f"\n{text}"
