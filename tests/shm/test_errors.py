"""Every way in which shared memory refuses: a clear message, a documented class, nothing leaked."""

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from framegate import _shm, errors, shm
from framegate.errors import (
    NoSpace,
    ParticipantsExhausted,
    PermissionDenied,
    RuntimeDirectoryError,
    SegmentCorrupt,
    SegmentIncompatible,
    ShmArgumentError,
    ShmError,
    TopicNameInvalid,
)
from privileges import needs_root

NOBODY = 65534


def test_every_status_has_a_class() -> None:
    rows = _shm.status_classes()
    assert [row for row in rows if row[2] is None] == [("OK", 0, None)]
    for name, _, class_name in rows:
        if class_name is not None:
            assert issubclass(getattr(errors, class_name), ShmError), name
    assert len({class_name for _, _, class_name in rows}) > 20


@pytest.mark.parametrize(
    "name",
    [
        "", "/", "a/", "/a", "a//b", ".a", "-a", "a/.b", "a..b", "../x", "a b", "ä", "a\0b",
        "a%2Fb",
        "x" * 129, "/".join("a" * 9),
    ],
)  # fmt: skip
def test_bad_names_are_refused_everywhere(name: str, runtime_directory: Path) -> None:
    for use in (
        shm.check_topic_name,
        shm.Publisher,
        shm.Subscriber,
        shm.inspect,
        shm.unlink,
        shm.Topic.open,
        lambda name: shm.Topic.create(name, slot_bytes=8),
        lambda name: shm.Topic.open_or_create(name, slot_bytes=8),
    ):
        with pytest.raises(TopicNameInvalid):
            use(name)
    assert list(runtime_directory.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "A-1._", "_", "/".join("a" * 8), "x" * 128, "0/1.2-3"])
def test_good_names_are_taken(name: str) -> None:
    shm.check_topic_name(name)
    shm.Topic.create(name, slot_bytes=8, slots=2).close()
    assert shm.topics() == [name]


@pytest.mark.parametrize(
    "options",
    [
        {"slots": 1},
        {"slots": 1 << 20},
        {"slot_bytes": 0},
        {"slot_bytes": None},
        {"keep": 4, "slots": 4},
        {"participants_max": 1},
        {"participants_max": 1 << 16},
        {"mode": 0o777},
        {"dtype": "u1", "shape": (None,), "slot_bytes": None},
        {"arrays": {f"a{i}": ("u1", 1) for i in range(17)}},
        {"arrays": {"n" * 37: ("u1", 1)}},
        {"arrays": {"a": ("u1", (1,) * 9)}},
        {"dtype": "u1", "shape": (100,), "slot_bytes": 99},
    ],
)
def test_options_outside_their_limits_are_refused(
    options: dict[str, Any], runtime_directory: Path
) -> None:
    with pytest.raises((ShmArgumentError, errors.FrameTooLarge)):
        shm.Topic.create("t", **({"slot_bytes": 8} | options))
    assert list(runtime_directory.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [{"dtype": "u1"}, {"shape": 3}, {"dtype": "u1", "shape": 3, "arrays": {}}],
)
def test_half_a_schema_is_a_type_error(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        shm.Topic.create("t", **options)


def test_a_negative_dimension_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="dimension"):
        shm.Topic.create("t", dtype="u1", shape=(-2,))


def test_all_participants_in_use_is_an_error_and_rows_come_back() -> None:
    with shm.Topic.create("t", slot_bytes=8, participants_max=3) as topic:
        attached = [topic.subscriber() for _ in range(3)]
        for attach in (topic.subscriber, topic.publisher):
            with pytest.raises(ParticipantsExhausted, match="t"):
                attach()
        attached.pop().close()
        topic.publisher().close()
        for subscriber in attached:
            subscriber.close()


def control_file(runtime_directory: Path) -> Path:
    shm.Topic.create("t", slot_bytes=8, slots=2).close()
    return runtime_directory / "t.ctl"


def test_another_layout_version_is_incompatible(runtime_directory: Path) -> None:
    file = control_file(runtime_directory)
    content = bytearray(file.read_bytes())
    place = content.index(struct.pack("<I", _shm.LAYOUT_VERSION), 8)
    content[place : place + 4] = struct.pack("<I", _shm.LAYOUT_VERSION + 1)
    with file.open("r+b") as stream:
        stream.write(content)
    for use in (shm.Topic.open, shm.Subscriber, shm.Publisher, shm.inspect):
        with pytest.raises(SegmentIncompatible, match=r"(?s)version.*2.*1|version.*1.*2"):
            use("t")


