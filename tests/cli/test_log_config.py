"""`--log-config`: Python's logging, configured as for uvicorn, and the access log as records."""

from __future__ import annotations

import configparser
import copy
import json
import logging
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from uvicorn.config import LOGGING_CONFIG

from framegate import Config, ConfigError, Server
from framegate.log_config import apply
from framegate.logging import configure_from
from server_process import Launch

NAMES = ("uvicorn", "uvicorn.error", "uvicorn.asgi", "uvicorn.access")
OURS = ("framegate", "framegate.asgi", "framegate.tls", "framegate.access")


@pytest.fixture(autouse=True)
def untouched_loggers() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in (*NAMES, *OURS)]
    root = logging.getLogger()
    before = [(item.handlers[:], item.level, item.propagate) for item in (*loggers, root)]
    for item in loggers:
        item.handlers[:] = []
    yield
    for item, (handlers, level, propagate) in zip((*loggers, root), before, strict=True):
        item.handlers[:] = handlers
        item.setLevel(level)
        item.propagate = propagate


def uvicorns(directory: Path) -> dict[str, Any]:
    """Return uvicorn's own configuration, writing into files."""
    found = copy.deepcopy(LOGGING_CONFIG)
    for name, handler in found["handlers"].items():
        handler.pop("stream")
        handler |= {"class": "logging.FileHandler", "filename": str(directory / f"{name}.log")}
    return found


def write(directory: Path, ending: str) -> Path:
    file = directory / f"log{ending}"
    content = uvicorns(directory)
    file.write_text(yaml.safe_dump(content) if ending == ".yaml" else json.dumps(content))
    return file


