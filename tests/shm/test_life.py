"""Topics that appear late, change their size, are shared with others, grow stale."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import framegate
from framegate import errors, shm
from privileges import needs_root


def test_resize_is_not_noticed_by_those_who_use_the_topic(runtime_directory):
    with (
        shm.Topic.create("t", slots=4, slot_bytes=64) as topic,
        topic.publisher() as publisher,
        topic.subscriber("queue") as queue,
        topic.subscriber("latest") as latest,
    ):
        publisher.send(b"a")
        held = latest.take(timeout=0)
        topic.resize(slots=6, slot_bytes=100_000)
        assert (topic.slots, topic.slot_bytes) == (6, 100_000)
        publisher.send(bytes(100_000))
        assert publisher.slot_bytes == 100_000
        assert [queue.take(timeout=0).sequence for _ in range(2)] == [1, 2]
        assert latest.take(timeout=0).sequence == 2
        assert bytes(held) == b"a"
        held.release()
        assert (queue.lost, latest.lost) == (0, 0)


def test_loan_without_a_size_has_the_size_of_now(runtime_directory):
    with shm.Topic.create("t", slots=4, slot_bytes=64) as topic, topic.publisher() as publisher:
        topic.resize(slot_bytes=128)
        with publisher.loan() as loan:
            assert loan.nbytes == 128
            loan.publish()


def test_iteration_and_loops_follow_a_resize(runtime_directory):
    with (
        shm.Topic.create("t", slots=8, slot_bytes=64) as topic,
        topic.subscriber("queue") as subscriber,
    ):
        seen = []

        async def consume():
            async for frame in subscriber:
                seen.append(bytes(frame))
                if len(seen) == 20:
                    return

        async def main():
            task = asyncio.create_task(consume())
            with topic.publisher() as publisher:
                for i in range(20):
                    if i % 5 == 4:
                        await asyncio.to_thread(topic.resize, slots=8 + i)
                    publisher.send(b"%d" % i)
                    await asyncio.sleep(0)
                await task

        asyncio.run(main())
        assert seen == [b"%d" % i for i in range(20)]


@pytest.mark.parametrize("option", ["slots", "slot_bytes", "keep"])
def test_resize_refuses_what_cannot_be(runtime_directory, option):
    with shm.Topic.create("t", slots=4, slot_bytes=64) as topic:
        with pytest.raises(errors.ShmArgumentError, match=option):
            topic.resize(**{option: 0})
        with pytest.raises(errors.NoSpace):
            topic.resize(slots=4096, slot_bytes=1 << 40)
        assert (topic.slots, topic.slot_bytes) == (4, 64)


def test_open_waits_for_the_topic(runtime_directory):
    waiting = threading.Event()

    def create():
        waiting.wait()
        with shm.Topic.create("late", slots=2, slot_bytes=64):
            done.wait()

    done = threading.Event()
    thread = threading.Thread(target=create)
    thread.start()
    with pytest.raises(errors.TopicNotFound):
        shm.Topic.open("late", wait=0.05)
    waiting.set()
    with shm.Topic.open("late", wait=60) as topic:
        assert topic.slots == 2
    done.set()
    thread.join()


def test_open_waits_on_the_loop(runtime_directory):
    async def main():
        with pytest.raises(errors.TopicNotFound):
            await shm.Topic.open_async("late", wait=0.05)
        task = asyncio.create_task(shm.Topic.open_async("late", wait=60))
        await asyncio.sleep(0)
        with shm.Topic.create("late", slots=2, slot_bytes=64), await task as topic:
            assert topic.name == "late"

    asyncio.run(main())


def test_waiting_for_a_topic_costs_next_to_nothing(runtime_directory):
    before = os.times()
    with pytest.raises(errors.TopicNotFound):
        shm.Topic.open("never", wait=1.0)
    after = os.times()
    assert after.user + after.system - before.user - before.system < 0.25


def test_gc_takes_what_nobody_uses_and_nothing_else(runtime_directory):
    with shm.Topic.create("used", slots=2, slot_bytes=64):
        shm.Topic.create("idle", slots=2, slot_bytes=64).close()
        assert shm.gc(older_than=3600.0).topics == {}
        looked = shm.gc(older_than=0.0, dry_run=True)
        assert shm.topics() == ["idle", "used"]
        assert list(looked.topics) == ["idle"]
        assert looked.topics["idle"] > 4096
        assert shm.gc(older_than=0.0).topics == looked.topics
        assert shm.topics() == ["used"]
        assert all(name.startswith("used.") for name in os.listdir(runtime_directory))
    with pytest.raises(errors.ShmArgumentError):
        shm.gc(older_than=-1)


def test_gc_takes_damaged_topics_and_orphans(runtime_directory):
    shm.Topic.create("broken", slots=2, slot_bytes=64).close()
    (Path(runtime_directory) / "broken.ctl").write_bytes(b"x" * 100)
    (Path(runtime_directory) / "gone.0123456789abcdef.data").write_bytes(b"")
    (Path(runtime_directory) / "gone.0123456789abcdef.gen").write_bytes(b"")
    garbage = shm.gc(older_than=0.0)
    assert list(garbage.topics) == ["broken"]
    assert garbage.orphans == 2
    assert os.listdir(runtime_directory) == []


def test_gc_leaves_other_layout_versions_alone(runtime_directory):
    shm.Topic.create("future", slots=2, slot_bytes=64).close()
    path = Path(runtime_directory) / "future.ctl"
    data = bytearray(path.read_bytes())
    data[8] = 2
    path.write_bytes(data)
    assert shm.gc(older_than=0.0).topics == {}
    assert path.exists()


def test_gc_without_a_runtime_directory_finds_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(tmp_path / "none"))
    assert shm.gc(older_than=0.0) == shm.Garbage({}, 0)


def test_topics_come_and_go_under_a_collector(runtime_directory):
    """Whoever has opened a topic keeps it, at whatever moment the collector comes by."""
    stop = threading.Event()
    script = "import sys\nfrom framegate import shm\nwhile True: shm.gc(older_than=0.0)"
    collector = subprocess.Popen([sys.executable, "-c", script])
    try:
        for _ in range(200):
            topic, created = shm.Topic.open_or_create("t", slots=2, slot_bytes=64), True
            with topic, topic.publisher() as publisher, topic.subscriber("queue") as subscriber:
                publisher.send(b"here")
                with shm.Topic.open("t") as again, again.publisher() as other:
                    other.send(b"there")
                assert bytes(subscriber.take(timeout=0)) == b"here"
                assert bytes(subscriber.take(timeout=0)) == b"there"
            assert created
    finally:
        stop.set()
        collector.kill()
        collector.wait()


def test_unlink_of_a_damaged_topic_removes_its_data(runtime_directory):
    shm.Topic.create("t", slots=2, slot_bytes=64).close()
    (Path(runtime_directory) / "t.ctl").write_bytes(b"")
    shm.unlink("t")
    assert os.listdir(runtime_directory) == []
    with pytest.raises(errors.TopicNotFound):
        shm.unlink("t")


def as_user(uid, gid, script, directory, groups=()):
    """Run a script as somebody else; root passes every permission test vacuously."""
    environment = {
        "PATH": os.environ["PATH"],
        "FRAMEGATE_RUNTIME_DIR": str(directory),
        "PYTHONPATH": str(Path(framegate.__file__).parent.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    prelude = (
        # All that scripts need: others may not be allowed to read where the interpreter is.
        "import os, socket, sys\n"
        "from framegate import shm, errors\n"
        f"os.setgroups({list(groups)!r}); os.setresgid({gid}, {gid}, {gid})\n"
        f"os.setresuid({uid}, {uid}, {uid})\n"
        "assert os.geteuid() != 0\n"
    )
    return subprocess.run(
        [sys.executable, "-c", prelude + script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


ALICE, BOB, CAMERAS = 12001, 12002, 12100


@pytest.fixture
def group_dir(tmp_path_factory, monkeypatch):
    """A directory that a group shares: setgid, nothing for others."""
    path = Path("/dev/shm") / f"framegate-group-{os.getpid()}-{threading.get_ident()}"
    path.mkdir()
    os.chown(path, 0, CAMERAS)
    path.chmod(0o2770)
    monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(path))
    yield path
    for file in path.iterdir():
        file.unlink()
    path.rmdir()


@needs_root
def test_group_shares_topics(group_dir):
    script = """
