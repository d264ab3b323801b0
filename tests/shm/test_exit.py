"""The end of an interpreter, of handles and of references: nothing crashes, nothing is left."""

import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framegate import shm
from framegate.errors import ClosedError
from shm.dlpack_consumer import consume

SETUP = """
import atexit, ctypes, gc, sys, threading
import numpy as np
from framegate import shm
publisher = shm.Publisher("t", dtype="u1", shape=(4, 4), slots=8)
subscriber = shm.Subscriber("t", "queue", max_leases=7)
publisher.send(np.ones((4, 4), "u1"))
frame = subscriber.take()
"""

ENDS = {
    "views in the module": "views = [memoryview(frame), frame.array, np.from_dlpack(frame)]",
    "views in sys": "sys.kept = [memoryview(frame), frame.array, frame.arrays, frame]",
    "views in a cycle": "cycle = [frame.array]; cycle.append(cycle); del frame; gc.disable()",
    "an unconsumed capsule": "sys.kept = frame.__dlpack__(max_version=(1, 0))",
    "closed before its views": """
views = [memoryview(frame), frame.array, np.from_dlpack(frame)]
subscriber.close(); publisher.close()
assert views[1].sum() == 16
""",
    "a loan with its array": "loan = publisher.loan(); sys.kept = loan.array",
    "used in atexit": """
def last():
    assert bytes(frame) == b"\\1" * 16
    publisher.send(np.zeros((4, 4), "u1"))
    assert subscriber.take().array.sum() == 0
atexit.register(last)
""",
    "released in a late __del__": """
class Late:
    def __init__(self, frame): self.frame = frame
    def __del__(self): self.frame.release()
sys.kept = Late(frame); del frame
""",
    "daemon threads that wait": """
ready = [threading.Event() for _ in range(3)]
def wait(event, call):
    event.set(); call()
other = shm.Subscriber("t", "queue")
full = shm.Publisher("full", slot_bytes=8, slots=2)
hold = full.loan(), full.loan()
calls = subscriber.take, lambda: next(other), lambda: full.loan(timeout=None)
for event, call in zip(ready, calls):
    threading.Thread(target=wait, args=(event, call), daemon=True).start()
for event in ready: event.wait()
""",
    "a daemon thread that copies": """
big = shm.Publisher("big", slot_bytes=1 << 20, slots=3)
data = bytes(1 << 20)
started = threading.Event()
def copy():
    while True:
        big.send(data); started.set()
threading.Thread(target=copy, daemon=True).start()
started.wait()
""",
    "a view of a loan that was published": """
loan = publisher.loan()
sys.kept = memoryview(loan), publisher
loan.publish()
publisher.close()
assert bytes(sys.kept[0]) == bytes(16)
""",
    "a loan with views on a closed publisher": """
loan = publisher.loan()
loan.array[:] = 7
publisher.close()
view = memoryview(loan)
del loan
assert bytes(view) == b"\\7" * 16
""",
    "signal handlers that close what waits": """
import signal
from framegate import Caller, Responder
from framegate.errors import ClosedError
full = shm.Publisher("full", slot_bytes=8, slots=2)
hold = full.loan(), full.loan()
responder = Responder("calls", slot_bytes=8)
caller = Caller("calls")
waits = (
    (subscriber, lambda: (subscriber.take(), subscriber.take())),
    (full, lambda: full.loan(timeout=None)),
    (caller, lambda: caller.call(b"nobody")),
    (responder, lambda: (responder.take(), responder.take())),
)
for closes, wait in waits:
    signal.signal(signal.SIGALRM, lambda *_: closes.close())
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        wait()
    except ClosedError:
        pass
    else:
        raise AssertionError(closes)
""",
    "topics that are closed while they grow": """
for round in range(20):
    topic = shm.Topic.create(f"grows{round}", slot_bytes=1 << 20)
    grows = threading.Thread(target=topic.resize, kwargs={"slots": 16})
    grows.start()
    topic.close()
    grows.join()
    with shm.Topic.open(f"grows{round}") as topic:
        topic.unlink()
""",
    "a take on a loop that never ends": """
import asyncio
async def main():
    asyncio.get_running_loop().call_later(0.01, sys.exit)
    await subscriber.take_async()
try:
    asyncio.run(main())
except SystemExit:
    pass
""",
    "an iteration that was left": """
import asyncio
async def main():
    frames = aiter(subscriber)
    publisher.send(np.ones((4, 4), "u1"))
    sys.kept = await anext(frames), frames
asyncio.run(main())
""",
}


@pytest.mark.parametrize("end", list(ENDS))
def test_an_interpreter_ends_cleanly_with(end: str) -> None:
    # The debug allocator fills what is freed, so that a use after it shows.
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", SETUP + ENDS[end]],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, "")
    with shm.Topic.open("t") as topic:
        topic.reap()  # of daemon threads: they ended in the middle of a call
        report = topic.inspect()
    assert (report.publishers, report.subscribers, report.slots_leased) == (0, 0, 0)
    assert report.slots_loaned == 0


