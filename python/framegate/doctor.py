"""`platform doctor`: what framegate needs of this machine, and what to do where it does not fit.

Each check looks at one thing and says what it found; what is not as it should be comes with what to
do. Two kinds of check: reading what the system says of itself (sizes, limits, namespaces), and
doing what framegate does, in a scratch directory on the same file system (create, lock, wake,
publish), because some sandboxes allow less than they say.

What only Linux has (namespaces, control groups, tmpfs) is not looked at elsewhere (`Words`).
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from framegate import system
from framegate.errors import EXIT_RUNTIME, EXIT_STOPPED, FramegateError
from framegate.tables import bytes_text

__all__ = ["Finding", "Words", "examine", "run"]

State = Literal["ok", "warning", "broken"]

SPACE_WARNING_BYTES: Final = 256 * 1024 * 1024
"""Ten 1080p colour pictures in 4 topics; Docker's default of 64 MB is below it."""

SPACE_BROKEN_BYTES: Final = 1024 * 1024
"""Less than the smallest useful topic."""

FILES_WARNING: Final = 1024
"""A participant needs up to five descriptors, a server one per connection."""

INODES_WARNING: Final = 100

MOUNTINFO: Final = "/proc/self/mountinfo"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        check: What was looked at.
        state: `ok`, `warning` (it works, but will hurt) or `broken`.
        text: What was found, in one line.
        fix: What to do; empty if nothing.
    """

    check: str
    state: State
    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Words:
    """What findings say on one system.

    Attributes:
        is_linux: Whether there are namespaces, control groups, /proc and tmpfs to look at.
        more_files: How more open files are allowed.
        longer_files: How files may be longer.
        more_address_space: How more may be mapped.
        lock_place: Where file locks work.
        wake: What a sleeping subscriber is woken by: the name of its check.
        wake_fix: What a sandbox has to let through for that.
        loop: What wakes event loops.
        loop_fix: What a sandbox has to let through for that.
    """

    is_linux: bool
    more_files: str
    longer_files: str
    more_address_space: str
    lock_place: str
    wake: str
    wake_fix: str
    loop: str
    loop_fix: str


LINUX: Final = Words(
    is_linux=True,
    more_files="ulimit -n 65536; systemd: LimitNOFILE=65536; Docker: --ulimit nofile=65536",
    longer_files="ulimit -f unlimited; systemd: LimitFSIZE=infinity",
    more_address_space="ulimit -v unlimited; systemd: LimitAS=infinity",
    lock_place="a tmpfs such as /dev/shm, not a network or FUSE one",
    wake="futex",
    wake_fix="let the sandbox pass futex(2) on shared memory",
    loop="epoll, Unix datagrams",
    loop_fix="let the sandbox pass epoll, timerfd and Unix datagram sockets",
)
MACOS: Final = Words(
    is_linux=False,
    more_files="ulimit -n 65536",
    longer_files="ulimit -f unlimited",
    more_address_space="ulimit -v unlimited",
    lock_place="a disk of this machine, not a network one",
    wake="wake-ups",
    wake_fix="let the sandbox pass os_sync_wait_on_address() on shared memory (macOS 14.4)",
    loop="kqueue, Unix datagrams",
    loop_fix="let the sandbox pass kqueue and Unix datagram sockets",
)
HERE: Final = MACOS if sys.platform == "darwin" else LINUX


def run(options: dict[str, Any]) -> int:
    """Run the command; exit code 1 if anything is broken."""
    findings = list(examine())
    broken = sum(finding.state == "broken" for finding in findings)
    if options["json"]:
        report = {"healthy": not broken, "findings": [asdict(finding) for finding in findings]}
        print(json.dumps(report, ensure_ascii=False))
        return EXIT_RUNTIME if broken else EXIT_STOPPED
    for finding in findings:
        print(f"{finding.state:<8} {finding.check:<18} {finding.text}")
        if finding.fix:
            print(f"{'':<27} fix: {finding.fix}")
    warnings = sum(finding.state == "warning" for finding in findings)
    print(f"{broken} broken, {warnings} warnings")
    return EXIT_RUNTIME if broken else EXIT_STOPPED


def examine(words: Words = HERE) -> Iterator[Finding]:
    """Every finding; a check that fails itself is a broken finding, not the end."""
    linux: tuple[Callable[[Words], Iterator[Finding]], ...] = (_container, _memory, _clock)
    checks = (
        _python,
        _container,
        _file_system,
        _runtime_directory,
        _limits,
        _memory,
        _clock,
        _kernel,
        _transport,
        _topics,
    )
    for check in checks:
        if check in linux and not words.is_linux:
            continue
        try:
            yield from check(words)
        except Exception as error:
            yield Finding(
                check.__name__.strip("_").replace("_", " "),
                "broken",
                f"the check itself failed: {type(error).__name__}: {error}",
                "report this, with the output of: platform doctor --json",
            )


# ----------------------------------------------------------------------------------------------
# This installation


def _python(words: Words) -> Iterator[Finding]:
    import importlib.machinery

    from framegate.build import build_info

    version = ".".join(map(str, sys.version_info[:3]))
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    try:
        info = build_info()
    except ImportError as error:
        yield Finding(
            "python",
            "broken",
            f"{version}: a native module cannot be loaded: {error}",
            f"install framegate into this interpreter ({sys.executable}, modules {suffix})",
        )
        return
    gil = "with the GIL" if info["gil"] else "without the GIL"
    yield Finding("python", "ok", f"{info['implementation']} {version} {gil}, modules {suffix}")
    built = f"{info['version']} ({info['commit']}), layout {info['segment_layout']}"
    compilers = f"{info['rustc']}, {info['cxx']}"
    if info["profile"] == "release":
        yield Finding("framegate", "ok", f"{built}, {compilers}")
    else:
        yield Finding(
            "framegate",
            "warning",
            f"{built}, {compilers}: a {info['profile']} build, slow",
            "for use and for measuring: uv pip install . (without --editable)",
        )


# ----------------------------------------------------------------------------------------------
# Containers and namespaces


def container_hint() -> str:
    """What kind of container this looks like; empty for none."""
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "Kubernetes"
    if os.path.exists("/.dockerenv"):
        return "Docker"
    if os.path.exists("/run/.containerenv"):
        return "Podman"
    return os.environ.get("container", "")


def _container(words: Words) -> Iterator[Finding]:
    names = {}
    for kind in ("pid", "ipc", "net", "mnt", "user"):
        with contextlib.suppress(OSError):
            names[kind] = os.readlink(f"/proc/self/ns/{kind}").partition("[")[2].rstrip("]")
    listed = " ".join(f"{kind} {name}" for kind, name in names.items())
    hint = container_hint()
    if not hint:
        yield Finding("namespaces", "ok", f"no container seen; {listed}")
        return
    fix = {
        "Kubernetes": "containers of one pod share topics through a volume emptyDir with medium: "
        "Memory at FRAMEGATE_RUNTIME_DIR",
        "Docker": "to share topics with another container: --ipc=shareable here and "
        "--ipc=container:NAME there (or --ipc=host), same user id",
        "Podman": "to share topics with another container: --ipc=container:NAME or one pod, same "
        "user id",
    }.get(hint, "to share topics, mount the same tmpfs at FRAMEGATE_RUNTIME_DIR in both")
    yield Finding(
        "namespaces",
        "ok",
        f"{hint} container; {listed}. Processes see each other's topics if they see the same "
        "runtime directory; pids shown are those of their own pid namespace",
        fix,
    )


# ----------------------------------------------------------------------------------------------
# The file system of the topics


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of mountinfo.

    Attributes:
        path: Where it is mounted.
        kind: Type of the file system.
        options: Its options and those of its super block.
    """

    path: str
    kind: str
    options: tuple[str, ...]


