"""The same bytes by plain Zenoh and by the bridge: latency and throughput, in turn.

Four processes more than this one: a subscriber of plain Zenoh, a bridge for either side, and a
subscriber of the topic that the second one makes. Each subscriber answers every frame by a line in
its pipe: nanoseconds since it was sent.
"""

import argparse
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zenoh

import framegate

WARM_UP = 50
BLOCK = 50
WINDOW = 4
SLOTS = 8
KEY = "plain/frames"
TOPIC = "frames"
ANSWER = struct.Struct("<q")
READY = ANSWER.pack(0)
PATIENCE_S = 60.0


def free_endpoint() -> str:
    """An endpoint on a port that was free just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"tcp/127.0.0.1:{probe.getsockname()[1]}"


def session(mode: str, connect: str | None, listen: str | None) -> Any:
    """Configured as the bridge configures its own."""
    config = zenoh.Config()
    for key, value in {
        "mode": mode,
        "scouting/multicast/enabled": False,
        "transport/shared_memory/enabled": False,
        "connect/endpoints": [connect] if connect else [],
        "listen/endpoints": [listen] if listen else [],
    }.items():
        config.insert_json5(key, json.dumps(value))
    return zenoh.open(config)


def answer(sent_ns: int) -> None:
    """Tell the source how long it took."""
    os.write(1, ANSWER.pack(time.monotonic_ns() - sent_ns))


def plain_sink(endpoint: str) -> None:
    """Takes frames by Zenoh, as bytes."""
    frames: list[bytes] = [b""]

    def take(sample: Any) -> None:
        frames[0] = bytes(sample.payload)
        answer(int.from_bytes(bytes(sample.attachment), "little"))

    with session("client", endpoint, None) as here:
        here.declare_subscriber(KEY, zenoh.handlers.Callback(take, indirect=False))
        os.write(1, READY)
        sys.stdin.read()


def topic_sink() -> None:
    """Takes frames of the topic."""
    with framegate.Subscriber(TOPIC, "queue", wait=PATIENCE_S) as frames:
        os.write(1, READY)
        for frame in frames:
            with frame:
                answer(round(frame.timestamp * 1e9))


class Sink:
    """One of the two, and how long its frames took."""

    def __init__(self, core: int, kind: str, endpoint: str, **environment: str) -> None:
        words = ["taskset", "-c", str(core), sys.executable, __file__, "--sink", kind]
        self.process = subprocess.Popen(
            [*words, "--endpoint", endpoint, "--bytes", "0"],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def took_ns(self) -> int:
        """Of the next frame that arrived."""
        assert self.process.stdout is not None
        data = self.process.stdout.read(ANSWER.size)
        assert len(data) == ANSWER.size, "the sink ended"
        return int(ANSWER.unpack(data)[0])


class Way:
    """A way that frames take: how to send one, and who gets it."""

    def __init__(self, send: Callable[[], None], sink: Sink) -> None:
        self.send, self.sink = send, sink
        self.latencies_ns: list[int] = []
        self.seconds = 0.0
        self.frames = 0

    def one_by_one(self, count: int, *, keep: bool = True) -> None:
        """Each is sent when the one before has arrived."""
        for _ in range(count):
            self.send()
            took = self.sink.took_ns()
            if keep:
                self.latencies_ns.append(took)

    def streamed(self, count: int) -> None:
        """A few are under way all the time."""
        began = time.perf_counter()
        for number in range(count + WINDOW):
            if number < count:
                self.send()
            if number >= WINDOW:
                self.sink.took_ns()
        self.seconds += time.perf_counter() - began
        self.frames += count


def measure(size: int, cores: tuple[int, int], seconds: float, folder: Path) -> dict[str, float]:
    """Start everything, and send."""
    near, far = cores
    os.sched_setaffinity(0, {near})
    payload = bytes(size)
    plain_at, bridge_at = free_endpoint(), free_endpoint()
    there = folder / "there"
    there.mkdir(mode=0o700)
    own = folder / "here"
    own.mkdir(mode=0o700)
    os.environ["FRAMEGATE_RUNTIME_DIR"] = str(own)
    platform = [str(Path(sys.executable).parent / "platform"), "bridge", "--host"]
    elsewhere = {"FRAMEGATE_RUNTIME_DIR": str(there)}
    processes: list[subprocess.Popen[bytes]] = []

    def bridge(core: int, *words: str, **environment: str) -> None:
        command = ["taskset", "-c", str(core), *platform, *words]
        processes.append(
            subprocess.Popen(command, env={**os.environ, **environment}, stdout=sys.stderr)
        )

    with (
        framegate.Publisher(TOPIC, slots=SLOTS, slot_bytes=size) as topic,
        session("router", None, plain_at) as here,
    ):
        try:
            bridge(near, "near", "--listen", bridge_at, "--publish", f"{TOPIC},policy=queue")
            bridge(far, "far", "--zenoh", bridge_at, "--subscribe", TOPIC, **elsewhere)
            plain_sink_, topic_sink_ = (
                Sink(far, kind, plain_at, **elsewhere) for kind in ("plain", "topic")
            )
            processes += [plain_sink_.process, topic_sink_.process]
            publisher = here.declare_publisher(
                KEY, congestion_control=zenoh.CongestionControl.BLOCK
            )

            def put() -> None:
                now = time.monotonic_ns().to_bytes(8, "little")
                publisher.put(payload, attachment=now)

            def publish() -> None:
                # The bytes are in the slot already, as those of plain Zenoh are in `payload`.
                with topic.loan(size) as loan:
                    loan.publish(timestamp=time.monotonic_ns() / 1e9)

            plain, bridged = Way(put, plain_sink_), Way(publish, topic_sink_)
            for way in (plain, bridged):
                way.sink.took_ns()  # it is ready
            _wait_for_both(publisher)
            for way in (plain, bridged):
                way.one_by_one(WARM_UP, keep=False)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for way in (plain, bridged):
                    way.one_by_one(BLOCK)
                for way in (plain, bridged):
                    way.streamed(BLOCK)
        finally:
            for process in processes:
                process.terminate()
                process.wait(PATIENCE_S)
    found: dict[str, float] = {}
    for name, way in (("plain", plain), ("bridge", bridged)):
        found[f"{name}_us"] = statistics.median(way.latencies_ns) / 1000
        found[f"{name}_mb_s"] = way.frames * size / way.seconds / 1e6
    found["added_us"] = found["bridge_us"] - found["plain_us"]
    found["share"] = found["bridge_mb_s"] / found["plain_mb_s"]
    return found


def _wait_for_both(publisher: Any) -> None:
    """Until either way leads somewhere: nothing is sent before somebody listens."""
    from framegate import shm

    deadline = time.monotonic() + PATIENCE_S
    while not (publisher.matching_status.matching and shm.inspect(TOPIC).subscribers):
        assert time.monotonic() < deadline, "nobody listens"
        time.sleep(0.02)


def main() -> None:
    """Measure, print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--sink", choices=("plain", "topic"))
    parser.add_argument("--endpoint", default="")
    parser.add_argument("--cores", default="0,0")
    parser.add_argument("--seconds", type=float, default=5.0)
    words = parser.parse_args()
    if words.sink == "plain":
        plain_sink(words.endpoint)
    elif words.sink == "topic":
        topic_sink()
    else:
        first, second = map(int, words.cores.split(","))
        base = os.environ.get("BENCH_FOLDER")
        with tempfile.TemporaryDirectory(dir=base) as folder:
            print(json.dumps(measure(words.bytes, (first, second), words.seconds, Path(folder))))


if __name__ == "__main__":
    main()
