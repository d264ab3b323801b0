"""`python -m framegate_bench run | table | profile | train | pin`."""

import argparse
import json
import os
import platform
import re
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from framegate_bench import (
    comparison,
    environments,
    machine,
    measure,
    page,
    profiling,
    question,
    report,
    training,
)
from framegate_bench.comparison import Comparison, Contestant
from framegate_bench.loadgen import Times
from framegate_bench.processes import BenchError
from framegate_bench.question import Question, Server

RESULTS = environments.HOME / "results"
DOCUMENTS = (environments.HOME / "README.md", environments.ROOT / "README.md")
DOCS = environments.ROOT / "docs"
QUIET_SHARE = 0.10
SHOWN_VERSIONS = (
    "eclipse-zenoh", "fastapi", "framegate", "granian", "httptools", "iceoryx2", "litestar",
    "msgspec", "numpy", "pydantic", "pyzmq", "redis", "robyn", "shmx", "socketify", "spikard",
    "starlette", "uvicorn", "uvloop", "websockets",
)  # fmt: skip


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="framegate_bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run", help="build, measure, print tables and bars, write a result file"
    )
    names = ", ".join((*question.GROUPS, *question.ORDER))
    run.add_argument("questions", nargs="*", metavar="QUESTION", help=names)
    run.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    run.add_argument("--seconds", type=float, default=2.0, help="length of a window (default: 2)")
    run.add_argument(
        "--quick", action="store_true", help="one round of 1 s windows: does it run at all?"
    )
    run.add_argument(
        "--servers",
        help="only these, by comma without a space; without framegate nothing of it is built",
    )
    run.add_argument(
        "--json", action="store_true", help="print the result as JSON, the tables on stderr"
    )
    table = commands.add_parser(
        "table", help="write the newest result into the documents, and the plots of the docs"
    )
    table.add_argument("result", nargs="?", type=Path, help="another result file")
    table.add_argument(
        "--allow-quick", action="store_true", help="write a quick run, marked as such"
    )
    commands.add_parser(
        "train", help="make the profile that release builds are guided by, print where it is"
    )
    profile = commands.add_parser(
        "profile", help="a flame graph of framegate under the load of a question"
    )
    profile.add_argument("kind", choices=profiling.KINDS)
    profile.add_argument("question", nargs="?", default="hello")
    profile.add_argument("--seconds", type=float, default=5.0, help="of sampling (default: 5)")
    commands.add_parser("pin", help="pin the newest versions of the rivals")
    return parser


AnyQuestion = Question | Comparison


def _contestants(one: AnyQuestion) -> Sequence[Server | Contestant]:
    return one.servers if isinstance(one, Question) else one.contestants


def _only(questions: Sequence[AnyQuestion], names: str | None) -> list[AnyQuestion]:
    """The questions with only the servers that are wanted."""
    if names is None:
        return list(questions)
    wanted = set(re.split(r",(?! )", names))  # "granian, ring" is one server
    known = {server.name for one in questions for server in _contestants(one)}
    if unknown := sorted(wanted - known):
        raise BenchError(
            f"no server is called {unknown[0]!r}; there are {', '.join(sorted(known))}"
        )
    kept: list[AnyQuestion] = []
    for one in questions:
        if not wanted & {server.name for server in _contestants(one)}:
            continue
        if isinstance(one, Comparison):
            kept.append(comparison.with_contestants(one, wanted))
        else:
            servers = tuple(server for server in one.servers if server.name in wanted)
            kept.append(question.with_servers(one, servers))
    return kept


def _prepare(
    questions: Sequence[AnyQuestion],
) -> tuple[dict[str, Path], dict[str, str], dict[str, Any]]:
    """Environments, those that could not be made and why, and framegate's build information."""
    venvs: dict[str, Path] = {}
    missing: dict[str, str] = {}
    build_info: dict[str, Any] = {}
    names = {server.venv for one in questions for server in _contestants(one) if server.venv}
    if any(isinstance(one, Comparison) for one in questions):
        names.add("native-framegate")  # also the counter of allocations
    for name in sorted(names):
        print(f"environment {name}", file=sys.stderr, flush=True)
        if name == "framegate":
            # Ours is not a rival: without it there is nothing to measure, so its error ends the
            # run.
            venvs[name], build_info = environments.framegate()
            continue
        try:
            build = environments.NATIVE.get(name)
            venvs[name] = build() if build else environments.rival(name)
        except BenchError as error:
            missing[name] = f"not installed: {error}".splitlines()[0]
            print(error, file=sys.stderr)
    return venvs, missing, build_info


