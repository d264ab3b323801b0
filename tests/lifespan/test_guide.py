"""The example of docs/guide/lifecycle.md."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path
from typing import Any

from framegate import Server

GUIDE = Path(__file__).resolve().parents[2] / "docs/guide/lifecycle.md"


def test_guide_example_serves() -> None:
    match = re.search(
        r"<!-- run by: tests/lifespan -->\n```python\n(.*?)```", GUIDE.read_text(), re.S
    )
    assert match is not None
    names: dict[str, Any] = {}
    exec(match[1], names)
    with Server(
        names["app"], port=0, access_log=False, worker_scope="on"
    ).start_in_thread() as server:
        with urllib.request.urlopen(server.urls[0], timeout=60) as response:
            assert response.read() == b"{'scheduler': 'on'}"
