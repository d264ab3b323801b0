"""Frame routes on a real server: what comes by HTTP is what consumers see, and the reverse."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import framegate
from framegate import errors
from framegate.shm import Inspector
from peers.h2_client import Client
from server_process import Launch, launch
from server_thread import Server
from topics.waiting import loaned, wait_until

__all__ = ["launch"]

Routes = Callable[..., Server]

SHAPE = (4, 6, 3)
PICTURE = np.arange(72, dtype=np.uint8).reshape(SHAPE)
HEAD = {"Frame-Dtype": "uint8", "Frame-Shape": "4, 6, 3"}


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal."""
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == answer.status_code
    return answer.status_code, body["code"]


def test_posted_frame_is_an_array_for_consumers(routes: Routes) -> None:
    with httpx.Client(base_url=routes().url) as client:
        head = {**HEAD, "Frame-Timestamp": "12.5"}
        answer = client.post("/topics/camera/front", content=PICTURE.tobytes(), headers=head)
        assert answer.status_code == 201
        assert answer.json() == {"topic": "camera/front", "sequence": 1, "bytes": 72}
        with framegate.Subscriber("camera/front") as subscriber:
            answer = client.put("/topics/camera/front", content=PICTURE[::-1].tobytes())
            assert (answer.status_code, answer.json()["sequence"]) == (200, 2)
            with subscriber.take(timeout=5) as frame:
                np.testing.assert_array_equal(frame.array, PICTURE[::-1])
                assert frame.array.dtype == np.uint8
        answer = client.get("/elsewhere")
        assert answer.text == "the application"


def test_frame_of_a_local_publisher_can_be_read(routes: Routes) -> None:
    with (
        framegate.Publisher("lidar", dtype="float32", shape=(2, 3)) as publisher,
        httpx.Client(base_url=routes().url) as client,
    ):
        assert client.get("/topics/lidar", params={"view": "latest"}).status_code == 204
        points = np.array([[1, 2, 3], [4, 5, 6.5]], np.float32)
        publisher.send(points, timestamp=7.25)
        answer = client.get("/topics/lidar", params={"view": "latest"})
        assert answer.status_code == 200
        shape = tuple(map(int, answer.headers["frame-shape"].split(",")))
        found = np.frombuffer(answer.content, answer.headers["frame-dtype"]).reshape(shape)
        np.testing.assert_array_equal(found, points)
        assert answer.headers["frame-timestamp"] == "7.25"
        assert answer.headers["frame-sequence"] == "1"
        again = client.get(
            "/topics/lidar",
            params={"view": "latest"},
            headers={"If-None-Match": answer.headers["etag"]},
        )
        assert (again.status_code, again.content) == (304, b"")
        # Nobody holds the frame any more: all slots can be used.
        for _ in range(20):
            publisher.send(points, timeout=5)


