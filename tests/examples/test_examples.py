"""Every example runs as its documentation says."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from websockets.sync.client import connect

import framegate
from framegate import recording

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    runtime = tempfile.mkdtemp(prefix="framegate-examples-", dir="/dev/shm")
    yield {**os.environ, "FRAMEGATE_RUNTIME_DIR": runtime, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    shutil.rmtree(runtime)


@contextmanager
def serving(app: str, environment: dict[str, str], *options: str) -> Iterator[str]:
    """The example under `platform serve`; gives its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "framegate", "serve", app, "--port", "0", *options],
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
def consumer(
    name: str, environment: dict[str, str], *words: str
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, f"examples/{name}.py", *words],
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
    """The console of README, line by line."""
    found = re.search(
        r"```console\n(\$ platform serve examples\..*?)```", (ROOT / "README.md").read_text(), re.S
    )
    assert found is not None
    serve, camera, said, consume, seen = found[1].splitlines()
    app, *options = serve.removeprefix("$ platform serve ").split()
    with serving(app, environment, *options) as url:
        line = camera.removeprefix("$ ")
        assert "http://127.0.0.1:8000/" in line
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line.replace("http://127.0.0.1:8000", url)],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert done.stdout == said
        name, count = consume.removeprefix("$ python examples/").split(".py ")
        with consumer(name, environment, count) as process:
            out, _ = process.communicate(timeout=30)
            assert process.returncode == 0
            assert out == f"{seen}\n"


def test_sensor_batches_arrive_in_order(environment: dict[str, str]) -> None:
    with serving("examples.sensor_stream:app", environment) as url:
        with consumer("sensor_consumer", environment, "1") as process:
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