def mount_of(path: str, mountinfo: str) -> Mount | None:
    """The mount that holds a path."""
    found = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        if len(fields) < 6 or len(rest) < 3:
            continue
        where = fields[4].encode().decode("unicode_escape")
        inside = path == where or path.startswith(where.rstrip("/") + "/")
        if inside and (found is None or len(where) >= len(found.path)):
            found = Mount(where, rest[0], (*fields[5].split(","), *rest[2].split(",")))
    return found


def _runtime_path() -> str:
    from framegate import shm

    return shm.runtime_directory()


def _existing_parent(path: str) -> str:
    while not os.path.isdir(path):
        parent = os.path.dirname(path)
        if parent == path:
            break
        path = parent
    return path


def larger_shm(container: str) -> str:
    """How to make /dev/shm larger, or what stands for it in a container or on macOS."""
    return {
        "macOS": "set FRAMEGATE_RUNTIME_DIR to a directory on a larger disk",
        "Docker": "docker run --shm-size=1g (compose: shm_size: 1gb)",
        "Podman": "podman run --shm-size=1g",
        "Kubernetes": "mount a volume emptyDir {medium: Memory, sizeLimit: 1Gi} at /dev/shm",
    }.get(container, "mount -o remount,size=2G /dev/shm (as root; in /etc/fstab to keep it)")


