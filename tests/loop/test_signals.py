"""Signals are handled at once, also on an idle loop; others may want the wake-up fd too."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from types import FrameType

import pytest

from framegate.loop import EventLoop
from loop.helpers import Run, Script, in_thread


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Leave no handler and no wake-up fd behind, and find none left by the loop."""
    handler = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, handler)
    assert signal.set_wakeup_fd(-1) == -1


def kill_soon(number: int = signal.SIGUSR1) -> threading.Timer:
    """Send a signal to this process from another thread, while the loop sleeps."""
    timer = threading.Timer(0.02, os.kill, (os.getpid(), number))
    timer.start()
    return timer


def test_a_handler_of_the_signal_module_runs_on_an_idle_loop(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        handled = asyncio.Event()

        def handler(number: int, frame: FrameType | None) -> None:
            # Not threadsafe on purpose: it runs on the loop's thread, in select.
            loop.call_soon(handled.set)

        signal.signal(signal.SIGUSR1, handler)
        timer = kill_soon()
        # No timer of the loop's is due before the watchdog of the test.
        await handled.wait()
        timer.join()

    run(main())


def test_an_exception_of_a_handler_ends_the_loop(loop: EventLoop) -> None:
    class Stop(BaseException):
        pass

    def handler(number: int, frame: FrameType | None) -> None:
        raise Stop

    signal.signal(signal.SIGUSR1, handler)
    timer = kill_soon()
    with pytest.raises(Stop):
        loop.run_forever()
    timer.join()
    # The loop can be used again.
    assert loop.run_until_complete(asyncio.sleep(0, "alive")) == "alive"


def test_add_signal_handler_works_and_hands_the_wakeup_fd_back(run: Run) -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        happened = asyncio.Event()

        def note(name: str) -> None:
            seen.append(name)
            happened.set()

        loop.add_signal_handler(signal.SIGUSR1, note, "asyncio")
        os.kill(os.getpid(), signal.SIGUSR1)
        await happened.wait()
        assert loop.remove_signal_handler(signal.SIGUSR1)
        assert not loop.remove_signal_handler(signal.SIGUSR1)

        happened.clear()
        signal.signal(signal.SIGUSR1, lambda *_: note("signal module"))
        # `note` sets an event without waking anybody; the loop must leave select by itself.
        timer = kill_soon()
        await happened.wait()
        timer.join()
        return seen

    assert run(main()) == ["asyncio", "signal module"]


def test_a_handler_added_before_the_loop_runs_is_called(loop: EventLoop) -> None:
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    timer = kill_soon()
    loop.run_forever()
    timer.join()
    assert loop.remove_signal_handler(signal.SIGUSR1)


def test_a_wakeup_fd_set_before_gets_every_signal_and_is_put_back(
    run: Run, pair: tuple[socket.socket, socket.socket]
) -> None:
    signal.set_wakeup_fd(pair[0].fileno(), warn_on_full_buffer=False)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        signal.signal(signal.SIGUSR1, lambda *_: None)
        timer = kill_soon()
        assert await loop.sock_recv(pair[1], 8) == bytes([signal.SIGUSR1])
        timer.join()

    run(main())
    assert signal.set_wakeup_fd(-1) == pair[0].fileno()


def test_a_wakeup_fd_set_meanwhile_is_left_alone(
    run: Run, pair: tuple[socket.socket, socket.socket]
) -> None:
    async def main() -> None:
        signal.set_wakeup_fd(pair[0].fileno())

    run(main())
    assert signal.set_wakeup_fd(-1) == pair[0].fileno()


def test_signals_of_a_forked_child_do_not_reach_the_parent(
    run: Run, pair: tuple[socket.socket, socket.socket]
) -> None:
    signal.set_wakeup_fd(pair[0].fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGUSR1, lambda *_: None)

    async def main() -> None:
        await asyncio.sleep(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork with threads
            child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGUSR1)
            os._exit(0)
        os.waitpid(child, 0)
        # Whatever the child wrote is there now, and one turn would pass it on.
        await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        with pytest.raises(BlockingIOError):
            pair[1].recv(8)

    run(main())
    signal.set_wakeup_fd(-1)


def test_a_loop_in_another_thread_leaves_signals_alone(run: Run) -> None:
    def other() -> None:
        async def main() -> None:
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)
            await asyncio.sleep(0)

        run(main())

    in_thread(other)


def test_a_signal_interrupts_rust_work_that_never_sleeps(loop: EventLoop) -> None:
    signal.signal(signal.SIGUSR1, lambda *_: loop.stop())
    loop.call_soon(lambda: loop._tokio._keep_busy(600.0, 10))
    timer = kill_soon()
    loop.run_forever()
    timer.join()
    assert loop._tokio._tasks_alive() == 10


def test_ctrl_c_under_runner_cancels_the_main_task_of_an_idle_loop(script: Script) -> None:
    process = script(
        """
        import asyncio
        from framegate.loop import new_event_loop

        async def main():
            try:
                print("ready")
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                print("cancelled")
                raise

        try:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (out, err, process.returncode) == ("cancelled\ninterrupted\n", "", 0)


def test_ctrl_c_without_runner_raises_out_of_the_loop(script: Script) -> None:
    process = script(
        """
        from framegate.loop import new_event_loop

        loop = new_event_loop()
        loop.call_soon(print, "ready")
        try:
            loop.run_forever()
        except KeyboardInterrupt:
            print("interrupted")
        loop.close()
        """
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (out, err, process.returncode) == ("interrupted\n", "", 0)


def test_a_stock_loop_on_our_selector_handles_ctrl_c(script: Script) -> None:
    process = script(
        """
        import asyncio
        from framegate import _http

        async def main():
            print("ready")
            await asyncio.Event().wait()

        def factory():
            return asyncio.SelectorEventLoop(_http.Selector())

        try:
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (out, err, process.returncode) == ("interrupted\n", "", 0)
