"""A topic against a model of it: hypothesis plays publishers, subscribers and held frames."""

import os
import secrets
import shutil
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from framegate import shm
from framegate.errors import LeaseQuotaExceeded, ShmArgumentError, TopicFull

SLOTS = 6
SLOT_BYTES = 32


class GroupModel:
    """A work queue: what the next members get, and what must come again."""

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor
        self.unfinished: set[int] = set()

    def next(self, head: int) -> int | None:
        if self.unfinished:
            return min(self.unfinished)
        return self.cursor + 1 if self.cursor < head else None

    def give(self, sequence: int) -> None:
        if sequence in self.unfinished:
            self.unfinished.remove(sequence)
        else:
            self.cursor = sequence


class SubscriberModel:
    """What a subscriber must see: everything after `position`, by its policy."""

    def __init__(self, real: shm.Subscriber, position: int, group: GroupModel | None) -> None:
        self.real = real
        self.position = position
        self.group = group
        self.received = 0
        self.lost = 0
        self.leases = 0

    @property
    def is_attached(self) -> bool:
        """A subscriber that was closed stays until its last frame is released."""
        return not self.real.closed or self.leases > 0


class HeldFrame:
    def __init__(self, owner: SubscriberModel, frame: shm.Frame) -> None:
        self.owner = owner
        self.frame = frame
        self.view = memoryview(frame)