def _run(options: argparse.Namespace) -> None:
    began = time.monotonic()
    questions = _only(question.load(environments.HOME, options.questions), options.servers)
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
    if options.rounds < 1 or options.seconds <= 0:
        raise BenchError("--rounds must be at least 1 and --seconds positive")
    cores = measure.choose_cores()
    venvs, missing, build_info = _prepare(questions)
    native = environments.BUILD
    if any(isinstance(one, Question) or one.has_tools for one in questions):
        print("load generator and limit", file=sys.stderr, flush=True)
        native = environments.native()
    facts = machine.describe(environments.ROOT)
    busy = machine.busy_shares((cores.server, cores.load), 1.0)
    if max(busy) > QUIET_SHARE:
        shares = " and ".join(f"{share:.0%}" for share in busy)
        facts["warnings"] = [f"the machine was not quiet before the run: cores {shares} busy"]
        print(f"warning: {facts['warnings'][0]}", file=sys.stderr)
    installed = [
        environments.versions(venv)
        for name, venv in venvs.items()
        if name not in environments.NATIVE
    ]
    facts["versions"] = {
        **{name: one[name] for one in installed for name in SHOWN_VERSIONS if name in one},
        **environments.locked_crates(
            "fastwebsockets", "hyper", "iceoryx2", "jsonschema", "serde_json", "tokio"
        ),
    }
    facts["python"] = platform.python_version()
    facts["build_info"] = build_info
    times = Times(options.seconds, warmup_s=0.4)
    bench = measure.Bench(venvs, native, cores, times, options.rounds)
    # The driver waits most of the time; when it does not, it must not do so on the server's core.
    os.sched_setaffinity(0, {cores.load})
    result: dict[str, Any] = {
        "format": 1,
        "environment": facts,
        "settings": {"rounds": options.rounds, "seconds": options.seconds, "quick": options.quick},
        "questions": [],
    }
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    path = RESULTS / f"{stamp}-{facts['commit']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    for one in questions:
        if isinstance(one, Comparison):
            answer = comparison.ask(
                one,
                folders=venvs,
                missing=missing,
                tools=native,
                cores=(cores.server, cores.load),
                # Each case has a window, and there are many.
                seconds=options.seconds / 4,
                rounds=options.rounds,
            )
        else:
            answer = measure.ask(bench, one, missing)
        result["questions"].append(answer)
        # After each question: what is measured is kept if the next one is interrupted.
        path.write_text(json.dumps(result, indent=1) + "\n")
    print(report.text(result), file=sys.stderr if options.json else sys.stdout)
    if options.json:
        print(json.dumps(result))
    print(f"\nresult: {path} ({time.monotonic() - began:.0f} s in all)", file=sys.stderr)


def _table(options: argparse.Namespace) -> None:
    """Each group of questions has its own place, filled from the newest result that has it."""
    results = [options.result] if options.result else sorted(RESULTS.glob("*.json"), reverse=True)
    if not results:
        raise BenchError("no result yet: run `uv run task bench` first")
    written = 0
    for group, names in question.GROUPS.items():
        for path in results:
            result = json.loads(path.read_text())
            result["questions"] = [one for one in result["questions"] if one["name"] in names]
            quick = result["settings"]["quick"]
            if not result["questions"] or (
                quick and not options.allow_quick and not options.result
            ):
                continue
            if quick and not options.allow_quick:
                raise BenchError(
                    f"{path.name} is a quick run; its numbers do not belong in a document"
                )
            contents = (report.markdown_full(result), report.markdown_summary(result))
            for document, content in zip(DOCUMENTS, contents, strict=True):
                changed = report.write_between_markers(document, content, group)
                print(f"{document}: {'written from' if changed else 'already as in'} {path.name}")
            written += 1
            break
    if not written:
        raise BenchError("no result but of quick runs; their numbers do not belong in a document")
    changed = page.write(DOCUMENTS[0], DOCS)
    print(f"{DOCS / 'benchmarks.md'}: {'written' if changed else 'already so'}, with its plots")


def _profile(options: argparse.Namespace) -> None:
    (asked,) = question.load(environments.HOME, [options.question])
    if not isinstance(asked, Question):
        raise BenchError(f"{asked.name} has no server that is under load; try hello")
    venv, _ = environments.framegate()
    bench = measure.Bench(
        {"framegate": venv},
        environments.native(),
        measure.choose_cores(),
        Times(options.seconds, warmup_s=0.4),
        rounds=1,
    )
    print(profiling.profile(options.kind, bench, asked, RESULTS / "profiles"))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    options = _options().parse_args(arguments)
    # An exception, so that every server is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if options.command == "run":
            _run(options)
        elif options.command == "table":
            _table(options)
        elif options.command == "profile":
            _profile(options)
        elif options.command == "train":
            print(training.train())
        else:
            environments.pin()
    except BenchError as error:
        print(f"framegate_bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
