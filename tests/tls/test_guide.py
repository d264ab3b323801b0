"""The certificate that the guide makes is one that the server takes."""

from __future__ import annotations

import re
import ssl
import subprocess
from pathlib import Path

from tls.apps import app
from tls.conftest import ServeTls

GUIDE = Path(__file__).parents[2] / "docs/guide/tls.md"


def test_certificate_of_the_guide(serve_tls: ServeTls, tmp_path: Path) -> None:
    match = re.search(r"^\$ (openssl req .*?)\n```", GUIDE.read_text(), re.M | re.S)
    assert match
    subprocess.run(["sh", "-ec", match[1]], cwd=tmp_path, check=True, capture_output=True)
    client = serve_tls(
        app, ssl_certfile=tmp_path / "server.pem", ssl_keyfile=tmp_path / "server.key"
    )
    context = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
    assert client.get(context=context).endswith(b"hello")
    assert client.get(name="127.0.0.1", context=context).endswith(b"hello")
