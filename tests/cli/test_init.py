"""`platform init`: what it writes is what the units, linters and the server itself accept."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from framegate.cli import main, parser, subcommands
from framegate.config import Config
from framegate.worker import stop_seconds

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("systemd", "docker", "compose", "k8s")


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory whose name needs mending."""
    found = tmp_path / "My App_2"
    found.mkdir()
    monkeypatch.chdir(found)
    return found


def init(*words: str) -> None:
    assert main(["init", *words]) == 0


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["init", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def served(words: list[str]) -> Config:
    """Return the settings of a command, as `platform` reads it."""
    assert words[:2] == ["platform", "serve"]
    options = vars(subcommands(parser())["serve"].parse_args(words[2:]))
    del options["command"]
    return Config.load(command_line=options, environment={}, search=False)


def lint(*command: str) -> None:
    tool = shutil.which(command[0], path=str(Path(sys.executable).parent)) or command[0]
    done = subprocess.run(
        [tool, *command[1:]], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def docker_words(file: Path) -> list[str]:
    match = re.search(r"^CMD (\[.*\])$", file.read_text(), re.M)
    assert match
    return list(yaml.safe_load(match[1]))


def manifests(file: Path) -> dict[str, Any]:
    return {found["kind"]: found for found in yaml.safe_load_all(file.read_text())}


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("systemd", ("systemd/app.service", "systemd/app.socket")),
        ("k8s", ("kubernetes/app.yaml",)),
    ],
)
def test_files_of_the_guide_are_what_it_writes(
    kind: str, files: tuple[str, ...], directory: Path
) -> None:
    init(kind, "main:app", "--name", "app")
    assert sorted(it.name for it in directory.iterdir()) == sorted(Path(it).name for it in files)
    for file in files:
        assert (directory / Path(file).name).read_text() == (ROOT / "deploy" / file).read_text()