@pytest.mark.parametrize("dtype", ["bool", "int16", "uint64", "float16", "float64", "complex64"])
def test_files_of_numpy_go_in_and_come_out(routes: Routes, dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    file = io.BytesIO()
    np.save(file, array)
    with httpx.Client(base_url=routes().url) as client:
        head = {"Content-Type": "application/x-npy"}
        answer = client.post("/topics/raw/a", content=file.getvalue(), headers=head)
        assert (answer.status_code, answer.json()["bytes"]) == (201, array.nbytes)
        with framegate.Subscriber("raw/a") as subscriber, subscriber.take(timeout=5) as frame:
            np.testing.assert_array_equal(frame.array, array)
            assert frame.array.dtype == array.dtype
        answer = client.get("/topics/raw/a?view=latest&format=npy")
        found = np.load(io.BytesIO(answer.content), allow_pickle=False)
        np.testing.assert_array_equal(found, array)
        objects = io.BytesIO()
        np.save(objects, np.array([{}], dtype=object))
        answer = client.post("/topics/raw/a", content=objects.getvalue(), headers=head)
        assert problem(answer) == (400, "npy")


def test_picture_is_kept_with_its_type_and_size(routes: Routes) -> None:
    file = b"GIF89a\x80\x02\xe0\x01 and so on"
    with httpx.Client(base_url=routes().url) as client:
        head = {"Content-Type": "image/gif"}
        client.post("/topics/raw/a", content=file, headers=head)
        answer = client.get("/topics/raw/a", headers={"Accept": "image/*"})
        assert (answer.content, answer.headers["content-type"]) == (file, "image/gif")
        with framegate.Subscriber("raw/a") as subscriber, subscriber.take(timeout=5) as frame:
            assert frame.content_type == "image/gif"
            assert frame.metadata == {"width": 640, "height": 480}


def test_frame_says_when_it_was_published_and_always_the_same(routes: Routes) -> None:
    """It is read once, though nobody holds the frame between the two who ask."""
    with httpx.Client(base_url=routes().url) as client:
        answers = []
        for value in range(2):
            before = time.time()
            client.post("/topics/raw/a", content=b"%d" % value)
            after = time.time()
            answers += [client.get("/topics/raw/a?view=latest") for _ in range(2)]
            assert before - 0.1 < float(answers[-1].headers["frame-published"]) < after + 0.1
    one, again, other, last = (answer.headers["frame-published"] for answer in answers)
    assert one == again < other == last


def encoded(coding: str, array: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, coding)
    return out.getvalue()


def test_pictures_are_kept_or_decoded_as_the_rule_says(routes: Routes) -> None:
    rules = {
        "kept": {"create": True, "slot_bytes": "64KiB"},
        "pixels": {"create": True, "slot_bytes": 100 * 80 * 3, "decode": True},
        "fixed": {"create": True, "dtype": "uint8", "shape": [80, 100, 3], "decode": True},
    }
    grid = np.indices((80, 100)).sum(0).astype(np.uint8)
    colour = np.dstack([grid, 255 - grid, grid // 2])
    server = routes(topic_rules=rules, topics_pixels_max=8000)
    with httpx.Client(base_url=server.url) as client:

        def post(topic: str, coding: str, content: bytes) -> httpx.Response:
            head = {"Content-Type": f"image/{coding}", "Frame-Timestamp": "2.5"}
            return client.post(f"/topics/{topic}", content=content, headers=head)

        for coding, array, tolerance in [
            ("png", colour, 0),
            ("png", grid, 0),
            ("png", grid.astype(np.uint16) * 257, 0),
            ("png", np.dstack([colour, grid])[:60], 0),
            ("jpeg", colour, 16),
            ("jpeg", grid, 16),
        ]:
            file = encoded(coding, array)
            assert post("kept", coding, file).status_code in (200, 201)
            with framegate.Subscriber("kept") as subscriber, subscriber.take(timeout=5) as frame:
                assert (bytes(frame), frame.content_type) == (file, f"image/{coding}")
            answer = post("pixels", coding, file)
            assert (answer.status_code, answer.json().get("bytes")) in (
                (200, array.nbytes),
                (201, array.nbytes),
            )
            with framegate.Subscriber("pixels") as subscriber, subscriber.take(timeout=5) as frame:
                assert (frame.array.dtype, frame.array.shape) == (array.dtype, array.shape)
                off = np.abs(frame.array.astype(np.int32) - array)
                assert off.max() <= tolerance
                assert (frame.timestamp, frame.content_type) == (2.5, None)
        # A topic of one shape takes pictures of that size, and arrays as ever.
        assert post("fixed", "png", encoded("png", colour)).status_code == 201
        assert client.post("/topics/fixed", content=colour.tobytes()).status_code == 200
        sequence = client.get("/topics/pixels").json()["sequence"]
        large = np.zeros((81, 100), np.uint8)
        for topic, coding, content, expected in [
            ("fixed", "png", encoded("png", grid), (422, "schema-mismatch")),
            ("pixels", "png", encoded("png", large), (413, "frame-too-large")),
            ("pixels", "png", encoded("png", np.dstack([colour, grid])), (413, "frame-too-large")),
            ("pixels", "png", encoded("png", colour)[:-30], (422, "picture")),
            ("pixels", "jpeg", b"\xff\xd8\xff and nothing", (422, "picture")),
            ("pixels", "jpeg", bytes(100 * 80 * 3), (422, "picture")),
            ("pixels", "jpeg", bytes(100 * 80 * 3 + 1), (413, "frame-too-large")),
        ]:
            assert problem(post(topic, coding, content)) == expected
        # Of a form, too; what is neither is kept.
        file = ("a.png", encoded("png", colour), "image/png")
        assert client.post("/topics/pixels", files={"frame": file}).json()["bytes"] == colour.nbytes
        post("pixels", "webp", b"RIFF")
        assert client.get("/topics/pixels").json()["sequence"] == sequence + 2
        assert client.get("/topics/pixels?view=latest").content == b"RIFF"


def test_newer_frame_is_waited_for(routes: Routes) -> None:
    with (
        framegate.Publisher("raw/a", slot_bytes=100) as publisher,
        httpx.Client(base_url=routes(topics_poll=20).url, timeout=30) as client,
    ):
        publisher.send(b"one")
        answers: list[httpx.Response] = []

        def wait() -> None:
            answers.append(client.get("/topics/raw/a?view=latest&after=1"))

        waiting = threading.Thread(target=wait)
        waiting.start()
        with Inspector("raw/a") as inspector:
            while not inspector.report().subscribers:
                os.sched_yield()
        publisher.send(b"two")
        waiting.join(30)
        assert answers[0].content == b"two"
        # It goes on for the next one, and ends when nothing comes.
        answer = client.get("/topics/raw/a?view=latest&after=2&timeout=0.05")
        assert answer.status_code == 204


def test_topic_that_was_created_again_has_other_tags_and_is_found(routes: Routes) -> None:
    with httpx.Client(base_url=routes().url) as client:
        tags = set()
        for life in range(3):
            client.post("/topics/raw/a", content=b"%d" % life)
            answer = client.get("/topics/raw/a?view=latest")
            assert (answer.content, answer.headers["frame-sequence"]) == (b"%d" % life, "1")
            tags.add(answer.headers["etag"])
            framegate.Topic.open("raw/a").unlink()
        assert len(tags) == 3
        assert problem(client.get("/topics/raw/a?view=latest")) == (404, "topic-unknown")


def test_topics_are_listed_without_paths(routes: Routes, runtime: Path) -> None:
    with (
        framegate.Publisher("b", slot_bytes=10) as publisher,
        httpx.Client(base_url=routes().url) as client,
    ):
        publisher.send(b"x")
        client.post("/topics/camera/front", content=PICTURE.tobytes())
        answer = client.get("/topics")
        assert [topic["name"] for topic in answer.json()["topics"]] == ["b", "camera/front"]
        described = {
            "name": "camera/front",
            "dtype": "uint8",
            "shape": [4, 6, 3],
            "slots": 4,
            "slot_bytes": 72,
            "sequence": 1,
            "publishers": 1,
            "subscribers": 0,
            "responders": 0,
            "leases": 0,
            "lost": 0,
        }
        assert answer.json()["topics"][1] == described
        assert client.get("/topics/camera/front").json() == described
        assert runtime.name not in answer.text


def test_participants_are_told_with_what_they_hold(routes: Routes) -> None:
    with (
        framegate.Publisher("raw/a", slot_bytes=10, slots=4, name="source") as publisher,
        framegate.Subscriber("raw/a", policy="queue", name="reader") as reader,
        httpx.Client(base_url=routes().url) as client,
    ):
        for _ in range(3):
            publisher.send(b"x")
        frame = reader.take(timeout=10)
        assert frame is not None
        with frame:
            answer = client.get("/topics/raw/a?view=participants")
            source, held = answer.json()["participants"]
        ages = held.pop("oldest_ms"), held.pop("behind_ms")
        assert all(0 <= age < 60_000 for age in ages)
        assert ages[0] >= ages[1], "the frame that is held came before that which is not taken"
        both = {"pid": os.getpid(), "alive": True, "lost": 0}
        assert held == both | {
            "name": "reader",
            "role": "subscriber",
            "policy": "queue",
            "frames": 1,
            "lag": 2,
            "holds": 1,
        }
        assert source == both | {
            "name": "source",
            "role": "publisher",
            "policy": None,
            "frames": 3,
            "lag": 0,
            "holds": 0,
            "oldest_ms": None,
            "behind_ms": None,
        }
        # The list says how many are held and were lost, over all subscribers.
        for _ in range(10):
            publisher.send(b"x")
        late = reader.take(timeout=10)
        assert late is not None
        with late:
            (topic,) = client.get("/topics").json()["topics"]
            assert topic["leases"] == 1
            assert topic["lost"] == late.sequence - 2
        assert problem(client.get("/topics/raw/b?view=participants")) == (404, "topic-unknown")
        # It is a view of the topic, for who may read that.
        elsewhere = client.get("/topics/raw/a?view=participants", headers={"host": "elsewhere"})
        assert elsewhere.status_code in (401, 403)


def test_topics_are_created_by_rules_alone(routes: Routes, runtime: Path) -> None:
    with httpx.Client(base_url=routes(topics_max=2).url) as client:
        for topic in ("other", "known", "camera"):
            assert problem(client.post(f"/topics/{topic}", content=b"x")) == (404, "topic-unknown")
        assert not list(runtime.glob("*.ctl"))
        assert client.post("/topics/raw/a", content=b"x").status_code == 201
        assert client.post("/topics/raw/b", content=b"x").status_code == 201
        answer = client.post("/topics/raw/c", content=b"x")
        assert problem(answer) == (507, "topics-exhausted")
        assert client.post("/topics/raw/a", content=b"x").status_code == 200


def test_topics_take_half_of_the_memory_at_most(routes: Routes, runtime: Path) -> None:
    free = os.statvfs(runtime)
    bytes_free = free.f_bavail * free.f_frsize
    # Three quarters: others free memory meanwhile.
    rules = {"large": {"create": True, "slots": 2, "slot_bytes": bytes_free * 3 // 8}}
    with httpx.Client(base_url=routes(topic_rules=rules).url) as client:
        answer = client.post("/topics/large", content=b"x")
        assert problem(answer) == (507, "storage-full")
        assert runtime.name not in answer.text
        assert not list(runtime.glob("*.ctl"))


def test_wrong_frames_publish_nothing(routes: Routes) -> None:
    with httpx.Client(base_url=routes().url) as client:
        topic = "/topics/camera/front"
        client.post(topic, content=PICTURE.tobytes())
        for content, head, expected in [
            (PICTURE.tobytes()[1:], {}, (400, "frame-length")),
            (PICTURE.tobytes() + b"x", {}, (413, "frame-too-large")),
            (PICTURE.tobytes(), {**HEAD, "Frame-Dtype": "int8"}, (422, "schema-mismatch")),
            (PICTURE.tobytes(), {"Frame-Dtype": "uint8"}, (400, "frame-head")),
            (PICTURE.tobytes(), {"Content-Type": "image/png"}, (415, "unsupported-type")),
        ]:
            assert problem(client.post(topic, content=content, headers=head)) == expected
        assert client.get(topic).json()["sequence"] == 1


def test_full_topic_is_503_and_names_a_time(routes: Routes) -> None:
    server = routes(topics_wait=0.02)
    with httpx.Client(base_url=server.url) as client:
        with framegate.Publisher("raw/a", slots=2, slot_bytes=10) as publisher:
            publisher.send(b"x")
            with framegate.Subscriber("raw/a") as subscriber, subscriber.take(timeout=5):
                with publisher.loan(10):
                    answer = client.post("/topics/raw/a", content=b"y")
                    assert problem(answer) == (503, "topic-full")
                    assert answer.headers["retry-after"] == "1"
            assert client.post("/topics/raw/a", content=b"y").status_code == 200


def test_frames_go_over_http2_too(routes: Routes) -> None:
    server = routes()
    with Client(server.connect()) as client:
        stream = client.request(
            "/topics/raw/a", b"x" * 60_000, method="POST", authority="localhost"
        )
        assert client.answer(stream).status == 201
        stream = client.request("/topics/raw/a?view=latest", authority="localhost")
        assert client.answer(stream).body == b"x" * 60_000


def half_a_post(port: int, topic: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = f"POST /topics/{topic} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 60000\r\n\r\n"
    connection.sendall(head.encode() + b"x" * 30_000)
    return connection


def test_client_that_leaves_in_mid_body_gives_its_slot_back(routes: Routes) -> None:
    server = routes()
    with httpx.Client(base_url=server.url) as client:
        client.post("/topics/raw/a", content=b"first")
        connection = half_a_post(server.port, "raw/a")
        wait_until(lambda: loaned("raw/a") == 1)
        connection.close()
        wait_until(lambda: loaned("raw/a") == 0)
        assert client.get("/topics/raw/a?view=latest").content == b"first"


PUBLISHER = """
import socket, sys, time
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
head = "POST /topics/raw/a HTTP/1.1\\r\\nhost: localhost\\r\\ncontent-length: 60000\\r\\n\\r\\n"
connection.sendall(head.encode() + b"x" * 30_000)
print("half", flush=True)
time.sleep(600)
"""


def test_publisher_killed_in_mid_frame_publishes_nothing(routes: Routes) -> None:
    server = routes()
    with httpx.Client(base_url=server.url) as client:
        client.post("/topics/raw/a", content=b"first")
        command = [sys.executable, "-c", PUBLISHER, str(server.port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"half\n"
            wait_until(lambda: loaned("raw/a") == 1)
            process.kill()
        wait_until(lambda: loaned("raw/a") == 0)
        assert client.get("/topics/raw/a?view=latest").content == b"first"
        assert client.post("/topics/raw/a", content=b"second").json()["sequence"] == 2


def test_worker_killed_in_mid_body_leaves_the_topic_to_the_next(
    launch: Launch, runtime: Path
) -> None:
    rules = "raw/* " + json.dumps({"create": True, "slots": 2, "slot_bytes": 65536})
    server = launch(
        "supervised_apps:app",
        "--workers=1",
        "--worker-timeout=60",
        "--topics=/topics",
        f"--topic-rules={rules}",
        extra={"FRAMEGATE_RUNTIME_DIR": str(runtime)},
    ).wait_ready()
    url = f"http://127.0.0.1:{server.port}"
    with framegate.Publisher("raw/a", slots=2, slot_bytes=65536) as publisher:
        publisher.send(b"first")
        connection = half_a_post(server.port, "raw/a")
        wait_until(lambda: loaned("raw/a") == 1)
        os.kill(server.worker_pids[0], signal.SIGKILL)
        connection.close()
        while True:
            try:
                answer = httpx.post(f"{url}/topics/raw/a", content=b"second", timeout=30)
                break
            except httpx.TransportError:
                continue  # the next worker starts
        assert answer.json()["sequence"] == 2
        with framegate.Subscriber("raw/a") as subscriber, subscriber.take(timeout=5) as frame:
            assert bytes(frame) == b"second"


def test_refusals_are_logged_with_their_code_and_without_paths(
    routes: Routes, caplog: pytest.LogCaptureFixture
) -> None:
    with httpx.Client(base_url=routes().url) as client:
        for _ in range(3):
            client.post("/topics/none", content=b"x")
    lines = [record.getMessage() for record in caplog.records if "frame route" in record.message]
    assert len(lines) == 1
    assert "topic-unknown" in lines[0] and "'none'" in lines[0].replace('"', "'")


def test_star_of_a_rule_is_one_part_of_a_name(routes: Routes) -> None:
    rule = {"create": True, "slots": 2, "slot_bytes": 10}
    refused = {"slots": 2, "slot_bytes": 10}
    rules = {"a/secret/**": refused, "a/*": rule, "a/b/**": rule, "*/left": rule}
    with httpx.Client(base_url=routes(topic_rules=rules).url) as client:
        for topic, status in [
            ("a/x", 201),
            ("a/x/y", 404),
            ("a/b", 201),
            ("a/b/c", 201),
            ("a/b/c/d", 201),
            ("a/secret/x", 404),
            ("c/left", 201),
            ("left", 404),
            ("a", 404),
        ]:
            assert client.post(f"/topics/{topic}", content=b"x").status_code == status, topic


@pytest.mark.parametrize("pattern", ["cam*", "a//b", "/a", "a/", "**/a", "a/**/b", "a?", ""])
def test_text_that_is_no_pattern_is_refused_at_the_start(pattern: str) -> None:
    with pytest.raises(errors.ConfigError, match="is no pattern of topics"):
        framegate.Config(topics="/topics", topic_rules={pattern: {"slots": 2}})


def test_rules_are_checked_when_the_server_is_configured() -> None:
    def given(**rule: Any) -> None:
        framegate.Config(topics="/topics", topic_rules={"a": rule})

    given(create=True, slot_bytes="1MiB")
    for rule, words in [
        ({"create": True}, "create needs slot_bytes"),
        ({"create": 1}, "create is true or false"),
        ({"decode": "yes"}, "decode is true or false"),
        ({"slots": 1}, "slots is a whole number from 2"),
        ({"dtype": "uint8"}, "dtype and shape go together"),
        ({"dtype": "u8", "shape": [1]}, "dtype is one of bool"),
        ({"dtype": "uint8", "shape": [0]}, "shape is at most 8"),
        ({"dtype": "uint16", "shape": [10], "slot_bytes": 19}, "has 20"),
        ({"slot_bytes": "1MB"}, "slot_bytes is 1 to"),
        ({"slot": 1}, "unknown key slot"),
    ]:
        with pytest.raises(errors.ConfigError, match=words):
            given(**rule)
