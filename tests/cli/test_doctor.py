"""`platform doctor`: what it finds on a machine that is well, and on ones that are not."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from framegate import doctor, shm
from framegate.cli import main


@pytest.fixture(autouse=True)
def runtime_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = Path("/dev/shm") / f"framegate-doctor-{os.getpid()}-{secrets.token_hex(4)}"
    path.mkdir(mode=0o700)
    monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(path))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def examine(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit code, and findings by check (the worst one where a check has several)."""
    code = main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    worst = {"ok": 0, "warning": 1, "broken": 2}
    findings: dict[str, dict[str, str]] = {}
    for finding in report["findings"]:
        assert set(finding) == {"check", "state", "text", "fix"}
        known = findings.get(finding["check"])
        if known is None or worst[finding["state"]] > worst[known["state"]]:
            findings[finding["check"]] = finding
    assert report["healthy"] == (code == 0)
    assert (code == 0) == all(row["state"] != "broken" for row in findings.values())
    return code, findings


def test_a_machine_that_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    code, findings = examine(capsys)
    assert code == 0, findings
    assert set(findings) >= {
        "python",
        "framegate",
        "namespaces",
        "file system",
        "space",
        "runtime directory",
        "open files",
        "file size",
        "locked memory",
        "memory limit",
        "clock",
        "kernel",
        "file locks",
        "allocation",
        "futex",
        "event loops",
        "topics",
    }
    assert ".".join(map(str, sys.version_info[:3])) in findings["python"]["text"]
    assert "tmpfs at /dev/shm" in findings["file system"]["text"]
    for finding in findings.values():
        assert finding["fix"] or finding["state"] == "ok", finding
    assert not list(Path("/dev/shm").glob(f".framegate-doctor-{os.getpid()}-*"))


def test_plain_text_is_a_line_per_finding_and_a_sum(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("0 broken, ")
    for line in lines[:-1]:
        assert line.split()[0] in {"ok", "warning", "fix:"}, line


def test_the_command_is_a_process_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "framegate", "doctor"], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "futex" in done.stdout
    assert done.stderr == ""


def test_an_open_runtime_directory_is_broken(
    capsys: pytest.CaptureFixture[str], runtime_directory: Path
) -> None:
    runtime_directory.chmod(0o777)
    code, findings = examine(capsys)
    assert code == 1
    assert findings["runtime directory"]["state"] == "broken"
    assert "0777" in findings["runtime directory"]["text"]
    assert "chmod 0700" in findings["runtime directory"]["fix"]


def test_a_runtime_directory_that_cannot_be_made_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, runtime_directory: Path
) -> None:
    monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(runtime_directory / "a" / "b"))
    code, findings = examine(capsys)
    assert code == 1
    assert "cannot be made" in findings["runtime directory"]["text"]
    monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(runtime_directory / "a"))
    code, findings = examine(capsys)
    assert code == 0
    assert "made by the first topic" in findings["runtime directory"]["text"]
    assert not (runtime_directory / "a").exists()


def test_a_directory_on_a_disk_is_a_warning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    line = f"1 1 0:1 / {tmp_path} rw - ext4 /dev/sda1 rw"
    monkeypatch.setattr(doctor, "MOUNTINFO", str(tmp_path / "mountinfo"))
    (tmp_path / "mountinfo").write_text(f"2 1 0:2 / / rw - overlay overlay rw\n{line}\n")
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(tmp_path / "run"))
    code, findings = examine(capsys)
    assert code == 0
    assert findings["file system"]["state"] == "warning"
    assert "ext4, not tmpfs" in findings["file system"]["text"]
    (tmp_path / "mountinfo").write_text(line.replace(" rw - ", " ro - "))
    code, findings = examine(capsys)
    assert code == 1
    assert "read-only" in findings["file system"]["text"]


def test_topics_that_nobody_has_open_are_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    with shm.Publisher("used", slot_bytes=8):
        assert "stale topics" not in examine(capsys)[1]
        shm.Topic.create("left", slot_bytes=8).close()
        code, findings = examine(capsys)
        assert code == 0
        assert "1 that nobody has open: left" in findings["stale topics"]["text"]
        assert findings["topics"]["text"].startswith("2 in ")


def test_a_damaged_topic_is_broken(
    capsys: pytest.CaptureFixture[str], runtime_directory: Path
) -> None:
    shm.Topic.create("hurt", slot_bytes=8).close()
    with (runtime_directory / "hurt.ctl").open("r+b") as file:
        file.write(b"nonsense")
    code, findings = examine(capsys)
    assert code == 1
    assert findings["topics"]["state"] == "broken"
    assert '"hurt"' in findings["topics"]["text"]
    assert findings["topics"]["fix"]