def space_finding(path: str, total: int, free: int, container: str) -> Finding:
    """What a size of the file system means."""
    text = f"{bytes_text(free)} of {bytes_text(total)} free in {path}"
    fix = larger_shm(container)
    if free < SPACE_BROKEN_BYTES:
        return Finding(
            "space", "broken", f"{text}: no topic fits", f"remove what is not used, or {fix}"
        )
    if free < SPACE_WARNING_BYTES:
        pictures = free // (1920 * 1080 * 3)
        return Finding("space", "warning", f"{text}: {pictures} pictures of 1080p", fix)
    return Finding("space", "ok", text)


def _file_system(words: Words) -> Iterator[Finding]:
    path = os.path.realpath(_existing_parent(_runtime_path()))
    yield _mounted(path) if words.is_linux else _on_disk(path, os.statvfs(path).f_flag)
    space = os.statvfs(path)
    yield space_finding(
        path,
        space.f_blocks * space.f_frsize,
        space.f_bavail * space.f_frsize,
        container_hint() if words.is_linux else "macOS",
    )
    if 0 < space.f_files and space.f_favail < INODES_WARNING:
        yield Finding(
            "inodes",
            "warning",
            f"{space.f_favail} left in {path}; a topic needs two",
            "remove files that nobody uses, or remount with a larger nr_inodes",
        )


def _on_disk(path: str, flags: int) -> Finding:
    """What macOS has in place of a tmpfs."""
    if flags & os.ST_RDONLY:
        return Finding(
            "file system",
            "broken",
            f"{path} is mounted read-only",
            "set FRAMEGATE_RUNTIME_DIR to a directory of yours on a disk of this machine",
        )
    return Finding("file system", "ok", f"{path}: on a disk, for macOS has no tmpfs")


def _mounted(path: str) -> Finding:
    mount = None
    with contextlib.suppress(OSError):
        mount = mount_of(path, Path(MOUNTINFO).read_text())
    if mount is None:
        return Finding("file system", "warning", f"cannot tell what {path} is mounted on")
    if "ro" in mount.options:
        return Finding(
            "file system",
            "broken",
            f"{mount.path} is mounted read-only",
            "mount a tmpfs there, or set FRAMEGATE_RUNTIME_DIR to a directory on one",
        )
    if mount.kind not in {"tmpfs", "ramfs", "hugetlbfs"}:
        return Finding(
            "file system",
            "warning",
            f"{mount.path} is {mount.kind}, not tmpfs: frames are written to a disk",
            "set FRAMEGATE_RUNTIME_DIR to a directory on a tmpfs, such as /dev/shm",
        )
    chosen = [
        option
        for option in mount.options
        if option.startswith(("size=", "huge=", "nr_inodes=", "noexec", "nosuid", "mpol="))
    ]
    return Finding("file system", "ok", f"{mount.kind} at {mount.path} {','.join(chosen)}")


def _runtime_directory(words: Words) -> Iterator[Finding]:
    from framegate import shm
    from framegate.errors import RuntimeDirectoryError, TopicNotFound

    path = _runtime_path()
    origin = "FRAMEGATE_RUNTIME_DIR" if os.environ.get("FRAMEGATE_RUNTIME_DIR") else "default"
    if not os.path.lexists(path):
        parent = os.path.dirname(path) or "."
        if os.access(parent, os.W_OK | os.X_OK):
            yield Finding("runtime directory", "ok", f"{path} ({origin}): made by the first topic")
        else:
            yield Finding(
                "runtime directory",
                "broken",
                f"{path} ({origin}) does not exist and cannot be made in {parent}",
                f"make it (mode 0700, owner {_user_name(os.geteuid())}), or set "
                "FRAMEGATE_RUNTIME_DIR to a directory that may be written",
            )
        return
    facts = os.lstat(path)
    text = (
        f"{path} ({origin}), mode {stat.S_IMODE(facts.st_mode):04o}, "
        f"owner {_user_name(facts.st_uid)}"
    )
    try:
        shm.Inspector("doctor/probe").close()
    except TopicNotFound:
        yield Finding("runtime directory", "ok", text)
    except RuntimeDirectoryError as error:
        yield Finding(
            "runtime directory",
            "broken",
            f"{text}: {error.problem}",
            f"chown {_user_name(os.geteuid())} and chmod 0700 it, or chmod 2770 to share it with "
            "its group; or set FRAMEGATE_RUNTIME_DIR to another",
        )
    except FramegateError as error:
        yield Finding(
            "runtime directory",
            "broken",
            f"{text}: {error.problem}",
            f"look as {_user_name(facts.st_uid)}, or set FRAMEGATE_RUNTIME_DIR to a directory of "
            "your own",
        )


def _user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


