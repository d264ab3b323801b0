"""Run the suite against servers and write what they make of it.

    python -m conformance --server 'mine=/usr/bin/env python -m mine {app} --port {port}' \
        --tls 'mine=--cert {cert} --key {key}'
    python -m conformance --rivals          # framegate, uvicorn, hypercorn, granian
    python -m conformance --rivals --write  # ... and docs/reference/asgi-comparison.md

A rival lives in a venv of its own. Each server runs once without and once with TLS; a transport
that it cannot be reached by is not asked for. A case may end as passed, failed, or not offered (an
extension that the server does not name).
"""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import functools
import json
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import application
from .lifespans import LIFESPANS
from .peer import Peer
from .process import FRAMEGATE, FRAMEGATE_TLS, Running, certificate
from .registry import CASES, TRANSPORTS, Case, NotOfferedError

ROOT = Path(__file__).parents[2]
VENVS = ROOT / "tests" / "conformance" / ".venvs"
PAGE = ROOT / "docs" / "reference" / "asgi-comparison.md"
PASSED, FAILED, NOT_OFFERED, UNREACHABLE = "yes", "**no**", "-", ""
SECONDS_MAX = 30.0

assert application.app


@dataclass
class Server:
    """A server under test: how it is installed and started."""

    name: str
    template: str
    #: Added for TLS; `None`: it is not asked for.
    tls: str | None = None
    #: Added for the transports of HTTP/2, where that takes more than TLS.
    requirements: tuple[str, ...] = ()
    python: str = sys.executable
    version: str = ""
    results: dict[tuple[str, str], str] = field(default_factory=dict)
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)


RIVALS = (
    Server("framegate", FRAMEGATE, FRAMEGATE_TLS),
    Server(
        "uvicorn",
        "uvicorn {app} --port {port} --lifespan on --no-access-log",
        "--ssl-certfile {cert} --ssl-keyfile {key}",
        ("uvicorn[standard]",),
    ),
    Server(
        "hypercorn",
        "hypercorn {app} --bind 127.0.0.1:{port}",
        "--certfile {cert} --keyfile {key}",
        ("hypercorn",),
    ),
    Server(
        "granian",
        "granian --interface asgi {app} --port {port} --no-ws",
        "--ssl-certificate {cert} --ssl-keyfile {key}",
        ("granian",),
    ),
)


def main() -> int:
    """Run what was asked for; the exit status says whether framegate, if it ran, passed all."""
    arguments = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("--server", action="append", default=[], metavar="NAME=COMMAND")
    arguments.add_argument("--tls", action="append", default=[], metavar="NAME=WORDS")
    arguments.add_argument("--rivals", action="store_true", help="framegate and its rivals")
    arguments.add_argument("--only", action="append", metavar="NAME", help="of the rivals, these")
    arguments.add_argument("--case", action="append", metavar="NAME", help="these cases alone")
    arguments.add_argument("--write", action="store_true", help="write the page of the docs")
    options = arguments.parse_args()
    tls = dict(item.split("=", 1) for item in options.tls)
    servers = [
        Server(name, template, tls.get(name))
        for name, template in (item.split("=", 1) for item in options.server)
    ]
    if options.rivals:
        servers += [server for server in RIVALS if server.name in (options.only or [server.name])]
    for server in servers:
        install(server)
        run(
            server, [CASES[name] for name in options.case] if options.case else list(CASES.values())
        )
        counts = Counter(server.results.values())
        print(f"{server.name} {server.version}: {dict(counts)}")
        for (name, transport), reason in sorted(server.reasons.items()):
            print(f"  {name} over {transport}: {reason}")
        if server in RIVALS and not options.case:
            keep(server)
    if options.write:
        PAGE.write_text(page([server for server in RIVALS if recall(server)]))
    return any(server.name == "framegate" and server.reasons for server in servers)


def keep(server: Server) -> None:
    """Keep the answers, so that the page can be written from several runs."""
    results = [[*key, result] for key, result in server.results.items()]
    VENVS.mkdir(exist_ok=True)
    text = json.dumps({"version": server.version, "results": results})
    (VENVS / f"{server.name}.json").write_text(text)


def recall(server: Server) -> bool:
    """Read the answers of the latest run; false if there was none."""
    file = VENVS / f"{server.name}.json"
    if not file.exists():
        return False
    kept = json.loads(file.read_text())
    server.version = kept["version"]
    server.results = {(name, transport): result for name, transport, result in kept["results"]}
    return True


def install(server: Server) -> None:
    """Make the environment of a rival, once, and read its version."""
    if server.requirements:
        venv = VENVS / server.name
        server.python = str(venv / "bin" / "python")
        if not venv.exists():
            subprocess.run(["uv", "venv", "--quiet", "--python", "3.11", str(venv)], check=True)
            command = ["uv", "pip", "install", "--quiet", "--python", server.python]
            subprocess.run([*command, *server.requirements], check=True)
    code = f"import importlib.metadata as m; print(m.version({server.name!r}))"
    asked = subprocess.run([server.python, "-c", code], capture_output=True, text=True, check=False)
    server.version = asked.stdout.strip()