def test_model_answers_calls(environment: dict[str, str]) -> None:
    picture = np.zeros((480, 640, 3), np.uint8)
    picture[:, :320, 0] = 255
    options = ("--topics", "/topics")
    with (
        serving("examples.camera_ingest:app", environment, *options) as url,
        consumer("model_server", environment) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        head = {"Frame-Dtype": "uint8", "Frame-Shape": "480,640,3"}
        answer = httpx.post(f"{url}/call/model", content=picture.tobytes(), headers=head)
        assert (answer.status_code, answer.headers["frame-dtype"]) == (200, "float32")
        scores = np.frombuffer(answer.content, np.float32)
        assert scores.tolist() == [0.5, 0.0, 0.0]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0


def test_login_stands_in_front_of_frames(environment: dict[str, str]) -> None:
    picture = bytes(480 * 640 * 3)
    environment = {**environment, "CAMERA_TOKEN": "secret"}
    with serving("examples.camera_login:app", environment) as url:
        camera = f"{url}/cameras/front"
        for headers, status in (({}, 401), ({"Authorization": "Bearer other"}, 403)):
            assert httpx.get(camera, headers=headers).status_code == status
            assert httpx.post(camera, headers=headers, content=picture).status_code == status
        login = {"Authorization": "Bearer secret"}
        assert httpx.get(camera, headers=login).json()["code"] == "topic-unknown"
        assert httpx.post(camera, headers=login, content=picture).json() == {"sequence": 1}
        with httpx.stream("GET", camera, headers=login) as stream:
            assert stream.headers["content-type"].startswith("multipart/x-mixed-replace")
            seen = b""
            for chunk in stream.iter_raw():
                seen += chunk
                if b"\xff\xd8\xff" in seen:
                    break


def test_dashboard_publishes_what_it_measures(environment: dict[str, str]) -> None:
    options = ("--topics", "/topics", "--live", "/live")
    with serving("examples.machine_dashboard:app", environment, *options) as url:
        names = {"machine/load", "machine/free-memory-share", "machine/seconds-of-cores"}
        while {it["name"] for it in httpx.get(f"{url}/topics").json()["topics"]} != names:
            pass
        newest = httpx.get(f"{url}/topics/machine/free-memory-share?view=latest&after=0")
        (share,) = np.frombuffer(newest.content, np.float32)
        assert 0 < share < 1
        assert httpx.get(url).headers["location"] == "/live/"


def test_recorder_has_what_both_workers_publish(
    environment: dict[str, str], tmp_path: Path
) -> None:
    picture = bytes(1080 * 1920 * 3)
    file = tmp_path / "run.mcap"
    with serving("examples.camera_ingest:app", environment, "--workers", "2") as url:
        assert post(url + "/frames", picture)["sequence"] == 1
        with consumer("recorded_cameras", environment, str(file), "3") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "recording camera/front\n"
            sent = 1
            while process.poll() is None:
                sent += 1
                assert post(url + "/frames", picture)["sequence"] == sent
            frames = int(process.stdout.read().removeprefix("camera/front: ").split()[0])
    assert frames >= 3
    assert recording.contents(file).topics() == {"camera/front": frames}


def ingest(environment: dict[str, str], *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "examples/video_ingest.py", *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_folder_of_pictures_becomes_a_topic(environment: dict[str, str], tmp_path: Path) -> None:
    for number in range(6):
        picture = np.full((48, 64, 3), 40 * number, np.uint8)
        kind = "jpg" if number % 2 else "PNG"
        Image.fromarray(picture).save(tmp_path / f"{number}.{kind}")
    (tmp_path / "notes.txt").write_text("no picture")
    words = (str(tmp_path), "--topic", "cam", "--fps", "50", "--loop")
    with (
        ingest(environment, *words) as process,
        serving("examples.camera_ingest:app", environment, "--topics", "/topics") as url,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == f"publishing {tmp_path} on cam\n"
        seen: dict[str, bytes] = {}
        with httpx.Client(base_url=url, timeout=20) as client:
            after = 0
            while len(seen) < 2:
                answer = client.get(f"/topics/cam?view=latest&after={after}&timeout=10")
                if answer.status_code == 404:
                    continue  # it has not begun
                after = int(answer.headers["frame-sequence"])
                seen[answer.headers["content-type"]] = answer.content
            shown = client.get("/topics/cam?view=latest&format=jpeg&width=16")
        process.terminate()
    assert set(seen) == {"image/jpeg", "image/png"}
    for body in seen.values():
        assert Image.open(io.BytesIO(body)).size == (64, 48)
    assert Image.open(io.BytesIO(shown.content)).size == (16, 12)


def test_pictures_end_and_their_absence_is_said(
    environment: dict[str, str], tmp_path: Path
) -> None:
    for name in ("b.jpg", "a.jpeg"):
        Image.new("RGB", (32, 32)).save(tmp_path / name)
    with ingest(environment, str(tmp_path), "--fps", "100") as process:
        out, _ = process.communicate(timeout=30)
    assert (process.returncode, out.splitlines()[-1]) == (0, "2 frames")
    empty = tmp_path / "empty"
    empty.mkdir()
    with ingest(environment, str(empty)) as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "there is no .jpg and no .png in" in out


def test_a_video_is_decoded_into_shared_memory(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not among what development needs")
    file = str(tmp_path / "moving.avi")
    writer = cv2.VideoWriter(file, cv2.VideoWriter.fourcc(*"MJPG"), 50, (64, 48))
    for number in range(20):
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[:, :, number // 7] = 250
        writer.write(picture)
    writer.release()
    monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", environment["FRAMEGATE_RUNTIME_DIR"])
    with ingest(environment, file, "--topic", "cam") as process:
        with framegate.Subscriber("cam", policy="queue", wait=20) as reader:
            frame = reader.take(timeout=20)
            assert frame is not None
            with frame:
                assert frame.array.shape == (48, 64, 3)
                assert frame.metadata == {"encoding": "bgr8"}
                assert frame.array.reshape(-1, 3).mean(axis=0).max() > 200
        out, _ = process.communicate(timeout=30)
    assert (process.returncode, out.splitlines()[-1]) == (0, "20 frames")
    with ingest(environment, str(tmp_path / "none.avi")) as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "OpenCV cannot read" in out


def test_without_opencv_a_video_says_what_is_missing(environment: dict[str, str]) -> None:
    hidden = environment | {"PYTHONPATH": str(ROOT / "tests/examples/without_opencv")}
    with ingest(hidden, "0") as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "pip install opencv-python-headless" in out


@contextmanager
def running(program: Path, environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen([program], env=environment)
    try:
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def said(*words: str) -> str:
    """What a verb of `platform topic` prints."""
    command = [sys.executable, "-m", "framegate", "topic", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_camera_in_cpp_and_consumers_in_python_and_rust(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Built with what the package carries, as somebody does who has no checkout."""
    build = tmp_path / "build"
    where = f"-Dframegate_DIR={said('cmake-dir')}"
    subprocess.run(["cmake", "-S", ROOT / "examples/cpp", "-B", build, where], check=True)
    subprocess.run(["cmake", "--build", build], check=True)
    project = tmp_path / "rust"
    shutil.copytree(ROOT / "examples/rust", project, ignore=shutil.ignore_patterns("target"))
    manifest = (project / "Cargo.toml").read_text()
    assert "../../rust/shm" in manifest
    (project / "Cargo.toml").write_text(manifest.replace("../../rust/shm", said("cargo-dir")))
    cargo = ["cargo", "build", "--quiet", "--offline", "--target-dir", tmp_path / "target"]
    subprocess.run(cargo, cwd=project, check=True)
    line = re.compile(r"frame \d+: [\[(]270, 480, 3[\])], mean 100\.3")
    with running(build / "camera_producer", environment):
        with consumer("camera_consumer", environment, "2") as process:
            out, _ = process.communicate(timeout=30)
        brightness = [tmp_path / "target/debug/brightness", "2"]
        done = subprocess.run(
            brightness, env=environment, capture_output=True, text=True, check=True, timeout=30
        )
    for text in (out, done.stdout):
        lines = text.splitlines()
        assert len(lines) == 2 and all(line.fullmatch(it) for it in lines), text


def test_readme_names_every_example() -> None:
    text = (ROOT / "examples/README.md").read_text()
    files = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert files == set(re.findall(r"^\| `(\w+\.py)`", text, re.M))