class TopicMachine(RuleBasedStateMachine):
    """Single-threaded, so the model is exact: it knows when a loan must fail and what is taken."""

    publishers = Bundle("publishers")
    subscribers = Bundle("subscribers")
    loans = Bundle("loans")
    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.directory = f"/dev/shm/framegate-test-model-{secrets.token_hex(4)}"
        os.mkdir(self.directory, 0o700)
        self.before = os.environ.get("FRAMEGATE_RUNTIME_DIR")
        os.environ["FRAMEGATE_RUNTIME_DIR"] = self.directory
        self.published: list[bytes] = []
        self.loan_count = 0
        self.live: list[HeldFrame] = []
        self.attached: list[SubscriberModel] = []
        self.groups: dict[str, GroupModel] = {}

    @initialize()
    def create(self) -> None:
        self.topic = shm.Topic.create("t", slot_bytes=SLOT_BYTES, slots=SLOTS)

    def slots_taken(self) -> int:
        """Slots that no loan may have: leased, newest, loaned ones, and what somebody waits for."""
        head = len(self.published)
        pinned = self.leased_or_unfinished()
        if head:
            pinned.add(head)
        passed = [model.position for model in self.attached if model.real.policy == "reliable"]
        passed += [group.cursor for group in self.groups.values()]
        pinned.update(range(min(passed, default=head) + 1, head + 1))
        return len(pinned) + self.loan_count

    def leased_or_unfinished(self) -> set[int]:
        leased = {held.frame.sequence for held in self.live}
        return leased.union(*(group.unfinished for group in self.groups.values()))

    def forget_the_detached(self) -> None:
        self.attached = [model for model in self.attached if model.is_attached]
        alive = {model.real.policy for model in self.attached}
        self.groups = {name: group for name, group in self.groups.items() if name in alive}

    @rule(target=publishers)
    def attach_publisher(self) -> shm.Publisher:
        return self.topic.publisher()

    @rule(
        target=subscribers,
        policy=st.sampled_from(["latest", "queue", "reliable", "group:a", "group:b"]),
        quota=st.integers(1, 4),
        start=st.sampled_from(["next", "newest"]),
    )
    def attach_subscriber(self, policy: Any, quota: int, start: Any) -> SubscriberModel:
        head = len(self.published)
        position = head - 1 if start == "newest" and head else head
        group = None
        if policy.startswith("group:"):
            group = self.groups.setdefault(policy, GroupModel(position))
            position = group.cursor
        real = self.topic.subscriber(policy, max_leases=quota, start=start)
        model = SubscriberModel(real, position, group)
        self.attached.append(model)
        return model

    @rule(publisher=publishers, data=st.binary(max_size=SLOT_BYTES))
    def send(self, publisher: shm.Publisher, data: bytes) -> None:
        if self.slots_taken() == SLOTS:
            with pytest.raises(TopicFull):
                publisher.send(data)
        else:
            self.published.append(data)
            assert publisher.send(data) == len(self.published)

    @rule(target=loans, publisher=publishers)
    def loan(self, publisher: shm.Publisher) -> Any:
        if self.slots_taken() == SLOTS:
            with pytest.raises(TopicFull):
                publisher.loan()
            return multiple()
        self.loan_count += 1
        return publisher.loan()

    @rule(loan=consumes(loans), data=st.binary(max_size=SLOT_BYTES))
    def publish(self, loan: shm.Loan, data: bytes) -> None:
        memoryview(loan)[: len(data)] = data
        self.published.append(data)
        self.loan_count -= 1
        assert loan.publish(size=len(data)) == len(self.published)

    @rule(loan=consumes(loans))
    def abandon(self, loan: shm.Loan) -> None:
        loan.abandon()
        self.loan_count -= 1

    @rule(target=held, subscriber=subscribers)
    def take(self, subscriber: SubscriberModel) -> Any:
        head = len(self.published)
        real = subscriber.real
        if real.closed:
            return multiple()
        if subscriber.group is not None:
            return self.take_of_group(subscriber, subscriber.group)
        if subscriber.leases == real.max_leases:
            try:
                assert real.try_take() is None
                assert subscriber.position == head
            except LeaseQuotaExceeded:
                pass
            return multiple()
        frame = real.try_take()
        if frame is None:
            assert subscriber.position == head
            return multiple()
        if real.policy == "latest":
            assert frame.sequence == head
        assert frame.sequence > subscriber.position
        assert frame.lost == frame.sequence - subscriber.position - 1
        if real.policy == "reliable":
            assert frame.lost == 0
        if real.policy == "queue":
            # Only what was overwritten may be lost: a frame that somebody holds still exists.
            jumped = range(subscriber.position + 1, frame.sequence)
            assert not {held.frame.sequence for held in self.live} & set(jumped)
        subscriber.lost += frame.lost
        return self.hold(subscriber, frame)

    def take_of_group(self, member: SubscriberModel, group: GroupModel) -> Any:
        expected = group.next(len(self.published))
        if expected is not None and member.leases == member.real.max_leases:
            with pytest.raises(LeaseQuotaExceeded):
                member.real.try_take()
            return multiple()
        frame = member.real.try_take()
        if frame is None:
            assert expected is None
            return multiple()
        assert (frame.sequence, frame.lost) == (expected, 0)
        assert frame.redelivered == (frame.sequence in group.unfinished)
        group.give(frame.sequence)
        return self.hold(member, frame)

    def hold(self, subscriber: SubscriberModel, frame: shm.Frame) -> HeldFrame:
        subscriber.received += 1
        subscriber.position = frame.sequence
        subscriber.leases += 1
        self.live.append(HeldFrame(subscriber, frame))
        return self.live[-1]

    @rule(held=consumes(held))
    def release(self, held: HeldFrame) -> None:
        with pytest.raises(BufferError):
            held.frame.release()
        held.view.release()
        held.frame.release()
        held.owner.leases -= 1
        self.live.remove(held)
        self.forget_the_detached()

    @rule(held=consumes(held))
    def nack(self, held: HeldFrame) -> None:
        held.view.release()
        if held.owner.group is None:
            with pytest.raises(ShmArgumentError):
                held.frame.nack()
            held.frame.release()
        else:
            held.frame.nack()
            held.owner.group.unfinished.add(held.frame.sequence)
        held.owner.leases -= 1
        self.live.remove(held)
        self.forget_the_detached()

    @rule(subscriber=consumes(subscribers))
    def close_subscriber(self, subscriber: SubscriberModel) -> None:
        subscriber.real.close()
        self.forget_the_detached()

    @rule(publisher=consumes(publishers))
    def close_publisher(self, publisher: shm.Publisher) -> None:
        publisher.close()

    @invariant()
    def held_frames_are_unchanged(self) -> None:
        for held in self.live:
            assert bytes(held.view) == self.published[held.frame.sequence - 1]

    @invariant()
    def counters_agree(self) -> None:
        for model in self.attached:
            real = model.real
            if real.closed:
                continue
            assert (real.received, real.lost, real.leases, real.position) == (
                model.received,
                model.lost,
                model.leases,
                model.position,
            )
        if hasattr(self, "topic"):
            report = self.topic.inspect()
            assert report.sequence == len(self.published)
            assert report.slots_loaned == self.loan_count
            assert report.slots_leased == len(self.leased_or_unfinished())
            assert report.subscribers == len(self.attached)

    def teardown(self) -> None:
        self.live.clear()
        self.attached.clear()
        if self.before is not None:
            os.environ["FRAMEGATE_RUNTIME_DIR"] = self.before
        shutil.rmtree(self.directory)


TestTopic = TopicMachine.TestCase
TestTopic.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