def run(server: Server, cases: list[Case]) -> None:
    """Ask a server everything."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as name:
        directory = Path(name)
        cert, key = certificate(directory)
        places = {"cert": str(cert), "key": str(key)}
        for tls in (False, True):
            if tls and server.tls is None:
                continue
            words = f"{server.template} {server.tls if tls else ''}"
            running = Running(words, server.python, **places)
            try:
                running.wait_ready()
                for transport in TRANSPORTS:
                    if transport.endswith("-tls") is tls and reachable(transport, running, name):
                        ask(server, running, transport, cases, name)
            except RuntimeError as error:
                print(f"{server.name}: {error}", file=sys.stderr)
            finally:
                running.stop()
                running.close()
    if len(cases) == len(CASES):
        ask_lifespans(server)


def reachable(transport: str, running: Running, directory: str) -> bool:
    """Return whether the server speaks this at all."""
    try:
        with Peer(transport, running.port, "type", directory) as peer:
            return peer.request().status == 200
    except Exception:
        return False


def ask(
    server: Server, running: Running, transport: str, cases: list[Case], directory: str
) -> None:
    for case in cases:
        if transport not in case.transports or case.check is None:
            continue
        with Peer(transport, running.port, case.name, directory) as peer:
            note(server, case.name, transport, functools.partial(case.check, peer))
        if running.process.poll() is not None:
            raise RuntimeError(f"{case.name} over {transport} ended the server:\n{running.text}")


def ask_lifespans(server: Server) -> None:
    for name, (_, check) in LIFESPANS.items():
        started: list[Running] = []

        def start(app: str, started: list[Running] = started) -> Running:
            # Every server has a mode of its own that takes what an application does not support.
            template = server.template.replace("--lifespan on", "--lifespan auto")
            started.append(Running(template, server.python, f"conformance.lifespans:{app}"))
            return started[-1]

        note(server, name, "lifespan", functools.partial(check, start))
        for running in started:
            running.close()


def note(server: Server, name: str, transport: str, question: object) -> None:
    """Ask on a thread: a server that makes the client wait for ever has failed."""
    pool = concurrent.futures.ThreadPoolExecutor(1)
    answer = pool.submit(question)  # type: ignore[arg-type]
    try:
        answer.result(SECONDS_MAX)
        result, reason = PASSED, ""
    except NotOfferedError:
        result, reason = NOT_OFFERED, ""
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{place.line} {error}".partition("\n")[0]
        result, reason = FAILED, f"{type(error).__name__}: {text[:200]}"
    pool.shutdown(wait=False, cancel_futures=True)
    server.results[name, transport] = result
    if reason:
        server.reasons[name, transport] = reason


def page(servers: list[Server]) -> str:
    """Return the comparison as a page."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    versions = ", ".join(f"{server.name} {server.version}" for server in servers)
    lines = [
        "<!-- Generated by `uv run task test:rivals -- --write` (tests/conformance). -->",
        "",
        "# ASGI servers compared",
        "",
        f"{len(CASES) + len(LIFESPANS)} black-box cases, asked on {today}: {versions};",
        f"Python {sys.version.split()[0]}. A case is an ASGI application and a client that shares",
        "no code with any of the servers (`tests/conformance`). All servers run with defaults,",
        "but for the lifespan, which is on. A cell speaks of the transports h1 / h1+TLS / h2 /",
        f"h2+TLS in turn: {PASSED}, {FAILED}, {NOT_OFFERED} (an extension that the server does not",
        "offer, which is its right), a dot (the server does not speak this, or the case means",
        "nothing there). One word stands for all that were asked.",
        "",
        *totals(servers),
    ]
    group = ""
    for case in CASES.values():
        if case.group != group:
            group = case.group
            heading = case.app.__module__
            lines += ["", f"## {TITLES.get(group, heading)}", "", *header(servers)]
        cells = (cell(server, case) for server in servers)
        lines.append(f"| {case.title} | {' | '.join(cells)} |")
    lines += ["", "## Lifespan", "", *header(servers)]
    for name, (title, _) in LIFESPANS.items():
        cells = (server.results.get((name, "lifespan"), UNREACHABLE) for server in servers)
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


TITLES = {
    "scope": "The scope",
    "receive": "Requests",
    "send": "Heads of responses",
    "body": "Bodies of responses",
    "end": "How applications end, and connections go on",
    "extensions": "Extensions",
    "strict": "Requests that are refused",
}


def header(servers: list[Server]) -> list[str]:
    return [
        f"| | {' | '.join(server.name for server in servers)} |",
        f"| --- {'| --- ' * len(servers)}|",
    ]


def totals(servers: list[Server]) -> Iterator[str]:
    yield "| | passed | failed | not offered | transports |"
    yield "| --- | ---: | ---: | ---: | --- |"
    for server in servers:
        counts = Counter(server.results.values())
        spoken = sorted({transport for _, transport in server.results} & set(TRANSPORTS))
        yield (
            f"| {server.name} | {counts[PASSED]} | {counts[FAILED]} | {counts[NOT_OFFERED]} "
            f"| {', '.join(spoken)} |"
        )


def cell(server: Server, case: Case) -> str:
    results = [server.results.get((case.name, transport), UNREACHABLE) for transport in TRANSPORTS]
    asked = [result for result in results if result]
    if not asked:
        return ""
    if len(set(asked)) == 1:
        return asked[0]
    return " / ".join(result or "\N{MIDDLE DOT}" for result in results)


if __name__ == "__main__":
    watchdog = threading.Timer(3600, lambda: print("an hour has passed", file=sys.stderr))
    watchdog.daemon = True
    watchdog.start()
    sys.exit(main())
