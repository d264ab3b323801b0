"""An application may answer while its client still sends; the client gets that answer."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from apps import respond
from peers.raw import head, read_all, read_head

UPLOAD_BYTES = 8 * 2**20


async def refusing(scope: Any, receive: Any, send: Any) -> None:
    """Answer without a look at the body."""
    await respond(send, b"no", status=403)


async def reading_a_little(scope: Any, receive: Any, send: Any) -> None:
    """Answer after the first piece of the body."""
    event = await receive()
    assert event["body"]
    assert event["more_body"]
    await respond(send, b"no", status=403)


@pytest.mark.parametrize("app", [refusing, reading_a_little])
@pytest.mark.parametrize(
    "fields",
    [
        ["Expect:"],
        ["Expect: 100-continue"],
        ["Expect:", "Transfer-Encoding: chunked"],
        ["Expect: 100-continue", "Transfer-Encoding: chunked"],
    ],
    ids=" ".join,
)
def test_curl_gets_the_answer_to_an_upload_that_is_not_read(
    serve: Any, tmp_path: Path, app: Any, fields: list[str]
) -> None:
    server = serve(app, lifespan="off")
    upload = tmp_path / "upload"
    upload.write_bytes(bytes(UPLOAD_BYTES))
    arguments = [word for field in fields for word in ("--header", field)]
    done = subprocess.run(
        [
            *("curl", "--silent", "--show-error", "--http1.1", "--max-time", "60"),
            *("--expect100-timeout", "30", *arguments),
            *("--write-out", " %{http_code}", "--upload-file", str(upload), server.url),
        ],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "no 403"), done.stderr


def test_the_whole_upload_may_be_sent_before_the_answer_is_read(serve: Any) -> None:
    server = serve(refusing, lifespan="off")
    with server.connect() as client:
        client.sendall(head("POST", "/", f"content-length: {UPLOAD_BYTES}"))
        client.sendall(bytes(UPLOAD_BYTES))
        assert read_head(client).startswith(b"HTTP/1.1 403 ")
        # Too much to be read for one more request, so the connection ends; without a reset.
        assert read_all(client) == b"no"
