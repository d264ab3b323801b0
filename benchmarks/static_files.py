"""What does a file cost? 100 KiB from the page cache, 64 connections; nginx is Debian's."""

from framegate_bench.__main__ import main
from framegate_bench.environments import BUILD
from framegate_bench.question import Bar, Phase, Question
from framegate_bench.servers import framegate, granian, nginx

APP = "hello_app:app"
FILES = BUILD / "static"
PATH = "/static/100k.bin"
LOAD = ("http", "--path", PATH, "--conns", "64")

# Not all alike, so that nobody can profit from a page of zeros.
FILES.mkdir(parents=True, exist_ok=True)
(FILES / "100k.bin").write_bytes(bytes(n * 31 // 7 % 256 for n in range(100 * 1024)))

QUESTION = Question(
    name="static_files",
    title="Static file: 100 KiB, 64 connections",
    unit="file",
    servers=(
        framegate(APP, options=("--static", f"/static={FILES}")),
        granian(APP, options=("--static-path-route", "/static", "--static-path-mount", str(FILES))),
        nginx(str(FILES)),
    ),
    phases=(
        Phase("fixed", "3,000 files/s", LOAD, rate=3_000),
        Phase("closed", "closed loop", LOAD),
    ),
    bars=(Bar("granian", "fixed", 2.0), Bar("nginx", "fixed", 0.8)),
    probe=PATH,
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