topic = shm.Topic.create("t", slots=4, slot_bytes=64, mode=0o660)
topic.publisher().send(b"from alice")
"""
    made = as_user(ALICE, ALICE, script, group_dir, groups=[CAMERAS])
    assert made.returncode == 0, made.stderr
    for file in group_dir.iterdir():
        info = file.stat()
        assert (info.st_uid, info.st_gid) == (ALICE, CAMERAS)
        assert stat.S_IMODE(info.st_mode) == 0o660
    script = """
topic = shm.Topic.open("t")
subscriber = topic.subscriber()
assert bytes(subscriber.take(timeout=0)) == b"from alice"
topic.publisher().send(b"from bob")
topic.resize(slots=6)
topic.publisher().send(b"again")
assert bytes(subscriber.take(timeout=0)) == b"again"
"""
    read = as_user(BOB, BOB, script, group_dir, groups=[CAMERAS])
    assert read.returncode == 0, read.stderr
    script = """
try:
    shm.Topic.open("t")
except (errors.PermissionDenied, errors.RuntimeDirectoryError) as error:
    print(type(error).__name__)
"""
    refused = as_user(BOB, BOB, script, group_dir)
    assert refused.returncode == 0, refused.stderr
    assert refused.stdout.strip()


@needs_root
def test_private_topic_is_private_in_a_shared_directory(group_dir):
    script = 'shm.Topic.create("t", slots=4, slot_bytes=64)'
    made = as_user(ALICE, ALICE, script, group_dir, groups=[CAMERAS])
    assert made.returncode == 0, made.stderr
    script = """
