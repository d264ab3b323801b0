"""What the other processes of the tests do: each function is a program, its arguments are words.

A frame of these programs is `crc32 (4 bytes), number (8 bytes), filler`: whoever reads it can tell
a whole frame from a torn one.
"""

import asyncio
import math
import os
import signal
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

import framegate
from framegate import shm

HEAD = struct.Struct("<IQ")


def fill(room: memoryview, number: int) -> None:
    """Write frame `number` into all of `room`."""
    body = struct.pack("<Q", number) * (len(room) // 8)
    room[4 : 4 + len(body[: len(room) - 4])] = body[: len(room) - 4]
    room[:4] = struct.pack("<I", zlib.crc32(room[4:]))


def check(frame: memoryview) -> int:
    """Number of a whole frame; AssertionError for a torn one."""
    crc, number = HEAD.unpack_from(frame)
    assert crc == zlib.crc32(frame[4:]), f"frame {number} is torn"
    return int(number)


def say(*words: object) -> None:
    print(*words, flush=True)


def publish(topic: str, count: str) -> None:
    """Publish `count` checksummed frames (0: until killed) by loans."""
    with shm.Publisher(topic) as publisher:
        say("ready")
        number = 0
        while number < int(count) or count == "0":
            number += 1
            with publisher.loan(timeout=30) as loan:
                with memoryview(loan) as room:
                    fill(room, number)
                loan.publish()
        say("published", publisher.published)


def publish_when_told(topic: str, shape: str, name: str) -> None:
    """Publish as many uint8 arrays of this shape as each line says; stop at an empty line."""
    lengths = tuple(map(int, shape.split("x")))
    with shm.Publisher(topic, dtype="uint8", shape=lengths, name=name) as publisher:
        say("ready")
        while count := sys.stdin.readline().strip():
            for _ in range(int(count)):
                with publisher.loan() as loan:
                    memoryview(loan).cast("B")[:] = bytes([publisher.published % 256]) * (
                        math.prod(lengths)
                    )
                    loan.publish(
                        timestamp=publisher.published / 4, metadata={"number": publisher.published}
                    )
            say(publisher.published)


def publish_steadily(topic: str, nbytes: str, hz: str) -> None:
    """Publish frames of so many bytes until killed, at a rate that is never exceeded."""
    with shm.Publisher(topic, slot_bytes=int(nbytes)) as publisher:
        say("ready")
        while True:
            publisher.send(b"x" * int(nbytes))
            time.sleep(1 / float(hz))  # what a pause of the machine cost is not caught up on


def subscribe(topic: str, policy: str, last: str) -> None:
    """Check frames until one has the sequence `last` (0: until killed); say what came."""
    with shm.Subscriber(topic, policy, wait=10) as subscriber:  # type: ignore[arg-type]
        say("ready")
        sequence = 0
        while sequence < int(last) or last == "0":
            frame = subscriber.take(timeout=30)
            assert frame is not None, "no frame for 30 s"
            with frame, memoryview(frame) as view:
                check(view)
                assert frame.sequence > sequence
                sequence = frame.sequence
        say(sequence, subscriber.received, subscriber.lost)


def subscribe_many(topic: str, handles: str, last: str) -> None:
    """`handles` subscribers in threads, each checks every frame until the sequence `last`."""
    opened = [shm.Subscriber(topic, "queue", wait=10) for _ in range(int(handles))]
    broken: list[BaseException] = []

    def run(subscriber: shm.Subscriber) -> None:
        try:
            for frame in subscriber:
                with frame, memoryview(frame) as view:
                    check(view)
                if frame.sequence == int(last):
                    return
        except BaseException as error:
            broken.append(error)

    threads = [threading.Thread(target=run, args=(subscriber,)) for subscriber in opened]
    for thread in threads:
        thread.start()
    say("ready")
    for thread in threads:
        thread.join()
    assert not broken, broken
    say(sum(subscriber.received + subscriber.lost for subscriber in opened))


def hold(topic: str, count: str) -> None:
    """Take `count` frames and keep them until told to end."""
    subscriber = shm.Subscriber(topic, "queue", wait=10)
    say("ready")
    frames = [subscriber.take(timeout=30) for _ in range(int(count))]
    say(*(frame.sequence for frame in frames if frame is not None))
    sys.stdin.readline()
    for frame in frames:
        assert frame is not None
        check(memoryview(frame))
    say("intact")


def work(topic: str, policy: str, finish: str) -> None:
    """Finish `finish` frames of a group, take one more and keep it until told to end."""
    with shm.Subscriber(topic, policy, name="worker", wait=10) as member:
        say("ready")
        for _ in range(int(finish)):
            with member.take(timeout=30) as frame:  # type: ignore[union-attr]
                say(frame.sequence)
        held = member.take(timeout=30)
        assert held is not None
        say("holds", held.sequence, held.redelivered)
        sys.stdin.readline()
        held.release()
        say("done")


def attach(topic: str, policy: str) -> None:
    """Attach, take nothing, wait."""
    with shm.Subscriber(topic, policy, name="idler", wait=10):
        say("ready")
        sys.stdin.readline()


def loan(topic: str, count: str) -> None:
    """Loan `count` slots and keep them until told to end."""
    publisher = shm.Publisher(topic)
    loans = [publisher.loan() for _ in range(int(count))]
    say("ready", len(loans))
    sys.stdin.readline()


def echo_once(
    topic: shm.Topic, publisher: shm.Publisher, subscriber: shm.Subscriber, answers: shm.Publisher
) -> None:
    """A multiprocessing target: the handles came by pickle and were opened anew here."""
    answers.send(b"ready")
    frame = subscriber.take(timeout=60)
    assert frame is not None
    answers.send(frame)
    frame.release()
    publisher.send(b"from the child")
    answers.send(f"{subscriber.policy} {subscriber.max_leases} {topic.slot_bytes}".encode())
    for handle in (topic, publisher, subscriber, answers):
        handle.close()


def multiprocessing_fork(topic: str) -> None:
    """Give handles to a forked multiprocessing child; nothing of them works there."""
    import multiprocessing

    opened = shm.Topic.open(topic)
    publisher, subscriber = opened.publisher(), opened.subscriber("queue")
    publisher.send(b"x")
    frame = subscriber.take()
    process = multiprocessing.get_context("fork").Process(
        target=_use_inherited, args=(opened, publisher, subscriber, frame)
    )
    process.start()
    process.join()
    assert process.exitcode == 0
    say(f"parent: {'intact' if bytes(frame) == b'x' else 'torn'}, sent {publisher.send(b'y')}")


def _use_inherited(
    topic: shm.Topic, publisher: shm.Publisher, subscriber: shm.Subscriber, frame: shm.Frame
) -> None:
    uses: dict[str, Callable[[], object]] = {
        "send": lambda: publisher.send(b"z"),
        "take": subscriber.try_take,
        "reap": topic.reap,
        "release": frame.release,
    }
    for name, use in uses.items():
        try:
            use()
            say(f"{name} worked")
        except Exception as error:
            say(f"{name} {type(error).__name__}")
    with shm.Subscriber(topic.name, "latest") as own:
        seen = own.take(timeout=60)
        assert seen is not None
        say(f"its own: {bytes(seen).decode()}")
        seen.release()


def interrupt(topic: str, wait: str) -> None:
    """Wait for ever in a call; Ctrl-C must end it."""
    import asyncio

    signal.signal(signal.SIGINT, signal.default_int_handler)
    subscriber = shm.Subscriber(topic, "queue", max_leases=3)
    publisher = shm.Publisher(topic)
    if wait in ("loan", "send"):
        held = []
        for _ in range(3):
            publisher.send(b"x")
            held.append(subscriber.take())
        publisher.send(b"newest")
    waits: dict[str, Callable[[], object]] = {
        "take": subscriber.take,
        "take with a time-out": lambda: subscriber.take(timeout=600),
        "iteration": lambda: list(subscriber),
        "loan": lambda: publisher.loan(timeout=None),
        "send": lambda: publisher.send(b"x", timeout=600),
        "open": lambda: shm.Topic.open("no/such", wait=None),
        "take_async": lambda: asyncio.run(subscriber.take_async()),
    }
    say("ready")
    try:
        waits[wait]()
    except KeyboardInterrupt:
        say("interrupted")
    publisher.close()
    subscriber.close()


def exit_with_views(topic: str) -> None:
    """End the interpreter while views, a frame, a loan and a waiting daemon thread live."""
    publisher = shm.Publisher(topic)
    subscriber = shm.Subscriber(topic, "queue")
    publisher.send(b"x" * 64)
    keep: dict[str, Any] = {"frame": subscriber.take(timeout=10), "loan": publisher.loan()}
    keep["view"] = memoryview(keep["frame"])
    keep["array"] = keep["frame"].array
    sys.modules["kept"] = keep  # type: ignore[assignment]  # outlives the module's own teardown
    started = threading.Event()

    def wait() -> None:
        started.set()
        subscriber.take()

    threading.Thread(target=wait, daemon=True).start()
    started.wait()
    time.sleep(0.05)  # let it reach the wait; either way the exit must be clean
    say("bye")


def fork(topic: str) -> None:
    """Use inherited handles in a forked child; each must refuse."""
    from framegate.errors import ForkedHandleError

    publisher = shm.Publisher(topic)
    subscriber = shm.Subscriber(topic, "queue")
    publisher.send(b"before")
    frame = subscriber.take()
    loan = publisher.loan(8)
    child = os.fork()
    if child == 0:
        refused = []
        uses: dict[str, Callable[[], Any]] = {
            "send": lambda: publisher.send(b"x"),
            "loan": lambda: publisher.loan(8),
            "take": lambda: subscriber.take(timeout=0),
            "wait": lambda: subscriber.take(timeout=5),
            "fileno": subscriber.fileno,
            "arm": subscriber.arm,
            "view": lambda: memoryview(frame),
            "array": lambda: frame.array,
            "fill": lambda: memoryview(loan),
            "publish": loan.publish,
        }
        for name, use in uses.items():
            try:
                use()
            except ForkedHandleError:
                refused.append(name)
        say("refused", *refused)
        del frame
        loan.abandon()
        subscriber.close()
        publisher.close()
        with shm.Publisher(topic) as own, shm.Subscriber(topic, start="next") as mine:
            own.send(b"child's own")
            say(bytes(mine.take(timeout=10)).decode())  # type: ignore[arg-type]
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    say(bytes(frame).decode(), subscriber.leases)
    loan.abandon()
    say("parent sent", publisher.send(b"after"))


def respond(topic: str) -> None:
    """Answer every request backwards, with our own pid beside it, until killed."""
    with framegate.Responder(topic) as responder:
        say("ready")
        for request in responder:
            with request:
                request.reply(bytes(request)[::-1], metadata={"pid": os.getpid()})


def take_one_request(topic: str) -> None:
    """Take a request and keep it until killed."""
    with framegate.Responder(topic) as responder:
        say("ready")
        request = responder.take()
        say("taken", bytes(request).decode())  # type: ignore[arg-type]
        input()


def call_for_ever(topic: str, nbytes: str) -> None:
    """Call without end, four tasks and a thread at a time; report when the first answer came."""
    with framegate.Caller(topic) as caller:

        def in_thread() -> None:
            while True:
                caller.call(bytes(int(nbytes)), timeout=30)

        async def in_task() -> None:
            while True:
                await caller.call_async(bytes(int(nbytes)), timeout=30)

        async def in_tasks() -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(4):
                    group.create_task(in_task())

        caller.call(b"first", timeout=30)
        say("answered")
        threading.Thread(target=in_thread, daemon=True).start()
        asyncio.run(in_tasks())


def follow_metadata(topic: str) -> None:
    """Say what is said about the topic, and again once told that there is more."""
    with shm.Topic.open(topic) as opened:
        say(opened.metadata_generation, opened.metadata)
        input()
        say(opened.metadata_generation, opened.metadata)


def main() -> None:
    globals()[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()