# ----------------------------------------------------------------------------------------------
# Limits


def _limits(words: Words) -> Iterator[Finding]:
    import resource

    def show(value: int, in_bytes: bool) -> str:
        if value == resource.RLIM_INFINITY:
            return "unlimited"
        return bytes_text(value) if in_bytes else str(value)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{show(soft, False)} open files (at most {show(hard, False)})"
    if soft != resource.RLIM_INFINITY and soft < FILES_WARNING:
        yield Finding(
            "open files",
            "warning",
            f"{text}: each handle of a topic needs up to five",
            words.more_files,
        )
    else:
        yield Finding("open files", "ok", text)
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if soft != resource.RLIM_INFINITY:
        yield Finding(
            "file size",
            "warning",
            f"files end at {show(soft, True)}; a larger topic cannot be created",
            words.longer_files,
        )
    else:
        yield Finding("file size", "ok", "unlimited")
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        yield Finding(
            "address space",
            "warning",
            f"limited to {show(soft, True)}; every open topic is mapped whole",
            words.more_address_space,
        )
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    yield Finding(
        "locked memory",
        "ok",
        f"{show(soft, True)}; framegate locks none (GPU or RDMA registration of slots would)",
    )


def _memory(words: Words) -> Iterator[Finding]:
    """Pages of a tmpfs count for the control group that touched them first."""
    for limit_file, used_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        try:
            limit, used = Path(limit_file).read_text().strip(), int(Path(used_file).read_text())
        except (OSError, ValueError):
            continue
        yield memory_finding(limit, used)
        return
    yield Finding("memory limit", "ok", "no limit of a control group seen")


def memory_finding(limit: str, used: int) -> Finding:
    """What the limit of a control group means; topics count for it."""
    if not limit.isdigit() or int(limit) >= 2**60:
        return Finding("memory limit", "ok", f"none ({bytes_text(used)} in use)")
    left = int(limit) - used
    text = f"{bytes_text(left)} of {bytes_text(int(limit))} left; topics count for it"
    if left < SPACE_WARNING_BYTES:
        return Finding(
            "memory limit",
            "warning",
            text,
            "raise it (docker run --memory, resources.limits.memory, MemoryMax=), or use fewer or "
            "smaller slots: over it, the kernel kills",
        )
    return Finding("memory limit", "ok", text)


# ----------------------------------------------------------------------------------------------
# Kernel


