"""msgspec structs as frames."""

import subprocess
import sys
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framegate import shm
from framegate.errors import SchemaMismatch
from framegate.structs import arrays_of, schema_of, struct_of

Image = Annotated[npt.NDArray[np.uint8], shm.ArraySpec("uint8", (2, 3), units="1")]


class Sample(msgspec.Struct):
    image: Image
    valid: bool
    count: int
    gain: float
    phase: complex


class Blob(msgspec.Struct, frozen=True):
    data: bytes
    weights: Any


class Optional(msgspec.Struct):
    gain: float | None


class Text(msgspec.Struct):
    text: str


@given(
    image=st.binary(min_size=6, max_size=6),
    valid=st.booleans(),
    count=st.integers(-(2**63), 2**63 - 1),
    gain=st.floats(allow_nan=False),
    phase=st.complex_numbers(allow_nan=False),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_structs_come_back(
    image: bytes, valid: bool, count: int, gain: float, phase: complex
) -> None:
    sample = Sample(np.frombuffer(image, "u1").reshape(2, 3), valid, count, gain, phase)
    with shm.Topic.create("t", arrays=schema_of(Sample)) as topic:
        topic.unlink()
        with topic.publisher() as publisher, topic.subscriber() as subscriber:
            publisher.send(sample)
            back = struct_of(Sample, subscriber.take())
    assert back.image.tobytes() == image
    assert not back.image.flags.writeable
    assert not back.image.flags.owndata
    got = (back.valid, back.count, back.gain, back.phase)
    assert got == (valid, count, gain, phase)
    assert [type(value) for value in got] == [bool, int, float, complex]


def test_a_schema_says_names_types_shapes_and_units() -> None:
    schema = schema_of(Sample)
    assert schema == {
        "image": shm.ArraySpec("uint8", (2, 3), units="1"),
        "valid": shm.ArraySpec("bool", ()),
        "count": shm.ArraySpec("int64", ()),
        "gain": shm.ArraySpec("float64", ()),
        "phase": shm.ArraySpec("complex128", ()),
    }


def test_bytes_and_self_describing_arrays_go_through_free_topics() -> None:
    with shm.Publisher("free", slot_bytes=4096) as publisher:
        with shm.Subscriber("free", "queue") as subscriber:
            for size in (0, 1, 1000):
                publisher.send(Blob(bytes(range(256)) * 4, np.ones(size // 4, "f4")))
                blob = struct_of(Blob, subscriber.take())
                assert blob.data == bytes(range(256)) * 4
                assert blob.weights.sum() == size // 4


def test_a_publisher_of_a_struct_creates_a_topic_like_it() -> None:
    with shm.Publisher("new") as publisher:
        publisher.send(Blob(b"abc", np.zeros(2, "i2")))
        assert publisher.send(Blob(b"xyz", np.ones(2, "i2"))) == 2
        with pytest.raises(SchemaMismatch):
            publisher.send(Blob(b"longer", np.ones(2, "i2")))


def test_what_no_frame_can_hold_is_a_type_error_that_names_the_field() -> None:
    with pytest.raises(TypeError, match=r"Blob\.weights"):
        schema_of(Blob)
    with pytest.raises(TypeError, match=r"Optional\.gain"):
        schema_of(Optional)
    with pytest.raises(TypeError, match=r"Text\.text is a str"):
        arrays_of(Text("hello"))
    with pytest.raises(TypeError, match=r"not a msgspec\.Struct"):
        schema_of(dict)
    with pytest.raises(OverflowError):
        arrays_of(Sample(np.zeros((2, 3), "u1"), True, 2**63, 0.0, 0j))
    with shm.Publisher("t", slot_bytes=64) as publisher, shm.Subscriber("t") as subscriber:
        with pytest.raises(TypeError, match=r"Text\.text"):
            publisher.send(Text("hello"))
        publisher.send({"gain": np.zeros(3)})
        with pytest.raises(TypeError, match="gain"):
            struct_of(msgspec.defstruct("Gain", [("gain", float)]), subscriber.take())
        publisher.send({"other": np.zeros(3)})
        with pytest.raises(KeyError, match="gain"):
            struct_of(msgspec.defstruct("Gain", [("gain", float)]), subscriber.take())


def test_without_msgspec_the_extra_is_named() -> None:
    program = (
        "import sys; sys.modules['msgspec'] = None\n"
        "from framegate.structs import schema_of\n"
        "try: schema_of(int)\n"
        "except ModuleNotFoundError as error: assert 'framegate[msgspec]' in str(error)\n"
        "else: raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)
