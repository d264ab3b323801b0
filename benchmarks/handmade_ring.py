"""The best frame ring that can be written by hand, in Python: the rival of the frame path.

One file on tmpfs, mapped and populated beforehand by the writer: a page of sequence numbers, then
the slots. A slot's number is odd while it is written and even when it holds a frame (a seqlock); a
reader checks it again after reading. The wake-up is a datagram with the slot's number to the
reader's Unix socket: one system call, no polling thread, readable by any event loop.

It does what the measurement needs and no more: one writer, one reader, no recovery after a crash,
no backpressure, and a reader that is slow sees its frame torn and is told so afterwards. Ordering
of the stores is x86's.
"""

import mmap
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

HEADER_BYTES = mmap.PAGESIZE
SLOTS = 8
_NOTE = struct.Struct("<QQQ")  # slot, sequence, bytes


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot that is being written."""

    index: int
    pixels: memoryview


def _padded(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


class RingWriter:
    """Creates the ring in `directory` and fills its slots in turn."""

    def __init__(self, directory: str, slot_bytes: int) -> None:
        self._address = str(Path(directory, "reader.sock"))
        file = os.open(Path(directory, "ring"), os.O_RDWR | os.O_CREAT, 0o600)
        size = HEADER_BYTES + SLOTS * _padded(slot_bytes)
        os.ftruncate(file, size)
        # MAP_POPULATE: no page fault is left for the first frames.
        self._map = mmap.mmap(file, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        os.close(file)
        view = memoryview(self._map)
        self._sequences = view[:HEADER_BYTES].cast("Q")
        starts = (HEADER_BYTES + index * _padded(slot_bytes) for index in range(SLOTS))
        pixels = [view[start : start + slot_bytes] for start in starts]
        self._slots = [Slot(index, part) for index, part in enumerate(pixels)]
        self._turn = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def loan(self) -> Slot:
        """The next slot, marked as being written."""
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % SLOTS
        self._sequences[slot.index] |= 1
        return slot

    def publish(self, slot: Slot, size: int | None = None) -> None:
        """Mark the slot, or its first `size` bytes, as whole and wake the reader."""
        sequence = self._sequences[slot.index] + 1
        self._sequences[slot.index] = sequence
        # No reader yet, or one that is far behind: it will take a later frame.
        with suppress(FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            size = len(slot.pixels) if size is None else size
            self._socket.sendto(_NOTE.pack(slot.index, sequence, size), self._address)


class RingReader:
    """Reads the newest frame of the ring in `directory`, in place."""

    def __init__(self, directory: str, slot_bytes: int) -> None:
        file = os.open(Path(directory, "ring"), os.O_RDONLY)
        size = HEADER_BYTES + SLOTS * _padded(slot_bytes)
        self._map = mmap.mmap(
            file, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=mmap.PROT_READ
        )
        os.close(file)
        self._slot_bytes = slot_bytes
        self._view = memoryview(self._map)
        self._sequences = self._view[:HEADER_BYTES].cast("Q")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = Path(directory, "reader.sock")
        address.unlink(missing_ok=True)  # of the reader before this one
        self._socket.bind(str(address))
        self.torn = 0

    def fileno(self) -> int:
        """What is readable when a frame is there."""
        return self._socket.fileno()

    @contextmanager
    def newest(self) -> Iterator[memoryview]:
        """Wait for a frame; a view of the newest one, without a copy."""
        note = self._socket.recv(_NOTE.size)
        with suppress(BlockingIOError):
            while True:
                note = self._socket.recv(_NOTE.size, socket.MSG_DONTWAIT)
        index, sequence, size = _NOTE.unpack(note)
        start = HEADER_BYTES + index * _padded(self._slot_bytes)
        yield self._view[start : start + size]
        if self._sequences[index] != sequence:
            self.torn += 1