def under(limit: str) -> dict[str, dict[str, str]]:
    """Findings of a process with a limit of the shell's."""
    done = subprocess.run(
        ["bash", "-c", f"ulimit {limit}; exec {sys.executable} -m framegate doctor --json"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    return {row["check"]: row for row in json.loads(done.stdout)["findings"]}


def test_few_open_files_are_a_warning() -> None:
    finding = under("-S -n 256")["open files"]
    assert finding["state"] == "warning"
    assert finding["text"].startswith("256 open files")
    assert "ulimit -n" in finding["fix"]


def test_a_limit_of_file_sizes_is_a_warning() -> None:
    finding = under("-f 100000")["file size"]
    assert finding["state"] == "warning"
    assert "larger topic cannot be created" in finding["text"]


@pytest.mark.parametrize(
    ("free", "state"),
    [
        (doctor.SPACE_BROKEN_BYTES - 1, "broken"),
        (doctor.SPACE_BROKEN_BYTES, "warning"),
        (doctor.SPACE_WARNING_BYTES - 1, "warning"),
        (doctor.SPACE_WARNING_BYTES, "ok"),
    ],
)
def test_space(free: int, state: str) -> None:
    finding = doctor.space_finding("/dev/shm", 10**9, free, "Docker")
    assert finding.state == state
    assert ("--shm-size" in finding.fix) == (state != "ok")


def test_dockers_64_megabytes_are_explained() -> None:
    finding = doctor.space_finding("/dev/shm", 64 << 20, 64 << 20, "Docker")
    assert finding.state == "warning"
    assert finding.text == "67.1 MB of 67.1 MB free in /dev/shm: 10 pictures of 1080p"
    assert finding.fix == "docker run --shm-size=1g (compose: shm_size: 1gb)"
    assert "emptyDir" in doctor.larger_shm("Kubernetes")
    assert "remount" in doctor.larger_shm("")


@pytest.mark.parametrize(
    ("limit", "used", "state"),
    [
        ("max", 5, "ok"),
        ("9223372036854771712", 5, "ok"),
        (str(10**9), 10**9 - doctor.SPACE_WARNING_BYTES, "ok"),
        (str(10**9), 10**9 - doctor.SPACE_WARNING_BYTES + 1, "warning"),
    ],
)
def test_memory_limit(limit: str, used: int, state: str) -> None:
    assert doctor.memory_finding(limit, used).state == state


def test_the_mount_of_a_path_is_the_innermost_and_last_one() -> None:
    mountinfo = "\n".join(
        [
            "1 0 0:1 / / rw,relatime - overlay overlay rw,lowerdir=x",
            "2 1 0:2 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k",
            "3 2 0:3 / /dev/shm rw,nosuid,noexec - tmpfs shm rw,size=64k,inode64",
            r"4 1 0:4 / /mnt/with\040space rw - ext4 /dev/sda1 rw",
            "garbage",
        ]
    )

    def path_of(path: str) -> Any:
        mount = doctor.mount_of(path, mountinfo)
        return mount and mount.path

    assert path_of("/dev/shm/framegate-0") == "/dev/shm"
    assert path_of("/dev/shmoo") == "/dev"
    assert path_of("/mnt/with space/x") == "/mnt/with space"
    assert path_of("/elsewhere") == "/"
    assert doctor.mount_of("/x", "") is None
    found = doctor.mount_of("/dev/shm", mountinfo)
    assert found is not None
    assert (found.kind, "size=64k" in found.options, "noexec" in found.options) == (
        "tmpfs",
        True,
        True,
    )


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "Kubernetes"), ({"container": "lxc"}, "lxc")],
)
def test_a_container_is_told_how_to_share(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (finding,) = doctor._container(doctor.LINUX)
    assert finding.text.startswith(f"{expected} container; ")
    assert "runtime directory" in finding.text
    assert finding.fix


def test_a_check_that_fails_is_a_finding(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(words: doctor.Words) -> Any:
        raise ZeroDivisionError("no")
        yield

    monkeypatch.setattr(doctor, "_clock", fail)
    code, findings = examine(capsys)
    assert code == 1
    assert findings["fail"]["text"] == "the check itself failed: ZeroDivisionError: no"
    assert "topics" in findings