@pytest.mark.parametrize("damage", ["empty", "short", "other magic", "noise"])
def test_a_damaged_segment_is_refused(runtime_directory: Path, damage: str) -> None:
    file = control_file(runtime_directory)
    content = file.read_bytes()
    if damage in ("empty", "short"):
        os.truncate(file, 0 if damage == "empty" else len(content) // 2)
    else:
        with file.open("r+b") as stream:
            stream.write(b"\x7fELF" * 4 if damage == "other magic" else os.urandom(4096))
    for use in (shm.Topic.open, shm.Subscriber, shm.Publisher, shm.inspect):
        with pytest.raises((SegmentCorrupt, SegmentIncompatible)):
            use("t")
    maps = Path("/proc/self/maps").read_text()
    assert str(runtime_directory) not in maps
    for rest in runtime_directory.iterdir():
        rest.unlink()  # nobody can tell any more which data belong to it


@pytest.fixture
def small_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tmpfs of 2 MiB as the runtime directory; without root, the real one and its free space."""
    mounted = os.geteuid() == 0 and (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(tmp_path)],
            capture_output=True,
            check=False,
        ).returncode
        == 0
    )
    if mounted:
        monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(tmp_path))
    yield Path(os.environ["FRAMEGATE_RUNTIME_DIR"])
    if mounted:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_file_system_is_an_error_not_a_crash(small_file_system: Path) -> None:
    free = os.statvfs(small_file_system).f_bavail * os.statvfs(small_file_system).f_frsize
    for _ in range(3):
        with pytest.raises(NoSpace, match=r"(?i)need|free"):
            shm.Topic.create("t", slot_bytes=free, slots=8)
        assert list(small_file_system.iterdir()) == []
    shm.Topic.create("t", slot_bytes=1024, slots=2).close()
    shm.unlink("t")


def as_nobody(program: str, runtime_directory: Path, group: int = NOBODY) -> str:
    """What a program prints that runs as another user; it imports first, as the user may not."""
    prelude = (
        "import os, sys, numpy\nfrom framegate import shm, errors\n"
        f"os.setgroups([]); os.setgid({group}); os.setuid({NOBODY})\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", prelude + program],
        env=os.environ | {"FRAMEGATE_RUNTIME_DIR": str(runtime_directory)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


TRY = """
for use in (shm.Subscriber, shm.Publisher, shm.inspect):
    try:
        use("t")
        print("opened", end=" ")
    except errors.ShmError as error:
        print(type(error).__name__, end=" ")
"""


@needs_root
def test_another_user_is_kept_out_by_the_directory(runtime_directory: Path) -> None:
    shm.Topic.create("t", slot_bytes=8).close()
    words = as_nobody(TRY, runtime_directory).split()
    assert set(words) <= {"PermissionDenied", "RuntimeDirectoryError"}
    assert len(words) == 3


@needs_root
def test_a_group_directory_shares_what_is_0660_only(runtime_directory: Path) -> None:
    os.chown(runtime_directory, 0, NOBODY)
    runtime_directory.chmod(0o2770)
    shm.Topic.create("t", slot_bytes=8).close()
    assert as_nobody(TRY, runtime_directory).split() == ["PermissionDenied"] * 3
    shm.unlink("t")
    with shm.Topic.create("t", slot_bytes=8, mode=0o660) as topic, topic.subscriber() as subscriber:
        program = "with shm.Publisher('t') as publisher: print(publisher.send(b'from it'))"
        assert as_nobody(program, runtime_directory) == "1"
        assert bytes(subscriber.take()) == b"from it"


@needs_root
def test_a_directory_of_somebody_else_is_not_trusted(
    runtime_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = runtime_directory / "theirs"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, NOBODY, NOBODY)
    monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(theirs))
    with pytest.raises((RuntimeDirectoryError, PermissionDenied), match="theirs"):
        shm.Topic.create("t", slot_bytes=8)
    theirs.rmdir()


@pytest.mark.parametrize("kind", ["world writable", "symbolic link", "file"])
def test_an_unsafe_runtime_directory_is_refused(
    runtime_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = runtime_directory / "unsafe"
    tmp_path.chmod(0o700)
    if kind == "world writable":
        path.mkdir()
        path.chmod(0o777)
    elif kind == "symbolic link":
        path.symlink_to(tmp_path)
    else:
        path.write_text("")
    monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(path))
    with pytest.raises(RuntimeDirectoryError, match="unsafe"):
        shm.Topic.create("t", slot_bytes=8)
    assert path.is_file() or os.listdir(path) == []
    if kind == "world writable":
        path.rmdir()
    else:
        path.unlink()


def test_the_runtime_directory_is_made_private(
    runtime_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = runtime_directory / "new"
    monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(path))
    shm.Topic.create("t", slot_bytes=8).close()
    assert path.stat().st_mode & 0o777 == 0o700
    shm.unlink("t")
    path.rmdir()
