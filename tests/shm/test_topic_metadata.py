"""What is said about a topic and its arrays: from its creation, and appended while it runs."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framegate import shm
from framegate.errors import MetadataFull, SchemaMismatch, ShmArgumentError

ARRAYS = {
    "depth": shm.ArraySpec("float32", (4, 4), units="mm", metadata={"offset": 0.5}),
    "image": shm.ArraySpec("uint8", (4, 4)),
}


def test_a_topic_says_what_it_was_created_with() -> None:
    with shm.Topic.create("rig", arrays=ARRAYS, metadata={"site": "roof", "rig": 7}) as topic:
        assert topic.metadata == {"site": "roof", "rig": 7}
        assert topic.schema == ARRAYS
        with shm.Topic.open("rig") as other:
            assert other.metadata == topic.metadata
            assert other.schema["depth"].units == "mm"
            assert other.schema["image"].units is None
        report = topic.inspect()
        assert (report.metadata, report.metadata_bytes) == (topic.metadata, 4096)
        assert report.schema == ARRAYS


def test_what_is_appended_is_seen_by_those_who_run() -> None:
    with shm.Publisher("rig", arrays=ARRAYS) as publisher, shm.Subscriber("rig") as subscriber:
        before = subscriber.topic_metadata_generation
        assert subscriber.topic_metadata == {}
        with shm.Topic.open("rig") as topic:
            assert topic.append_metadata({"calibrated": True}) == before + 1
            assert topic.append_metadata({"offset": 0.75, "lens": b"\x01"}, array="depth")
            assert topic.metadata_generation == before + 2
        assert subscriber.topic_metadata_generation == before + 2
        assert subscriber.topic_metadata == publisher.topic_metadata == {"calibrated": True}
        with shm.Topic.open("rig") as topic:
            assert topic.schema["depth"].metadata == {"offset": 0.75, "lens": b"\x01"}
            assert topic.schema["depth"].units == "mm"


def test_another_process_sees_what_is_appended(peer: Callable[..., Any]) -> None:
    with shm.Topic.create("rig", slot_bytes=8) as topic:
        reader = peer("follow_metadata", "rig")
        assert reader.line() == "0 {}"
        topic.append_metadata({"n": 1})
        reader.tell()
        assert reader.line() == "1 {'n': 1}"


@given(
    maps=st.lists(
        st.dictionaries(st.sampled_from("abcde"), st.integers(-(2**63), 2**63 - 1), max_size=4),
        max_size=6,
    )
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_of_a_key_the_latest_value_counts(maps: list[dict[str, int]]) -> None:
    expected: dict[str, int] = {}
    with shm.Topic.create("t", slot_bytes=8, slots=2) as topic:
        topic.unlink()
        for number, mapping in enumerate(maps, 1):
            expected |= mapping
            assert topic.append_metadata(mapping) == number
            assert topic.metadata == expected


def test_units_belong_to_the_schema() -> None:
    with shm.Topic.create("rig", arrays=ARRAYS) as topic:
        shm.Topic.open_or_create("rig", arrays=ARRAYS).close()
        without = {name: (spec.dtype, spec.shape) for name, spec in ARRAYS.items()}
        shm.Topic.open_or_create("rig", arrays=without).close()
        other = {**ARRAYS, "depth": shm.ArraySpec("float32", (4, 4), units="m")}
        with pytest.raises(SchemaMismatch, match="units"):
            shm.Topic.open_or_create("rig", arrays=other)
        with pytest.raises(ShmArgumentError, match="fixed"):
            topic.append_metadata({"units": "m"}, array="depth")
        with pytest.raises(ShmArgumentError, match="'depth', 'image'"):
            topic.append_metadata({}, array="nobody")
    for units in ("", "m" * 33):
        with pytest.raises(ShmArgumentError, match="1 to 32 bytes"):
            shm.Topic.create("t", arrays={"a": shm.ArraySpec("u1", (1,), units=units)})
    with pytest.raises(ShmArgumentError, match="units="):
        shm.Topic.create("t", arrays={"a": shm.ArraySpec("u1", (1,), metadata={"units": "m"})})
    shm.Topic.create("t", arrays={"a": shm.ArraySpec("u1", (1,), units="m" * 32)}).close()


def test_there_is_as_much_room_as_was_asked_for() -> None:
    with shm.Topic.create("t", slot_bytes=8, metadata_bytes=32) as topic:
        topic.append_metadata({"n": 1})
        topic.append_metadata({"n": 2})
        with pytest.raises(MetadataFull, match="32 of 32 bytes"):
            topic.append_metadata({"n": 3})
        assert topic.metadata == {"n": 2}
    with shm.Topic.create("large", slot_bytes=8, metadata_bytes=1 << 20) as topic:
        topic.append_metadata({"table": bytes(1_000_000)})
        assert topic.metadata == {"table": bytes(1_000_000)}
    with pytest.raises(ShmArgumentError, match="metadata_bytes"):
        shm.Topic.create("u", slot_bytes=8, metadata_bytes=(1 << 20) + 1)
    with pytest.raises(MetadataFull, match="metadata_bytes is 0"):
        shm.Topic.create("u", slot_bytes=8, metadata_bytes=0, metadata={"a": 1})
    with shm.Topic.create("none", slot_bytes=8, metadata_bytes=0) as topic:
        assert (topic.metadata, topic.metadata_generation) == ({}, 0)


@pytest.mark.parametrize("metadata", [{"a": None}, {"a": [1]}, {1: 2}])
def test_only_small_values_are_metadata(metadata: Any) -> None:
    with pytest.raises(TypeError):
        shm.Topic.create("t", slot_bytes=8, metadata=metadata)
    with shm.Topic.create("t", slot_bytes=8) as topic, pytest.raises(TypeError):
        topic.append_metadata(metadata)
