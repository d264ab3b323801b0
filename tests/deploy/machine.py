"""A real systemd, as process 1 of namespaces of its own.

    pytest -> unshare (mount, pid, network, cgroup, ...) -> /usr/lib/systemd/systemd

The machine sees this one's files, but its own /run, /srv, /dev/shm, /etc/passwd, network and
control groups, and no other units than those that it is given. What `deploy/systemd` expects is
there: the user `app`, /srv/app with an application and an environment that has framegate in it.

Needs root and a kernel that lets it make namespaces; `Machine.start` says if it may not.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "deploy/systemd"
SYSTEMD = "/usr/lib/systemd/systemd"
PATIENCE_SECONDS = 60.0

# Units of the system that ours are ordered by; here nothing belongs to them.
STUBS = (
    *("basic.target", "sysinit.target", "shutdown.target", "sockets.target", "paths.target"),
    *("timers.target", "multi-user.target", "network-online.target", "machine.target"),
)

APPLICATION = """
import asyncio, json, os, resource, threading

import framegate

def can_write(path):
    try:
        open(os.path.join(path, "framegate-was-here"), "w").close()
        return True
    except OSError:
        return False

def status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name + ":"):
            return line.split()[1]

def publish():
    with framegate.Publisher("deploy/test", dtype="uint8", shape=(4,)) as publisher:
        with framegate.Subscriber("deploy/test") as subscriber:
            with publisher.loan() as loan:
                memoryview(loan)[:] = b"abcd"
                loan.publish()
            with subscriber.take(timeout=5) as frame:
                return bytes(memoryview(frame)).decode()

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    if scope["path"] == "/slow":
        open("/dev/shm/begun", "w").close()
        await asyncio.sleep(1)
    about = {"pid": os.getpid(), "uid": os.getuid(), "parent": os.getppid()}
    if scope["path"] == "/about":
        about |= {
            "topic": publish(),
            "no_new_privileges": status("NoNewPrivs"),
            "capabilities": status("CapEff"),
            "filter": status("Seccomp"),
            "writable": [p for p in ("/", "/usr", "/srv/app", "/run", "/dev/shm", "/tmp") if can_write(p)],
            "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        }
    text = json.dumps(about).encode()
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})
"""  # noqa: E501

# Runs in the namespaces. /srv/python is this Python, wherever it is: the units hide /root.
SETUP = """
set -eu
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /srv
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for file in passwd group; do
    cp /etc/$file /run/$file
    echo "$file" | sed 's/passwd/app:x:64999:64999::\\/srv\\/app:\\/bin\\/false/; s/group/app:x:64999:/' >> /run/$file
    mount --bind /run/$file /etc/$file
