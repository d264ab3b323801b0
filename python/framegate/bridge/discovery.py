"""What other hosts offer, looked at once: `platform topic list --remote`."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from framegate import likeness, shm
from framegate.bridge import wire
from framegate.bridge.engine import configuration, endpoints, import_zenoh, words
from framegate.errors import BridgeError

__all__ = ["RemoteTopic", "discover"]

ASK_S: Final = 2.0
"""How long hosts may take to say what they have: those beyond slow links, too."""


@dataclass(frozen=True, slots=True)
class RemoteTopic:
    """A topic that a host offers; see `discover`.

    Attributes:
        host: Name of the host.
        name: Name of the topic there.
        frames: Whether its frames are offered.
        calls: Whether its responders are.
        schema: Arrays of every frame by name; empty if frames are free.
        slots: Number of slots there.
        slot_bytes: Payload bytes of a slot there.
        sequence: Newest sequence there; 0 before the first frame.
        metadata: What is said about the topic.
    """

    host: str
    name: str
    frames: bool
    calls: bool
    schema: Mapping[str, shm.ArraySpec]
    slots: int
    slot_bytes: int
    sequence: int
    metadata: Mapping[str, shm.Value]


def discover(
    connect: str | Iterable[str] = (),
    *,
    prefix: str = "framegate",
    zenoh_config: str | os.PathLike[str] | None = None,
    timeout: float = ASK_S,
) -> list[RemoteTopic]:
    """Say which topics hosts offer, by host and name.

    Args:
        connect: As for `Bridge`.
        prefix: As for `Bridge`.
        zenoh_config: As for `Bridge`.
        timeout: Seconds that hosts may take to answer.

    Raises:
        BridgeError: Nobody is there, or Zenoh is not installed.
        ConfigError: An endpoint or the prefix cannot be.
    """
    zenoh = import_zenoh()
    words("prefix", prefix.split("/"))
    where = endpoints(connect)
    try:
        session = zenoh.open(configuration(zenoh, where, (), zenoh_config))
    except BridgeError:
        raise
    except Exception as error:  # zenoh.ZError
        raise BridgeError(
            f"nobody answers at {', '.join(where) or zenoh_config}",
            cause=str(error).strip(),
            fix="start a bridge with --listen there, or a Zenoh router",
        ) from None
    try:
        offered: dict[tuple[str, str], set[str]] = {}
        for reply in session.liveliness().get(f"{prefix}/live/**", timeout=timeout):
            if reply.ok is None:
                continue
            parts = str(reply.ok.key_expr).removeprefix(f"{prefix}/live/").split("/", 4)
            if len(parts) == 5:
                offered.setdefault((parts[0], parts[4]), set()).add(parts[3])
        found: dict[tuple[str, str], RemoteTopic] = {}
        for reply in session.get(f"{prefix}/info/**", timeout=timeout):
            with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                if reply.ok is not None:
                    about = json.loads(bytes(reply.ok.payload))
                    topic = _topic(about, offered)
                    found[topic.host, topic.name] = topic
        return [found[key] for key in sorted(found)]
    finally:
        session.close()


def _topic(about: Mapping[str, Any], offered: Mapping[tuple[str, str], set[str]]) -> RemoteTopic:
    if about["version"] != wire.VERSION:
        raise ValueError("it is of another version")
    kinds = offered.get((about["host"], about["topic"]), set())
    schema = {
        name: shm.ArraySpec(dtype, tuple(shape), units=units, metadata=likeness.values(metadata))
        for name, dtype, shape, units, metadata in about["arrays"]
    }
    return RemoteTopic(
        host=str(about["host"]),
        name=str(about["topic"]),
        frames="frames" in kinds,
        calls="calls" in kinds,
        schema=schema,
        slots=int(about["slots"]),
        slot_bytes=int(about["slot_bytes"]),
        sequence=int(about["sequence"]),
        metadata=likeness.values(about["metadata"]),
    )