try:
    shm.Topic.open("t")
except errors.PermissionDenied:
    print("refused")
"""
    refused = as_user(BOB, BOB, script, group_dir, groups=[CAMERAS])
    assert refused.stdout.strip() == "refused", refused.stderr


@needs_root
def test_member_who_may_only_read_payloads_subscribes_but_does_not_publish(group_dir):
    script = """
topic = shm.Topic.create("t", slots=4, slot_bytes=64, mode=0o660)
topic.publisher().send(b"look")
"""
    made = as_user(ALICE, ALICE, script, group_dir, groups=[CAMERAS])
    assert made.returncode == 0, made.stderr
    for file in group_dir.glob("*.data"):
        file.chmod(0o640)
    script = """
topic = shm.Topic.open("t")
assert bytes(topic.subscriber().take(timeout=0)) == b"look"
try:
    topic.publisher()
except errors.PermissionDenied:
    print("refused")
"""
    read = as_user(BOB, BOB, script, group_dir, groups=[CAMERAS])
    assert read.stdout.strip() == "refused", read.stderr


@needs_root
def test_stranger_cannot_wake_a_subscriber(group_dir):
    """The wake socket has the topic's mode, so the kernel checks who sends."""
    with shm.Topic.create("t", slots=4, slot_bytes=64) as topic, topic.subscriber() as subscriber:
        subscriber.fileno()
        (sock,) = group_dir.glob("*.sock")
        assert stat.S_IMODE(sock.stat().st_mode) == 0o600
        script = f"""
import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
try:
    s.sendto(b"x", {str(sock)!r})
except PermissionError:
    print("refused")
"""
        sent = as_user(BOB, BOB, script, group_dir, groups=[CAMERAS])
        assert sent.stdout.strip() == "refused", sent.stderr


@needs_root
def test_who_may_open_a_shared_topic_may_wake_its_subscribers_and_nobody_else(group_dir):
    with (
        shm.Topic.create("t", slots=4, slot_bytes=64, mode=0o660) as topic,
        topic.subscriber() as subscriber,
    ):
        subscriber.fileno()
        (sock,) = group_dir.glob("*.sock")
        assert stat.S_IMODE(sock.stat().st_mode) == 0o660
        script = f"""
import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
try:
    s.sendto(b"x", {str(sock)!r})
    print("sent")
except PermissionError:
    print("refused")
"""
        member = as_user(BOB, BOB, script, group_dir, groups=[CAMERAS])
        assert member.stdout.strip() == "sent", member.stderr
        stranger = as_user(BOB, BOB, script, group_dir)
        assert stranger.stdout.strip() == "refused", stranger.stderr
        # Nothing but a wake without news: the next wait drains it and goes on.
        assert subscriber.try_take() is None


def test_wake_socket_is_private_from_its_first_moment(runtime_directory):
    """Whatever the umask lets through: bind() makes the file with the mode of the descriptor."""
    script = """
import os
from framegate import shm
os.umask(0)
with shm.Topic.create("t", slots=4, slot_bytes=64) as topic, topic.subscriber() as subscriber:
    subscriber.fileno()
"""
    trace = Path(runtime_directory) / "trace"
    command = ["strace", "-f", "-o", str(trace), "-e", "trace=bind,fchmod", sys.executable]
    subprocess.run([*command, "-c", script], check=True, timeout=60)
    calls = [line.split(maxsplit=1)[1] for line in trace.read_text().splitlines()]
    trace.unlink()
    (bound,) = [i for i, call in enumerate(calls) if call.startswith("bind(") and ".sock" in call]
    descriptor = calls[bound].removeprefix("bind(").partition(",")[0]
    assert any(call.startswith(f"fchmod({descriptor}, 0600) ") for call in calls[:bound])
    shm.unlink("t")


