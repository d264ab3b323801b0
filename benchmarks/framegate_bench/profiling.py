"""Where the time, the lock and the memory go while framegate answers a question's load.

`cpu` and `gil` are py-spy's samples, with the frames of Python, Rust and C++ in one flame graph;
`alloc` (what is allocated and soon freed) and `memory` (what there is at the highest point) are
memray's. Both tools are of the driver's environment, which has the interpreter of framegate's.
"""

import os
import subprocess
import sys
import sysconfig
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from framegate_bench.loadgen import Times
from framegate_bench.measure import Bench, Running
from framegate_bench.processes import BenchError, last_words, write_line
from framegate_bench.question import Question

KINDS = ("cpu", "gil", "alloc", "memory")
SAMPLES_PER_S = 400
PATIENCE_S = 120.0
# memray runs what it watches, in framegate's environment, which does not have it.
RUN_MEMRAY = "import sys; sys.path.append({path!r}); from memray.commands import main; main()"


def profile(kind: str, bench: Bench, question: Question, folder: Path) -> Path:
    """Have framegate answer the last phase of a question; the flame graph of it."""
    ours = [one for one in question.servers if one.venv == "framegate"]
    if not ours:
        raise BenchError(f"framegate is not asked {question.name}")
    server = ours[0]
    folder.mkdir(parents=True, exist_ok=True)
    seconds, warmup_s = bench.times.seconds, bench.times.warmup_s
    phase = question.phases[-1]
    if kind in {"cpu", "gil"}:
        picture = folder / f"{question.name}-{kind}.svg"
        with ExitStack() as stack:
            up = Running(bench, question, server, stack)
            words = ["--gil"] if kind == "gil" else ["--native"]
            command = [
                _tool("py-spy"), "record", "--pid", str(up.pid), "--rate", str(SAMPLES_PER_S),
                "--duration", str(round(seconds)), "--output", str(picture), *words,
            ]  # fmt: skip
            # However late py-spy begins: the load is there before it, and is ended behind it.
            patience_s = seconds + PATIENCE_S
            load = stack.enter_context(up.load(phase, Times(patience_s + 2, warmup_s)))
            write_line(load.process, "go")
            code = subprocess.run(command, stdout=sys.stderr, timeout=patience_s).returncode
            if code != 0:
                raise BenchError(f"py-spy ended with {code}; its words are above")
            if load.process.poll() is not None:
                raise BenchError(f"the load ended before py-spy: {last_words(up.load_log)}")
        return picture
    bench = replace(bench, times=Times(seconds + 2, warmup_s), rounds=1)
    raw = folder / f"{question.name}-{kind}.bin"
    raw.unlink(missing_ok=True)
    library = RUN_MEMRAY.format(path=sysconfig.get_path("purelib"))
    # `{bin}/platform` is `python -m framegate`.
    watched = (
        "env", "FRAMEGATE_ALLOCATOR=system",  # memray sees nobody else's
        "{bin}/python", "-c", library.replace("{", "{{").replace("}", "}}"), "run", "--native",
        "--trace-python-allocators", "--output", str(raw), "-m", "framegate", *server.command[1:],
    )  # fmt: skip
    with ExitStack() as stack:
        Running(bench, question, replace(server, command=watched), stack).sample(phase)
    picture = raw.with_suffix(".html")
    words = ["--temporary-allocations"] if kind == "alloc" else []
    command = [
        sys.executable, "-m", "memray", "flamegraph", "--force", *words, "--output", str(picture),
        str(raw),
    ]  # fmt: skip
    if subprocess.run(command, stdout=sys.stderr, timeout=PATIENCE_S).returncode != 0:
        raise BenchError("memray could not draw; its words are above")
    raw.unlink()
    return picture


def _tool(name: str) -> str:
    program = Path(sysconfig.get_path("scripts")) / name
    if not os.access(program, os.X_OK):
        raise BenchError(f"{name} was not found in the driver's environment: run `uv sync`")
    return str(program)
