"""The command line as a user meets it: a process, its output and its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from framegate.cli import main
from framegate.config import SETTINGS

SCRIPTS = Path(sys.executable).parent
ENTRY_POINTS = {
    "platform": [str(SCRIPTS / "platform")],
    "framegate": [str(SCRIPTS / "framegate")],
    "module": [sys.executable, "-m", "framegate"],
}


def run(
    *words: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FRAMEGATE_")}
    return subprocess.run(
        words,
        cwd=cwd,
        env={**clean, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def platform(*words: str, cwd: Path | None = None, **environment: str) -> tuple[int, str]:
    done = run(*ENTRY_POINTS["module"], *words, cwd=cwd, **environment)
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_entry_points_are_the_same_command(name: str) -> None:
    done = run(*ENTRY_POINTS[name], "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("framegate 0.")


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_import_platform_is_the_standard_library(name: str, workers: str, tmp_path: Path) -> None:
    # The command is called `platform`; its name must not become a module.
    (tmp_path / "curious.py").write_text(
        "import platform, sys\nsys.exit(f'{platform.python_version()} from {platform.__file__}')"
    )
    words = ["serve", "curious:app", "--workers", workers, "--port", "0"]
    done = run(*ENTRY_POINTS[name], *words, cwd=tmp_path)
    assert done.returncode == 3
    assert f"from {os.path.dirname(os.__file__)}/platform.py" in done.stderr


def test_verbose_version_tells_how_it_was_built() -> None:
    done = run(*ENTRY_POINTS["module"], "--version", "--verbose")
    assert done.returncode == 0
    for name in ("python:", "gil:", "rustc:", "cxx:"):
        assert name in done.stdout


def test_no_arguments_and_help_show_the_commands() -> None:
    for words in ([], ["--help"]):
        done = run(*ENTRY_POINTS["module"], *words)
        assert done.returncode == 0
        assert "serve" in done.stdout


def test_help_names_every_setting_with_default_environment_and_unit() -> None:
    done = run(*ENTRY_POINTS["module"], "serve", "--help", COLUMNS="1000")
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    for setting in SETTINGS:
        for spelling in setting.command_line:
            assert (setting.kind.metavar() if spelling == "app" else spelling) in text
        for name in setting.environment:
            assert name in text
    assert "[default: 75 seconds; FRAMEGATE_TIMEOUT_KEEP_ALIVE]" in text
    assert "[default: 65536 bytes; FRAMEGATE_HEADER_BYTES_MAX]" in text
    assert "[default: 8000; FRAMEGATE_PORT, PORT]" in text


@pytest.mark.parametrize("width", ["20", "80", "200", "x"])
def test_help_fits_the_terminal(width: str) -> None:
    done = run(*ENTRY_POINTS["module"], "serve", "--help", COLUMNS=width)
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["serve", "--prot", "1"], "error: unknown option --prot; did you mean --port?"),
        (["serve", "--acces-log"], "error: unknown option --acces-log; did you mean --access-log?"),
        (["serve", "--workrs=2"], "error: unknown option --workrs; did you mean --workers?"),
        (["serve", "--zzz"], "error: unknown option --zzz"),
        (["serve", "a:b", "c:d"], "error: unexpected argument c:d; see platform serve --help"),
        (
            ["serve", "--port", "99999"],
            "error: --port 99999: expected a whole number from 0 to 65535",
        ),
        (["serve", "--port", "-1"], "error: --port -1: expected a whole number from 0 to 65535"),
        (
            ["serve", "--lifespan", "of"],
            "error: --lifespan of: expected auto, on or off; did you mean off?",
        ),
        (
            ["serve", "--uds", "/a", "--fd", "3"],
            "error: command line (--uds) and command line (--fd) contradict each other; "
            "several addresses need bind",
        ),
        (["srve"], 'error: unknown command "srve"; did you mean serve?'),
        (["main:app"], 'error: unknown command "main:app"; did you mean: platform serve main:app'),
        (["--verbose"], "error: no command given; see --help"),
    ],
)
def test_bad_option_is_one_line_and_exit_code_2(
    words: list[str], line: str, tmp_path: Path
) -> None:
    assert platform(*words, cwd=tmp_path) == (2, line + "\n")


def test_option_without_value_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    code, text = platform("serve", "--port", cwd=tmp_path)
    assert code == 2
    assert "--port" in text
    assert text.count("\n") == 1


def test_bad_value_elsewhere_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    code, text = platform("serve", cwd=tmp_path, PORT="http")
    assert (code, text) == (2, "error: PORT=http: expected a whole number from 0 to 65535\n")
    (tmp_path / "framegate.toml").write_text("wrokers = 2")
    code, text = platform("serve", cwd=tmp_path)
    assert (code, text) == (
        2,
        "error: framegate.toml: unknown key wrokers; did you mean workers?\n",
    )
    (tmp_path / "other.toml").write_text("port = 'x'")
    code, text = platform("serve", "--config", "other.toml", cwd=tmp_path)
    assert code == 2
    assert text.startswith("error: other.toml: port = x: expected")


@pytest.mark.parametrize("workers", ["1", "2"])
class TestApplicationErrors:
    def test_unknown_module_is_four_lines(self, tmp_path: Path, workers: str) -> None:
        (tmp_path / "main.py").write_text("async def app(scope, receive, send): ...")
        code, text = platform(
            "serve", "mian:app", "--workers", workers, "--port", "0", cwd=tmp_path
        )
        assert code == 3
        lines = [line for line in text.splitlines() if "stopping" not in line]
        assert lines[0] == 'error: FG-START-002 no module "mian" (in "mian:app")'
        assert lines[2] == "  fix: did you mean main?"
        assert lines[3:] == ["  more: platform docs FG-START-002"]

    def test_bug_in_the_module_shows_its_traceback(self, tmp_path: Path, workers: str) -> None:
        (tmp_path / "main.py").write_text("\n\nraise LookupError('no such thing')")
        code, text = platform(
            "serve", "main:app", "--workers", workers, "--port", "0", cwd=tmp_path
        )
        assert code == 3
        assert f'File "{tmp_path}/main.py", line 3, in <module>' in text
        assert text.count("Traceback") == 1
        assert "importer.py" not in text


@pytest.mark.parametrize("name", ["framegate", "framegate.cli", "framegate.config"])
def test_start_is_light(name: str) -> None:
    done = run(sys.executable, "-X", "importtime", "-c", f"import {name}")
    assert done.returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    heavy = {
        "asyncio",
        "framegate._http",
        "framegate._shm",
        "importlib.metadata",
        "logging",
        "numpy",
        "shutil",
        "socket",
        "subprocess",
        "tomllib",
    }
    assert name in loaded
    assert not loaded & heavy


def test_main_returns_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "x"]) == 2
    assert "--port x" in capsys.readouterr().err
