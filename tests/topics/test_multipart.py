"""Multipart bodies: what other programs write is what consumers see, part by part."""

from __future__ import annotations

import asyncio
import email
import email.generator
import email.policy
import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.mime.multipart import MIMEMultipart
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import framegate
from server_thread import Server

Routes = Callable[..., Server]

SLOTS = 32
SLOT_BYTES = 4096
RULES = {"cam/*": {"create": True, "slots": SLOTS, "slot_bytes": SLOT_BYTES}}


@pytest.fixture
def server(routes: Routes) -> Server:
    return routes(topic_rules=RULES)


def curl(*arguments: str) -> Any:
    done = subprocess.run(
        ["curl", "--silent", "--show-error", *arguments], capture_output=True, check=True
    )
    return json.loads(done.stdout)


def test_curl_sends_a_form_of_files(server: Server, tmp_path: Path) -> None:
    picture = b"\xff\xd8\xff\xe0\r\n--and so on"
    (tmp_path / "picture.jpg").write_bytes(picture)
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "array.npy", array)
    (tmp_path / "raw").write_bytes(array.tobytes())
    url = f"{server.url}/topics/cam/a"
    answer = curl("-F", f"frame=@{tmp_path}/picture.jpg", url)
    assert answer == {"topic": "cam/a", "frames": 1, "bytes": len(picture), "sequences": [1]}
    with framegate.Subscriber("cam/a", "queue") as subscriber:
        answer = curl(
            *("-F", f"frame=@{tmp_path}/picture.jpg"),
            *("-F", "note=no file"),
            *("-F", f"frame=@{tmp_path}/array.npy;type=application/x-npy"),
            "-F",
            f'frame=@{tmp_path}/raw;headers="Frame-Dtype: float32";headers="Frame-Shape: 2, 3"',
            url,
        )
        assert answer["sequences"] == [2, 3, 4]
        with subscriber.take(timeout=5) as frame:
            assert (bytes(frame), frame.content_type) == (picture, "image/jpeg")
        for _ in range(2):
            with subscriber.take(timeout=5) as frame:
                np.testing.assert_array_equal(frame.array, array)


def test_form_as_large_as_frames_of_cameras_goes_in(routes: Routes) -> None:
    shape = (480, 640, 3)
    rules = {"cam/*": {"create": True, "slots": 4, "dtype": "uint8", "shape": shape}}
    pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    file = ("pixels", pixels.tobytes(), "application/octet-stream")
    with httpx.Client(base_url=routes(topic_rules=rules).url) as client:
        answer = client.post("/topics/cam/a", files=[("frame", file), ("frame", file)])
        assert answer.json()["sequences"] == [1, 2]
        with framegate.Subscriber("cam/a") as subscriber, subscriber.take(timeout=5) as frame:
            np.testing.assert_array_equal(frame.array, pixels)
        # A frame that is a byte longer than the slot is none, and the one before it is there.
        long = ("pixels", pixels.tobytes() + b"x", "application/octet-stream")
        answer = client.post("/topics/cam/a", files=[("frame", file), ("frame", long)])
        assert (answer.status_code, answer.json()["code"]) == (400, "frame-length")
        assert "part 2" in answer.json()["detail"]
        assert client.get("/topics/cam/a").json()["sequence"] == 3


Part = tuple[str, str | None, bytes]
"""Name, type, bytes."""

# Control characters have no place in a field.
NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)
TYPES = st.sampled_from([None, "image/jpeg", "image/x-y", "text/plain"])
# Many ends of lines and dashes: what delimiters are made of.
BYTES = st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--", b"\r\n--", b"a", b"\x00", b"\xff"]))
PARTS = st.lists(st.tuples(NAMES, TYPES, BYTES.map(b"".join)), min_size=1, max_size=8)


def httpx_form(parts: list[Part]) -> tuple[str, bytes]:
    files = [
        ("frame", (name, data, *([kind] if kind is not None else []))) for name, kind, data in parts
    ]
    request = httpx.Request("POST", "http://x", files=files)  # type: ignore[arg-type]
    return request.headers["content-type"], request.read()


def aiohttp_stream(parts: list[Part]) -> tuple[str, bytes]:
    with aiohttp.MultipartWriter("x-mixed-replace") as writer:
        for _, kind, data in parts:
            writer.append(data, {"Content-Type": kind or "application/octet-stream"})  # type: ignore[arg-type]

    class Stream:
        body = b""

        async def write(self, data: bytes) -> None:
            self.body += bytes(data)

    stream = Stream()
    asyncio.run(writer.write(stream))
    return writer.content_type, stream.body


