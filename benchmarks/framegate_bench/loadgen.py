"""One window of load: `native/src/bin/loadgen`, and its protocol with the driver."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from framegate_bench.processes import BenchError, read_line, running, write_line

PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What came back in the measured window."""

    completed: int
    elapsed_s: float
    per_s: float
    p50_us: float
    p99_us: float
    max_us: float


@dataclass(frozen=True, slots=True)
class Times:
    """Lengths of a window and of the warm-up before it."""

    seconds: float
    warmup_s: float


@dataclass(frozen=True, slots=True)
class WarmLoad:
    """A load generator whose warm-up is done and whose every request is answered."""

    process: subprocess.Popen[bytes]
    log: Path
    times: Times

    def measure(self) -> LoadResult:
        """Do the measured window; returns when the last answer is in."""
        write_line(self.process, "go")
        limit_s = self.times.seconds * 1.5 + PATIENCE_S
        result = LoadResult(**json.loads(read_line(self.process, limit_s, self.log)))
        if result.completed == 0:
            raise BenchError("the window ended before anything was answered")
        return result


@contextmanager
def warm_load(
    program: Path,
    arguments: tuple[str, ...],
    rate: float | None,
    port: int,
    times: Times,
    core: int,
    log: Path,
) -> Iterator[WarmLoad]:
    """Start the load generator on `core` and let it warm the server up."""
    command: list[str | Path] = [
        program, *arguments, "--port", str(port), "--seconds", str(times.seconds),
        "--warmup", str(times.warmup_s), *(["--rate", str(rate)] if rate else []),
    ]  # fmt: skip
    with running(command, core=core, log=log, piped=True) as process:
        read_line(process, times.warmup_s * 1.5 + PATIENCE_S, log)
        yield WarmLoad(process, log, times)
