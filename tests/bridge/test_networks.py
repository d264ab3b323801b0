"""Three hosts in network namespaces: slow and lossy wires, partitions, kills. Needs root.

The hub is a bridge that only listens, as a Zenoh router is. The robot publishes, the desk watches:
every frame that arrives is checked for being whole and newer than the one before, and in the end
what was sent is what was received and what was counted as lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import framegate
from bridge.conftest import BridgeProcess, Host, Status
from bridge.networks import Network, needs_namespaces, network
from framegate import bridge, shm

__all__ = ["network"]

pytestmark = [needs_namespaces, pytest.mark.timeout(180)]

WAIT_S = 120.0


class Camera:
    """Publishes frames of one size on a host, so many per second, until told to stop.

    Each frame says its number in every byte, and whole in its first eight.
    """

    def __init__(
        self, host: Host, topic: str, frame_bytes: int, rate: float, slots: int = 8
    ) -> None:
        with host:
            self._topic = shm.Topic.create(topic, dtype="uint8", shape=(frame_bytes,), slots=slots)
        self._publisher = self._topic.publisher()
        self._period_s = 1 / rate
        self._stop = threading.Event()
        self.sends_s: list[float] = []
        self.count = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        picture = np.empty(self._topic.slot_bytes, "u1")
        while not self._stop.wait(self._period_s):
            self.count += 1
            picture[:] = self.count % 251
            picture[:8] = np.frombuffer(self.count.to_bytes(8, "little"), "u1")
            began = time.monotonic()
            self._publisher.send(picture)
            self.sends_s.append(time.monotonic() - began)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def close(self) -> None:
        self.stop()
        self._publisher.close()
        self._topic.close()


class Viewer:
    """Takes every frame of a topic on a host and checks it."""

    def __init__(self, host: Host, topic: str) -> None:
        with host:
            self._frames = framegate.Subscriber(topic, "queue", wait=WAIT_S, max_leases=1)
        self._news = threading.Condition()
        self._closed = False
        self.numbers: list[int] = []
        self.faults: list[str] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._closed:
            frame = self._frames.take(timeout=0.2)
            if frame is None:
                continue
            with frame:
                array = frame.array
                number = int.from_bytes(array[:8].tobytes(), "little")
                fault = ""
                if not (array[8:] == number % 251).all():
                    fault = f"frame {number} is torn"
                if self.numbers and number <= self.numbers[-1]:
                    fault = f"frame {number} came after {self.numbers[-1]}"
                came_from = bridge.source(frame)
                if came_from is None or came_from.sequence != number:
                    fault = f"frame {number} says that it was {came_from}"
                del array
            with self._news:
                self.numbers.append(number)
                if fault:
                    self.faults.append(fault)
                self._news.notify_all()

    def wait(self, fits: Callable[[list[int]], object]) -> None:
        """Wait until what arrived fits; the watchdog ends the test if it never does."""
        with self._news:
            self._news.wait_for(lambda: fits(self.numbers))

    def wait_more(self, count: int) -> None:
        """Wait for so many more frames."""
        goal = len(self.numbers) + count
        self.wait(lambda numbers: len(numbers) >= goal)

    def close(self) -> None:
        self._closed = True
        self._thread.join()
        self._frames.close()


@dataclass
class Lab:
    """Robot, hub and desk, connected."""

    network: Network
    robot: Host
    hub: Host
    desk: Host
    listens: str
    near_robot: str
    near_desk: str
    closing: list[Camera | Viewer]

    def start_hub(self) -> BridgeProcess:
        return self.hub.bridge("--listen", self.listens)

    def start_robot(self, rule: str = "**") -> BridgeProcess:
        return self.robot.bridge("--zenoh", self.near_robot, "--publish", rule)

    def start_desk(self) -> BridgeProcess:
        return self.desk.bridge("--zenoh", self.near_desk, "--subscribe", "**")

    def camera(self, frame_bytes: int, rate: float, slots: int = 8) -> Camera:
        self.closing.append(camera := Camera(self.robot, "camera", frame_bytes, rate, slots))
        return camera

    def viewer(self, host: Host | None = None) -> Viewer:
        self.closing.append(viewer := Viewer(host or self.desk, "camera"))
        return viewer


@pytest.fixture
def lab(network: Network, host: Callable[[str], Host]) -> Iterator[Lab]:
    robot, hub, desk = host("robot"), host("hub"), host("desk")
    made = Lab(
        network, robot, hub, desk, network.be_hub(hub), network.join(robot), network.join(desk), []
    )
    yield made
    for one in reversed(made.closing):
        one.close()


def add_up(sender: BridgeProcess, taker: BridgeProcess, viewer: Viewer) -> tuple[Status, Status]:
    """Both counts once nothing is under way any more; they have to add up."""
    # The camera has stopped, so this is all; a heartbeat tells the taker of lost last frames.
    sent = sender.outgoing("camera")
    while (now := sender.settled()["outgoing"][0]) != sent:
        sent = now
    came = taker.incoming(
        "camera", lambda row: row["before"] + row["received"] + row["lost"] >= sent["sent"]
    )
    assert sent["sent"] == came["before"] + came["received"] + came["lost"]
    assert came["received"] == came["published"] + came["repeated"] + came["full"]
    viewer.wait(lambda numbers: len(numbers) >= 1)
    assert not viewer.faults, viewer.faults[:5]
    return sent, came


def resident_bytes(process: BridgeProcess) -> int:
    pages = Path(f"/proc/{process.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


def test_three_hosts_over_links_that_lose_and_delay(lab: Lab) -> None:
    """TCP repairs it: nothing is torn, late frames are those that were sent, in order."""
    for host in (lab.robot, lab.desk):
        lab.network.shape(host, delay_s=0.005, jitter_s=0.002, loss=0.01, duplicate=0.01)
    lab.start_hub()
    camera = lab.camera(20_000, rate=100, slots=64)
    sender, taker = lab.start_robot("**,policy=queue"), lab.start_desk()
    viewer = lab.viewer()
    viewer.wait_more(300)
    camera.stop()
    sent, came = add_up(sender, taker, viewer)
    assert came["lost"] == 0
    # With a queue, what was published is sent or counted, from the first sent frame on.
    assert sent["sent"] + sent["lost"] <= camera.count
    viewer.wait(lambda numbers: numbers[-1] == camera.count)


@pytest.mark.parametrize("policy", ["latest", "queue"])
def test_a_slow_link_bounds_memory_and_delays_no_publisher(policy: str, lab: Lab) -> None:
    """80 Mbit/s of frames over 8 Mbit/s: one in ten arrives, as fresh as the policy says."""
    lab.network.shape(lab.desk, rate=8e6, limit=50)
    hub = lab.start_hub()
    camera = lab.camera(100_000, rate=100, slots=8)
    sender, taker = lab.start_robot(f"**,policy={policy}"), lab.start_desk()
    viewer = lab.viewer()
    viewer.wait_more(10)
    before = [resident_bytes(one) for one in (sender, hub, taker)]
    viewer.wait_more(60)
    after = [resident_bytes(one) for one in (sender, hub, taker)]
    for was, now in zip(before, after, strict=True):
        assert now - was < 24 << 20, (before, after)
    row = sender.outgoing("camera")
    assert row["lost"] > 0
    camera.stop()
    # Frames are 10 ms apart; waits for the link would be seconds. One may be the machine's.
    assert sorted(camera.sends_s)[len(camera.sends_s) * 99 // 100] < 1.0
    sent, _ = add_up(sender, taker, viewer)
    assert sent["lost"] > sent["sent"]


@pytest.mark.parametrize("how", ["cut", "unplug"])
@pytest.mark.parametrize("where", ["robot", "desk"])
def test_a_partition_ends_and_frames_go_on(how: str, where: str, lab: Lab) -> None:
    lab.start_hub()
    camera = lab.camera(50_000, rate=50, slots=16)
    sender, taker = lab.start_robot("**,policy=queue"), lab.start_desk()
    viewer = lab.viewer()
    viewer.wait_more(50)
    host = lab.robot if where == "robot" else lab.desk
    if how == "cut":
        lab.network.cut(host)
    else:
        lab.network.unplug(host)
    # Longer than Zenoh waits for a link, so that it is given up.
    sender.outgoing("camera", lambda row: not row["wanted"])
    camera_then = camera.count
    taker.incoming("camera", lambda row: not row["there"])
    if how == "cut":
        lab.network.heal(host)
    else:
        lab.network.plug(host)
    viewer.wait(lambda numbers: numbers[-1] > camera_then)
    viewer.wait_more(50)
    camera.stop()
    add_up(sender, taker, viewer)


def test_a_killed_router_comes_back(lab: Lab) -> None:
    hub = lab.start_hub()
    camera = lab.camera(50_000, rate=50, slots=16)
    sender, taker = lab.start_robot("**,policy=queue"), lab.start_desk()
    viewer = lab.viewer()
    for _ in range(2):
        viewer.wait_more(50)
        hub.kill()
        sender.outgoing("camera", lambda row: not row["wanted"])
        taker.incoming("camera", lambda row: not row["there"])
        hub = lab.start_hub()
    viewer.wait_more(50)
    camera.stop()
    add_up(sender, taker, viewer)


def test_a_killed_bridge_of_the_taker_starts_over_without_repeating(lab: Lab) -> None:
    lab.start_hub()
    camera = lab.camera(50_000, rate=50, slots=16)
    sender, taker = lab.start_robot("**,policy=queue"), lab.start_desk()
    viewer = lab.viewer()
    for _ in range(3):
        viewer.wait_more(50)
        taker.kill()
        sender.outgoing("camera", lambda row: not row["wanted"])
        taker = lab.start_desk()
    viewer.wait_more(50)
    assert not viewer.faults, viewer.faults[:5]
    camera.stop()


def test_a_killed_bridge_of_the_sender_starts_over_without_repeating(lab: Lab) -> None:
    lab.start_hub()
    camera = lab.camera(50_000, rate=50, slots=16)
    sender, taker = lab.start_robot("**,policy=queue"), lab.start_desk()
    viewer = lab.viewer()
    for _ in range(3):
        viewer.wait_more(50)
        sender.kill()
        taker.incoming("camera", lambda row: not row["there"])
        sender = lab.start_robot("**,policy=queue")
    viewer.wait_more(50)
    camera.stop()
    assert not viewer.faults, viewer.faults[:5]


def test_a_host_that_dies_harms_no_other(lab: Lab, host: Callable[[str], Host]) -> None:
    """Bridge and link of the desk go at once, in silence; the other viewer sees every frame."""
    other = host("other")
    near_other = lab.network.join(other)
    lab.start_hub()
    camera = lab.camera(50_000, rate=50, slots=64)
    sender, taker = lab.start_robot("**,policy=queue,congestion=drop"), lab.start_desk()
    survivor = other.bridge("--zenoh", near_other, "--subscribe", "**")
    viewer, surviving = lab.viewer(), lab.viewer(other)
    viewer.wait_more(50)
    surviving.wait_more(50)
    lab.network.cut(lab.desk)
    taker.kill()
    surviving.wait_more(300)  # six seconds: longer than a full link is waited for
    camera.stop()
    add_up(sender, survivor, surviving)
    assert not viewer.faults, viewer.faults[:5]


def test_with_drop_a_slow_host_does_not_slow_another(lab: Lab, host: Callable[[str], Host]) -> None:
    other = host("other")
    near_other = lab.network.join(other)
    lab.network.shape(lab.desk, rate=2e6, limit=20)
    lab.start_hub()
    camera = lab.camera(50_000, rate=50, slots=64)
    sender = lab.start_robot("**,policy=queue,congestion=drop")
    lab.start_desk()
    survivor = other.bridge("--zenoh", near_other, "--subscribe", "**")
    surviving = lab.viewer(other)
    surviving.wait_more(400)
    camera.stop()
    _, came = add_up(sender, survivor, surviving)
    numbers = surviving.numbers
    assert (numbers[-1] - numbers[0] + 1) - len(numbers) == came["lost"]
    assert came["lost"] < len(numbers) / 10