done
mkdir -p /srv/python /srv/site /srv/framegate /srv/app/.venv/bin "/srv/app/.venv/lib/$PYTHON/site-packages"
mount --bind "$PREFIX" /srv/python
mount --bind "$SITE" /srv/site
mount --bind "$SOURCE" /srv/framegate
echo 'home = /srv/python/bin' > /srv/app/.venv/pyvenv.cfg
printf '/srv/framegate\\n/srv/site\\n' > "/srv/app/.venv/lib/$PYTHON/site-packages/all.pth"
ln -s "/srv/python/bin/$PYTHON" /srv/app/.venv/bin/python
cat > /srv/app/.venv/bin/platform <<'END'
#!/srv/app/.venv/bin/python
import sys
from framegate.cli import main
sys.exit(main())
END
chmod 755 /srv/app/.venv/bin/platform
cp -r "$FILES/units" /run/units
cp "$FILES/main.py" /srv/app/main.py
export container=framegate-test SYSTEMD_UNIT_PATH=/run/units
exec "$SYSTEMD" --system --unit=machine.target --log-target=console --show-status=false
"""  # noqa: E501


class CannotStartError(Exception):
    """This machine may not make others."""


class Machine:
    """A systemd that runs.

    Args:
        directory: For its files.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._group: Path | None = None
        self.pid = 0

    def start(self) -> None:
        """Start it.

        Raises:
            CannotStartError: Namespaces or control groups are not to be had.
        """
        units = self._directory / "units"
        units.mkdir()
        for name in STUBS:
            (units / name).write_text("[Unit]\nDefaultDependencies=no\n")
        for file in UNITS.glob("app.*"):
            (units / file.name).write_text(file.read_text())
        (units / "app.service.d").mkdir()
        # Without a journal its lines would be lost; and this Python is not where it was installed.
        (units / "app.service.d/log.conf").write_text(
            "[Service]\nStandardOutput=append:/run/app.log\nStandardError=append:/run/app.log\n"
            "Environment=LD_LIBRARY_PATH=/srv/python/lib\n"
        )
        (self._directory / "main.py").write_text(APPLICATION)
        (self._directory / "setup.sh").write_text(SETUP)
        self._group = _make_group()
        environment = {
            "PATH": os.environ["PATH"],
            "PREFIX": sys.base_prefix,
            "PYTHON": f"python3.{sys.version_info.minor}",
            "SITE": sysconfig.get_path("purelib"),
            "SOURCE": str(ROOT / "python"),
            "FILES": str(self._directory),
            "SYSTEMD": SYSTEMD,
        }
        join = 'echo $$ > "$0" && exec "$@"'
        namespaces = ("--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup")
        with (self._directory / "systemd.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *("bash", "-c", join, str(self._group / "cgroup.procs")),
                    # Nothing stays behind, however this process ends.
                    *("setpriv", "--pdeathsig", "KILL", "--"),
                    *("unshare", *namespaces, "--fork", "--kill-child"),
                    *("bash", str(self._directory / "setup.sh")),
                ],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.until(self._is_up)

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise CannotStartError((self._directory / "systemd.log").read_text())
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        with contextlib.suppress(OSError, ValueError):
            self.pid = int(children.read_text())
            return self.systemctl("is-active", "machine.target", check=False) == "active"
        return False

    def stop(self) -> None:
        """End it, and everything in it."""
        if self._process is not None:
            self._process.kill()  # and its child, which is process 1 there
            self._process.wait()
        if self._group is not None:
            self.until(self._is_empty)
            for directory, _, _ in os.walk(self._group, topdown=False):
                os.rmdir(directory)

    def _is_empty(self) -> bool:
        assert self._group is not None
        return "populated 0" in (self._group / "cgroup.events").read_text()

    def until(self, condition: Any) -> None:
        """Wait for something that cannot be awaited."""
        pause, end = threading.Event(), time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < end, self.log
            pause.wait(0.05)

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command in the machine; return what it writes."""
        inside = ("--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup")
        done = subprocess.run(
            ["nsenter", f"--target={self.pid}", *inside, "--", *command],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stderr}\n{self.log}"
        return done.stdout.strip()

    def systemctl(self, *words: str, check: bool = True) -> str:
        """Run `systemctl`."""
        return self.run("systemctl", *words, check=check)

    def shown(self, name: str, unit: str = "app.service") -> str:
        """Return what systemd knows of a unit."""
        return self.systemctl("show", "--value", f"--property={name}", unit)

    def path(self, path: str) -> Path:
        """Return a file of the machine as it is seen from here."""
        return Path(f"/proc/{self.pid}/root{path}")

    @property
    def log(self) -> str:
        """What the service wrote."""
        try:
            return self.path("/run/app.log").read_text()
        except OSError:
            return (self._directory / "systemd.log").read_text()

    def edit(self, *lines: str) -> None:
        """Change the service, as `systemctl edit` does."""
        text = "\n".join(("[Service]", *lines, ""))
        self.path("/run/units/app.service.d/edit.conf").write_text(text)
        self.systemctl("daemon-reload")

    def reset(self) -> None:
        """Be as at the start."""
        self.systemctl("stop", "app.socket", "app.service", check=False)
        self.systemctl("reset-failed", check=False)
        self.path("/run/units/app.service.d/edit.conf").unlink(missing_ok=True)
        self.path("/run/app.log").unlink(missing_ok=True)
        self.systemctl("daemon-reload")

    def get(self, path: str = "/") -> dict[str, Any]:
        """Ask the service over TCP."""
        return dict(json.loads(self.run("curl", "-sSf", f"http://127.0.0.1:8000{path}")))


def _make_group() -> Path:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            group = Path(before.split()[4]) / f"framegate-test-{os.getpid()}"
            try:
                group.mkdir()
            except OSError as error:
                raise CannotStartError(str(error)) from None
            return group
    raise CannotStartError("there are no control groups of version 2")