def python_mail(parts: list[Part]) -> tuple[str, bytes]:
    policy = email.policy.HTTP.clone(cte_type="8bit")
    whole = MIMEMultipart("mixed", policy=policy)
    whole.preamble = "This is a message in several parts."
    for _, kind, data in parts:
        part = EmailMessage(policy=policy)
        main, _, sub = (kind or "application/octet-stream").partition("/")
        # Mail has lines, and ends them in CR LF whatever they were.
        lines = b"\r\n".join(data.splitlines())
        part.set_content(lines, main, sub, cte="binary", filename="picture")
        whole.attach(part)
    file = io.BytesIO()
    email.generator.BytesGenerator(file, policy=policy).flatten(whole)
    head, _, body = file.getvalue().partition(b"\r\n\r\n")
    return email.message_from_bytes(head)["content-type"], body


@pytest.mark.parametrize("write", [httpx_form, aiohttp_stream, python_mail])
def test_parts_that_others_write_are_frames(
    server: Server, write: Callable[[list[Part]], tuple[str, bytes]]
) -> None:
    @settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)
    @given(PARTS)
    def check(parts: list[Part]) -> None:
        kind, body = write(parts)
        answer = client.post("/topics/cam/a", content=body, headers={"Content-Type": kind})
        assert answer.status_code == 200, (answer.text, body)
        assert answer.json()["frames"] == len(parts)
        for (_, _, data), sequence in zip(parts, answer.json()["sequences"], strict=True):
            with subscriber.take(timeout=5) as frame:
                expected = data if write is not python_mail else b"\r\n".join(data.splitlines())
                assert (frame.sequence, bytes(frame)) == (sequence, expected), body

    with httpx.Client(base_url=server.url) as client:
        client.post("/topics/cam/a", content=b"first")
        with framegate.Subscriber("cam/a", "queue") as subscriber:
            check()


def test_camera_pushes_pictures_in_one_request(server: Server) -> None:
    pictures = [os.urandom(SLOT_BYTES) for _ in range(20)]
    head = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\nFrame-Timestamp: %d\r\n\r\n"

    def stream() -> Iterator[bytes]:
        # As ffmpeg writes it: the delimiter follows the picture.
        yield b"--ffmpeg\r\n"
        for number, picture in enumerate(pictures):
            yield head % (len(picture), number) + picture + b"\r\n--ffmpeg\r\n"

    with httpx.Client(base_url=server.url) as client:
        client.post("/topics/cam/a", content=b"first")
        with framegate.Subscriber("cam/a", "queue") as subscriber:
            kind = {"Content-Type": "multipart/x-mixed-replace;boundary=ffmpeg"}
            answer = client.post("/topics/cam/a", content=stream(), headers=kind)
            assert answer.json()["frames"] == 20
            for number, picture in enumerate(pictures):
                with subscriber.take(timeout=5) as frame:
                    assert bytes(frame) == picture
                    assert frame.timestamp == number


def test_full_topic_costs_a_camera_one_frame_and_ends_a_form(routes: Routes) -> None:
    server = routes(topics_wait=0.02)
    with (
        framegate.Publisher("raw/a", slots=2, slot_bytes=10) as publisher,
        httpx.Client(base_url=server.url) as client,
    ):
        publisher.send(b"x")
        part = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\ny\r\n'
        with framegate.Subscriber("raw/a") as subscriber, subscriber.take(timeout=5):
            with publisher.loan(10):
                kind = {"Content-Type": "multipart/form-data; boundary=b"}
                answer = client.post("/topics/raw/a", content=part + b"--b--", headers=kind)
                assert answer.status_code == 503
                assert answer.headers["retry-after"] == "1"
                kind = {"Content-Type": "multipart/mixed; boundary=b"}
                answer = client.post("/topics/raw/a", content=part + b"--b--", headers=kind)
                assert answer.status_code == 200
                assert answer.json() == {
                    "topic": "raw/a",
                    "frames": 0,
                    "bytes": 0,
                    "dropped": 1,
                    "sequences": [],
                }


def test_limit_of_parts_is_a_setting(routes: Routes) -> None:
    with httpx.Client(base_url=routes(topics_parts_max=2).url) as client:
        files = [("frame", b"x")] * 3
        assert client.post("/topics/raw/a", files=files[:2]).status_code == 201
        answer = client.post("/topics/raw/a", files=files)
        assert (answer.status_code, answer.json()["code"]) == (400, "multipart")
        assert client.get("/topics/raw/a").json()["sequence"] == 4
