"""`platform bridge`: frames across machines over Eclipse Zenoh.

Only what `--help` needs is imported at the top.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from framegate.errors import EXIT_RUNTIME, EXIT_STOPPED, ConfigError
from framegate.topic_cli import until_interrupted

__all__ = ["add_verbs"]

Options = dict[str, Any]

IN_CODE: Final = (
    "connect",
    "listen",
    "publish",
    "subscribe",
    "offer",
    "call",
    "host",
    "prefix",
    "zenoh_config",
    "topics_max",
    "topic_bytes_max",
    "calls_max",
)
"""Arguments of `Bridge`: options here, and keys of a file."""


def add_verbs(
    commands: Any, program: str, formatter: Any, parser_class: type[argparse.ArgumentParser]
) -> None:
    """Add `bridge` to the commands of the command line."""
    bridge = commands.add_parser(
        "bridge",
        usage=f"{program} bridge --zenoh ENDPOINT --publish PATTERN --subscribe PATTERN [options]",
        help="carry frames between the topics of machines, over Eclipse Zenoh",
        description=(
            "Carry frames between topics of this machine and those of others, over Eclipse Zenoh, "
            'until Ctrl-C. Needs the extra: pip install "framegate[zenoh]". Patterns are '
            "camera/front, camera/* (one segment) or camera/** (all that are left); behind a comma "
            "they may say more, for example 'camera/**,policy=queue,rate=10,bytes_max=4MiB'."
        ),
        formatter_class=formatter,
        allow_abbrev=False,
    )
    bridge.set_defaults(command=until_interrupted(_bridge))

    def add(*names: str, **more: Any) -> None:
        bridge.add_argument(*names, default=None, **more)

    add(
        "--zenoh",
        dest="connect",
        action="append",
        metavar="ENDPOINT",
        help="connect to this router, or bridge that listens: tcp/host:7447; may be repeated",
    )
    add(
        "--listen",
        action="append",
        metavar="ENDPOINT",
        help="listen here, as a Zenoh router: tcp/0.0.0.0:7447; may be repeated",
    )
    add(
        "--publish",
        action="append",
        metavar="PATTERN",
        help=(
            "topics of this machine that others may have; keys: policy (latest, queue), rate, "
            "bytes_max, congestion (block, drop), priority; may be repeated, the first that fits "
            "counts"
        ),
    )
    add(
        "--subscribe",
        action="append",
        metavar="PATTERN",
        help=(
            "topics of others that become topics here; keys: name ({topic}, {host}/{topic}), rate, "
            "bytes_max, slots; may be repeated, the first that fits counts"
        ),
    )
    add(
        "--offer",
        action="append",
        metavar="PATTERN",
        help="topics of this machine whose responders others may call; may be repeated",
    )
    add(
        "--call",
        action="append",
        metavar="PATTERN",
        help=(
            "topics of others whose responders can be called here; keys: name, slots; may be "
            "repeated, the first that fits counts"
        ),
    )
    add("--host", metavar="NAME", help="what this machine is called; default: its host name")
    add("--prefix", metavar="WORD", help="what keys in Zenoh begin with; default: framegate")
    add(
        "--zenoh-config",
        metavar="FILE",
        help="a configuration of Zenoh (JSON5, YAML): TLS, access control, everything",
    )
    add("--topics-max", metavar="N", help="topics in either direction; default: 256")
    add(
        "--topic-bytes-max",
        metavar="BYTES",
        help="memory of a topic that is made for another machine's; default: 1GiB",
    )
    add("--calls-max", metavar="N", help="calls in flight of a topic, on either side; default: 16")
    bridge.add_argument("--config", metavar="FILE", help="all of these from a TOML file")
    bridge.add_argument(
        "--json",
        action="store_true",
        help="the counts as one JSON object per line, again and again",
    )
    bridge.add_argument(
        "--prometheus",
        metavar="FILE",
        help="the counts for Prometheus, written anew (the textfile collector reads it)",
    )
    bridge.add_argument(
        "--interval",
        default=1.0,
        metavar="SECONDS",
        help="time between two of either, 50ms to 1h; default: 1",
    )


def _bridge(options: Options) -> int:
    from framegate import logging
    from framegate.bridge import Bridge
    from framegate.config_kinds import Seconds

    as_json, prometheus = options["json"], options["prometheus"]
    try:
        interval_s = Seconds(0.05, 3600).parse(options["interval"])
    except ValueError as error:
        raise ConfigError(f"--interval {options['interval']}: {error}") from None
    bridge = Bridge(**_arguments(options))
    logging.configure("info", stream=sys.stderr)
    stop = threading.Event()
    _on_signals(stop.set)
    with bridge:
        while bridge.running and not stop.wait(interval_s):
            _report(bridge.status(), as_json, prometheus)
        status = bridge.status()
    _report(status, as_json, prometheus)
    return EXIT_STOPPED if stop.is_set() else EXIT_RUNTIME


def _arguments(options: Options) -> dict[str, Any]:
    from framegate.bridge.options import from_file
    from framegate.config_kinds import Bytes, Integer

    found: dict[str, Any] = {}
    if options["config"] is not None:
        # As on the command line, where `--connect` would not say to what.
        found = from_file(options["config"], ["zenoh", *IN_CODE[1:]])
        if "zenoh" in found:
            found["connect"] = found.pop("zenoh")
    found |= {name: options[name] for name in IN_CODE if options[name] is not None}
    numbers = {
        "topics_max": Integer(1),
        "topic_bytes_max": Bytes(1, 2**40),
        "calls_max": Integer(1),
    }
    for name, kind in numbers.items():
        if name in found:
            try:
                found[name] = kind.parse(found[name])
            except ValueError as error:
                option = name.replace("_", "-")
                raise ConfigError(f"--{option} {found[name]}: {error}") from None
    crossing = ("publish", "subscribe", "offer", "call")
    for name in ("connect", "listen", *crossing):
        if isinstance(found.get(name), str):
            found[name] = [found[name]]
    if not any(found.get(name) for name in (*crossing, "listen")):
        raise ConfigError("nothing crosses: give --publish, --subscribe or both; see --help")
    if not (found.get("connect") or found.get("listen") or found.get("zenoh_config")):
        raise ConfigError("nobody to talk to: give --zenoh tcp/host:7447, or --listen; see --help")
    return found


def _on_signals(stop: Callable[[], None]) -> None:
    import signal

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop())


def _report(status: Mapping[str, Any], as_json: bool, prometheus: str | None) -> None:
    import json

    if as_json:
        print(json.dumps({"unix_s": time.time(), **status}), flush=True)
    if prometheus:
        draft = f"{prometheus}.{os.getpid()}"
        with open(draft, "w") as stream:
            stream.writelines(f"{line}\n" for line in exposition(status))
        os.replace(draft, prometheus)


def exposition(status: Mapping[str, Any]) -> Iterator[str]:
    """The counts in the text format of Prometheus."""
    yield "# HELP framegate_bridge_connected Whether there is a connection to anybody."
    yield "# TYPE framegate_bridge_connected gauge"
    yield f"framegate_bridge_connected {int(status['connected'])}"
    for direction in ("outgoing", "incoming"):
        for what in ("frames", "bytes"):
            name = f"framegate_bridge_{direction}_{what}_total"
            yield f"# HELP {name} {what.capitalize()} of {direction} topics, by result."
            yield f"# TYPE {name} counter"
            for row in status[direction]:
                host = row.get("host", status["host"])
                for key, value in row.items():
                    if isinstance(value, bool) or not isinstance(value, int):
                        continue
                    if key.endswith("_bytes") != (what == "bytes"):
                        continue
                    labels = f'topic="{row["topic"]}",host="{host}"'
                    result = key.removesuffix("_bytes")
                    yield f'{name}{{{labels},result="{result}"}} {value}'
    for direction in ("offered", "called"):
        name = f"framegate_bridge_{direction}_calls_total"
        yield f"# HELP {name} Calls of {direction} topics, by result."
        yield f"# TYPE {name} counter"
        for row in status[direction]:
            labels = f'topic="{row["topic"]}",host="{row.get("host", status["host"])}"'
            for key, value in row.items():
                if isinstance(value, int) and not isinstance(value, bool):
                    yield f'{name}{{{labels},result="{key}"}} {value}'
