"""What Python does on macOS, as far as Linux can run it: with the system's answers as arguments,
and a whole server whose `framegate.system` is macOS's. Whether macOS answers so, nobody has seen.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import pty
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from framegate import doctor, system_linux, system_macos
from framegate.config import Config
from framegate.listener import open_listeners, start_listening
from framegate.name_lock import AddressLockedError, FileLock
from framegate.watching import Watch
from privileges import needs_root
from server_process import Launch, ServerProcess, wait_for_death

HEADERS = system_macos.HEADERS
APP = "supervised_apps:app"


def test_both_systems_have_the_same_names() -> None:
    assert system_macos.__all__ == system_linux.__all__
    for module in (system_linux, system_macos):
        assert all(hasattr(module, name) for name in module.__all__)
    for name in system_linux.__all__:
        ours, theirs = getattr(system_linux, name), getattr(system_macos, name)
        assert type(ours) is type(theirs), name


def failing(number: int) -> Any:
    def fail(*arguments: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


class TestMemory:
    class Library:
        def proc_pid_rusage(self, pid: int, flavour: int, facts: Any) -> int:
            assert (pid, flavour) == (812, 0)
            struct.pack_into("=QQ", facts, 64, 3 << 20, 5 << 20)  # resident, footprint
            return 0

        def sysctlbyname(self, name: bytes, value: Any, size: Any, *new: object) -> int:
            assert (name, new) == (b"kern.maxfilesperproc", (None, 0))
            assert size._obj.value == ctypes.sizeof(value._obj)
            value._obj.value = 122880
            return 0

    class Refusing:
        def proc_pid_rusage(self, *arguments: object) -> int:
            return -1

        sysctlbyname = proc_pid_rusage

    def test_is_the_footprint(self) -> None:
        assert system_macos.private_bytes(812, self.Library()) == 5 << 20

    @pytest.mark.parametrize("library", [Refusing(), None])
    def test_that_cannot_be_told_is_nothing(self, library: object) -> None:
        assert system_macos.private_bytes(812, library) == 0

    def test_open_files_are_as_many_as_a_process_may_have(self) -> None:
        assert system_macos.open_files_max(self.Library()) == 122880
        assert system_macos.open_files_max(self.Refusing()) == 10240
        assert system_macos.open_files_max() == 10240


def test_cores_are_all() -> None:
    assert system_macos.allowed_cores() == os.cpu_count()


def test_runtime_directory_is_that_of_the_library() -> None:
    def ask(number: int) -> str:
        assert number == 65537
        return "/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T/"

    place = "/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T"
    mine = f"framegate-{os.geteuid()}"
    assert system_macos.default_runtime_directory(ask) == f"{place}/{mine}"
    assert system_macos.default_runtime_directory(lambda number: None) == f"/tmp/{mine}"
    assert system_macos.default_runtime_directory(failing(errno.EINVAL)) == f"/tmp/{mine}"


class TestFiles:
    def test_room_is_asked_for_and_then_had(self, tmp_path: Path) -> None:
        asked = []

        def control(fd: int, what: int, store: bytes) -> None:
            asked.append((what, struct.unpack("=Iiqqq", store)))
            assert os.fstat(fd).st_size == 0

        with open(tmp_path / "file", "wb") as file:
            system_macos.allocate(file.fileno(), 4097, control)
            assert os.fstat(file.fileno()).st_size == 4097
        assert asked == [(42, (4, 3, 0, 4097, 0))]

    @pytest.mark.parametrize("number", [errno.ENOTSUP, errno.EINVAL])
    def test_file_system_that_promises_nothing_will_do(self, tmp_path: Path, number: int) -> None:
        with open(tmp_path / "file", "wb") as file:
            system_macos.allocate(file.fileno(), 4097, failing(number))
            assert os.fstat(file.fileno()).st_size == 4097

    def test_full_disk_is_an_error(self, tmp_path: Path) -> None:
        with open(tmp_path / "file", "wb") as file:
            with pytest.raises(OSError, match="No space"):
                system_macos.allocate(file.fileno(), 4097, failing(errno.ENOSPC))
            assert os.fstat(file.fileno()).st_size == 0

    def test_pipe_has_room_until_it_is_full(self) -> None:
        reader, writer = os.pipe()
        try:
            assert system_macos.has_room(writer)
            os.set_blocking(writer, False)
            with pytest.raises(BlockingIOError):
                while True:
                    os.write(writer, bytes(4096))
            assert not system_macos.has_room(writer)
            os.read(reader, 65536)
            assert system_macos.has_room(writer)
        finally:
            os.close(reader)
            os.close(writer)

    def test_devices_have_room(self) -> None:
        terminal, other = pty.openpty()
        null = os.open(os.devnull, os.O_WRONLY)
        assert system_macos.has_room(null) and system_macos.has_room(terminal)
        for fd in (terminal, other, null):
            os.close(fd)

    def test_lock_is_read_as_it_is_written(self) -> None:
        data = system_macos.pack_lock(fcntl.F_WRLCK, 7, 1)
        assert len(data) == HEADERS["sizeof(struct flock)"]
        assert struct.unpack_from("=qq", data) == (7, 1)
        kind = struct.unpack_from("=h", data, HEADERS["offsetof(struct flock, l_type)"])
        assert kind == (system_macos.unpack_lock(data),) == (fcntl.F_WRLCK,)
        for module in (system_linux, system_macos):
            assert module.unpack_lock(module.pack_lock(fcntl.F_UNLCK, 0, 0)) == fcntl.F_UNLCK


class TestSockets:
    class Answering:
        """A socket's options, as the kernel would have them."""

        def __init__(self, **options: Any) -> None:
            self.options = options

        def getsockopt(self, level: int, option: int, size: int = 0) -> Any:
            if level == socket.SOL_SOCKET:
                answer = self.options["listening"]
            else:
                assert level == 0
                answer = {1: self.options["credentials"], 2: self.options["pid"]}[option]
            if isinstance(answer, int) and answer < 0:
                raise OSError(-answer, os.strerror(-answer))
            return answer[:size] if isinstance(answer, bytes) else answer

    def test_peer_is_named(self) -> None:
        credentials = struct.pack("=IIh2x16I", 0, 501, 1, *range(16))
        peer: Any = self.Answering(credentials=credentials, pid=812)
        assert len(credentials) == HEADERS["sizeof(struct xucred)"]
        assert system_macos.peer_of(peer) == (812, 501)

    def test_kernel_that_does_not_tell_is_asked_to_listen(self) -> None:
        for answer, expected in ((0, False), (2, True), (-errno.ENOPROTOOPT, False)):
            item: Any = self.Answering(listening=answer)
            assert system_macos.is_listening(item) is expected
        bad: Any = self.Answering(listening=-errno.EBADF)
        with pytest.raises(OSError, match="Bad file"):
            system_macos.is_listening(bad)

    def test_descriptors_come_and_no_child_inherits_them(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs, open(os.devnull) as null:
            socket.send_fds(ours, [b"line\n"], [null.fileno(), null.fileno()])
            data, fds = system_macos.receive_with_fds(theirs, 100, 64)
            assert data == b"line\n"
            assert len(fds) == 2
            for fd in fds:
                assert not os.get_inheritable(fd)
                assert os.path.samestat(os.fstat(fd), os.fstat(null.fileno()))
                os.close(fd)

    def test_all_workers_accept_from_one_socket(self) -> None:
        config = Config(app="a:b", bind=("localhost:0",), workers=3)
        listeners = open_listeners(config, ports_are_balanced=False)
        first, *others = listeners.of_worker
        assert all(sockets == first for sockets in others)
        assert listeners.add_worker() == first
        start_listening(first, 16)
        for item in first:
            assert not item.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
            with socket.create_connection(item.getsockname()[:2], timeout=10):
                pass
        assert len({port for _, port in listeners.addresses}) == 1
        listeners.close()


class TestPrograms:
    SHOWN = (
        b"p812\nf3\nn127.0.0.1:8000\nf4\nn[::1]:8000\np90\nf3\nn*:8000\np91\nf5\nn10.0.0.1:8000\n"
    )

    @pytest.mark.parametrize(
        ("family", "host", "pids"),
        [
            (socket.AF_INET, "127.0.0.1", [90, 812]),
            (socket.AF_INET6, "::1", [90, 812]),
            (socket.AF_INET, "10.0.0.2", [90]),
            (socket.AF_INET, "0.0.0.0", [90, 91, 812]),
        ],
    )
    def test_who_listens_is_what_lsof_says(self, family: int, host: str, pids: list[int]) -> None:
        def ask(command: Sequence[str]) -> bytes:
            assert "-iTCP:8000" in command
            return self.SHOWN

        assert system_macos.listeners_on(family, host, 8000, ask) == (pids, None)

    @pytest.mark.parametrize("said", [b"", b"nonsense\n", b"pnonsense\nn*:8000\n"])
    def test_nobody_is_named_where_it_says_nothing(self, said: bytes) -> None:
        found = system_macos.listeners_on(socket.AF_INET, "::", 8000, lambda command: said)
        assert found == ([], None)

    def test_nobody_is_named_without_lsof(self) -> None:
        found = system_macos.listeners_on(socket.AF_INET, "::", 8000, failing(errno.ENOENT))
        assert found == ([], None)

    @pytest.mark.skipif(shutil.which("lsof") is None, reason="the words of lsof are NOT tested")
    def test_real_lsof_understands_the_question(self) -> None:
        def ask(command: Sequence[str]) -> bytes:
            return subprocess.run(["lsof", *command[1:]], stdout=subprocess.PIPE).stdout

        with socket.create_server(("127.0.0.1", 0)) as held:
            port = held.getsockname()[1]
            found = system_macos.listeners_on(socket.AF_INET, "127.0.0.1", port, ask)
            assert found == ([os.getpid()], None)
            other = system_macos.listeners_on(socket.AF_INET, "127.0.0.2", port, ask)
            assert other == ([], None)

    @pytest.mark.skipif(not os.path.exists("/bin/ps"), reason="the words of ps are NOT tested")
    def test_command_line_is_what_ps_says(self) -> None:
        words = ["sh", "-c", "echo; read line", "x" * 300]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            assert system_macos.command_line(child.pid) == " ".join(words).encode()
            child.kill()
        with pytest.raises(ProcessLookupError):
            system_macos.command_line(child.pid)


class TestFileLock:
    def test_is_had_once_and_given_back(self, tmp_path: Path) -> None:
        lock = FileLock("unix:1:2:s", str(tmp_path))
        with pytest.raises(AddressLockedError, match=f"held by pid {os.getpid()} "):
            FileLock("unix:1:2:s", str(tmp_path))
        FileLock("unix:1:2:other", str(tmp_path)).close()
        lock.close()
        FileLock("unix:1:2:s", str(tmp_path)).close()

    def test_ends_with_its_process(self, tmp_path: Path) -> None:
        program = (
            "import sys\n"
            "from framegate.name_lock import FileLock\n"
            "lock = FileLock('name', sys.argv[1])\n"
            "print(flush=True)\n"
            "sys.stdin.readline()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as other:
            assert other.stdout is not None
            other.stdout.readline()
            with pytest.raises(AddressLockedError, match=f"held by pid {other.pid} "):
                FileLock("name", str(tmp_path))
            other.kill()
        FileLock("name", str(tmp_path)).close()

    @needs_root
    def test_file_of_another_user_does_not_count(self, tmp_path: Path) -> None:
        lock = FileLock("name", str(tmp_path))
        (file,) = tmp_path.iterdir()
        os.chown(file, 65534, -1)
        FileLock("name", str(tmp_path)).close()  # not refused
        lock.close()

    def test_directory_that_is_not_there_is_no_lock(self, tmp_path: Path) -> None:
        for _ in range(2):
            FileLock("name", str(tmp_path / "none"))


class TestDoctor:
    def test_says_nothing_of_linux(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(tmp_path))
        found = {finding.check: finding for finding in doctor.examine(doctor.MACOS)}
        assert found["file system"].text.endswith("on a disk, for macOS has no tmpfs")
        assert found["wake-ups"].state == found["event loops"].state == "ok"
        assert not {"namespaces", "memory limit", "clock", "futex"} & set(found)
        for finding in found.values():
            text = f"{finding.text} {finding.fix}"
            for word in ("/dev/shm", "systemd", "Docker", "epoll", "cgroup", "proc/"):
                assert word not in text, finding

    def test_read_only_disk_is_broken(self) -> None:
        assert doctor._on_disk("/Volumes/x", os.ST_RDONLY).state == "broken"
        assert doctor._on_disk("/Volumes/x", 0).state == "ok"

    def test_little_space_has_a_way_out(self) -> None:
        finding = doctor.space_finding("/private/var", 10**9, 10**6, "macOS")
        assert "larger disk" in finding.fix


def test_reload_sees_files_by_their_real_names(tmp_path: Path) -> None:
    real, link = tmp_path / "private", tmp_path / "link"
    (real / "sub").mkdir(parents=True)
    link.symlink_to(real)
    settings = link / "sub" / "settings"
    watch = Watch([str(link)], ("app/*.py", "sub/*.py"), (), 0.1, [str(settings)])
    for path in ("sub/a.py", "sub/settings"):
        told = watch.as_named(str(real / path))
        assert told == watch.as_named(told) == str(link / path)
        assert watch.concerns(told)
        assert not watch.concerns(str(real / path))
    assert watch.as_named("/elsewhere/a.py") == "/elsewhere/a.py"


class TestServer:
    """The whole of it, with macOS's module: what only macOS has fails, and does no harm."""

    @pytest.fixture
    def mac(self, launch: Launch, tmp_path: Path) -> Launch:
        site = tmp_path / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(
            "import sys\n"
            "import framegate.system_macos as macos\n"
            "sys.modules['framegate.system'] = sys.modules['framegate'].system = macos\n"
        )
        paths = os.pathsep.join((str(site), os.environ.get("PYTHONPATH", ""))).rstrip(os.pathsep)

        def start(*words: str) -> ServerProcess:
            return launch(APP, *words, extra={"PYTHONPATH": paths})

        return start

    def test_workers_share_one_socket_through_reload_and_growth(self, mac: Launch) -> None:
        server = mac("--workers", "2").wait_ready()
        first = server.worker_pids

        def holders() -> list[int]:
            return system_linux.listeners_on(socket.AF_INET, "127.0.0.1", server.port)[0]

        assert holders() == sorted([server.pid, *first])
        assert int(server.get()) in first
        server.signal(signal.SIGTTIN)
        third = int(server.wait_for(r"worker 3 ready \(pid (\d+)\)")[1])
        assert holders() == sorted([server.pid, *first, third])
        server.signal(signal.SIGHUP)
        server.wait_for("reloaded: 3 of 3 workers serve")
        for pid in (*first, third):
            wait_for_death(pid)
        assert int(server.get()) not in (*first, third)
        assert len(holders()) == 4
        server.signal(signal.SIGTTOU)
        server.wait_for("one worker less: 2")
        assert int(server.get())
        # One socket, whoever has it.
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        assert sum(f":{server.port:04X} 00000000:0000 0A" in line for line in lines) == 1
        assert server.stop() == 0

    def test_no_worker_outlives_its_supervisor(self, mac: Launch) -> None:
        server = mac("--workers", "2").wait_ready()
        server.signal(signal.SIGKILL)
        for pid in server.worker_pids:
            wait_for_death(pid)

    def test_unix_socket_is_served_and_removed(self, mac: Launch, tmp_path: Path) -> None:
        path = tmp_path / "s"
        server = mac("--uds", str(path), "--workers", "2").wait_ready()
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(path))
            peer.sendall(b"GET /pid HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert peer.recv(4096).startswith(b"HTTP/1.1 200")
        again = mac("--uds", str(path))
        again.wait_for("another server listens on the Unix socket")
        assert again.wait() == 3
        assert server.stop() == 0
        assert not path.exists()

    def test_abstract_socket_is_refused(self, mac: Launch) -> None:
        server = mac("--bind", "unix:@framegate-test")
        server.wait_for("unix:@framegate-test|@framegate-test: this system has no abstract sockets")
        assert server.wait() == 3

    def test_stall_is_logged(self, mac: Launch) -> None:
        server = mac("--workers", "2", "--log-stalls", "0.5").wait_ready()
        peer = server.request("/block")
        server.wait_for("the event loop has stood still")
        server.signal(signal.SIGKILL)
        peer.close()
