"""Recordings as rerun's own program sees them: it checks, converts and recognises the images."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import framegate
from framegate import recording

# The smallest JPEG there is: one grey pixel.
JPEG = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb004300" + "08" * 64 + "ffc0000b080001000101011100"
    "ffc40014000100000000000000000000000000000009ffc40014100100000000000000000000000000000000"
    "ffda0008010100003f0054dfffd9"
)


@pytest.fixture
def rerun(tmp_path: Path):
    program = Path(sys.executable).with_name("rerun")
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [program, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    run("analytics", "disable")
    return run


def test_rerun_reads_a_recording(runtime_directory, tmp_path: Path, rerun) -> None:
    path = tmp_path / "run.mcap"
    picture = np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)
    with (
        framegate.Publisher("camera/front", shape=picture.shape, dtype=picture.dtype) as camera,
        framegate.Publisher("camera/jpeg", slot_bytes=4096) as compressed,
        framegate.Publisher("lidar", shape=(7, 3), dtype="float32") as lidar,
        recording.Recorder(path, ["camera/front", "camera/jpeg", "lidar"]) as recorder,
    ):
        for i in range(3):
            camera.send(picture + i, timestamp=12.5 + i)
            compressed.send(JPEG, content_type="image/jpeg", timestamp=12.5 + i)
            lidar.send(np.full((7, 3), i, np.float32), timestamp=12.5 + i)
        while sum(topic.frames for topic in recorder.stats().values()) < 9:
            time.sleep(0.01)
    checked = rerun("mcap", "check", "--full", str(path))
    rows = [line.split() for line in checked.splitlines() if line.startswith("ok ")]
    names = sorted(row[3].lstrip("/") for row in rows)
    assert names == ["camera/front", "camera/jpeg", "lidar"], checked

    rerun("mcap", "convert", str(path), "-o", str(tmp_path / "run.rrd"))
    shown = rerun("rrd", "print", "-v", str(tmp_path / "run.rrd"))
    chunks = {}
    for line in shown.splitlines():
        if line.startswith("Chunk(") and "with 3 rows" in line:
            chunks[line.partition(" - /")[2].partition(" ")[0]] = line
    assert "/camera/front@Image:buffer" in chunks["camera/front"]
    assert "/camera/front@Image:format" in chunks["camera/front"]
    assert "/camera/jpeg@EncodedImage:blob" in chunks["camera/jpeg"]
    assert "/lidar@framegate.Frame:message" in chunks["lidar"]  # no image: whole, as it is
