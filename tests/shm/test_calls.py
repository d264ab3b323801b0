"""Calls: a request to one of several responders, its reply, and every way in which it may fail."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import trio

import framegate
from framegate import Caller, Request, Responder, shm
from framegate.errors import (
    CallFailed,
    ClosedError,
    FrameTooLarge,
    LeaseQuotaExceeded,
    MailboxFull,
    NoResponder,
    ResponderDied,
    ShmArgumentError,
    ShmTimeout,
    TopicFull,
    TopicNotFound,
)

LARGE = 64 * 1024  # is not copied out


@pytest.fixture
def topic() -> Iterator[shm.Topic]:
    """8 slots of 64 KiB."""
    with shm.Topic.create("t", slot_bytes=LARGE, slots=8) as topic:
        yield topic


@contextmanager
def serving(topic: shm.Topic, handler: Callable[[Request], Any]) -> Iterator[Responder]:
    """A responder with `handler` on a thread of its own."""
    with Responder(topic) as responder:
        thread = threading.Thread(target=responder.serve, args=(handler,))
        thread.start()
        try:
            yield responder
        finally:
            responder.close()
            thread.join()


def backwards(request: Request) -> bytes:
    return bytes(request)[::-1]


def nothing_is_held(topic: shm.Topic) -> None:
    topic.reap()
    report = topic.inspect()
    assert (report.dead, report.slots_loaned, report.slots_leased) == (0, 0, 0)


def test_bytes_and_arrays_of_any_kind_go_and_come_back(topic: shm.Topic) -> None:
    picture = np.arange(48, dtype="u1").reshape(4, 4, 3)
    arrays = {"image": picture[::2], "score": np.array([0.5, 2.0], ml_dtypes.bfloat16)}

    def handler(request: Request) -> Any:
        assert request.metadata == {"n": 1}
        return request.arrays if len(request.arrays) > 1 else request.array

    with serving(topic, handler), Caller(topic) as caller:
        reply = caller.call(b"plain", metadata={"n": 1})
        assert (bytes(reply), reply.dtype, reply.shape) == (b"plain", "uint8", (5,))
        reply = caller.call(picture, metadata={"n": 1})
        assert np.array_equal(reply.array, picture)
        assert not reply.array.flags.writeable
        reply = caller.call(arrays, metadata={"n": 1})
        assert np.array_equal(reply.arrays["image"], picture[::2])
        assert reply.arrays["score"].dtype == ml_dtypes.bfloat16
        with pytest.raises(FrameTooLarge):
            caller.call(bytes(LARGE + 1))
    nothing_is_held(topic)


def test_reply_carries_its_own_details(topic: shm.Topic) -> None:
    with Responder(topic) as responder, Caller(topic) as caller:
        with ThreadPoolExecutor(1) as pool:
            reply = pool.submit(caller.call, b"x", timeout=30, timestamp=1.5, content_type="a/b")
            request = responder.take(timeout=30)
            assert request is not None
            assert (request.timestamp, request.content_type) == (1.5, "a/b")
            assert request.time_left is not None
            assert 0 < request.time_left <= 30
            assert request.caller in [row.index for row in topic.participants()]
            assert request.reply(b"y", timestamp=2.5, content_type="c/d", metadata={"k": "v"})
            assert request.answered
            with pytest.raises(ShmArgumentError, match="answered before"):
                request.reply(b"again")
            got = reply.result()
        assert (got.timestamp, got.content_type, got.metadata) == (2.5, "c/d", {"k": "v"})
        assert got.published_ns <= time.monotonic_ns()
    nothing_is_held(topic)


def test_large_messages_are_views_of_their_slots(topic: shm.Topic) -> None:
    with serving(topic, lambda request: request.array), Caller(topic) as caller:
        reply = caller.call(np.full(LARGE, 7, "u1"))
        assert topic.inspect().slots_loaned >= 1
        view = reply.array
        with pytest.raises(BufferError, match="1 view"):
            reply.release()
        caller.close()
        assert view.sum() == 7 * LARGE  # outlives its caller
        del view
        reply.release()
        assert reply.released
        with pytest.raises(ClosedError):
            reply.array  # noqa: B018
    nothing_is_held(topic)


def test_responder_creates_the_topic_and_call_finds_it() -> None:
    with pytest.raises(TopicNotFound):
        framegate.call("svc", b"x")
    with pytest.raises(TopicNotFound):
        Caller("svc")
    with Responder("svc") as responder:
        thread = threading.Thread(target=responder.serve, args=(backwards,))
        thread.start()
        assert bytes(framegate.call("svc", b"abc")) == b"cba"
        assert bytes(asyncio.run(framegate.call_async("svc", b"abc"))) == b"cba"
        responder.close()
        thread.join()
    roles = {row.role for row in shm.inspect("svc").participants}
    assert roles == set()


def test_nobody_there(topic: shm.Topic) -> None:
    with Caller(topic) as caller:
        with pytest.raises(NoResponder, match="nobody answers"):
            caller.call(b"x")
        with pytest.raises(NoResponder):
            asyncio.run(caller.call_async(b"x"))
        with pytest.raises(ValueError, match="timeout"):
            caller.call(b"x", timeout=-1)
    nothing_is_held(topic)


def test_failures_are_told_to_the_caller(
    topic: shm.Topic, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(request: Request) -> Any:
        match bytes(request):
            case b"raise":
                raise KeyError("ä" * 300)
            case b"fail":
                assert request.fail("no paper")
            case b"large":
                return bytes(LARGE + 1)
        return None

    with serving(topic, handler), Caller(topic) as caller:
        assert bytes(caller.call(b"none")) == b""
        with pytest.raises(CallFailed, match=r"^KeyError: 'ää"):
            caller.call(b"raise")
        with pytest.raises(CallFailed, match=r"^no paper$"):
            caller.call(b"fail")
        with pytest.raises(CallFailed, match=r"^FrameTooLarge: "):
            caller.call(b"large")
    assert "KeyError" in caplog.text
    nothing_is_held(topic)


def test_forgotten_request_fails_the_call(topic: shm.Topic) -> None:
    with Responder(topic) as responder, Caller(topic) as caller, ThreadPoolExecutor(1) as pool:
        call = pool.submit(caller.call, b"x")
        assert responder.take(timeout=30) is not None
        with pytest.raises(CallFailed, match="without an answer"):
            call.result()
    nothing_is_held(topic)


def test_closing_responder_fails_what_it_has_not_taken(topic: shm.Topic) -> None:
    with Caller(topic) as caller, ThreadPoolExecutor(2) as pool:
        responder = Responder(topic)
        taken = pool.submit(caller.call, b"taken")
        request = responder.take(timeout=30)
        responder.fileno()
        queued = pool.submit(caller.call, b"queued")
        while not responder.arm():  # until it lies in the mailbox
            time.sleep(0.001)
        responder.close()
        with pytest.raises(CallFailed, match="closed before"):
            queued.result()
        assert request is not None
        assert request.reply(b"still answered")
        assert bytes(taken.result()) == b"still answered"
        with pytest.raises(ClosedError):
            responder.take()
        assert list(responder) == []
        del request
    nothing_is_held(topic)


def test_requests_to_answer_are_limited(topic: shm.Topic) -> None:
    with Responder(topic, max_requests=1) as responder, Caller(topic) as caller:
        with ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(caller.call, b"x") for _ in range(2)]
            first = responder.take(timeout=30)
            with pytest.raises(LeaseQuotaExceeded):
                responder.try_take()
            assert first is not None
            first.reply(b"1")
            second = responder.take(timeout=30)
            assert second is not None
            second.reply(b"2")
            assert {bytes(call.result()) for call in calls} == {b"1", b"2"}
    for wrong in ({"max_requests": 0}, {"max_requests": 5000}):
        with pytest.raises(ShmArgumentError):
            Responder(topic, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ShmArgumentError):
        Caller(topic, max_calls=0)


def test_calls_wait_for_their_turn(topic: shm.Topic) -> None:
    with Responder(topic) as responder, Caller(topic, max_calls=1) as caller:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(caller.call, b"x")
            request = responder.take(timeout=30)
            with pytest.raises(ShmTimeout, match="no turn within"):
                caller.call(b"y", timeout=0.01)
            assert request is not None
            request.reply(b"z")
            assert bytes(first.result()) == b"z"


def test_full_mailbox_is_an_error_at_once() -> None:
    with shm.Topic.create("t", slot_bytes=8, slots=200) as topic:
        with Responder(topic) as responder:
            with Caller(topic, max_calls=63) as one, Caller(topic) as two:

                async def main() -> None:
                    tasks = [asyncio.create_task(one.call_async(b"x")) for _ in range(63)]
                    await asyncio.sleep(0.05)
                    with pytest.raises(MailboxFull, match="63 letters"):
                        await two.call_async(b"y")
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)

                asyncio.run(main())
                assert responder.try_take() is None  # cancelling took all of them back
        nothing_is_held(topic)


def test_requests_leave_slots_to_replies() -> None:
    with shm.Topic.create("t", slot_bytes=8, slots=2) as topic:
        with serving(topic, backwards), Caller(topic) as one, Caller(topic) as two:
            with ThreadPoolExecutor(8) as pool:
                calls = [pool.submit(caller.call, b"ab", timeout=30) for caller in (one, two) * 20]
                assert {bytes(call.result()) for call in calls} == {b"ba"}
        with Responder(topic), Caller(topic) as caller, topic.publisher() as publisher:
            loan = publisher.loan()
            with pytest.raises(TopicFull):
                caller.call(b"x", timeout=0.01)
            with pytest.raises(TopicFull):
                asyncio.run(caller.call_async(b"x", timeout=0.01))
            loan.abandon()
        nothing_is_held(topic)


def test_reply_waits_for_a_slot() -> None:
    with (
        shm.Topic.create("t", slot_bytes=8, slots=2) as topic,
        Responder(topic) as responder,
        Caller(topic) as caller,
        topic.publisher() as publisher,
        ThreadPoolExecutor(1) as pool,
    ):
        call = pool.submit(caller.call, b"ab", timeout=30)
        request = responder.take(timeout=30)
        assert request is not None
        loans = [publisher.loan() for _ in range(2)]  # the request is small, and was copied
        with request:
            with pytest.raises(TopicFull):
                request.reply(b"x", timeout=0)
            later = threading.Timer(0.05, loans.pop().abandon)
            later.start()
            assert request.reply(b"x")
        later.join()
        loans.pop().abandon()
        with call.result() as reply:
            assert bytes(reply) == b"x"


# ---- event loops


def test_100_concurrent_calls(topic: shm.Topic, peer: Callable[..., Any]) -> None:
    servers = [peer("respond", "t") for _ in range(2)]
    for server in servers:
        assert server.line() == "ready"

    async def main() -> list[framegate.Message]:
        with Caller(topic) as caller:
            return await asyncio.gather(
                *(caller.call_async(b"%d" % n, timeout=60) for n in range(100))
            )

    replies = asyncio.run(main())
    assert [bytes(reply) for reply in replies] == [(b"%d" % n)[::-1] for n in range(100)]
    assert {reply.metadata["pid"] for reply in replies} == {server.pid for server in servers}
    for server in servers:
        server.kill()
    nothing_is_held(topic)


def test_coroutine_handlers_run_side_by_side(topic: shm.Topic) -> None:
    async def main() -> None:
        together = asyncio.Event()
        running = 0

        async def handler(request: Request) -> bytes:
            nonlocal running
            running += 1
            if running == 3:
                together.set()
            await together.wait()
            if bytes(request) == b"2":
                raise ValueError("two")
            return backwards(request)

        with Responder(topic) as responder, Caller(topic) as caller:
            server = asyncio.create_task(responder.serve_async(handler))
            calls = [caller.call_async(b"%d" % n) for n in range(3)]
            replies = await asyncio.gather(*calls, return_exceptions=True)
            assert [bytes(reply) for reply in replies[:2]] == [b"0", b"1"]  # type: ignore[arg-type]
            assert isinstance(replies[2], CallFailed)
            responder.close()
            await server

    asyncio.run(main())
    nothing_is_held(topic)


def test_async_iteration_and_timeouts(topic: shm.Topic) -> None:
    async def main() -> None:
        with Responder(topic) as responder, Caller(topic) as caller:
            assert await responder.take_async(timeout=0.01) is None
            call = asyncio.create_task(caller.call_async(b"x", timeout=0.05))
            request = await responder.take_async()
            with pytest.raises(ShmTimeout, match="took up the call but did not answer"):
                await call
            assert request is not None
            request.reply(b"late")  # thrown away on arrival
            with pytest.raises(ShmTimeout, match="no responder took up"):
                await caller.call_async(b"x", timeout=0.01)
            call = asyncio.create_task(caller.call_async(b"next"))
            async for request in responder:
                request.reply(b"good")
                break
            assert bytes(await call) == b"good"

    asyncio.run(main())
    nothing_is_held(topic)


def test_cancelled_task_takes_its_request_back(topic: shm.Topic) -> None:
    async def main() -> None:
        with Responder(topic) as responder, Caller(topic) as caller:
            call = asyncio.create_task(caller.call_async(b"x"))
            await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert responder.try_take() is None

    asyncio.run(main())
    nothing_is_held(topic)


def test_calls_under_trio(topic: shm.Topic) -> None:
    async def main() -> None:
        replies: dict[int, bytes] = {}

        async def handler(request: Request) -> bytes:
            await trio.sleep(0)
            return backwards(request)

        async def ask(caller: Caller, number: int) -> None:
            replies[number] = bytes(await caller.call_async(b"%02d" % number, timeout=60))

        with Responder(topic) as responder, Caller(topic) as caller:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(responder.serve_async, handler)
                async with trio.open_nursery() as callers:
                    for number in range(20):
                        callers.start_soon(ask, caller, number)
                nursery.cancel_scope.cancel()
        assert replies == {n: (b"%02d" % n)[::-1] for n in range(20)}

    trio.run(main)
    nothing_is_held(topic)


def test_close_ends_calls_of_threads_and_tasks(topic: shm.Topic) -> None:
    with Responder(topic) as responder:
        caller = Caller(topic)
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(caller.call, b"x", timeout=60)
            assert responder.take(timeout=30) is not None
            caller.close()
            with pytest.raises((ClosedError, CallFailed)):
                call.result()
        with pytest.raises(ClosedError):
            caller.call(b"x")

        async def main() -> None:
            with Caller(topic) as own:
                task = asyncio.create_task(own.call_async(b"x", timeout=60))
                await asyncio.sleep(0.01)
                own.close()
                with pytest.raises(ClosedError):
                    await task

        asyncio.run(main())
    nothing_is_held(topic)


# ---- processes


def test_responder_killed_in_mid_call(topic: shm.Topic, peer: Callable[..., Any]) -> None:
    with Caller(topic) as caller, ThreadPoolExecutor(1) as pool:
        for ask in (caller.call, lambda data: asyncio.run(caller.call_async(data, timeout=60))):
            server = peer("take_one_request", "t")
            assert server.line() == "ready"
            call = pool.submit(ask, b"hello")
            assert server.line() == "taken hello"
            server.kill()
            with pytest.raises(ResponderDied, match="died or closed"):
                call.result(10)  # one second on an idle machine
        with pytest.raises(NoResponder):
            caller.call(b"x")
    nothing_is_held(topic)


def test_killed_caller_leaves_nothing(topic: shm.Topic, peer: Callable[..., Any]) -> None:
    with serving(topic, backwards):
        for nbytes in (10, LARGE):
            client = peer("call_for_ever", "t", nbytes)
            assert client.line() == "answered"
            time.sleep(0.05)
            client.kill()
        topic.reap()
        with Caller(topic) as caller:
            assert bytes(caller.call(b"ab")) == b"ba"
    nothing_is_held(topic)


def test_stopped_responder_is_late_not_dead(topic: shm.Topic, peer: Callable[..., Any]) -> None:
    server = peer("respond", "t")
    assert server.line() == "ready"
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with Caller(topic) as caller:
            with pytest.raises(ShmTimeout):
                caller.call(b"x", timeout=1.5)  # longer than a sweep takes to come
            assert [row.alive for row in topic.participants()] == [True, True]
            os.kill(server.pid, signal.SIGCONT)
            assert bytes(caller.call(b"ab", timeout=60)) == b"ba"
    finally:
        os.kill(server.pid, signal.SIGCONT)
        server.kill()
    nothing_is_held(topic)


def test_other_responders_take_over_from_a_dead_one(
    topic: shm.Topic, peer: Callable[..., Any]
) -> None:
    servers = [peer("respond", "t") for _ in range(2)]
    for server in servers:
        assert server.line() == "ready"
    servers[0].kill()
    with Caller(topic) as caller:
        for _ in range(10):
            assert caller.call(b"ab", timeout=60).metadata == {"pid": servers[1].pid}
    servers[1].kill()
    nothing_is_held(topic)


# ---- control messages


def test_control_messages(topic: shm.Topic) -> None:
    with topic.subscriber() as reader, topic.subscriber() as other:
        assert reader.send_control(1, b"nobody hears it") == 0
        with topic.publisher() as one, topic.publisher() as two:
            assert reader.send_control(5, b"gain=2") == 2
            assert other.send_control(0xFFFFFFFF) == 2
            ids = {row.index for row in topic.participants() if row.role == "subscriber"}
            for publisher in (one, two):
                (first, *_), (second, *_) = messages = publisher.controls()
                assert {first, second} == ids
                assert [message[1:] for message in messages] == [
                    (5, b"gain=2"),
                    (0xFFFFFFFF, b""),
                ]
                assert publisher.controls() == []
            for number in range(3):
                reader.send_control(number, np.arange(2, dtype="u1"))
            assert [kind for _, kind, _ in one.controls(max=2)] == [0, 1]
            assert [kind for _, kind, _ in one.controls()] == [2]
            assert one.controls(max=0) == []
            reader.send_control(1, bytes(192))
            with pytest.raises(ShmArgumentError, match="193 bytes, at most 192"):
                reader.send_control(1, bytes(193))
        with pytest.raises(ClosedError):
            one.controls()
    with pytest.raises(ClosedError):
        reader.send_control(1, b"")


def test_publisher_that_never_listens_is_an_error_to_the_sender(topic: shm.Topic) -> None:
    with topic.subscriber() as reader, topic.publisher() as deaf:
        for number in range(63):
            assert reader.send_control(number) == 1
        with pytest.raises(MailboxFull, match="nobody asked for"):
            reader.send_control(63)
        assert [kind for _, kind, _ in deaf.controls()] == list(range(63))
        assert reader.send_control(64) == 1


def test_publisher_without_a_topic_yet_has_no_messages() -> None:
    with shm.Publisher("later") as publisher:
        assert publisher.controls() == []


def test_calls_in_flight_are_completed_across_resizes(topic: shm.Topic) -> None:
    """Requests that nobody took, one that is held, and replies on their way."""
    with Responder(topic) as responder, Caller(topic) as caller, topic.publisher() as publisher:
        with ThreadPoolExecutor(3) as pool:
            texts = [b"%d" % i * 5 for i in range(3)]
            calls = [pool.submit(caller.call, text, timeout=60) for text in texts]
            held = responder.take(timeout=30)
            topic.resize(slots=9)
            publisher.send(b"frame")
            late = [responder.take(timeout=30) for _ in range(2)]
            topic.resize(slots=10, slot_bytes=2 * LARGE)
            publisher.send(b"frame")
            topic.reap()
            for request in (held, *late):
                request.reply(bytes(request)[::-1])
            topic.resize(slots=8)
            publisher.send(b"frame")
            assert [bytes(call.result(timeout=60)) for call in calls] == [
                text[::-1] for text in texts
            ]
        assert bytes(responder_answer(caller, responder)) == b"again"


def responder_answer(caller: Caller, responder: Responder) -> Any:
    """One more call, in the newest slots."""
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(caller.call, b"niaga", timeout=60)
        request = responder.take(timeout=30)
        request.reply(bytes(request)[::-1])
        return call.result(timeout=60)