def resources() -> tuple[int, int]:
    """Descriptors and mappings of this process."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text().count(os.environ["FRAMEGATE_RUNTIME_DIR"])
    return len(os.listdir("/proc/self/fd")), maps


def leak(use: Callable[[], object], rounds: int) -> tuple[int, tuple[int, int]]:
    """Blocks of memory and other resources that `rounds` more uses leave behind."""
    for _ in range(20):
        use()
    before, blocks = resources(), sys.getallocatedblocks()
    for _ in range(rounds):
        use()
    after = resources()
    return sys.getallocatedblocks() - blocks, (after[0] - before[0], after[1] - before[1])


def test_opening_and_closing_leaks_nothing() -> None:
    picture = np.zeros((8, 8), "u1")

    def use() -> None:
        with (
            shm.Publisher("t", dtype="u1", shape=(8, 8)) as publisher,
            shm.Subscriber("t", "queue") as subscriber,
        ):
            publisher.send(picture)
            subscriber.fileno()
            view = subscriber.take().array
            subscriber.close()
            assert view.sum() == 0

    blocks, others = leak(use, 50)
    assert others == (0, 0)
    assert blocks < 50


@pytest.mark.parametrize("typed", [False, True])
def test_frames_in_every_shape_leak_nothing(typed: bool) -> None:
    picture = np.zeros((8, 8), "u1")
    arrays = {"": ("u1", (8, 8))} if typed else None
    with (
        shm.Publisher("t", arrays=arrays, slot_bytes=64) as publisher,
        shm.Subscriber("t", "queue") as subscriber,
    ):
        payload = bytes(64)
        references = sys.getrefcount(payload), sys.getrefcount(picture)

        def use() -> None:
            publisher.send(payload)
            subscriber.take().release()
            publisher.send(picture, timestamp=1.0, metadata={"k": 1}, content_type="a/b")
            with subscriber.take(timeout=1) as frame:
                _ = frame.array, frame.arrays, memoryview(frame), frame.metadata
                _ = np.from_dlpack(frame), frame.__array_interface__, repr(frame)
                consume(frame).delete()
                consume(frame, copy=True).delete()
                frame.__dlpack__(max_version=(1, 0))
            with publisher.loan(("u1", (8, 8))) as loan:
                loan.array[:] = 1
                consume(loan).delete()
                loan.publish()
            publisher.loan(("u1", (8, 8)))
            assert np.asarray(subscriber.take()).sum() == 64
            with pytest.raises(TypeError):
                publisher.send(object())
            assert subscriber.try_take() is None

        blocks, others = leak(use, 200)
        assert others == (0, 0)
        assert blocks < 200
        assert (sys.getrefcount(payload), sys.getrefcount(picture)) == references
        assert subscriber.leases == 0
        assert shm.inspect("t").slots_loaned == 0


def test_cycles_through_frames_are_collected() -> None:
    with shm.Publisher("t", slot_bytes=64) as publisher, shm.Subscriber("t") as subscriber:
        for make in (
            lambda frame: frame.metadata.__setitem__("self", frame),
            lambda frame: frame.metadata.__setitem__("view", memoryview(frame)),
            lambda frame: (cycle := [frame]).append(cycle),
        ):
            publisher.send(b"x", metadata={"k": 1})
            frame = subscriber.take()
            gone = weakref.ref(frame)
            make(frame)  # type: ignore[no-untyped-call]
            del frame
            gc.collect()
            assert gone() is None
            assert subscriber.leases == 0


def test_cycles_through_handles_are_collected() -> None:
    def make() -> None:
        publisher, subscriber = shm.Publisher("t", slot_bytes=8), shm.Subscriber("t")
        publisher.send(b"x")
        publisher.me = publisher  # type: ignore[attr-defined]
        subscriber.mine = [subscriber, subscriber.take()]  # type: ignore[attr-defined]

    make()
    gc.collect()
    report = shm.inspect("t")
    assert (report.publishers, report.subscribers, report.slots_leased) == (0, 0, 0)


def test_a_closed_subscriber_refuses_everything_and_its_frames_go_on() -> None:
    with shm.Publisher("t", slot_bytes=8) as publisher:
        subscriber = shm.Subscriber("t", "queue")
        publisher.send(b"x")
        frame = subscriber.take()
        subscriber.close()
        subscriber.close()
        calls: list[Any] = [
            subscriber.take, subscriber.try_take, subscriber.peek, subscriber.fileno,
            subscriber.arm, subscriber.drain, lambda: subscriber.take(timeout=1),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(ClosedError, match='"t"'):
                call()
        assert list(subscriber) == []
        assert (subscriber.closed, subscriber.received, subscriber.lost) == (True, 1, 0)
        assert bytes(frame) == b"x"
        frame.release()
        assert shm.inspect("t").subscribers == 0


def test_a_subinterpreter_is_refused_and_the_main_one_goes_on() -> None:
    program = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
from framegate import shm
code = '''
try:
    import framegate.shm
except ImportError as error:
    assert "subinterpreter" in str(error), error
else:
    raise AssertionError("it was imported")
'''
for _ in range(2):
    other = interpreters.create()
    failed = interpreters.run_string(other, code)
    assert not failed, failed
    interpreters.destroy(other)
with shm.Publisher("t", slot_bytes=8) as publisher, shm.Subscriber("t") as subscriber:
    publisher.send(b"x")
    assert bytes(subscriber.take()) == b"x"
"""
    result = subprocess.run(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, timeout=60
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_importing_shm_loads_what_it_needs_and_no_more() -> None:
    """-X importtime names every module that an import executes, also those dropped again."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import framegate.shm"],
        stderr=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "framegate._shm" in loaded
    packages = {name.partition(".")[0] for name in loaded}
    assert not packages & {"numpy", "msgspec", "ml_dtypes", "trio", "uvloop", "json"}
    assert not loaded & {"framegate._http", "framegate.server", "framegate.loop"}