def test_names_follow_the_directory(directory: Path) -> None:
    init("systemd", "main:app")
    unit = (directory / "my-app-2.service").read_text()
    assert "User=my-app-2\n" in unit
    assert "WorkingDirectory=/srv/my-app-2\n" in unit
    assert "my-app-2.service is restarted" in (directory / "my-app-2.socket").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_options_of_serve_are_in_the_command(kind: str, directory: Path) -> None:
    given = ("--port", "8443", "--workers", "3", "--no-access-log", "--timeout-startup", "2m")
    init(kind, "pkg.main:make", "--name", "cam", "--factory", *given, "--timeout-keep-alive", "9")
    if kind == "systemd":
        text = (directory / "cam.service").read_text()
        words = re.findall(r"^ExecStart=/srv/cam/.venv/bin/(.*)$", text, re.M)[0].split()
        assert not (directory / "cam.socket").exists()  # an address is given
        assert "TimeoutStartSec=150\n" in text
    elif kind == "k8s":
        pod = manifests(directory / "cam.yaml")["Deployment"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        words = container["command"] + container["args"]
        assert container["ports"][0]["containerPort"] == 8443
        assert container["startupProbe"]["failureThreshold"] == 120
    else:
        words = docker_words(directory / "Dockerfile")
        assert "EXPOSE 8443\n" in (directory / "Dockerfile").read_text()
        assert "start-period=120s" in (directory / "Dockerfile").read_text()
    config = served(words)
    assert (config.app, config.factory, config.port) == ("pkg.main:make", True, 8443)
    assert (config.workers, config.access_log, config.timeout_keep_alive) == (3, False, 9)
    assert config.host == ("127.0.0.1" if kind == "systemd" else "0.0.0.0")


def test_repeated_options_stay_repeated(directory: Path) -> None:
    binds = ("--bind", "127.0.0.1:1234", "--bind", "unix:/run/x y.sock")
    init("systemd", "main:app", *binds, "--header", "x-a: 100% of $5", "--name", "a")
    (line,) = re.findall(r"^ExecStart=(.*)$", (directory / "a.service").read_text(), re.M)
    assert '--bind 127.0.0.1:1234 --bind "unix:/run/x y.sock"' in line
    assert '"x-a: 100%% of $$5"' in line


def test_units_are_understood(directory: Path) -> None:
    init("systemd", "main:app", "--name", "b", "--header", 'x-a: "quoted"; %n')
    unit = directory / "b.service"
    unit.write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", unit.read_text()))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "./b.service"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 and "b.service:" not in done.stderr, done.stderr


def test_docker_and_compose_files_pass_their_linters(directory: Path) -> None:
    init("compose", "main:app", "--name", "c")
    lint("hadolint", str(directory / "Dockerfile"))
    lint(
        *(sys.executable, "-m", "check_jsonschema"),
        *("--builtin-schema", "vendor.compose-spec", str(directory / "compose.yaml")),
    )
    assert (directory / ".dockerignore").exists()


def test_nobody_kills_before_the_server_has_stopped(directory: Path) -> None:
    slow = ("--timeout-graceful-shutdown", "100", "--timeout-worker-shutdown", "20")
    config = Config(timeout_graceful_shutdown=100, timeout_worker_shutdown=20)
    for kind in ("systemd", "compose", "k8s"):
        init(kind, "main:app", "--name", "d", *slow)
    service = yaml.safe_load((directory / "compose.yaml").read_text())["services"]["d"]
    pod = manifests(directory / "d.yaml")["Deployment"]["spec"]["template"]["spec"]
    unit = re.search(r"TimeoutStopSec=(\d+)", (directory / "d.service").read_text())
    assert unit
    *_, pause = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert int(unit[1]) > stop_seconds(config)
    assert int(service["stop_grace_period"].removesuffix("s")) > stop_seconds(config)
    assert pod["terminationGracePeriodSeconds"] > stop_seconds(config) + int(pause)


def test_shared_memory_follows_the_rules_of_topics(directory: Path) -> None:
    (directory / "framegate.toml").write_text(
        'topics = "/topics"\n'
        '[topic_rules]\n"one" = {create = true, slots = 8, slot_bytes = "16MiB"}\n'
        '"many/*" = {create = true, slots = 2, dtype = "uint8", shape = [1048576]}\n'
        '"known" = {dtype = "uint8", shape = [4]}\n'
    )
    init("compose", "main:app", "--name", "e")
    service = yaml.safe_load((directory / "compose.yaml").read_text())["services"]["e"]
    # 2 x (8 x 16 + 4 x 2 x 1) = 272, in steps of 64.
    assert (service["shm_size"], service["mem_limit"]) == ("320mb", "832m")
    assert "4 of each pattern" in (directory / "compose.yaml").read_text()


def test_environment_of_whoever_runs_it_does_not_count(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAMEGATE_PORT", "1")
    monkeypatch.setenv("FRAMEGATE_TIMEOUT_STARTUP", "7")
    init("docker", "main:app")
    assert "EXPOSE 8000\n" in (directory / "Dockerfile").read_text()
    assert "start-period=60s" in (directory / "Dockerfile").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_replaced_unasked(
    kind: str, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init(kind, "main:app", "--name", "f")
    files = sorted(directory.iterdir())
    for file in files[1:]:
        file.unlink()
    files[0].write_text("mine")
    assert f"{files[0].name} is there already; --force" in refused(
        capsys, kind, "main:app", "--name", "f"
    )
    assert files[0].read_text() == "mine" and sorted(directory.iterdir()) == files[:1]
    init(kind, "main:app", "--name", "f", "--force")
    assert files[0].read_text() != "mine" and sorted(directory.iterdir()) == files


@pytest.mark.parametrize("kind", KINDS)
def test_print_writes_nothing(
    kind: str, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init(kind, "main:app", "--print")
    assert "main:app" in capsys.readouterr().out
    assert not list(directory.iterdir())


def test_other_directory(directory: Path) -> None:
    init("k8s", "main:app", "--name", "g", "--output", "deploy/k8s")
    assert (directory / "deploy/k8s/g.yaml").exists()


def test_directory_that_cannot_be_written(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "file").touch()
    error = refused(capsys, "k8s", "main:app", "--output", "file/below")
    assert "--output: " in error and "Not a directory" in error


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("systemd",), "name the application"),
        (("docker", "main:app", "--name", "Bad Name"), '--name: "Bad Name" is no name'),
        (("docker", "main:app", "--name", "a" * 32), "1 to 31"),
        (("docker", "main:app", "--host", "::"), "--host: leave it out"),
        (("compose", "main:app", "--bind", "*:80"), "--bind: leave it out"),
        (("k8s", "main:app", "--admin-bind", "1"), "--admin-bind: leave it out"),
        (("k8s", "main:app", "--port", "9000"), "--port: 9000 is the port of the probes"),
        (("docker", "main:app", "--workers", "many"), "workers"),
        (("heroku", "main:app"), 'unknown verb "init heroku"'),
        (("docker", "main:app", "--worker", "2"), "unknown option --worker"),
    ],
)
def test_mistakes(words: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert text in refused(capsys, *words)


def test_longest_name(directory: Path) -> None:
    init("docker", "main:app", "--name", "a" * 31)
    assert "/srv/" + "a" * 31 in (directory / "Dockerfile").read_text()


def test_without_a_kind_it_tells_the_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    init()
    told = capsys.readouterr().out
    assert all(re.search(rf"^ +{kind} ", told, re.M) for kind in KINDS)
