"""Checksums on request: frames that are not what was published are refused, counted and skipped."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framegate import shm
from framegate.errors import ChecksumMismatch

KINDS: list[Any] = ["crc32c", "xxh3"]


def spoil(directory: Path, published: bytes) -> None:
    """What a wild pointer in some publisher does: one bit of the payload is another."""
    for file in directory.glob("*.data"):
        place = file.read_bytes().find(published)
        if place >= 0:
            with file.open("r+b") as stream:
                stream.seek(place + len(published) // 2)
                stream.write(bytes([published[len(published) // 2] ^ 1]))


@pytest.mark.parametrize("kind", KINDS)
def test_frames_come_through_with_a_checksum(kind: Any) -> None:
    image = np.random.default_rng(3).integers(0, 255, (480, 641, 3), dtype=np.uint8)
    with (
        shm.Topic.create("cam", dtype="u1", shape=image.shape, checksum=kind) as topic,
        topic.publisher() as publisher,
        topic.subscriber("queue") as subscriber,
    ):
        assert topic.checksum == kind
        assert topic.inspect().checksum == kind
        publisher.send(image)
        with publisher.loan() as loan:
            loan.array[:] = 7
            loan.publish()
        np.testing.assert_array_equal(subscriber.take().array, image)
        assert (subscriber.take().array == 7).all()
        assert subscriber.corrupt == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_spoiled_frame_is_refused_and_the_next_one_comes(
    kind: Any, runtime_directory: Path
) -> None:
    payload = random.Random(1).randbytes(500)
    with shm.Publisher("t", slot_bytes=1000, checksum=kind) as publisher:
        with shm.Subscriber("t", "queue") as subscriber:
            publisher.send(payload)
            spoil(runtime_directory, payload)
            publisher.send(b"good")
            expected = f"{shm.checksum(payload, kind):016x}"
            with pytest.raises(ChecksumMismatch, match=f"frame 1 .*published was {expected}"):
                subscriber.take()
            assert (subscriber.corrupt, subscriber.received, subscriber.leases) == (1, 0, 0)
            frame = subscriber.take()
            assert (bytes(frame), frame.sequence, frame.lost) == (b"good", 2, 0)
            (row,) = [row for row in shm.inspect("t").participants if row.role == "subscriber"]
            assert (row.corrupt, row.received) == (1, 1)


def test_without_a_checksum_nobody_looks(runtime_directory: Path) -> None:
    with shm.Publisher("t", slot_bytes=16) as publisher, shm.Subscriber("t") as subscriber:
        publisher.send(b"frame")
        spoil(runtime_directory, b"frame")
        assert bytes(subscriber.take()) == b"fr" + bytes([b"a"[0] ^ 1]) + b"me"
        assert shm.inspect("t").checksum is None


def test_checksums_of_bytes_and_arrays_are_the_published_ones() -> None:
    assert shm.checksum(b"123456789") == 0xE3069283
    assert shm.checksum(b"abc", "xxh3") == 0x78AF5F94892F3950
    array = np.arange(10, dtype="i4")
    assert shm.checksum(array) == shm.checksum(array.tobytes())
    with pytest.raises(ValueError, match="C order"):
        shm.checksum(array[::2])


def test_other_kinds_are_refused() -> None:
    kind: Any = "md5"
    with pytest.raises(ValueError, match="crc32c"):
        shm.Topic.create("t", slot_bytes=8, checksum=kind)
    with pytest.raises(ValueError, match="crc32c"):
        shm.checksum(b"", kind)