@pytest.mark.parametrize("ending", [".json", ".yaml"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_configuration_of_uvicorn_works_as_it_is(
    ending: str, workers: str, launch: Launch, tmp_path: Path
) -> None:
    file = write(tmp_path, ending)
    words = ["--log-config", str(file), "--workers", workers, "--bind", "unix:socket"]
    server = launch("supervised_apps:app", *words)
    server.wait_event("startup", int(workers))
    while True:
        text = (tmp_path / "default.log").read_text() if (tmp_path / "default.log").exists() else ""
        if "ready: pid" in text:
            break
        threading.Event().wait(0.02)  # a file cannot be awaited
    subprocess.run(
        ["curl", "-sS", "--unix-socket", "socket", "http://x/pid?q=1"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert server.stop() == 0
    assert "INFO:     ready: pid" in (tmp_path / "default.log").read_text()
    access = (tmp_path / "access.log").read_text()
    assert '"GET /pid?q=1 HTTP/1.1" 200 OK' in access
    assert access.startswith("INFO:     ")
    assert server.text == ""  # neither on stderr nor, by the core, on stdout


def test_ini_file_with_a_formatter_of_uvicorn(tmp_path: Path) -> None:
    parser = configparser.RawConfigParser()
    parser.read_string(
        f"""
        [loggers]
        keys = root, error
        [handlers]
        keys = file
        [formatters]
        keys = plain
        [logger_root]
        handlers =
        [logger_error]
        qualname = uvicorn.error
        level = WARNING
        handlers = file
        propagate = 0
        [handler_file]
        class = FileHandler
        formatter = plain
        args = ({str(tmp_path / "out.log")!r},)
        [formatter_plain]
        class = uvicorn.logging.DefaultFormatter
        format = %%(levelprefix)s%%(message)s
        """.replace("\n        ", "\n").replace("%%", "%")
    )
    with open(tmp_path / "log.ini", "w") as stream:
        parser.write(stream)
    configure_from(Config(log_config=str(tmp_path / "log.ini")))
    logging.getLogger("framegate").warning("a word")
    logging.getLogger("framegate").info("not shown")
    logging.getLogger("framegate").handlers[0].close()
    assert (tmp_path / "out.log").read_text() == "WARNING: a word\n"


def test_own_names_win_over_those_of_uvicorn() -> None:
    apply(
        Config(
            log_config={
                "version": 1,
                "loggers": {
                    "uvicorn": {"level": "ERROR"},
                    "uvicorn.access": {"level": "ERROR"},
                    "framegate": {"level": "DEBUG"},
                },
            }
        )
    )
    assert logging.getLogger("framegate").level == logging.DEBUG
    assert logging.getLogger("framegate.access").level == logging.ERROR


def test_loggers_of_the_application_go_on() -> None:
    mine = logging.getLogger("mine")
    logging.getLogger().handlers[:] = []  # those of pytest
    configure_from(Config(log_config={"version": 1}))
    assert not mine.disabled
    # Nobody was told where to write: the server's own lines still go to stderr.
    assert len(logging.getLogger("framegate").handlers) == 1


def test_level_that_is_given_wins_over_the_file() -> None:
    dictionary: dict[str, Any] = {
        "version": 1,
        "handlers": {"null": {"class": "logging.NullHandler"}},
        "loggers": {"uvicorn": {"level": "ERROR", "handlers": ["null"]}},
    }
    configure_from(Config(log_config=dictionary))
    assert logging.getLogger("framegate").level == logging.ERROR
    configure_from(Config(log_config=dictionary, log_level="debug"))
    assert logging.getLogger("framegate").level == logging.DEBUG


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.json", "{", "is no configuration of logging"),
        ("log.json", "[]", "expected a mapping at the top"),
        ("log.json", '{"version": 2}', "Unsupported version: 2"),
        ("log.yaml", "a: [", "is no configuration of logging"),
        ("log.toml", "version", "is no configuration of logging"),
        ("log.ini", "[loggers]", "is no configuration of logging"),
        ("log.json", None, "cannot be read: No such file or directory"),
        (
            "log.json",
            '{"version": 1, "handlers": {"x": {"class": "nowhere.Handler"}}}',
            "Unable to configure handler 'x'",
        ),
    ],
)
def test_mistake_names_the_file_and_the_place(
    name: str, content: str | None, message: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        configure_from(Config(log_config=str(file)))
    text = str(caught.value)
    assert text.startswith(f"code (log_config): {file} ")
    assert message in text
    assert "\n" not in text.strip() or name == "log.yaml"


def test_yaml_without_its_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log.yaml").write_text("version: 1")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigError, match="pip install pyyaml"):
        configure_from(Config(log_config=str(tmp_path / "log.yaml")))


def test_program_that_embeds_a_server_gets_requests_as_records() -> None:
    records: list[logging.LogRecord] = []
    seen = threading.Event()

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)
            seen.set()

    logger = logging.getLogger("framegate.access")
    logger.addHandler(Collecting())
    logger.setLevel("INFO")
    logger.propagate = False

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with Server(app, port=0, lifespan="off").start_in_thread() as server:
        with urllib.request.urlopen(f"{server.urls[0]}/a%22b?q=1", timeout=60) as answer:
            assert answer.status == 204
        assert seen.wait(60)
    (record,) = records
    assert record.getMessage().endswith(' - "GET /a%22b?q=1 HTTP/1.1" 204')
    request: dict[str, Any] = record.__dict__["request"]
    assert request["bytes_out"] == 0
    assert request["milliseconds"] >= 0


def test_configuration_of_the_guide(tmp_path: Path, launch: Launch) -> None:
    text = (Path(__file__).parents[2] / "docs/guide/configure.md").read_text()
    (tmp_path / "log.json").write_text(text.split("```json\n")[1].split("```")[0])
    server = launch("supervised_apps:app", "--log-config", "log.json").wait_ready()
    assert server.get("/pid")
    assert server.stop() == 0
    assert '"GET /pid HTTP/1.1" 200' in (tmp_path / "access.log").read_text()
    assert "GET /pid" not in server.text
    assert "ready: pid" in server.text
