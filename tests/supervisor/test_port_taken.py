"""Who wants the port between two workers, and between two servers.

The supervisor keeps its sockets: a worker that starts again gets them and binds nothing.
"""

from __future__ import annotations

import errno
import os
import signal
import socket

import pytest

from server_process import Launch

APP = "supervised_apps:app"


def bind(port: int) -> socket.socket:
    """Bind it as any other program would."""
    taken = socket.socket()
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
    except BaseException:
        taken.close()
        raise
    return taken


def test_port_stays_ours_while_no_worker_lives(launch: Launch) -> None:
    server = launch(APP, "--workers", "2").wait_ready()
    server.signal(signal.SIGSTOP)  # so that nobody starts them again yet
    for pid in server.worker_pids:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(OSError) as refused:
        bind(server.port)
    assert refused.value.errno == errno.EADDRINUSE
    server.signal(signal.SIGCONT)
    server.wait_for("worker 1 ready again")
    server.wait_for("worker 2 ready again")
    assert int(server.get()) not in server.worker_pids
    assert server.stop() == 0


def test_port_stays_ours_during_a_reload(launch: Launch) -> None:
    server = launch("supervised_apps:waiting_later", "--workers", "2").wait_ready()
    server.hold_file.touch()
    server.signal(signal.SIGHUP)
    with pytest.raises(OSError) as refused:
        bind(server.port)
    assert refused.value.errno == errno.EADDRINUSE
    server.hold_file.unlink()
    server.wait_for("reloaded: 2 of 2 workers serve")
    assert server.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_server_whose_port_was_taken_meanwhile_names_who_has_it(
    launch: Launch, workers: str
) -> None:
    server = launch(APP, "--workers", workers).wait_ready()
    port = server.port
    assert server.stop() == 0
    with bind(port):
        again = launch(APP, "--workers", workers, "--port", str(port))
        assert again.wait() == 3
        assert f"port {port} on 127.0.0.1 is in use" in again.text
        assert f"held by pid {os.getpid()} (" in again.text
        assert again.events("startup") == server.events("startup")  # nothing was started for it
    last = launch(APP, "--workers", workers, "--port", str(port)).wait_ready()
    assert last.get().isdecimal()
    assert last.stop() == 0
