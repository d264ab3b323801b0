"""Frames across machines, over Eclipse Zenoh: `platform bridge`, from Python.

```python
import framegate.bridge

with framegate.bridge.Bridge(
    "tcp/gateway:7447", publish=["camera/**"], subscribe=["detector/**,name={host}/{topic}"]
) as bridge:
    bridge.wait_connected()
    print(bridge.status())
```

A topic of another host becomes a topic here, which everything works with that works with topics.
Its frames have the arrays, the application's time, the metadata and the type that they were
published with; `source` says which sequence and time of publication they had there. Needs the extra
`framegate[zenoh]`.
"""

from __future__ import annotations

from typing import NamedTuple

from framegate.bridge.discovery import RemoteTopic, discover
from framegate.bridge.engine import Bridge
from framegate.bridge.frames import PUBLISHED, SEQUENCE
from framegate.bridge.options import Call, Publish, Subscribe
from framegate.errors import BridgeError
from framegate.shm import Frame

__all__ = [
    "Bridge",
    "BridgeError",
    "Call",
    "Publish",
    "RemoteTopic",
    "Source",
    "Subscribe",
    "discover",
    "source",
]


class Source(NamedTuple):
    """What a frame was where it comes from; see `source`.

    Attributes:
        sequence: Its sequence in the topic there.
        published_unix_ns: When it was published there, in nanoseconds of Unix time by that
            machine's clock.
    """

    sequence: int
    published_unix_ns: int


def source(frame: Frame) -> Source | None:
    """What a frame was on the host that it comes from; None if it did not come over a bridge."""
    metadata = frame.metadata
    sequence, published = metadata.get(SEQUENCE), metadata.get(PUBLISHED)
    if isinstance(sequence, int) and isinstance(published, int):
        return Source(sequence, published)
    return None