def test_full_file_system_is_an_error_not_a_signal():
    """On a tmpfs of one megabyte of our own, in a mount namespace of our own.

    Who is not root makes it in a user namespace of their own, where the system allows that.
    """
    unshare = ["unshare", "--mount"]
    if os.geteuid() != 0:
        unshare = ["unshare", "--user", "--map-root-user", "--mount"]
        if subprocess.run([*unshare, "true"], capture_output=True).returncode != 0:
            pytest.skip("a full file system is NOT tested: not root, and no user namespaces here")
    script = """
import os, subprocess, sys
from framegate import shm, errors
os.unshare(os.CLONE_NEWNS) if hasattr(os, "unshare") else None
directory = os.environ["FRAMEGATE_RUNTIME_DIR"]
topic = shm.Topic.create("fits", slots=4, slot_bytes=65536)
publisher = topic.publisher()
for action in (
    lambda: shm.Topic.create("too-large", slots=8, slot_bytes=1 << 20),
    lambda: topic.resize(slots=64),
):
    try:
        action()
    except errors.NoSpace as error:
        print("no space")
# Somebody else fills it behind the check of the free space.
ballast = os.open(directory + "/ballast", os.O_WRONLY | os.O_CREAT)
try:
    while os.write(ballast, bytes(4096)):
        pass
except OSError:
    pass
for i in range(100):
    publisher.send(bytes([i]) * 65536)  # every page was touched at creation
try:
    shm.Topic.create("late", slots=2, slot_bytes=4096)
except errors.NoSpace:
    print("no space")
assert sorted(os.listdir(directory)) != []
assert [name for name in os.listdir(directory) if name.startswith(("too", "late"))] == []
"""
    command = [
        *unshare, "sh", "-c",
        'mkdir -p "$FRAMEGATE_RUNTIME_DIR" && mount -t tmpfs -o size=1m,mode=0700 tmpfs '
        '"$FRAMEGATE_RUNTIME_DIR" && exec "$0" -c "$1"',
        sys.executable, script,
    ]  # fmt: skip
    directory = f"/tmp/framegate-small-{os.getpid()}"
    environment = {**os.environ, "FRAMEGATE_RUNTIME_DIR": directory}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    os.rmdir(directory)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n")[:3] == ["no space"] * 3


def test_stopped_holder_is_not_dead(runtime_directory):
    """SIGSTOP for ten seconds, ten sweeps long; its loan and lease stay its own."""
    script = """
import sys
from framegate import shm
topic = shm.Topic.open("t")
publisher = topic.publisher()
subscriber = topic.subscriber()
frame = subscriber.take(timeout=0)
loan = publisher.loan()
print("holding", flush=True)
sys.stdin.readline()
assert bytes(frame) == b"held", bytes(frame)
memoryview(loan)[:2] = b"ok"
loan.publish(size=2)
"""
    with (
        shm.Topic.create("t", slots=4, slot_bytes=64) as topic,
        topic.publisher() as publisher,
        topic.subscriber("queue") as subscriber,
    ):
        publisher.send(b"held")
        holder = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert holder.stdout.readline() == "holding\n"
            holder.send_signal(signal.SIGSTOP)
            subscriber.take(timeout=0).release()
            assert subscriber.take(timeout=10.0) is None  # and sweeps ten times
            assert topic.reap() == 0
            holder.send_signal(signal.SIGCONT)
            holder.communicate("go\n", timeout=60)
            assert holder.returncode == 0
            assert bytes(subscriber.take(timeout=0)) == b"ok"
        finally:
            holder.kill()
            holder.communicate()


def test_exec_gives_everything_back(runtime_directory):
    script = """
import os, sys
from framegate import shm
topic = shm.Topic.open("t")
publisher = topic.publisher()
loan = publisher.loan()
os.execv(sys.executable, [sys.executable, "-c", "import sys; sys.stdin.read()"])
"""
    with shm.Topic.create("t", slots=2, slot_bytes=64) as topic, topic.publisher() as publisher:
        child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
        try:
            # The process lives on, but its participant ended with the exec.
            while topic.reap() == 0:
                assert child.poll() is None
            assert shm.inspect("t").publishers == 1
            loans = [publisher.loan(), publisher.loan()]
            for loan in loans:
                loan.abandon()
        finally:
            child.communicate()


def test_death_of_a_thread_leaves_its_loan_to_the_process(runtime_directory):
    with shm.Topic.create("t", slots=4, slot_bytes=64) as topic, topic.publisher() as publisher:
        loans = []
        thread = threading.Thread(target=lambda: loans.append(publisher.loan()))
        thread.start()
        thread.join()
        assert topic.reap() == 0
        assert loans[0].publish() == 1
