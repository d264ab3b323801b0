"""A cargo project built against the installed package exchanges frames with Python."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from framegate import shm

ROOT = Path(__file__).resolve().parents[2]

MANIFEST = """
[package]
name = "user"
version = "0.1.0"
edition = "2021"

[dependencies]
framegate-shm = {{ path = {path!r} }}

[workspace]
"""

MAIN = """
use std::time::Duration;
use framegate_shm::{FrameMeta, Publisher, Subscriber, SubscriberOptions, TopicOptions};

fn main() {
    let patience = Duration::from_secs(10);
    let subscriber = Subscriber::open("t", &SubscriberOptions::default()).unwrap();
    let frame = subscriber.take(patience).unwrap().unwrap();
    let answer: Vec<u8> = frame.iter().rev().copied().collect();
    let publisher = Publisher::create_or_open("answers", &TopicOptions::default()).unwrap();
    let mut loan = publisher.loan(answer.len(), patience).unwrap();
    loan.as_mut_slice().copy_from_slice(&answer);
    loan.publish(&FrameMeta::default()).unwrap();
}
"""


def test_program_of_a_cargo_project_exchanges_frames_with_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(runtime))
    (tmp_path / "src").mkdir()
    said = subprocess.run(
        [sys.executable, "-m", "framegate", "topic", "cargo-dir"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert ROOT / "rust" not in Path(said).parents  # what is installed, not what it came from
    (tmp_path / "Cargo.toml").write_text(MANIFEST.format(path=said))
    (tmp_path / "src/main.rs").write_text(MAIN)
    cargo = shutil.which("cargo")
    assert cargo is not None
    target = tmp_path / "target"
    # No other crate and no C++ compiler: the static library is in the package.
    subprocess.run(
        [cargo, "build", "--quiet", "--offline", "--target-dir", target],
        cwd=tmp_path,
        env={**os.environ, "CXX": "/bin/false"},
        check=True,
    )
    with shm.Topic.create("t", slots=4, slot_bytes=64) as topic, topic.publisher() as publisher:
        publisher.send(b"tsur")
        subprocess.run([target / "debug/user"], check=True, timeout=60)
    with shm.Topic.open("answers") as topic, topic.subscriber() as subscriber:
        frame = subscriber.take(timeout=10)
        assert frame is not None
        assert bytes(frame) == b"rust"
        frame.release()
    shm.unlink("t")
    shm.unlink("answers")
