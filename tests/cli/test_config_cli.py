"""`platform config show | schema | check` and `platform check`, as a user meets them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from framegate.config import SETTINGS
from framegate.config_schema import json_schema

APP = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        print("started")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("stopped")
        await send({"type": "lifespan.shutdown.complete"})

async def without(scope, receive, send):
    assert scope["type"] == "http"

async def failing(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})

async def stuck(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "cannot close"})
"""


def platform(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    hidden = ("FRAMEGATE_", "PORT", "HOST", "WEB_CONCURRENCY")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    return subprocess.run(
        [sys.executable, "-m", "framegate", *words],
        cwd=cwd,
        env={**clean, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


class TestShow:
    def test_each_setting_has_its_value_and_its_source(self, tmp_path: Path) -> None:
        (tmp_path / "framegate.toml").write_text('host = "::1"\nssl-keyfile-password = "sesame"')
        done = platform(
            *("config", "show", "--workers", "3", "--header", "x-a: 1"),
            cwd=tmp_path,
            PORT="81",
            FRAMEGATE_BACKLOG="7",
        )
        assert (done.returncode, done.stderr) == (0, "")
        found = {
            match[1]: (match[2], match[3])
            for match in re.finditer(r"^  (\w+) +(.*?) {2,}(\S.*)$", done.stdout, re.MULTILINE)
        }
        assert set(found) == {item.name for item in SETTINGS}
        assert found["host"] == ("::1", "file (framegate.toml: host)")
        assert found["workers"] == ("3", "command line (--workers)")
        assert found["headers"] == ("x-a: 1", "command line (--header)")
        assert found["port"] == ("81", "environment (PORT)")
        assert found["backlog"] == ("7", "environment (FRAMEGATE_BACKLOG)")
        assert found["lifespan"] == ("auto", "default")
        assert found["ssl_keyfile_password"][0] == "***"
        assert "sesame" not in done.stdout

    def test_as_json_and_only_what_is_no_default(self, tmp_path: Path) -> None:
        (tmp_path / "framegate.toml").write_text('ssl-keyfile-password = "sesame"')
        done = platform(
            *("config", "show", "main:app", "--json", "--changed", "--bind", "localhost:0"),
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {
            "app": {"value": "main:app", "origin": "command line (app)"},
            "bind": {"value": ["localhost:0"], "origin": "command line (--bind)"},
            "ssl_keyfile_password": {
                "value": "***",
                "origin": "file (framegate.toml: ssl-keyfile-password)",
            },
        }

    @pytest.mark.parametrize(
        ("words", "line"),
        [
            (["--prot", "1"], "error: unknown option --prot; did you mean --port?"),
            (["--jsn"], "error: unknown option --jsn; did you mean --json?"),
            (["--port", "x"], "error: --port x: expected a whole number from 0 to 65535"),
            (["a:b", "c:d"], "error: unexpected argument c:d; see platform serve --help"),
            (["--loop", "a"], "error: unknown option --loop (of uvicorn): leave it out"),
        ],
    )
    def test_mistakes_are_those_of_serve(self, words: list[str], line: str, tmp_path: Path) -> None:
        done = platform("config", "show", *words, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(line)
        assert done.stderr.count("\n") == 1


class TestSchema:
    def test_is_printed(self, tmp_path: Path) -> None:
        done = platform("config", "schema", cwd=tmp_path)
        assert done.returncode == 0
        assert json.loads(done.stdout) == json_schema()


class TestCheckOfSettings:
    def test_says_what_was_read(self, tmp_path: Path) -> None:
        (tmp_path / "framegate.toml").write_text('port = 81\napp = "nowhere:app"')
        done = platform("config", "check", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout == (
            f"{len(SETTINGS)} settings are right, 2 of them are no default; "
            "read from framegate.toml\n"
        )

    def test_says_what_is_wrong(self, tmp_path: Path) -> None:
        (tmp_path / "framegate.toml").write_text("prot = 81")
        done = platform("config", "check", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "error: framegate.toml: unknown key prot; did you mean port?\n"

    def test_config_names_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "other.toml").write_text("port = 81")
        done = platform("config", "check", "--config", "other.toml", cwd=tmp_path)
        assert done.stdout.endswith("read from other.toml\n")
        done = platform("config", "check", "--config", "none.toml", cwd=tmp_path)
        assert done.stderr == "error: none.toml: cannot be read: No such file or directory\n"

    def test_warnings_are_told(self, tmp_path: Path) -> None:
        done = platform("config", "check", cwd=tmp_path, FRAMEGATE_PROT="1")
        assert done.returncode == 0
        assert "warning: environment variable FRAMEGATE_PROT is not known" in done.stderr

    def test_the_verb_is_asked_for(self, tmp_path: Path) -> None:
        done = platform("config", cwd=tmp_path)
        assert done.returncode == 0
        assert re.search(r"^ +show .*\n +schema .*\n +check ", done.stdout, re.MULTILINE)
        done = platform("config", "shw", cwd=tmp_path)
        assert done.stderr == 'error: unknown verb "config shw"; did you mean show?\n'


class TestCheckOfAnApplication:
    @pytest.fixture
    def directory(self, tmp_path: Path) -> Path:
        (tmp_path / "main.py").write_text(APP)
        return tmp_path

    def test_lifespan_is_started_and_stopped(self, directory: Path) -> None:
        done = platform("check", "main:app", "--port", "0", cwd=directory)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[0].startswith("options:           main:app, framegate ")
        assert re.match(r"addresses: +http://127.0.0.1:\d+$", lines[1])
        assert [line.partition(":")[0] for line in lines[2:]] == [
            "import",
            "started",
            "lifespan startup",
            "stopped",
            "lifespan shutdown",
            "ok",
        ]

    def test_application_without_lifespan(self, directory: Path) -> None:
        done = platform("check", "main:without", "--port", "0", cwd=directory)
        assert done.returncode == 0, done.stderr
        assert "lifespan:          the application has none\n" in done.stdout
        done = platform("check", "main:without", "--port", "0", "--lifespan", "on", cwd=directory)
        assert done.returncode == 3
        done = platform("check", "main:without", "--port", "0", "--lifespan", "off", cwd=directory)
        assert "lifespan:          off\n" in done.stdout

    @pytest.mark.parametrize(
        ("words", "code", "text"),
        [
            (["main:ap"], 3, "did you mean app?"),
            (["mian:app"], 3, "did you mean main?"),
            (["main:failing"], 3, "lifespan startup failed: no database"),
            (["main:stuck"], 1, "lifespan shutdown failed: cannot close"),
            (["main:app", "--prot", "1"], 2, "did you mean --port?"),
            (["main:app", "--ssl-certfile", "none.pem"], 3, "none.pem"),
            ([], 3, "no application given"),
        ],
    )
    def test_failure_has_the_words_and_the_code_of_serve(
        self, words: list[str], code: int, text: str, directory: Path
    ) -> None:
        done = platform("check", *words, cwd=directory, PORT="0")
        assert done.returncode == code
        assert text in done.stderr
        assert "Traceback" not in done.stderr
        assert "ok:" not in done.stdout

    def test_address_in_use_is_found(self, directory: Path) -> None:
        import socket

        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            done = platform("check", "main:app", "--port", port, cwd=directory)
        assert done.returncode == 3
        assert f"port {port} on 127.0.0.1 is in use" in done.stderr
