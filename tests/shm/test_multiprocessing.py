"""Handles and multiprocessing: by name through pickle, and never through fork."""

import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from framegate import shm
from framegate.errors import ClosedError, TopicNotFound
from shm import peer as peer_programs


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_handles_given_to_a_process_are_opened_anew_in_it(method: Any) -> None:
    context = multiprocessing.get_context(method)
    with (
        shm.Topic.create("there", slot_bytes=64) as topic,
        topic.publisher() as publisher,
        shm.Subscriber("there", "queue", max_leases=2) as here,
        shm.Topic.create("back", slot_bytes=64),
        shm.Subscriber("back", "queue") as answers,
        shm.Publisher("back") as back,
    ):
        process = context.Process(
            target=peer_programs.echo_once, args=(topic, publisher, here, back)
        )
        process.start()
        frame = answers.take(timeout=60)
        assert frame is not None
        assert bytes(frame) == b"ready"
        publisher.send(b"from the parent")
        texts = [bytes(f) for f in (answers.take(timeout=60), answers.take(timeout=60)) if f]
        assert texts == [b"from the parent", b"queue 2 64"]
        process.join()
        assert process.exitcode == 0
        process.close()
        # This side's subscriber saw both frames, too: the other one was a participant of its own.
        assert [bytes(here.take(timeout=60)) for _ in range(2)] == [  # type: ignore[arg-type]
            b"from the parent", b"from the child",
        ]  # fmt: skip


def test_handles_inherited_by_fork_refuse(peer: Callable[..., Any]) -> None:
    """multiprocessing's fork pickles nothing: the child holds the parent's objects."""
    with shm.Topic.create("t", slot_bytes=64):
        forking = peer("multiprocessing_fork", "t")
        assert forking.line() == "send ForkedHandleError"
        assert forking.line() == "take ForkedHandleError"
        assert forking.line() == "reap ForkedHandleError"
        assert forking.line() == "release ForkedHandleError"
        assert forking.line() == "its own: x"
        assert forking.line() == "parent: intact, sent 2"
        assert forking.end() == 0


def test_a_pickled_publisher_is_another_publisher_of_the_topic() -> None:
    with shm.Publisher("t", dtype="u1", shape=(2, 2), slots=3, name="first") as publisher:
        copies = [pickle.loads(pickle.dumps(publisher, protocol)) for protocol in range(6)]
        publisher.send(np.zeros((2, 2), "u1"))
        for sequence, copy in enumerate(copies, 2):
            with copy:
                assert type(copy) is shm.Publisher
                assert copy.send(np.zeros((2, 2), "u1")) == sequence
        report = shm.inspect("t")
        assert (report.publishers, report.slots) == (1, 3)
    with pytest.raises(ClosedError, match=r'cannot pickle.*"t"'):
        pickle.dumps(publisher)


def test_a_publisher_without_a_topic_yet_is_pickled_with_its_options() -> None:
    with shm.Publisher("later", slots=5) as publisher:
        text = pickle.dumps(publisher)
    with pickle.loads(text) as copy:
        copy.send(b"x")
        assert shm.inspect("later").slots == 5


def test_a_pickled_subscriber_is_another_subscriber() -> None:
    with (
        shm.Publisher("t", slot_bytes=8) as publisher,
        shm.Subscriber("t", "queue", max_leases=3, start="newest") as subscriber,
    ):
        publisher.send(b"x")
        with pickle.loads(pickle.dumps(subscriber)) as copy:
            assert (copy.topic, copy.policy, copy.max_leases) == ("t", "queue", 3)
            assert shm.inspect("t").subscribers == 2
            assert bytes(copy.take(timeout=0)) == b"x"
            assert subscriber.received == 0
        text = pickle.dumps(subscriber)
    with pytest.raises(ClosedError, match="cannot pickle"):
        pickle.dumps(subscriber)
    shm.unlink("t")
    with pytest.raises(TopicNotFound, match='"t"'):
        pickle.loads(text)


def test_a_pickled_topic_is_opened_by_name() -> None:
    with shm.Topic.create("t", slot_bytes=8, slots=3) as topic:
        with pickle.loads(pickle.dumps(topic)) as copy:
            assert (copy.name, copy.slots, copy.created) == ("t", 3, False)


def test_frames_and_loans_stay_where_they_are() -> None:
    with (
        shm.Publisher("t", dtype="u1", shape=3) as publisher,
        shm.Subscriber("t") as subscriber,
    ):
        publisher.send(bytes(3))
        frame = subscriber.take()
        with pytest.raises(TypeError, match=r"cannot pickle a frame.*subscribe"):
            pickle.dumps(frame)
        with publisher.loan() as loan, pytest.raises(TypeError, match="cannot pickle a loan"):
            pickle.dumps(loan)
        assert pickle.loads(pickle.dumps(frame.array)).tolist() == [0, 0, 0]  # a copy
