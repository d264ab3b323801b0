"""Forms: fields and files as arguments, limits on both sides, and memory that does not grow."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest

from framegate import App
from framegate.app import Form, FormLimits, Upload
from framegate.errors import RouteError
from routes.conftest import Client


def test_fields_and_files_become_arguments(client: Client, tmp_path: Path) -> None:
    app = App(forms=FormLimits(memory_bytes=1000, directory=str(tmp_path)))
    kept: list[Upload] = []

    @app.post("/{album:int}")
    async def add(
        album: int,
        title: Annotated[str, Form(max_length=5)],
        picture: Upload,
        more: list[Upload] | None = None,
        none: Upload | None = None,
        tags: Annotated[list[int], Form()] = [],  # noqa: B006
        *,
        public: Annotated[bool, Form()] = False,
        verbose: bool = False,
    ) -> Any:
        kept.append(picture)
        first = await picture.read(2)
        rest = b"".join([piece async for piece in picture])
        await picture.seek(0)
        return {
            "album": album,
            "title": title,
            "tags": tags,
            "public": public,
            "verbose": verbose,
            "picture": [picture.name, picture.media_type, picture.size, (first + rest).decode()],
            "again": len(await picture.read()),
            "more": [(await one.read()).decode() for one in more or []],
            "none": none,
        }

    session = client(app)
    for size in (10, 5000):  # in memory and on disk
        reply = session.post(
            "/7?verbose=1",
            data={"title": "tütle", "tags": ["1", "2"], "public": "yes"},
            files=[
                ("picture", ("a b.txt", b"p" * size, "image/png")),
                ("more", ("x", b"1")),
                ("more", ("y", b"2")),
                ("none", ("", b"")),
            ],
        )
        assert reply.status_code == 200, reply.text
        assert reply.json() == {
            "album": 7,
            "title": "tütle",
            "tags": [1, 2],
            "public": True,
            "verbose": True,
            "picture": ["a b.txt", "image/png", size, "p" * size],
            "again": size,
            "more": ["1", "2"],
            "none": None,
        }
        assert kept.pop().file.closed
    refused = session.post(
        "/7",
        data={"title": "too long", "tags": "x"},
        files=[("other", ("a", b"")), ("more", ("b", b""))],
    )
    assert refused.status_code == 422
    told = {(one["in"], one["name"]): one["detail"] for one in refused.json()["errors"]}
    assert told == {
        ("form", "title"): "must have 5 characters or fewer",
        ("form", "tags"): "must be an integer",
        ("form", "picture"): "is required",
    }
    twice = [("picture", ("a", b"")), ("picture", ("b", b""))]
    refused = session.post("/7", data={"title": "a"}, files=twice)
    assert [one["detail"] for one in refused.json()["errors"]] == ["is there more than once"]
    assert session.post("/7", data={"title": "a"}).status_code == 422
    assert session.post("/7", json={}).status_code == 415


def test_forms_without_files_may_be_encoded(client: Client) -> None:
    app = App(forms=FormLimits(fields_bytes=40))

    @app.post("/")
    def login(
        name: Annotated[str, Form()], number: Annotated[int, Form(alias="n", ge=1)] = 1
    ) -> Any:
        return [name, number]

    session = client(app)
    assert session.post("/", data={"name": "a ü&=", "n": "2"}).json() == ["a ü&=", 2]
    assert session.post("/", files={"name": (None, "b")}).json() == ["b", 1]
    told = session.post("/", data={"n": "0"}).json()["errors"]
    assert sorted(one["name"] for one in told) == ["n", "name"]
    assert session.post("/", data={"name": "x" * 35}).status_code == 200
    assert session.post("/", data={"name": "x" * 36}).status_code == 413


def test_forms_have_limits(client: Client) -> None:
    app = App(forms=FormLimits(parts=3, field_bytes=10, fields_bytes=15, file_bytes=20))

    @app.post("/")
    async def handler(
        a: Annotated[list[str], Form()] = [],  # noqa: B006
        file: Upload | None = None,
    ) -> None:
        pass

    session = client(app)

    def status(fields: list[str], file: bytes | None = None) -> tuple[int, str]:
        files: list[Any] = [("a", (None, field)) for field in fields]
        if file is not None:
            files.append(("file", ("f", file)))
        reply = session.post("/", files=files)
        return reply.status_code, reply.text

    assert status(["x", "y"], b"1" * 20)[0] == 204
    assert status(["x", "y", "z"], b"1")[0] == 400
    assert "at most 3 parts" in status(["x", "y", "z"], b"1")[1]
    assert status(["x"], b"1" * 21)[0] == 413
    assert status(["x" * 10, "y" * 5])[0] == 204
    assert status(["x" * 11])[0] == 413
    assert status(["x" * 10, "y" * 6])[0] == 413
    wrong = {"content-type": "multipart/form-data; boundary=x"}
    refused = session.post("/", headers=wrong, content=b"--y\r\n")
    assert refused.status_code == 400
    assert "multipart" in refused.json()["detail"] or "body" in refused.json()["detail"]


def test_an_upload_takes_no_memory(client: Client, tmp_path: Path) -> None:
    app = App(forms=FormLimits(directory=str(tmp_path)))

    @app.post("/")
    async def handler(file: Upload) -> list[int]:
        return [file.size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]

    head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'
    count = 96

    def body(pieces: int) -> Iterator[bytes]:
        yield head
        for _ in range(pieces):
            yield b"\r\n--" * (1 << 18)  # nearly a delimiter, over and over
        yield b"\r\n--x--\r\n"

    session = client(app)
    headers = {"content-type": "multipart/form-data; boundary=x"}
    size, before = session.post("/", headers=headers, content=body(4)).json()
    assert size == 4 << 20
    size, after = session.post("/", headers=headers, content=body(count)).json()
    assert size == count << 20
    # Kilobytes.
    assert after - before < 32 << 10
    assert list(tmp_path.iterdir()) == []


def test_signatures_of_forms_that_cannot_be_say_so() -> None:
    app = App()
    with pytest.raises(RouteError, match="beside fields of a form"):

        @app.post("/")
        async def both(body: bytes, field: Annotated[str, Form()]) -> None: ...

    with pytest.raises(RouteError, match="no text becomes"):

        @app.post("/")
        async def deep(field: Annotated[dict[str, int], Form()]) -> None: ...
