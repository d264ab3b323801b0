"""Topics of another machine, over its frame routes: the names of `framegate`, with URLs for topics.

```python
from framegate.remote import Subscriber  # on the same machine: from framegate import Subscriber

with Subscriber("http://robot:8000/topics/camera") as frames:  # Subscriber("camera")
    for frame in frames:
        print(frame.sequence, frame.array.shape)
```

`Subscriber` and `Publisher` each hold a WebSocket (`framegate.client`); `Caller`, `latest` and
`topics` make requests of HTTP. A frame is the same `framegate.Frame` as in shared memory; its bytes
lie in the message that brought it. What the server refuses is the exception that shared memory has
for it: `TopicNotFound`, `TopicFull`, `NoResponder`.
"""

from __future__ import annotations

from framegate.errors import RequestRefused
from framegate.remote.requests import (
    Caller,
    call,
    call_async,
    latest,
    latest_async,
    topics,
    topics_async,
)
from framegate.remote.sockets import Publisher, Subscriber
from framegate.shm import Frame

__all__ = [
    "Caller",
    "Frame",
    "Publisher",
    "RequestRefused",
    "Subscriber",
    "call",
    "call_async",
    "latest",
    "latest_async",
    "topics",
    "topics_async",
]
