"""The training of the profile-guided build: framegate, instrumented, answers the benchmarks' load.

rustc lays out and inlines what the questions below make it run; what they do not touch is built as
ever. The profile is of LLVM's own format, so its `llvm-profdata` has to be as new as rustc's LLVM.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from framegate_bench import comparison, environments, measure, question
from framegate_bench.comparison import Case, Comparison, with_contestants
from framegate_bench.environments import HOME, TRAINED
from framegate_bench.loadgen import Times
from framegate_bench.processes import BenchError
from framegate_bench.question import Question

QUESTIONS = (
    "hello", "hello_h2", "fastapi_route", "websocket_small", "websocket_large", "native_hello",
    "native_echo", "native_validated", "native_invalid", "frame_ingest", "static_files",
    "observability", "topic_post",
)  # fmt: skip
COMPARISONS = {
    # A rate that is no camera's: what ran seldom counts as cold, and is built small.
    "topic_fanout": ("--viewers", "100", "--rate", "100"),
    "topic_call": ("--bytes", "64", "--tools", "{tools}"),
}
TIMES = Times(1.0, warmup_s=0.4)


def train() -> Path:
    """Build instrumented, run the load, merge; the profile."""
    merge = _llvm_profdata()
    counts = TRAINED / "counts"
    if counts.exists():
        shutil.rmtree(counts)
    counts.mkdir(parents=True)
    venv = environments.instrumented(counts)
    native = environments.native()
    cores = measure.choose_cores()
    bench = measure.Bench({"framegate": venv}, native, cores, TIMES, rounds=1)
    affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cores.load})
    try:
        for one in question.load(HOME, QUESTIONS):
            assert isinstance(one, Question), one
            ours = tuple(server for server in one.servers if server.venv == "framegate")
            measure.ask(bench, question.with_servers(one, ours), {})
        for one in question.load(HOME, tuple(COMPARISONS)):
            assert isinstance(one, Comparison), one
            _train_by(one, venv, native, cores)
    finally:
        os.sched_setaffinity(0, affinity)
    raw = sorted(counts.glob("*.profraw"))
    # One of all processes: each adds to what the one before has left.
    if not raw:
        raise BenchError(f"the instrumented servers left no counts in {counts}")
    merged = TRAINED / "merged.profdata"
    command = [merge, "merge", "--output", str(merged), *map(str, raw)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise BenchError(f"{merge} failed: {done.stderr.strip()}")
    # cargo builds anew by the flags, not by what is in the file.
    digest = hashlib.sha256(merged.read_bytes()).hexdigest()[:16]
    return merged.rename(TRAINED / f"http-{digest}.profdata")


def _train_by(one: Comparison, venv: Path, native: Path, cores: measure.Cores) -> None:
    """Run our program of a comparison once, with the words for it above."""
    case = Case("training", "training", COMPARISONS[one.name], ())
    answer = comparison.ask(
        replace(with_contestants(one, {"framegate"}), cases=(case,), limits=()),
        folders={"framegate": venv},
        missing={},
        tools=native,
        cores=(cores.server, cores.load),
        seconds=TIMES.seconds,
        rounds=1,
    )
    error = answer["cases"][0]["rows"]["framegate"]["error"]
    if error is not None:
        raise BenchError(f"{one.name}: {error}")


def _llvm_profdata() -> str:
    text = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    wanted = int(re.findall(r"^LLVM version: (\d+)", text, re.M)[0])
    sysroot = subprocess.run(
        ["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True
    ).stdout.strip()
    for program in (
        os.environ.get("LLVM_PROFDATA"),
        *map(str, Path(sysroot).glob("lib/rustlib/*/bin/llvm-profdata")),
        f"llvm-profdata-{wanted}",
        "llvm-profdata",
    ):
        if program is None or shutil.which(program) is None:
            continue
        said = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
        found = re.search(r"LLVM version (\d+)", said)
        if found and int(found[1]) >= wanted:
            return program
        print(f"{program} is too old for LLVM {wanted}", file=sys.stderr)
    raise BenchError(
        f"llvm-profdata of LLVM {wanted} was not found: apt-get install llvm-{wanted}, "
        "rustup component add llvm-tools, or say where in LLVM_PROFDATA"
    )
