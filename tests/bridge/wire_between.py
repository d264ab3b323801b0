"""A wire between two network namespaces that loses, delays, repeats and slows packets.

As `tc netem` does, which not every kernel has: a TUN device at either end, and this program in the
middle. `python wire_between.py NAMESPACE DEVICE NAMESPACE DEVICE`; each line on its standard input
is a JSON object of `delay_s`, `jitter_s`, `loss`, `duplicate` (0 to 1), `rate` (bits per second, 0
for all) and `limit` (packets that wait in a direction), and is answered by a line.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time
from typing import Any

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
PACKET_BYTES = 65_536


def device_in(namespace: str, device: str) -> int:
    """The descriptor of a new TUN device in a namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open(f"/var/run/netns/{namespace}", os.O_RDONLY)
    if libc.setns(home, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"setns {namespace}")
    os.close(home)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH14x", device.encode(), IFF_TUN | IFF_NO_PI))
    return tun


class Direction:
    """Packets on their way from one end to the other."""

    def __init__(self, begin: int, end: int) -> None:
        self.begin, self.end = begin, end
        self._waiting: list[tuple[float, int, bytes]] = []
        self._free_at = 0.0
        self._count = 0

    @property
    def due(self) -> float:
        return self._waiting[0][0] if self._waiting else float("inf")

    def take(self, how: dict[str, Any]) -> None:
        while True:
            try:
                packet = os.read(self.begin, PACKET_BYTES)
            except BlockingIOError:
                return
            if random.random() < how["loss"] or len(self._waiting) >= how["limit"]:
                continue
            at = time.monotonic()
            if how["rate"]:
                self._free_at = max(self._free_at, at) + len(packet) * 8 / how["rate"]
                at = self._free_at
            at += how["delay_s"] + random.uniform(-1, 1) * how["jitter_s"]
            for _ in range(1 + (random.random() < how["duplicate"])):
                self._count += 1
                heapq.heappush(self._waiting, (at, self._count, packet))

    def give(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            try:
                os.write(self.end, heapq.heappop(self._waiting)[2])
            except OSError:
                continue  # the device is down: the packet is lost


def main() -> None:
    ends = [device_in(*sys.argv[at : at + 2]) for at in (1, 3)]
    directions = [Direction(*ends), Direction(*reversed(ends))]
    by_end = {one.begin: one for one in directions}
    how = {"delay_s": 0, "jitter_s": 0, "loss": 0, "duplicate": 0, "rate": 0, "limit": 1000}
    random.seed(7)
    poll = select.poll()
    for file in (0, *ends):
        poll.register(file, select.POLLIN)
    print("up", flush=True)
    while True:
        due = min(one.due for one in directions)
        wait_s = max(due - time.monotonic(), 0)
        for file, _ in poll.poll(None if wait_s == float("inf") else wait_s * 1000):
            if file != 0:
                by_end[file].take(how)
                continue
            line = sys.stdin.readline()
            if not line:
                return
            how |= json.loads(line)
            print("changed", flush=True)
        for one in directions:
            one.give()


main()
