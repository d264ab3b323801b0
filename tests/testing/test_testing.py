"""`framegate.testing` and its fixtures, used as an application's tests would."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

import framegate
from framegate.errors import StartupFailed
from framegate.pytest_plugin import framegate_client, framegate_serve
from framegate.testing import client, http_client, serve

__all__ = ["framegate_client", "framegate_serve"]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            scope["state"]["started"] = True
            if kind == "lifespan.shutdown":
                return
    text = f"{scope['path']} {scope['state']['started']} {scope['root_path']}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text})


def test_client_talks_to_a_server_with_its_lifespan() -> None:
    with client(app, root_path="/api") as peer:
        assert isinstance(peer, httpx.Client)
        assert peer.get("/items").text == "/api/items True /api"
        url = str(peer.base_url)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def test_serve_gives_addresses() -> None:
    with serve(app) as running:
        assert isinstance(running, framegate.RunningServer)
        assert httpx.get(running.urls[0], trust_env=False).status_code == 200


@pytest.mark.parametrize("name", ["{}/socket", "@framegate-testing"])
def test_unix_socket(name: str, tmp_path: Path) -> None:
    with client(app, uds=name.format(tmp_path)) as peer:
        assert peer.get("/x").text == "/x True "


def test_failure_to_start_is_the_tests_failure() -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(StartupFailed, match="no database"), client(failing):
        pass


def test_without_httpx_the_rest_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with serve(app) as running:
        with pytest.raises(ModuleNotFoundError, match="pip install httpx"):
            http_client(running)


def test_fixtures(framegate_client: Any, framegate_serve: Any) -> None:
    assert framegate_client(app).get("/a").text == "/a True "
    assert framegate_client(app, root_path="/b").get("/c").text == "/b/c True /b"
    assert framegate_serve(app).urls[0].startswith("http://127.0.0.1:")


def test_plugin_imports_no_server() -> None:
    import subprocess

    code = "import sys, framegate.pytest_plugin; assert 'framegate.server' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_blocks_of_the_guide(tmp_path: Path) -> None:
    import subprocess

    text = (Path(__file__).parents[2] / "docs/guide/develop.md").read_text()
    program, conftest, test = (item.split("```")[0] for item in text.split("```python\n")[1:])
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "main.py").write_text(program.partition("\n\n\nwith ")[0])
    (tmp_path / "test_hello.py").write_text(
        "import sys, pathlib\nsys.path.insert(0, str(pathlib.Path(__file__).parent))\n" + test
    )
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*words, "-c", "/dev/null", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
