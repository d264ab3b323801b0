"""Measures one transport in one way and prints the numbers as JSON; see `shm_transports.py`.

    shm_measure.py TRANSPORT cycle|latency|throughput|idle|loan [options]

The process that is started reads; for all but `cycle` and `loan` it starts the writing one itself
and pins it to the second core. They pace each other by a pair of pipes:

- latency: the writer is busy for a moment, in which the reader falls asleep, sends a frame, and
  waits until it was received. The time is from before `send()` (its copy included) to the moment
  when the reader holds the bytes.
- throughput: the writer sends without a pause; the reader receives and does not look at the bytes.
- idle: the writer sends nothing for a while, then one frame.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from shm_transports import TRANSPORTS, Transport, address_text

PAUSE_NS = 200_000
WARMUP_FRAMES = 12
PACE_FD = 900
"""The driver does not count system calls on it."""
COUNTED = 1000
BATCH_S = 0.02
IDLE_S = 2.0


def stamped(size: int) -> tuple[bytes, Any]:
    """An immutable bytes object, as every transport sends it, and the int64 at its beginning.

    Some transports take nothing but bytes, and a copy per stamp would be measured as theirs.
    """
    source = bytes(bytearray(size))
    address = id(source) + bytes.__basicsize__ - 1
    return source, ctypes.c_int64.from_address(address)


def percentile(values: list[int], share: float) -> float:
    """Of sorted values."""
    return values[min(len(values) - 1, int(len(values) * share))]


class Peer:
    """The writing process, as the reading one sees it."""

    def __init__(self, options: argparse.Namespace, transport: Transport) -> None:
        command = [sys.executable, os.path.abspath(__file__), *sys.argv[1:]]
        command += ["--write-to", address_text(transport)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=transport.inherits
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        os.dup2(self.process.stdin.fileno(), PACE_FD, inheritable=False)
        if self.process.stdout.read(1) != b"r":
            sys.exit("the writing process did not start")
        transport.connected()

    def go_on(self) -> None:
        """Let it send the next frame."""
        os.write(PACE_FD, b"g")

    def end(self) -> None:
        """Tell it to end, and wait until it has."""
        with suppress(BrokenPipeError):
            os.write(PACE_FD, b"e")
        os.close(PACE_FD)
        self.process.wait(20)


def write(options: argparse.Namespace) -> None:
    """The writing process."""
    transport = TRANSPORTS[options.transport]("write", options.size, json.loads(options.write_to))
    source, stamp = stamped(options.size)
    send, clock = transport.send, time.monotonic_ns
    os.dup2(0, PACE_FD)
    os.write(1, b"r")
    if options.mode == "latency":
        while os.read(PACE_FD, 1) == b"g":
            # Busy, as one that makes pictures is; the reader falls asleep.
            end_ns = clock() + PAUSE_NS
            while clock() < end_ns:
                pass
            stamp.value = clock()
            send(source)
    elif options.mode == "idle":
        os.read(PACE_FD, 1)
        time.sleep(max(options.seconds, IDLE_S))
        send(source)
        os.read(PACE_FD, 1)
    else:
        os.read(PACE_FD, 1)
        end = time.monotonic() + options.seconds + 0.3
        with suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() < end:
                for _ in range(8):
                    send(source)
    transport.close()


def latency(options: argparse.Namespace, transport: Transport, peer: Peer) -> dict[str, float]:
    """One frame at a time."""
    receive, view, release = transport.receive, transport.view, transport.release
    clock = time.monotonic_ns
    times: list[int] = []
    frames = 0
    end = clock() + int(options.seconds * 1e9)
    while True:
        if frames == WARMUP_FRAMES:
            times.clear()
            end = clock() + int(options.seconds * 1e9)
            if options.count:
                os.getppid()
        peer.go_on()
        held = receive()
        now = clock()
        times.append(now - int.from_bytes(view(held)[:8], "little"))
        release(held)
        del held
        frames += 1
        if frames > WARMUP_FRAMES:
            if options.count and frames == WARMUP_FRAMES + COUNTED:
                os.getppid()
                return {"operations": COUNTED}
            if clock() > end and not options.count:
                break
    times.sort()
    return {
        "frames": len(times),
        "p50_us": percentile(times, 0.5) / 1000,
        "p99_us": percentile(times, 0.99) / 1000,
    }


def throughput(options: argparse.Namespace, transport: Transport, peer: Peer) -> dict[str, float]:
    """As many frames as go through."""
    receive, release = transport.receive, transport.release
    peer.go_on()
    for _ in range(3):
        release(receive())
    clock = time.monotonic
    frames = 0
    began = clock()
    end = began + options.seconds
    while (now := clock()) < end:
        release(receive())
        frames += 1
    per_s = frames / (now - began)
    if not transport.is_blocking or hasattr(transport, "subscriber"):
        pass  # nobody waits for this reader
    else:
        peer.process.terminate()
    return {"frames_per_s": per_s, "gb_per_s": per_s * options.size / 1e9}


def idle(options: argparse.Namespace, transport: Transport, peer: Peer) -> dict[str, float]:
    """What a reader costs to which nothing comes."""
    peer.go_on()
    before = time.process_time(), time.monotonic()
    transport.release(transport.receive())
    used, passed = time.process_time() - before[0], time.monotonic() - before[1]
    return {"cpu_ms_per_s": used * 1000 / passed}


def allocations() -> Callable[[], int]:
    """The preloaded counter."""
    count = ctypes.CDLL(None).framegate_bench_allocations
    count.restype = ctypes.c_uint64
    return count


def cycle(options: argparse.Namespace) -> dict[str, float]:
    """Both ends in this process."""
    source, _ = stamped(options.size)
    run = TRANSPORTS[options.transport].cycle(options.kind, options.size, source)
    gc.disable()
    run(1000)
    if options.count and "LD_PRELOAD" in os.environ:
        counted = allocations()
        counted()
        before = counted()
        run(COUNTED)
        return {"allocations": (counted() - before) / COUNTED}
    if options.count:
        os.getppid()
        run(COUNTED)
        os.getppid()
        return {"operations": COUNTED}
    times = 1000
    clock = time.perf_counter_ns
    best: list[float] = []
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        began = clock()
        run(times)
        passed = clock() - began
        best.append(passed / times)
        times = max(100, min(1_000_000, int(times * BATCH_S * 1e9 / max(passed, 1))))
    best.sort()
    return {"ns": best[len(best) // 2]}


def loan(options: argparse.Namespace) -> dict[str, float]:
    """A picture copied into loans that are published, against the same copy into own memory."""
    import numpy

    import framegate

    shape = (1080, 1920, 3)
    source = numpy.zeros(shape, numpy.uint8)
    source[:] = numpy.arange(1920 * 3, dtype=numpy.uint8).reshape(1920, 3)
    own = numpy.zeros_like(source)
    ring = [numpy.zeros_like(source) for _ in range(8)]
    topic = framegate.shm.Topic.create(f"bench-{os.getpid()}", dtype="uint8", shape=shape)
    publisher, subscriber = topic.publisher(), topic.subscriber("latest")
    times: dict[str, list[int]] = {"own": [], "ring": [], "loan": [], "send": []}
    clock = time.perf_counter_ns
    turn = 0
    end = time.monotonic() + options.seconds
    while time.monotonic() < end or turn < 50:
        turn += 1
        t0 = clock()
        numpy.copyto(own, source)
        t1 = clock()
        numpy.copyto(ring[turn % 8], source)
        t2 = clock()
        with publisher.loan() as frame:
            numpy.copyto(frame.array, source)
            frame.publish()
        t3 = clock()
        subscriber.take().release()
        t4 = clock()
        publisher.send(source)
        t5 = clock()
        subscriber.take().release()
        if turn > 20:
            for name, passed in zip(times, (t1 - t0, t2 - t1, t3 - t2, t5 - t4), strict=True):
                times[name].append(passed)
    return {f"{name}_us": percentile(sorted(some), 0.5) / 1000 for name, some in times.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("transport", choices=TRANSPORTS)
    parser.add_argument("mode", choices=("cycle", "latency", "throughput", "idle", "loan"))
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--kind", choices=("send", "empty", "cycle", "view"), default="cycle")
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--cores", required=True)
    parser.add_argument("--count", action="store_true")
    parser.add_argument("--write-to")
    options = parser.parse_args()
    reading, writing = map(int, options.cores.split(","))
    if options.write_to is not None:
        os.sched_setaffinity(0, {writing})
        write(options)
        return
    os.sched_setaffinity(0, {reading})
    if options.mode == "cycle":
        result = cycle(options)
    elif options.mode == "loan":
        result = loan(options)
    else:
        transport = TRANSPORTS[options.transport]("read", options.size, None)
        peer = Peer(options, transport)
        measure = {"latency": latency, "throughput": throughput, "idle": idle}[options.mode]
        result = measure(options, transport, peer)
        peer.end()
        transport.close()
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
