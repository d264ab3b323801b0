"""Every example runs as its documentation says."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    runtime = tempfile.mkdtemp(prefix="framegate-examples-", dir="/dev/shm")
    yield {**os.environ, "FRAMEGATE_RUNTIME_DIR": runtime, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    shutil.rmtree(runtime)


@contextmanager
def serving(app: str, environment: dict[str, str]) -> Iterator[str]:
    """The example under `platform serve`; gives its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "framegate", "serve", app, "--port", "0"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                yield found[0]
                break
        else:
            pytest.fail("the example did not start")
        process.terminate()
        assert process.wait(timeout=30) == 0
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def consumer(name: str, count: int, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, f"examples/{name}.py", str(count)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def post(url: str, body: bytes) -> dict[str, int]:
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=20) as response:
        answer: dict[str, int] = json.load(response)
        return answer


def test_camera_frames_reach_the_consumer_as_arrays(environment: dict[str, str]) -> None:
    picture = bytes([200]) * (1080 * 1920 * 3)
    with serving("examples.camera_ingest:app", environment) as url:
        assert post(url + "/frames", picture) == {"sequence": 1, "size": len(picture)}
        with consumer("camera_consumer", 1, environment) as process:
            out, _ = process.communicate(timeout=30)
            assert process.returncode == 0
            assert out == "frame 1: (1080, 1920, 3), mean 200.0\n"


def test_sensor_batches_arrive_in_order(environment: dict[str, str]) -> None:
    with serving("examples.sensor_stream:app", environment) as url:
        with consumer("sensor_consumer", 1, environment) as process:
            rows = json.dumps([[0.0, 1.0, 2.0, 3.0], [0.1, 3.0, 2.0, 1.0]])
            with connect(url.replace("http", "ws") + "/samples") as websocket:
                sent = 0
                # The queue policy gives what is published after the subscription: publish until the
                # consumer has had its one batch and ended.
                while process.poll() is None:
                    websocket.send(rows)
                    sent += 1
                    assert json.loads(websocket.recv(timeout=10)) == {"sequence": sent}
            out, _ = process.communicate(timeout=30)
            assert process.returncode == 0
            assert re.fullmatch(r"batch \d+: mean \[2\.0, 2\.0, 2\.0\], lost 0\n", out)
