"""What may come wrong: each a problem with the right status, told of once, nothing published."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import framegate
from server_thread import Server
from topics.waiting import loaned, wait_until

Routes = Callable[..., Server]

RULES = {
    "array": {"create": True, "slots": 4, "dtype": "uint8", "shape": [4, 6, 3]},
    "raw": {"create": True, "slots": 4, "slot_bytes": "64KiB"},
    "pixels": {"create": True, "slots": 4, "slot_bytes": "64KiB", "decode": True},
    "known": {"slots": 2, "slot_bytes": 10},
}
ARRAY = {"Frame-Dtype": "uint8", "Frame-Shape": "4,6,3"}
PNG = {"Content-Type": "image/png"}
NPY = {"Content-Type": "application/x-npy"}
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, "PNG")
    return file.getvalue()


def part(content: bytes, fields: bytes = b"") -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n'
    return head + fields + b"\r\n" + content + b"\r\n"


CASES: dict[str, tuple[str, dict[str, str], bytes, int, str]] = {
    "no such topic": ("other", {}, b"x", 404, "topic-unknown"),
    "a rule that creates nothing": ("known", {}, b"x", 404, "topic-unknown"),
    "no name of a topic": ("a//b", {}, b"x", 400, "topic-name"),
    "another kind": ("array", {"Content-Type": "image/png"}, b"x", 415, "unsupported-type"),
    "another dtype": ("array", {**ARRAY, "Frame-Dtype": "int8"}, bytes(72), 422, "schema-mismatch"),
    "another shape": ("array", {**ARRAY, "Frame-Shape": "72"}, bytes(72), 422, "schema-mismatch"),
    "a shape that is none": ("raw", {**ARRAY, "Frame-Shape": "4,x"}, b"", 400, "frame-head"),
    "a shape like no memory": (
        *("raw", {**ARRAY, "Frame-Shape": "4294967296,4294967296"}, b"", 400, "frame-head"),
    ),
    "too short": ("array", {}, bytes(71), 400, "frame-length"),
    "too long": ("array", {}, bytes(73), 413, "frame-too-large"),
    "larger than a slot": ("raw", {}, bytes(65_537), 413, "frame-too-large"),
    "an array larger than a slot": (
        *("raw", {**ARRAY, "Frame-Shape": "65537"}, b"x", 413, "frame-too-large"),
    ),
    "compressed": ("raw", {"Content-Encoding": "gzip"}, b"x", 415, "unsupported-type"),
    "objects of Python": ("raw", NPY, npy(np.array([{}], object)), 400, "npy"),
    "a file of numpy of another type": ("array", NPY, npy(np.zeros(72)), 422, "schema-mismatch"),
    "a file of numpy that is cut": ("raw", NPY, npy(np.zeros(9))[:-1], 400, "frame-length"),
    "too many pixels": ("pixels", PNG, png(101, 100), 413, "frame-too-large"),
    "no picture": ("pixels", PNG, png(10, 10)[:-20], 422, "picture"),
    "a form without an end": ("raw", FORM, part(b"x"), 400, "body-incomplete"),
    "a form without a file": ("raw", FORM, b"--b--", 400, "multipart"),
    "a part that is too large": ("raw", FORM, part(bytes(65_537)), 413, "frame-too-large"),
    "a part in base64": (
        *("raw", FORM, part(b"eA==", b"Content-Transfer-Encoding: base64\r\n")),
        *(415, "unsupported-type"),
    ),
}  # fmt: skip


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [text for text in caplog.messages if text.startswith("a frame route")]


@pytest.mark.parametrize("is_chunked", [False, True], ids=["declared", "chunked"])
def test_bad_frame_is_a_problem_and_publishes_nothing(routes: Routes, is_chunked: bool) -> None:
    server = routes(topic_rules=RULES, topics_pixels_max=10_000)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        good = 0
        for case, (topic, head, content, status, code) in CASES.items():
            if case == "too long" and is_chunked:
                # Without a length a frame is compared with its topic when it has come.
                status, code = 400, "frame-length"
            body: Any = iter([content]) if is_chunked else content
            # A connection may be closed after a refusal: the body was not read.
            answer = httpx.post(f"{server.url}/topics/{topic}", content=body, headers=head)
            assert answer.status_code == status, (case, answer.text)
            assert answer.headers["content-type"] == "application/problem+json", case
            problem = answer.json()
            assert (problem["status"], problem["code"]) == (status, code), case
            assert problem["type"] == f"urn:framegate:problem:{code}"
            assert problem["title"] and problem["detail"], case
            # The server goes on.
            good += 1
            answer = httpx.post(f"{server.url}/topics/raw", content=b"good")
            assert answer.json()["sequence"] == good, case
        others = [one["sequence"] for one in client.get("/topics").json()["topics"]]
        assert sum(others) == good


LEAVING = [
    b"content-length: 60000\r\n\r\n" + bytes(30_000),
    b"transfer-encoding: chunked\r\n\r\n7530\r\n" + bytes(30_000),
    b"content-length: 60000\r\ncontent-type: multipart/mixed; boundary=b\r\n\r\n"
    + b"--b\r\n\r\n"
    + bytes(30_000),
    b"content-length: 40128\r\ncontent-type: application/x-npy\r\n\r\n"
    + npy(np.zeros(5000))[:9000],
]


@pytest.mark.parametrize("head_and_some", LEAVING, ids=["declared", "chunked", "multipart", "npy"])
def test_client_that_leaves_in_mid_frame_is_told_of_once(
    routes: Routes, head_and_some: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server = routes(topic_rules=RULES)
    with httpx.Client(base_url=server.url) as client:
        client.post("/topics/raw", content=b"first")
        connection = server.connect()
        connection.sendall(b"POST /topics/raw HTTP/1.1\r\nhost: localhost\r\n" + head_and_some)
        wait_until(lambda: loaned("raw") == 1)
        connection.close()
        wait_until(lambda: loaned("raw") == 0)
        assert client.get("/topics/raw?view=latest").content == b"first"
        wait_until(lambda: bool(told(caplog)))
        (line,) = told(caplog)
        assert "refused: body-incomplete" in line


HOLDER = """
import sys, time
import framegate
subscriber = framegate.Subscriber("raw", "queue", max_leases=3)
print("ready", flush=True)
held = [subscriber.take(timeout=30) for _ in range(3)]
print("held", flush=True)
time.sleep(600)
"""


def test_consumer_that_dies_with_frames_gives_them_back(routes: Routes) -> None:
    server = routes(topic_rules=RULES, topics_wait=0.02)
    with httpx.Client(base_url=server.url, timeout=30) as client:
        client.post("/topics/raw", content=b"first")
        command = [sys.executable, "-c", HOLDER]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            for _ in range(3):
                assert client.post("/topics/raw", content=b"x").status_code == 200
            assert process.stdout.readline() == b"held\n"
            with framegate.Publisher("raw") as publisher, publisher.loan(10):
                answer = client.post("/topics/raw", content=b"y")
                assert (answer.status_code, answer.json()["code"]) == (503, "topic-full")
                assert answer.headers["retry-after"] == "1"
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                answer = client.post("/topics/raw", content=b"y")
                while answer.status_code == 503:
                    answer = client.post("/topics/raw", content=b"y")
                assert answer.json()["sequence"] == 5
