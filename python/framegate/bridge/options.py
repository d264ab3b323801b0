"""What a bridge is told: which topics, how, and how much."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, TypeVar

from framegate.config_kinds import Bytes, Choice, Integer, Kind, Text
from framegate.errors import ConfigError
from framegate.topic_patterns import PATTERN, PATTERN_HELP, fits

__all__ = ["Call", "Publish", "Subscribe", "first_fit", "from_file", "patterns", "rules"]

FRAME_BYTES_MAX: Final = 64 * 1024 * 1024
"""The largest frame that crosses unless a rule says otherwise: a picture of 4K in 16 bits has
48 MiB, and each is in memory once in the bridge and once in Zenoh."""

PRIORITIES: Final = (
    "real_time",
    "interactive_high",
    "interactive_low",
    "data_high",
    "data",
    "data_low",
    "background",
)
"""Zenoh's, the most urgent first; each has a queue of its own on every link."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Topics of this host that others may have.

    Attributes:
        pattern: Names: `camera/front`, `camera/*` (one segment), `camera/**` (all that are left).
        policy: `latest` sends the newest frame whenever the link has taken the one before: a slow
            link gets fewer frames, never older ones. `queue` sends every frame that still exists.
        rate: Frames per second at most; None sends them all.
        bytes_max: The largest frame that is sent.
        congestion: What happens when the link takes no more: `block` waits, so that frames are
            lost here, whole and counted; `drop` lets Zenoh drop them, also in routers on the way,
            so that no slow host slows others down.
        priority: Which frames go first on a link that is full: Zenoh's `real_time`,
            `interactive_high`, `interactive_low`, `data_high`, `data`, `data_low`, `background`.
    """

    pattern: str
    policy: Literal["latest", "queue"] = "latest"
    rate: float | None = None
    bytes_max: int = FRAME_BYTES_MAX
    congestion: Literal["block", "drop"] = "block"
    priority: str = "data"


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Topics of other hosts that become topics here.

    Attributes:
        pattern: Names, as those hosts call them.
        name: What they are called here: `{topic}`, or for example `{host}/{topic}` where several
            hosts have topics of the same name.
        rate: Frames per second at most; None takes them all.
        bytes_max: The largest frame that is taken.
        slots: Slots of the topic here; None makes as many as there.
    """

    pattern: str
    name: str = "{topic}"
    rate: float | None = None
    bytes_max: int = FRAME_BYTES_MAX
    slots: int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """Topics of other hosts whose responders can be called here.

    Attributes:
        pattern: Names, as those hosts call them.
        name: What they are called here, as in `Subscribe`.
        slots: Slots of the topic here; None makes as many as there.
    """

    pattern: str
    name: str = "{topic}"
    slots: int | None = None


Rule = TypeVar("Rule", Publish, Subscribe, Call)


class Frequency(Kind):
    """Frames per second."""

    def parse(self, value: object) -> float:
        """Return the number."""
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = 0.0
        if isinstance(value, bool) or not 0.001 <= number <= 1_000_000:
            raise ValueError(f"expected {self.accepts()}")
        return number

    def accepts(self) -> str:
        """Return the accepted values."""
        return "0.001 to 1000000 frames per second"


_KINDS: Final[Mapping[str, Kind]] = {
    "pattern": Text("PATTERN", PATTERN.pattern, f"a pattern of topics ({PATTERN_HELP})"),
    "policy": Choice(("latest", "queue")),
    "rate": Frequency(),
    "bytes_max": Bytes(1, 2**40),
    "congestion": Choice(("block", "drop")),
    "priority": Choice(PRIORITIES),
    "slots": Integer(2, 4096),  # FG_SLOTS_MIN, FG_SLOTS_MAX
    "name": Text("NAME", r"([A-Za-z0-9_.\-/]|\{topic\}|\{host\})+", "a name with {topic} in it"),
}


def rules(kind: type[Rule], items: Iterable[object], what: str) -> tuple[Rule, ...]:
    """The rules that were given, as texts (`camera/**,policy=queue,rate=10`), tables or themselves.

    Args:
        kind: `Publish`, `Subscribe` or `Call`.
        items: What was given.
        what: What to call it in complaints: `--publish`.

    Raises:
        ConfigError: One of them says something that cannot be.
    """
    return tuple(_rule(kind, item, what) for item in items)


def _rule(kind: type[Rule], item: object, what: str) -> Rule:
    known = [field.name for field in fields(kind)]
    if isinstance(item, kind):
        given: dict[str, Any] = {name: getattr(item, name) for name in known}
        given = {name: value for name, value in given.items() if value is not None}
    elif isinstance(item, str):
        pattern, *pairs = item.split(",")
        given = {"pattern": pattern}
        for pair in pairs:
            name, equals, value = pair.partition("=")
            if not equals:
                raise ConfigError(f'{what} {item}: "{pair}" is no NAME=VALUE')
            given[name.strip()] = value.strip()
    elif isinstance(item, Mapping):
        given = {str(name): value for name, value in item.items()}
    else:
        raise ConfigError(f"{what}: expected a pattern or a table, got {item!r}")
    if "pattern" not in given:
        raise ConfigError(f"{what}: a table has a pattern")
    label = f"{what} {given['pattern']}"
    for name, value in given.items():
        if name not in known:
            raise ConfigError(f"{label}: unknown key {name}; there are {', '.join(known[1:])}")
        try:
            given[name] = _KINDS[name].parse(value)
        except ValueError as error:
            raise ConfigError(f"{label}: {name} {value}: {error}") from None
    if "{topic}" not in given.get("name", "{topic}"):
        raise ConfigError(f"{label}: name {given['name']}: expected a name with {{topic}} in it")
    return kind(**given)


def patterns(items: Iterable[str], what: str) -> tuple[str, ...]:
    """Patterns without anything more.

    Raises:
        ConfigError: One of them is none.
    """
    for item in items:
        if not isinstance(item, str) or not PATTERN.fullmatch(item):
            raise ConfigError(f"{what} {item}: is no pattern of topics; {PATTERN_HELP}")
    return tuple(items)


def first_fit(given: Iterable[Rule], topic: str) -> Rule | None:
    """The first rule whose pattern fits."""
    return next((rule for rule in given if fits(rule.pattern, topic)), None)


def from_file(path: str | os.PathLike[str], known: Iterable[str]) -> dict[str, Any]:
    """What a TOML file says: the arguments of `Bridge` by name.

    Raises:
        ConfigError: It cannot be read, is no TOML, or has other keys.
    """
    import tomllib

    try:
        with open(path, "rb") as stream:
            table = tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"{os.fspath(path)}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{os.fspath(path)}: is no TOML: {error}") from None
    names = list(known)
    found = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in names:
            raise ConfigError(f"{os.fspath(path)}: unknown key {key}; there are {', '.join(names)}")
        found[name] = value
    if isinstance(file := found.get("zenoh_config"), str):
        found["zenoh_config"] = os.path.join(os.path.dirname(os.path.abspath(path)), file)
    return found