def _clock(words: Words) -> Iterator[Finding]:
    try:
        offsets = Path("/proc/self/timens_offsets").read_text().split()
    except OSError:
        offsets = []
    shifted = any(word not in {"monotonic", "boottime", "0"} for word in offsets)
    if shifted:
        yield Finding(
            "clock",
            "warning",
            "this process is in a time namespace with an offset: ages of frames from outside of it "
            "are wrong",
            "run publishers and subscribers in the same time namespace",
        )
    else:
        yield Finding("clock", "ok", "CLOCK_MONOTONIC is the machine's")


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    """A directory of our own on the file system of the topics."""
    import secrets
    import shutil

    runtime = _runtime_path()
    parent = os.path.dirname(os.path.abspath(runtime))
    if not os.access(parent, os.W_OK | os.X_OK):
        parent = runtime
    path = os.path.join(parent, f".framegate-doctor-{os.getpid()}-{secrets.token_hex(4)}")
    os.mkdir(path, 0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _kernel(words: Words) -> Iterator[Finding]:
    release = os.uname()
    yield Finding("kernel", "ok", f"{release.sysname} {release.release} {release.machine}")
    seccomp = ""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Seccomp:"):
                seccomp = line.split()[1]
    if seccomp == "2":
        yield Finding(
            "seccomp", "ok", "a filter is active; what follows shows what it lets through"
        )
    with _scratch() as path:
        yield _file_locks(path, words)
        yield _allocation(path, words)


def _file_locks(path: str, words: Words) -> Finding:
    """Byte locks of an open file description say who is alive (since Linux 3.15)."""
    import fcntl

    fix = f"use a file system that has them: {words.lock_place}"
    first = os.open(os.path.join(path, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    second = os.open(os.path.join(path, "lock"), os.O_RDWR | os.O_CLOEXEC)
    try:
        lock = system.pack_lock(fcntl.F_WRLCK, 7, 1)
        fcntl.fcntl(first, fcntl.F_OFD_SETLK, lock)
        seen = system.unpack_lock(fcntl.fcntl(second, fcntl.F_OFD_GETLK, lock))
    except OSError as error:
        return Finding("file locks", "broken", f"OFD locks do not work: {error}", fix)
    finally:
        os.close(first)
        os.close(second)
    if seen != fcntl.F_WRLCK:
        return Finding("file locks", "broken", "an OFD lock is not seen by others", fix)
    return Finding("file locks", "ok", "OFD byte locks work: deaths are noticed")


def _allocation(path: str, words: Words) -> Finding:
    """Topics are allocated whole when they are made: a full tmpfs is an error, not a crash."""
    file = os.open(os.path.join(path, "space"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        system.allocate(file, 65536)
        os.link(os.path.join(path, "space"), os.path.join(path, "name"))
    except OSError as error:
        return Finding(
            "allocation",
            "broken",
            f"cannot allocate and name 64 KiB in {path}: {error}",
            larger_shm(container_hint() if words.is_linux else "macOS"),
        )
    finally:
        os.close(file)
    return Finding("allocation", "ok", "space is reserved when a topic is made")


def _transport(words: Words) -> Iterator[Finding]:
    """What the library does all day: create, publish, wake by futex and by descriptor."""
    import threading

    from framegate import shm

    before = os.environ.get("FRAMEGATE_RUNTIME_DIR")
    with _scratch() as path:
        os.environ["FRAMEGATE_RUNTIME_DIR"] = path
        try:
            with (
                shm.Publisher("doctor", slot_bytes=64) as publisher,
                shm.Subscriber("doctor", "queue") as subscriber,
            ):
                woken: list[shm.Frame | None] = []
                sleeper = threading.Thread(
                    target=lambda: woken.append(subscriber.take(timeout=10.0))
                )
                sleeper.start()
                publisher.send(b"wake")
                sleeper.join()
                if not woken or woken[0] is None:
                    yield Finding(
                        words.wake,
                        "broken",
                        "a sleeping subscriber was not woken in 10 s",
                        words.wake_fix,
                    )
                else:
                    woken.pop().release()  # type: ignore[union-attr]
                    yield Finding(words.wake, "ok", "publish wakes a sleeping subscriber")
                yield _descriptor(publisher, subscriber, words)
        except FramegateError as error:
            yield Finding(
                "transport",
                "broken",
                f"a topic cannot be used: {error.code} {error.problem}",
                error.fix or "see what is broken above",
            )
        finally:
            if before is None:
                del os.environ["FRAMEGATE_RUNTIME_DIR"]
            else:
                os.environ["FRAMEGATE_RUNTIME_DIR"] = before


def _descriptor(publisher: Any, subscriber: Any, words: Words) -> Finding:
    import select

    fd = subscriber.fileno()
    subscriber.drain()
    subscriber.arm()
    publisher.send(b"wake")
    readable = bool(select.select([fd], [], [], 10.0)[0])
    subscriber.drain()
    frame = subscriber.try_take()
    if not readable or frame is None:
        return Finding(
            "event loops",
            "broken",
            "the descriptor of a subscriber did not become readable in 10 s",
            words.loop_fix,
        )
    frame.release()
    return Finding("event loops", "ok", f"publish wakes event loops ({words.loop})")


# ----------------------------------------------------------------------------------------------
# What lies around


def _topics(words: Words) -> Iterator[Finding]:
    from framegate import observe, shm
    from framegate.errors import ShmError, TopicNotFound

    path = _runtime_path()
    try:
        names = shm.topics()
    except OSError as error:
        yield Finding(
            "topics", "broken", f"cannot list {path}: {error.strerror}", "see runtime directory"
        )
        return
    used = deserted_bytes = dead = 0
    deserted = []
    for name in names:
        try:
            look = observe.look(name)
        except TopicNotFound:
            continue
        except ShmError as error:
            yield Finding("topics", "broken", error.problem, error.fix or _unlink_hint(name))
            continue
        report = look.report
        used += report.total_bytes
        dead += report.dead
        if report.publishers == 0 and report.subscribers == 0:
            deserted.append(name)
            deserted_bytes += report.total_bytes
    yield Finding("topics", "ok", f"{len(names)} in {path}, {bytes_text(used)}")
    if deserted:
        some = ", ".join(deserted[:3]) + (", ..." if len(deserted) > 3 else "")
        yield Finding(
            "stale topics",
            "warning",
            f"{len(deserted)} that nobody has open: {some} ({bytes_text(deserted_bytes)})",
            "if nobody comes back for them: platform topic gc, or unlink NAME...",
        )
    if dead:
        yield Finding(
            "dead participants",
            "warning",
            f"{dead} died and still hold what they had",
            "none needed: it comes back when anybody attaches to the topic, waits or loans",
        )


def _unlink_hint(name: str) -> str:
    return f"stop whoever uses it, then: platform topic unlink {name}"
