"""Small typed metadata of a frame: what goes in comes out, and nothing else gets in."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framegate import shm
from framegate.errors import SchemaMismatch, ShmArgumentError

KEYS = st.text(min_size=1, max_size=16).filter(
    lambda key: 0 < len(key.encode("utf-8", "surrogatepass")) <= 64 and key.isprintable()
)
VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.binary(max_size=40),
)


def exchange(metadata: Any) -> shm.Frame:
    """Send with this metadata through a new topic."""
    with shm.Topic.create("t", slot_bytes=64, slots=2) as topic:
        topic.unlink()
        with topic.publisher() as publisher, topic.subscriber("queue") as subscriber:
            publisher.send(b"payload", metadata=metadata)
            frame = subscriber.take(timeout=10)
    assert frame is not None
    return frame


@given(metadata=st.dictionaries(KEYS, VALUES, max_size=8))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_maps_come_back_with_their_types(metadata: dict[str, Any]) -> None:
    with exchange(metadata) as frame:
        received = frame.metadata
    assert list(received) == list(metadata)
    for key, value in metadata.items():
        assert type(received[key]) is type(value)
        if isinstance(value, float):
            assert struct.pack("d", received[key]) == struct.pack("d", value)  # also NaN, -0.0
        else:
            assert received[key] == value


def test_numpy_scalars_and_bytearrays_become_plain_values() -> None:
    frame = exchange(
        {
            "flag": np.True_,
            "count": np.int16(-7),
            "gain": np.float32(0.5),
            "time": np.float64(1.25),
            "raw": bytearray(b"ab"),
        }
    )
    assert frame.metadata == {"flag": True, "count": -7, "gain": 0.5, "time": 1.25, "raw": b"ab"}
    assert [type(value) for value in frame.metadata.values()] == [bool, int, float, float, bytes]


def test_metadata_stays_readable_after_the_lease() -> None:
    frame = exchange({"gain": 2.5, "name": "vorn ä"})
    frame.release()
    assert frame.metadata == {"gain": 2.5, "name": "vorn ä"}
    assert exchange({}).metadata == {}


def test_1024_bytes_fit_and_one_more_does_not() -> None:
    overhead = len(b"\x81\xa1k\xc5\x00\x00")
    frame = exchange({"k": bytes(1024 - overhead)})
    assert len(frame.metadata["k"]) == 1024 - overhead
    with pytest.raises(ShmArgumentError, match="1025 bytes; at most 1024"):
        exchange({"k": bytes(1025 - overhead)})


def test_128_values_fit_and_one_more_does_not() -> None:
    assert len(exchange({f"{i:x}": 1 for i in range(128)}).metadata) == 128
    with pytest.raises(ShmArgumentError, match="129 values"):
        exchange({f"{i:x}": 1 for i in range(129)})


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"a": None}, "NoneType"),
        ({"a": [1]}, "list"),
        ({"a": {"b": 1}}, "dict"),
        ({"a": np.zeros(3)}, "ndarray"),
        ({"a": 1j}, "complex"),
        ({1: 2}, "keys"),
        ([1], "mapping"),
    ],
)
def test_what_is_no_small_value_is_a_type_error(metadata: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        exchange(metadata)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"a": 2**63}, "64 bits"),
        ({"a": -(2**63) - 1}, "64 bits"),
        ({"": 1}, "1 to 64 bytes"),
        ({"k" * 65: 1}, "1 to 64 bytes"),
    ],
)
def test_what_is_out_of_range_is_an_argument_error(metadata: Any, message: str) -> None:
    with pytest.raises(ShmArgumentError, match=message):
        exchange(metadata)


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        exchange({"a": "\ud800"})
    assert len(exchange({"k" * 64: 1}).metadata) == 1


@pytest.mark.parametrize("spoiled", [b"\x93\x01\x02", b"\xff" * 9, b"\x81\xa3key\xa5ab\xff"])
def test_metadata_that_another_program_spoiled_is_refused_but_the_frame_is_good(
    runtime_directory: Path, spoiled: bytes
) -> None:
    with shm.Publisher("t", slot_bytes=8) as publisher, shm.Subscriber("t", "queue") as subscriber:
        publisher.send(b"payload", metadata={"key": "abc"})
        frame = subscriber.take()
        for file in runtime_directory.iterdir():
            place = file.read_bytes().find(b"\x81\xa3key\xa3abc")
            if place >= 0:
                with file.open("r+b") as stream:
                    stream.seek(place)
                    stream.write(spoiled)
        with pytest.raises(SchemaMismatch, match="frame 1"):
            frame.metadata  # noqa: B018
        assert bytes(frame) == b"payload"
        frame.release()
        with pytest.raises(SchemaMismatch):
            frame.metadata  # noqa: B018


def test_arrays_of_frames_and_loans_are_reached_by_name() -> None:
    with shm.Publisher("rig", arrays={"a": ("u1", 3), "b": ("f4", (2, 2))}) as rig:
        with rig.loan() as loan:
            loan["a"][:] = [1, 2, 3]
            loan["b"][:] = 0.5
            with pytest.raises(KeyError, match='"a", "b"'):
                loan["c"]
            loan.publish()
        with shm.Subscriber("rig") as subscriber, subscriber.take() as frame:
            assert frame["a"].tolist() == [1, 2, 3]
            assert frame["b"].sum() == 2
            assert "a" in frame
            assert "c" not in frame
            assert 1 not in frame
            with pytest.raises(KeyError, match='"a", "b"'):
                frame["c"]
    with exchange({}) as raw, pytest.raises(KeyError, match="raw bytes"):
        raw["a"]
