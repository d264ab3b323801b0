"""Unix sockets: whose file may be removed, with which mode, and by whom."""

from __future__ import annotations

import grp
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from framegate.binds import UnixBind
from framegate.errors import ListenError
from framegate.name_lock import AddressLockedError, NameLock
from framegate.unix_socket import UnixSocket
from privileges import needs_root
from server_process import Launch, body

APP = "supervised_apps:app"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


def leave_stale(path: Path) -> int:
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    return path.stat().st_ino


def refuse(path: Path) -> ListenError:
    with pytest.raises(ListenError) as caught:
        UnixSocket(UnixBind(str(path)))
    return caught.value


def ask(path: Path) -> int:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(60)
        peer.connect(str(path))
        peer.sendall(b"GET /pid HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return int(body(peer))


class TestFileThatIsThere:
    def test_of_a_dead_server_is_replaced(self, path: Path) -> None:
        leave_stale(path)
        made = UnixSocket(UnixBind(str(path)))
        made.socket.listen()
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(path))
        made.close()
        assert not path.exists()

    def test_of_a_living_server_stays(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as living:
            living.bind(str(path))
            living.listen()
            inode = path.stat().st_ino
            error = refuse(path)
            assert error.problem == f"another server listens on the Unix socket {path}"
            assert f"held by pid {os.getpid()}" in error.cause
            assert path.stat().st_ino == inode

    def test_of_a_server_whose_queue_is_full_stays(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as living:
            living.bind(str(path))
            living.listen(0)
            with socket.socket(socket.AF_UNIX) as waiting:
                waiting.connect(str(path))
                assert "queue of connections is full" in refuse(path).cause
                assert path.exists()

    def test_of_a_server_that_starts_stays(self, path: Path) -> None:
        # Bound, not listening: refuses connections like a dead one. Without the lock the second
        # server took the file away, and the first one served nobody.
        first = UnixSocket(UnixBind(str(path)))
        inode = path.stat().st_ino
        error = refuse(path)
        assert "another server" in error.problem
        assert f"held by pid {os.getpid()}" in error.cause
        assert path.stat().st_ino == inode
        first.close()

    def test_of_another_kind_stays(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(str(path))
            assert "another kind" in refuse(path).cause
            assert path.exists()

    @pytest.mark.parametrize("kind", ["file", "directory", "link", "dangling link", "fifo"])
    def test_that_is_no_socket_stays(self, path: Path, tmp_path: Path, kind: str) -> None:
        if kind == "file":
            path.write_text("precious")
        elif kind == "directory":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            target = tmp_path / "target"
            if kind == "link":
                leave_stale(target)
            path.symlink_to(target)
        before = os.lstat(path)
        assert refuse(path).problem == f"{path} exists and is no socket"
        assert os.lstat(path) == before

    def test_race_of_many_servers_has_one_winner(self, path: Path) -> None:
        leave_stale(path)
        program = (
            "import sys\n"
            "from framegate.binds import UnixBind\n"
            "from framegate.errors import ListenError\n"
            "from framegate.unix_socket import UnixSocket\n"
            "sys.stdin.readline()\n"
            "try: made = UnixSocket(UnixBind(sys.argv[1]))\n"
            "except ListenError: print('lost', flush=True)\n"
            "else: print('won', flush=True)\n"
            "sys.stdin.readline()\n"
        )
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", program, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(6)
        ]
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        words = [racer.stdout.readline().strip() for racer in racers if racer.stdout]
        for racer in racers:
            racer.communicate("end\n", timeout=60)
        assert sorted(words) == ["lost"] * 5 + ["won"]


class TestRemoval:
    def test_file_of_somebody_else_stays(self, path: Path) -> None:
        made = UnixSocket(UnixBind(str(path)))
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            made.close()
            assert path.exists()

    def test_change_of_directory_does_not_mislead(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        made = UnixSocket(UnixBind("socket"))
        assert made.socket.getsockname() == "socket"
        monkeypatch.chdir("/")
        made.close()
        assert list(tmp_path.iterdir()) == []

    def test_happens_when_accepting_ends_so_that_a_successor_can_start(
        self, launch: Launch, path: Path
    ) -> None:
        for workers in ("1", "2"):
            words = ("--bind", f"unix:{path}", "--workers", workers)
            old = launch(APP, *words).wait_ready()
            old.hold_file.touch()
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(str(path))
            peer.sendall(b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            old.wait_event("slow", int(workers))
            old.signal(signal.SIGTERM)
            old.wait_for("stopping")
            while path.exists():
                threading.Event().wait(0.01)  # a file cannot be awaited
            new = launch(APP, *words).wait_ready()
            old.hold_file.unlink()
            assert body(peer) == "done"
            assert old.wait() == 0
            assert ask(path) in new.events("startup")  # the old one did not remove the new file
            assert new.stop() == 0
            assert not path.exists()

    def test_killed_server_is_succeeded(self, launch: Launch, path: Path) -> None:
        words = ("--bind", f"unix:{path}")
        first = launch(APP, *words).wait_ready()
        first.signal(signal.SIGKILL)
        first.wait()
        assert path.exists()
        second = launch(APP, *words).wait_ready()
        assert ask(path) == second.pid
        assert second.stop() == 0


class TestOwnerAndMode:
    @pytest.mark.parametrize("mode", [0o600, 0o660, 0o777])
    def test_mode_is_set_whatever_the_umask(self, path: Path, mode: int) -> None:
        made = UnixSocket(UnixBind(str(path), mode=mode))
        assert stat.S_IMODE(path.stat().st_mode) == mode
        made.close()

    def test_owner_is_set(self, path: Path) -> None:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(os.getegid())
        made = UnixSocket(UnixBind(str(path), None, user.pw_name, group.gr_name))
        assert (path.stat().st_uid, path.stat().st_gid) == (user.pw_uid, group.gr_gid)
        made.close()
        if os.geteuid() == 0:
            made = UnixSocket(UnixBind(str(path), 0o660, "65534", "65534"))
            status = path.stat()
            assert (status.st_uid, status.st_gid) == (65534, 65534)
            assert stat.S_IMODE(status.st_mode) == 0o660
            made.close()

    def test_unknown_names_are_corrected(self, path: Path) -> None:
        name = pwd.getpwuid(os.geteuid()).pw_name
        with pytest.raises(ListenError, match=f'no user "{name}x"') as caught:
            UnixSocket(UnixBind(str(path), user=f"{name}x"))
        assert caught.value.fix == f"did you mean {name}?"
        with pytest.raises(ListenError, match='no group "no-such-group-at-all"'):
            UnixSocket(UnixBind(str(path), group="no-such-group-at-all"))
        assert not path.exists()


class TestPath:
    def test_missing_directory_is_named(self, tmp_path: Path) -> None:
        error = refuse(tmp_path / "no/socket")
        assert error.fix == f"create the directory {tmp_path}/no"
        (tmp_path / "file").write_text("")
        assert refuse(tmp_path / "file/socket").cause == f"{tmp_path}/file is no directory"

    def test_abstract_name_leaves_no_file_and_is_had_once(self, tmp_path: Path) -> None:
        bind = UnixBind(f"@{tmp_path}")
        made = UnixSocket(bind)
        assert made.socket.getsockname() == f"\0{tmp_path}".encode()
        with pytest.raises(ListenError, match="another process has the abstract socket"):
            UnixSocket(bind)
        made.close()
        UnixSocket(bind).close()

    def test_abstract_name_is_served(self, launch: Launch, tmp_path: Path) -> None:
        server = launch(APP, "--bind", f"unix:@{tmp_path}", "--workers", "2").wait_ready()
        server.wait_for(f"unix:@{tmp_path}")
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(f"\0{tmp_path}")
            peer.sendall(b"GET /pid HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert int(body(peer)) in server.events("startup")
        assert server.stop() == 0


class TestLock:
    def test_is_had_once_and_given_back(self, tmp_path: Path) -> None:
        lock = NameLock(str(tmp_path))
        for _ in range(200):  # more than its queue holds: whoever asked has hung up
            with pytest.raises(AddressLockedError):
                NameLock(str(tmp_path))
        lock.close()
        NameLock(str(tmp_path)).close()

    @needs_root
    def test_of_another_user_does_not_count(self, tmp_path: Path) -> None:
        program = (
            "import os, sys\n"
            "from framegate.name_lock import NameLock\n"
            "os.setuid(65534)\n"
            "lock = NameLock(sys.argv[1])\n"
            "print(flush=True)\n"
            "sys.stdin.readline()\n"
        )
        other = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert other.stdout is not None
        other.stdout.readline()
        NameLock(str(tmp_path)).close()  # not refused
        other.communicate(b"\n", timeout=60)
