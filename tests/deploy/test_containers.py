"""Dockerfile, compose file and manifest: linted, and in step with the defaults of the server.

Images are not built here: that takes a builder and a registry.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from framegate import Config
from framegate.cli import parser, subcommands
from framegate.testing import client
from framegate.worker import stop_seconds
from metrics.scraping import admin_port, ask
from server_process import Launch

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "container/Dockerfile"
COMPOSE = DEPLOY / "container/compose.yaml"
MANIFEST = DEPLOY / "kubernetes/app.yaml"


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def manifest(kind: str) -> Any:
    (found,) = [it for it in yaml.safe_load_all(MANIFEST.read_text()) if it["kind"] == kind]
    return found


def seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)s", text)
    assert match
    return float(match[1])


def test_dockerfile_passes_hadolint() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint is not None
    run(hadolint, str(DOCKERFILE))


def test_compose_file_obeys_its_schema() -> None:
    run(
        *(sys.executable, "-m", "check_jsonschema"),
        *("--builtin-schema", "vendor.compose-spec", str(COMPOSE)),
    )


def test_what_the_dockerfile_copies_exists() -> None:
    for line in DOCKERFILE.read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            _, *sources, _ = line.split()
            for source in sources:
                assert (ROOT / source).exists(), line


def words_of(command: list[str]) -> Config:
    """Return the settings of a command line, as `platform` understands it."""
    assert command[0] == "platform"
    options = vars(subcommands(parser())["serve"].parse_args(command[2:]))
    del options["command"]
    return Config.load(command_line=options, environment={}, search=False)


def test_commands_are_understood() -> None:
    match = re.search(r"^CMD (\[.*\])$", DOCKERFILE.read_text(), re.M)
    assert match
    for command in (yaml.safe_load(match[1]), manifest_command()):
        config = words_of(command)
        assert (config.app, config.host, config.port, config.workers) == (
            *("main:app", "0.0.0.0", 8000, 0),
        )


def manifest_command() -> list[str]:
    (container,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    return [*container["command"], *container["args"]]


def test_nobody_kills_before_the_server_has_stopped() -> None:
    config = Config()
    (service,) = yaml.safe_load(COMPOSE.read_text())["services"].values()
    assert seconds(service["stop_grace_period"]) > stop_seconds(config)
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    *_, pause = container["lifecycle"]["preStop"]["exec"]["command"]
    assert pod["terminationGracePeriodSeconds"] > stop_seconds(config) + float(pause)


def test_startup_has_as_long_as_the_server_gives_it() -> None:
    (container,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= Config().timeout_startup
    assert "livenessProbe" not in container


def test_ports_and_volumes_fit() -> None:
    (container,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    port, admin = container["ports"]
    (service_port,) = manifest("Service")["spec"]["ports"]
    assert port["containerPort"] == Config().port
    assert service_port["targetPort"] == port["name"]
    assert f"0.0.0.0:{admin['containerPort']}" in container["args"]
    volumes = {
        it["name"]: it for it in manifest("Deployment")["spec"]["template"]["spec"]["volumes"]
    }
    mounts = {it["mountPath"]: volumes[it["name"]] for it in container["volumeMounts"]}
    assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"


def test_probes_are_answered_without_the_application(launch: Launch) -> None:
    """With the manifest's own arguments; by a port that the Service leaves out."""
    (container,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    _, admin = container["ports"]
    words = [re.sub(r"^0\.0\.0\.0(:\d+)?$", "127.0.0.1", word) for word in container["args"]]
    words[words.index("--admin-bind") + 1] = "127.0.0.1:0"
    server = launch("supervised_apps:app", *words).wait_ready()
    for name in ("startupProbe", "readinessProbe"):
        probe = container[name]["httpGet"]
        assert probe["port"] == admin["name"]
        assert ask(admin_port(server), probe["path"])[0] == 200
    assert server.stop() == 0


def test_same_user_everywhere() -> None:
    (user,) = re.findall(r"^USER (\d+)$", DOCKERFILE.read_text(), re.M)
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == int(user)


def test_health_check_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails until the application has started, and then succeeds."""
    match = re.search(
        r'CMD \["python", "-c", "(import os, socket;.*)"\]$', DOCKERFILE.read_text(), re.M
    )
    assert match
    command = [sys.executable, "-c", match[1]]

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await asyncio.get_running_loop().run_in_executor(None, lambda: None)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    with client(application) as peer:
        monkeypatch.setenv("PORT", str(peer.base_url.port))
        assert subprocess.run(command, timeout=60, check=False).returncode == 0
    done = subprocess.run(command, timeout=60, check=False, capture_output=True)
    assert done.returncode == 1


def test_application_of_the_image() -> None:
    with client("main:app", app_dir=str(DEPLOY / "container/app")) as peer:
        assert peer.get("/").text.startswith("hello from worker process ")
    sys.modules.pop("main", None)
