"""`platform topic VERB`: look at topics, measure them, show frames, record and replay them.

`list`, `info`, `hz`, `bw` and `top` look without taking part; `echo` and `record` subscribe and say
so. Tables are plain text for people. With `--json` each verb prints one JSON object per line, whose
keys stay; docs/guide/inspect.md lists them.

Only what `--help` needs is imported at the top.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from framegate.config_cli import print_help
from framegate.errors import EXIT_RUNTIME, EXIT_STOPPED, ConfigError

if TYPE_CHECKING:
    from framegate import shm
    from framegate.observe import Gaps, Look

__all__ = ["add_verbs"]

POLL_S: Final = 0.05
"""How often `hz` and `bw` note frames; with 8 slots they see every frame up to 140 Hz."""

ECHO_VALUES: Final = 8
"""Values of an array that `echo` shows."""

SORTS: Final = ("topic", "hz", "bandwidth", "age", "lost", "memory")
"""Columns that `top` sorts by."""

PROGRESS_S: Final = 1.0
"""How often `record` and `replay` say how far they are."""

Options = dict[str, Any]
N = TypeVar("N", int, float)


def add_verbs(
    commands: Any, program: str, formatter: Any, parser_class: type[argparse.ArgumentParser]
) -> None:
    """Add `topic` with its verbs to the commands of the command line."""
    topic = commands.add_parser(
        "topic",
        usage=f"{program} topic VERB [options]",
        help="look at topics in shared memory, record and replay them",
        description=(
            "Look at the topics of this machine (of $FRAMEGATE_RUNTIME_DIR), measure them, show "
            "their frames, record and replay them."
        ),
        formatter_class=formatter,
        allow_abbrev=False,
    )
    verbs = topic.add_subparsers(
        title="verbs", metavar="", parser_class=parser_class, prog=f"{program} topic"
    )

    topic.set_defaults(command=lambda _options: print_help(topic))

    def add(name: str, run: Callable[[Options], int], usage: str, text: str, more: str) -> Any:
        verb = verbs.add_parser(
            name,
            usage=f"{program} topic {name} {usage}".rstrip(),
            help=text,
            description=more,
            formatter_class=formatter,
            allow_abbrev=False,
        )
        verb.set_defaults(command=run)
        return verb

    looks = "Looks without taking part: no lease, no row, no write."
    verb = add(
        "list",
        _list,
        "[TOPIC...] [--json] [--remote --zenoh ENDPOINT]",
        "topics with their rate, age, type, memory and participants",
        f"One line per topic. {looks} HZ is from the frames that are still in their slots. With "
        "--remote: what the bridges of other machines offer.",
    )
    verb.add_argument("topics", nargs="*", metavar="TOPIC", help="name or pattern; default: all")
    _add_json(verb)
    verb.add_argument(
        "--remote", action="store_true", help="topics of other machines (platform bridge)"
    )
    verb.add_argument(
        "--zenoh",
        action="append",
        default=[],
        metavar="ENDPOINT",
        help="with --remote: a router, or a bridge that listens: tcp/host:7447",
    )
    verb.add_argument(
        "--zenoh-config", metavar="FILE", help="with --remote: a configuration of Zenoh"
    )
    verb.add_argument(
        "--prefix",
        default="framegate",
        metavar="WORD",
        help="with --remote: what keys in Zenoh begin with; default: framegate",
    )

    verb = add(
        "info",
        _info,
        "TOPIC... [--json]",
        "one topic in full: slots, memory, participants, who holds what",
        f"Everything there is to see of a topic. {looks} OLDEST is the age of the oldest frame "
        "that a subscriber holds.",
    )
    verb.add_argument("topics", nargs="+", metavar="TOPIC", help="name or pattern")
    _add_json(verb)

    for name, run, text, more in (
        (
            "hz",
            _hz,
            "frames per second, and how evenly they come",
            "GAP is the time between two neighbouring frames, by the publisher's clock.",
        ),
        (
            "bw",
            _bw,
            "bytes per second, and the size of frames",
            "Payload bytes only.",
        ),
    ):
        verb = add(
            name,
            run,
            "[TOPIC...] [options]",
            text,
            f"A table per interval, until Ctrl-C. {looks} {more}",
        )
        verb.add_argument(
            "topics", nargs="*", metavar="TOPIC", help="name or pattern; default: all"
        )
        _add_interval(verb)
        _add_json(verb)

    verb = add(
        "echo",
        _echo,
        "TOPIC [options]",
        "frames as text: arrays, times, metadata",
        "Subscribes with policy latest: it always shows the newest frame, skips those that come "
        "faster than they are printed, and holds no publisher up.",
    )
    verb.add_argument("topic", metavar="TOPIC", help="name")
    verb.add_argument(
        "-n", "--count", type=_natural, metavar="N", help="end after N frames; default: go on"
    )
    verb.add_argument(
        "--wait",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="wait this long for the topic to be created; default: 0",
    )
    verb.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="fail when no frame comes for this long; default: wait for ever",
    )
    verb.add_argument(
        "--values",
        type=_whole,
        default=ECHO_VALUES,
        metavar="N",
        help=f"values of each array to show; default: {ECHO_VALUES}",
    )
    _add_json(verb)

    verb = add(
        "unlink",
        _unlink,
        "TOPIC... [--force]",
        "remove topics by name",
        "Removes the files of topics that nobody uses, damaged ones too. Whoever still has one "
        "open goes on with it; its memory is given back with the last of them.",
    )
    verb.add_argument("topics", nargs="+", metavar="TOPIC", help="name")
    verb.add_argument("--force", action="store_true", help="also while somebody uses it")

    verb = add(
        "gc",
        _gc,
        "[--older-than SECONDS] [--dry-run] [--json]",
        "remove topics that nobody uses and what dead processes left",
        "Removes topics that no process has open and that nobody came to or left for a while, and "
        "files of dead processes. A living topic is never removed.",
    )
    verb.add_argument(
        "--older-than",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="since somebody came, left or was found dead (default: 3600)",
    )
    verb.add_argument("--dry-run", action="store_true", help="only say what would go")
    _add_json(verb)

    add(
        "cmake-dir",
        _cmake_dir,
        "",
        "where find_package(framegate) of CMake finds headers and library",
        "Prints a directory for -Dframegate_DIR: headers, static library and CMake package that "
        "were installed with this package.",
    )

    add(
        "cargo-dir",
        _cargo_dir,
        "",
        "where the Rust crate framegate-shm is, for a path dependency",
        "Prints the directory of the Rust crate that was installed with this package; it links the "
        "static library beside it and needs no C++ compiler.",
    )

    verb = add(
        "top",
        _top,
        "[TOPIC...] [options]",
        "all topics, live",
        f"A screen that is drawn anew once per interval. {looks} Keys: q ends, s sorts by the next "
        "column, / filters, Enter shows who takes part in a topic, p its newest frame (which "
        "subscribes meanwhile), ? all keys. Where the output is no terminal, or with --once or "
        "--json, tables follow each other instead.",
    )
    verb.add_argument("topics", nargs="*", metavar="TOPIC", help="name or pattern; default: all")
    _add_interval(verb)
    verb.add_argument("--once", action="store_true", help="one table; the same as -n 1")
    verb.add_argument(
        "--sort",
        choices=SORTS,
        default="topic",
        metavar="COLUMN",
        help=f"{', '.join(SORTS)}; default: topic",
    )
    _add_json(verb)

    verb = add(
        "record",
        _record,
        "TOPIC... -o FILE [options]",
        "write frames to an MCAP file, until Ctrl-C",
        "Subscribes with policy queue: no publisher waits for the disk, and what comes faster than "
        "it can be written is lost and counted. Pictures become foxglove.RawImage and "
        "foxglove.CompressedImage, everything else framegate.Frame.",
    )
    verb.add_argument("topics", nargs="+", metavar="TOPIC", help="name or pattern")
    verb.add_argument("-o", "--output", required=True, metavar="FILE", help="where to; .mcap")
    verb.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    verb.add_argument(
        "--compression",
        choices=("lz4", "zstd", "none"),
        default="lz4",
        metavar="NAME",
        help="lz4 (default) costs least, zstd makes smaller files, none for compressed payloads",
    )
    verb.add_argument(
        "--duration", type=_seconds, metavar="SECONDS", help="end after this; default: go on"
    )
    verb.add_argument(
        "--bgr",
        action="store_true",
        help='colour pictures are BGR (OpenCV), unless their metadata has an "encoding"',
    )
    _add_json(verb)

    verb = add(
        "replay",
        _replay,
        "FILE [options]",
        "publish the frames of an MCAP file again",
        "Publishes what was recorded, as far apart as it was. Topics that do not exist are created "
        "as they were recorded, and stay.",
    )
    verb.add_argument("file", metavar="FILE", help="an MCAP file, of ours or by anybody")
    verb.add_argument(
        "--topic",
        action="append",
        metavar="TOPIC",
        help="only this one, as the file names it; may be given several times",
    )
    verb.add_argument("--prefix", default="", metavar="TEXT", help="put before names: replay/")
    verb.add_argument(
        "--rate",
        type=_rate,
        default=1.0,
        metavar="FACTOR",
        help="2 is twice as fast, 0 as fast as it goes; default: 1",
    )
    verb.add_argument("--loop", action="store_true", help="begin again at the end")
    verb.add_argument(
        "--wait-subscribers",
        action="store_true",
        help="begin once every topic has a subscriber",
    )
    verb.add_argument(
        "--slots",
        type=_natural,
        metavar="N",
        help="slots of new topics; default: as recorded, or 8",
    )
    verb.add_argument(
        "--slot-bytes",
        type=_natural,
        metavar="BYTES",
        help="bytes of their slots; default: as recorded, or as the first message needs",
    )
    verb.add_argument("--join", action="store_true", help="also to topics that others publish on")
    verb.add_argument("--list", action="store_true", help="only say what is in the file")
    _add_json(verb)


def _add_json(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="one JSON object per line")


def _add_interval(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--interval",
        type=_interval,
        default=1.0,
        metavar="SECONDS",
        help="time between two tables, 0.05 to 3600; default: 1",
    )
    verb.add_argument(
        "-n", "--count", type=_natural, metavar="N", help="end after N tables; default: go on"
    )


def _natural(text: str) -> int:
    return _number(int, text, 1, 2**53, "a whole number from 1")


def _whole(text: str) -> int:
    return _number(int, text, 0, 2**53, "a whole number from 0")


def _seconds(text: str) -> float:
    return _number(float, text, 0, 1e9, "seconds from 0")


def _interval(text: str) -> float:
    return _number(float, text, 0.05, 3600, "seconds from 0.05 to 3600")


def _rate(text: str) -> float:
    if text in {"0", "0.0"}:
        return 0.0
    return _number(float, text, 0.001, 1000, "0, or a factor from 0.001 to 1000")


def _number(kind: type[N], text: str, low: float, high: float, wanted: str) -> N:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        raise argparse.ArgumentTypeError(f"expected {wanted}, not {text}")
    return value


# ----------------------------------------------------------------------------------------------
# Output


def _print_json(value: Mapping[str, Any]) -> None:
    import json

    print(json.dumps(value, ensure_ascii=False, separators=(",", ":")), flush=True)


def _print_lines(lines: list[str]) -> None:
    print("\n".join(lines), flush=True)


def _say(line: str) -> None:
    """A remark for people, out of the way of what a program reads."""
    print(line, file=sys.stderr, flush=True)


def until_interrupted(run: Callable[[Options], int]) -> Callable[[Options], int]:
    """Let Ctrl-C, or a reader of the output that went away (`| head`), end a verb in peace."""

    def guarded(options: Options) -> int:
        try:
            return run(options)
        except KeyboardInterrupt:
            return EXIT_STOPPED
        except BrokenPipeError:
            # Python flushes stdout once more at exit, and would complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_STOPPED

    return guarded


def _list_remote(options: Options) -> int:
    import fnmatch

    from framegate import bridge, observe, tables

    if not (options["zenoh"] or options["zenoh_config"]):
        raise ConfigError("--remote: whom to ask? Give --zenoh tcp/host:7447")
    rows = []
    for topic in bridge.discover(
        options["zenoh"], prefix=options["prefix"], zenoh_config=options["zenoh_config"]
    ):
        patterns = options["topics"]
        if patterns and not any(fnmatch.fnmatchcase(topic.name, one) for one in patterns):
            continue
        if options["json"]:
            _print_json(
                {
                    "host": topic.host,
                    "topic": topic.name,
                    "frames": topic.frames,
                    "calls": topic.calls,
                    "sequence": topic.sequence,
                    "slots": topic.slots,
                    "slot_bytes": topic.slot_bytes,
                    "arrays": observe.arrays_json(topic.schema),
                    "metadata": observe.plain(topic.metadata),
                }
            )
            continue
        offers = [word for word in ("frames", "calls") if getattr(topic, word)]
        rows.append(
            [
                topic.host,
                topic.name,
                ", ".join(offers) or "-",
                str(topic.sequence),
                tables.bytes_text(topic.slots * topic.slot_bytes),
                observe.type_text(topic.schema),
            ]
        )
    if rows:
        header = "HOST TOPIC OFFERS FRAMES MEMORY TYPE".split()
        _print_lines(tables.table(header, rows, right="   >>"))
    elif not options["json"]:
        _say("no bridge offers any topic there")
    return EXIT_STOPPED


def _no_topics() -> None:
    from framegate import shm

    _say(f"no topics in {shm.runtime_directory()}")


# ----------------------------------------------------------------------------------------------
# list, info


def _each_look(patterns: list[str]) -> Iterator[tuple[str, Look | None, str]]:
    """Name, look and complaint of each topic; a damaged one does not hide the others."""
    from framegate import observe
    from framegate.errors import ShmError, TopicNotFound, describe

    for name in observe.matching(patterns):
        try:
            yield name, observe.look(name), ""
        except TopicNotFound:
            continue  # removed since it was listed
        except ShmError as error:
            yield name, None, describe(error)


@until_interrupted
def _list(options: Options) -> int:
    from framegate import observe, tables

    if options["remote"]:
        return _list_remote(options)
    if options["zenoh"] or options["zenoh_config"]:
        raise ConfigError("--zenoh and --zenoh-config go with --remote")
    rows, complaints = [], []
    for name, look, complaint in _each_look(options["topics"]):
        if look is None:
            complaints.append(complaint)
        if options["json"]:
            _print_json({"topic": name, "error": complaint} if look is None else look.to_json())
        elif look is None:
            rows.append([name, "!", "-", "-", "-", "-", "-", "-", "-", "cannot be read, see below"])
        else:
            report = look.report
            rows.append(
                [
                    name,
                    tables.number_text(look.hz()),
                    str(report.sequence),
                    tables.age_text(look.age_s()),
                    f"{report.slots_leased}/{report.slots}",
                    tables.bytes_text(report.total_bytes),
                    str(report.publishers),
                    str(report.subscribers),
                    f"{report.dead}{' !' if report.dead else ''}",
                    observe.type_text(report.schema),
                ]
            )
    if not options["json"]:
        header = "TOPIC HZ FRAMES AGE LEASED MEMORY PUB SUB DEAD TYPE".split()
        if rows:
            _print_lines(tables.table(header, rows, right=" >>>>>>>>"))
        elif not options["topics"]:
            _no_topics()
        for complaint in complaints:
            _say(complaint)
    return EXIT_RUNTIME if complaints else EXIT_STOPPED


@until_interrupted
def _info(options: Options) -> int:
    failed = False
    for i, (name, look, complaint) in enumerate(_each_look(options["topics"])):
        if look is None:
            failed = True
            if options["json"]:
                _print_json({"topic": name, "error": complaint})
            else:
                _say(complaint)
        elif options["json"]:
            _print_json(look.to_json())
        else:
            _print_lines([*([""] if i else []), *info_lines(look)])
    return EXIT_RUNTIME if failed else EXIT_STOPPED


def info_lines(look: Look) -> list[str]:
    """What `info` prints of one topic."""
    from framegate import observe, shm, tables

    report, frames = look.report, look.frames()
    newest = f"{report.sequence}"
    if frames:
        size = tables.bytes_text(frames[-1].nbytes)
        newest += f", newest {tables.age_text(look.age_s())} ago, {size}"
    rate = "unknown: fewer than two frames in the slots"
    if (hz := look.hz()) is not None:
        rate = f"{hz:.1f} Hz, {tables.bytes_text(hz * (look.frame_bytes() or 0))}/s"
        if hz == 0:
            rate += ": nothing came lately"
    created = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(report.created_unix_ns / 1e9))
    facts = [
        ("type", observe.type_text(report.schema)),
        ("frames", newest),
        ("rate", rate),
        (
            "slots",
            f"{report.slots} of {tables.bytes_text(report.slot_bytes)}: {report.slots_free} free, "
            f"{report.slots_loaned} being filled, {report.slots_published} with a frame, "
            f"{report.slots_leased} leased; the newest {report.keep} kept",
        ),
        (
            "memory",
            f"{tables.bytes_text(report.total_bytes)} in {shm.runtime_directory()}, "
            f"mode {report.mode:04o}",
        ),
        *([("checksum", f"{report.checksum} of each payload")] if report.checksum else []),
        *([("metadata", _metadata_text(report.metadata))] if report.metadata else []),
        ("created", f"{created}, identity {report.identity}"),
        (
            "participants",
            f"{report.publishers} publishing, {report.subscribers} subscribed, {report.dead} dead, "
            f"room for {report.participants_max}",
        ),
    ]
    lines = [report.name, *(f"  {name + ':':<14}{text}" for name, text in facts)]
    if report.participants:
        lines += ["", *("  " + line for line in participant_table(look))]
    if report.dead:
        lines += ["", "  ! dead: what they hold comes back when anybody attaches, waits or loans"]
    return lines


def _metadata_text(metadata: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {value!r}" for key, value in metadata.items())


def participant_table(look: Look) -> list[str]:
    """Everybody who takes part in a topic, and what they hold."""
    from framegate import tables

    header, right, rows = participant_rows(look)
    return tables.table(header, rows, right=right)


def participant_rows(look: Look) -> tuple[list[str], str, list[list[str]]]:
    """The same as columns, alignment and rows, in the order of the report."""
    from framegate import tables

    loans = [holder.index for holder in look.loans() if holder is not None]
    leases = [(lease.holder.index, lease) for lease in look.leases() if lease.holder is not None]
    rows = []
    for row in look.report.participants:
        held = [lease for index, lease in leases if index == row.index]
        ages = [lease.age_s for lease in held if lease.age_s is not None]
        subscriber = row.role == "subscriber"
        rows.append(
            [
                row.name or "-",
                str(row.pid),
                row.role,
                row.policy or "-",
                "alive" if row.alive else "dead !",
                str(row.received),
                str(row.lost) if subscriber else "-",
                str(look.lag(row)) if subscriber else "-",
                str(len(held)) if subscriber else str(loans.count(row.index)),
                tables.age_text(max(ages)) if ages else "-",
            ]
        )
    header = "NAME PID ROLE POLICY STATE FRAMES LOST LAG HOLDS OLDEST".split()
    return header, " >   >>>>>", rows


# ----------------------------------------------------------------------------------------------
# hz, bw


def _measure(options: Options, row: Callable[[str, Gaps], list[str]], header: str) -> int:
    """Print a table (or JSON lines) per interval; a topic that is gone ends the verb."""
    from framegate import observe, tables

    names = observe.matching(options["topics"])
    if not names:
        _no_topics()
        return EXIT_RUNTIME
    meters = {name: observe.Meter(name) for name in names}
    for meter in meters.values():
        meter.open()
    done = 0
    began = time.monotonic()
    while options["count"] is None or done < options["count"]:
        until = began + (done + 1) * options["interval"]
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, POLL_S))
            for meter in meters.values():
                meter.poll()
        done += 1
        rows = []
        for name, meter in list(meters.items()):
            gaps = meter.read()
            if gaps.look is None:
                _say(f'topic "{name}" is gone')
                del meters[name]
            elif options["json"]:
                _print_json(_gaps_json(name, gaps))
            else:
                rows.append(row(name, gaps))
        if rows:
            lines = tables.table(header.split(), rows, right=" " + ">" * 9)
            # One header for a single topic, as long as its columns stay where they are.
            _print_lines(lines if done == 1 or len(rows) > 1 else lines[1:])
        if not meters:
            return EXIT_RUNTIME
    return EXIT_STOPPED


def _gaps_json(name: str, gaps: Gaps) -> dict[str, Any]:
    seen = gaps.gaps_s
    return {
        "topic": name,
        "interval_s": gaps.interval_s,
        "frames": gaps.frames,
        "hz": gaps.hz(),
        "gap_mean_s": sum(seen) / len(seen) if seen else None,
        "gap_min_s": min(seen, default=None),
        "gap_max_s": max(seen, default=None),
        "gap_deviation_s": gaps.gap_deviation_s(),
        "bytes_per_s": gaps.bytes_per_s(),
        "frame_bytes_mean": gaps.bytes_mean() if gaps.nbytes else None,
        "frame_bytes_min": min(gaps.nbytes, default=None),
        "frame_bytes_max": max(gaps.nbytes, default=None),
        "frames_seen": len(gaps.nbytes),
        "lost": gaps.lost,
    }


@until_interrupted
def _hz(options: Options) -> int:
    from framegate import tables

    def row(name: str, gaps: Gaps) -> list[str]:
        seen = gaps.gaps_s
        return [
            name,
            f"{gaps.hz():9.2f}",
            f"{gaps.frames:7d}",
            f"{tables.age_text(sum(seen) / len(seen) if seen else None):>9}",
            f"{tables.age_text(min(seen, default=None)):>9}",
            f"{tables.age_text(max(seen, default=None)):>9}",
            f"{tables.age_text(gaps.gap_deviation_s()):>9}",
            f"{gaps.lost:7d}",
        ]

    return _measure(options, row, "TOPIC HZ FRAMES GAP MIN MAX DEVIATION LOST")


@until_interrupted
def _bw(options: Options) -> int:
    from framegate import tables

    def row(name: str, gaps: Gaps) -> list[str]:
        return [
            name,
            f"{tables.bytes_text(gaps.bytes_per_s()) + '/s':>12}",
            f"{gaps.hz():9.2f}",
            f"{tables.bytes_text(gaps.bytes_mean() if gaps.nbytes else None):>9}",
            f"{tables.bytes_text(min(gaps.nbytes, default=None)):>9}",
            f"{tables.bytes_text(max(gaps.nbytes, default=None)):>9}",
        ]

    return _measure(options, row, "TOPIC BANDWIDTH HZ FRAME MIN MAX")


# ----------------------------------------------------------------------------------------------
# echo


@until_interrupted
def _echo(options: Options) -> int:
    from framegate import observe, shm
    from framegate.errors import ShmError, ShmTimeout

    name = options["topic"]
    try:
        subscriber = shm.Subscriber(name, "latest", wait=options["wait"], name="platform echo")
    except ShmError as error:
        raise observe.explained(error, name) from None
    with subscriber:
        _say(f'subscribed to "{name}" with policy latest: frames in between are skipped')
        shown = 0
        while options["count"] is None or shown < options["count"]:
            frame = subscriber.take(timeout=options["timeout"])
            if frame is None:
                raise ShmTimeout(f'no frame on topic "{name}" for {options["timeout"]} s')
            with frame:
                shown += 1
                if options["json"]:
                    _print_json(_frame_json(name, frame, options["values"]))
                else:
                    _print_lines(frame_lines(frame, options["values"]))
    return EXIT_STOPPED


def frame_lines(frame: shm.Frame, count: int) -> list[str]:
    """What `echo` prints of one frame."""
    from framegate import tables

    age = tables.age_text(_age_s(frame))
    lost = f", {frame.lost} skipped before it" if frame.lost else ""
    lines = [f"--- frame {frame.sequence}, {age} old, {tables.bytes_text(frame.nbytes)}{lost}"]
    if frame.timestamp is not None:
        lines.append(f"timestamp: {frame.timestamp!r}")
    if frame.content_type is not None:
        lines.append(f"content type: {frame.content_type}")
    if frame.metadata:
        lines += ["metadata:", *(f"  {key}: {value!r}" for key, value in frame.metadata.items())]
    arrays = frame.arrays
    for name, array in arrays.items():
        dtype, values = _values(array, count)
        shown = " ".join(_value_text(value) for value in values)
        more = " ..." if math.prod(array.shape) > len(values) else ""
        lengths = ", ".join(map(str, array.shape)) + ("," if len(array.shape) == 1 else "")
        lines.append(f"{name}{': ' if name else ''}{dtype} ({lengths}): {shown}{more}")
    if not arrays:
        head = bytes(memoryview(frame)[: count * 4])
        lines.append(f"bytes: {head!r}{' ...' if frame.nbytes > len(head) else ''}")
    return lines


def _frame_json(topic: str, frame: shm.Frame, count: int) -> dict[str, Any]:
    from framegate.observe import plain

    result: dict[str, Any] = {
        "topic": topic,
        "sequence": frame.sequence,
        "lost": frame.lost,
        "age_s": _age_s(frame),
        "published_ns": frame.published_ns,
        "timestamp": frame.timestamp,
        "content_type": frame.content_type,
        "metadata": plain(frame.metadata),
        "nbytes": frame.nbytes,
    }
    arrays = frame.arrays
    if not arrays:
        result["hex"] = bytes(memoryview(frame)[: count * 4]).hex()
        return result
    result["arrays"] = {}
    for name, array in arrays.items():
        dtype, values = _values(array, count)
        result["arrays"][name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "values": [_value_json(value) for value in values],
        }
    return result


def _age_s(frame: shm.Frame) -> float:
    return max(0, time.monotonic_ns() - frame.published_ns) / 1e9


# Types of a memoryview, which arrays are where numpy is not installed.
_FORMATS: Final = {
    "?": "bool",
    "b": "int8",
    "h": "int16",
    "i": "int32",
    "l": "int64",
    "q": "int64",
    "B": "uint8",
    "H": "uint16",
    "I": "uint32",
    "L": "uint64",
    "Q": "uint64",
    "e": "float16",
    "f": "float32",
    "d": "float64",
    "Zf": "complex64",
    "Zd": "complex128",
}


def _values(array: Any, count: int) -> tuple[str, list[Any]]:
    """Name of the type and the first values of an array or memoryview."""
    if not isinstance(array, memoryview):
        return str(array.dtype), array.reshape(-1)[:count].tolist()
    import struct

    count = min(count, math.prod(array.shape or ()))
    letter = array.format[-1]
    parts = 2 if array.format.startswith("Z") else 1
    numbers = struct.unpack_from(
        f"={count * parts}{letter.replace('l', 'q').replace('L', 'Q')}", array.tobytes()
    )
    values = (
        [complex(*numbers[i : i + 2]) for i in range(0, len(numbers), 2)]
        if parts == 2
        else list(numbers)
    )
    return _FORMATS.get(array.format, array.format), values


def _value_text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _value_json(value: Any) -> Any:
    if isinstance(value, complex):
        return [_value_json(value.real), _value_json(value.imag)]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no word for it
    return value if isinstance(value, bool | int | float) else float(value)


# ----------------------------------------------------------------------------------------------
# unlink


@until_interrupted
def _unlink(options: Options) -> int:
    from framegate import observe, shm
    from framegate.errors import SegmentCorrupt, SegmentIncompatible, ShmError, TopicExists

    for name in options["topics"]:
        if not options["force"]:
            # What cannot be read has no participants that could be named.
            with contextlib.suppress(SegmentCorrupt, SegmentIncompatible):
                users = [row for row in observe.look(name).report.participants if row.alive]
                if users:
                    whom = ", ".join(f"{row.name or 'nameless'} (pid {row.pid})" for row in users)
                    raise TopicExists(
                        f'topic "{name}" is in use by {whom}',
                        fix="stop them first, or remove it from under them with --force",
                    )
        try:
            shm.unlink(name)
        except ShmError as error:
            raise observe.explained(error, name) from None
        print(f"removed {name}", flush=True)
    return EXIT_STOPPED


def _gc(options: Options) -> int:
    from framegate import shm, tables

    garbage = shm.gc(older_than=options["older_than"], dry_run=options["dry_run"])
    if options["json"]:
        _print_json({"topics": garbage.topics, "orphans": garbage.orphans})
        return EXIT_STOPPED
    verb = "would remove" if options["dry_run"] else "removed"
    for name, size in sorted(garbage.topics.items()):
        print(f"{verb} {name} ({tables.bytes_text(size)})")
    if garbage.orphans:
        print(f"removed {garbage.orphans} files of dead processes")
    return EXIT_STOPPED


def _cmake_dir(options: Options) -> int:
    print(Path(__file__).resolve().parent / "lib/cmake/framegate")
    return EXIT_STOPPED


def _cargo_dir(options: Options) -> int:
    print(Path(__file__).resolve().parent / "rust/framegate-shm")
    return EXIT_STOPPED


# ----------------------------------------------------------------------------------------------
# top


def _top(options: Options) -> int:
    from framegate import topic_top

    if options["once"]:
        options["count"] = 1
    return until_interrupted(topic_top.run)(options)


# ----------------------------------------------------------------------------------------------
# record, replay


def _end_by_signal() -> None:
    """Let SIGTERM end a recording as Ctrl-C does."""
    import signal

    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _record(options: Options) -> int:
    from framegate import observe, recording, tables
    from framegate.errors import TopicNotFound

    names = observe.matching(options["topics"])
    if not names:
        raise TopicNotFound(f"no topic matches {' '.join(options['topics'])}")
    path = options["output"]
    recorder = recording.Recorder(
        path,
        names,
        overwrite=options["overwrite"],
        compression=options["compression"],
        bgr=options["bgr"],
    )
    _end_by_signal()
    began = time.monotonic()
    try:
        _say(f"recording {', '.join(names)} to {path} with policy queue; Ctrl-C ends it")
        while options["duration"] is None or time.monotonic() - began < options["duration"]:
            left = PROGRESS_S
            if options["duration"] is not None:
                left = min(left, max(0.0, began + options["duration"] - time.monotonic()))
            time.sleep(left)
            recorder.check()
            if sys.stderr.isatty():
                frames = sum(row.frames for row in recorder.stats().values())
                size = tables.bytes_text(os.stat(path).st_size)
                print(f"\r{frames} frames, {size}  ", end="", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        pass
    finally:
        if sys.stderr.isatty():
            _say("")
        recorder.close()
    stats, size_bytes = recorder.stats(), os.stat(path).st_size
    if options["json"]:
        for name, row in stats.items():
            _print_json({"topic": name, "frames": row.frames, "bytes": row.bytes, "lost": row.lost})
        return EXIT_STOPPED
    rows = [
        [name, str(row.frames), tables.bytes_text(row.bytes), str(row.lost)]
        for name, row in stats.items()
    ]
    _print_lines(tables.table(["TOPIC", "FRAMES", "PAYLOAD", "LOST"], rows, right=" >>>"))
    _say(f"{path}: {tables.bytes_text(size_bytes)}")
    return EXIT_STOPPED


def _replay(options: Options) -> int:
    from framegate import recording, tables

    path = options["file"]
    if options["list"]:
        return _list_recording(path, options["json"])
    _end_by_signal()
    player = recording.Player(
        path,
        topics=options["topic"],
        prefix=options["prefix"],
        rate=options["rate"],
        repeat=options["loop"],
        slots=options["slots"],
        slot_bytes=options["slot_bytes"],
        join=options["join"],
    )
    try:
        if not player.contents.complete:
            _say(f"{path} was cut off: playing what is there")
        names = list(player.topics.values())
        if options["wait_subscribers"]:
            _say(f"waiting for a subscriber of {', '.join(names)}")
            _wait_for_subscribers(names)
        _say(f"publishing {', '.join(names)}; Ctrl-C ends it")
        player.start()
        player.wait()
    except KeyboardInterrupt:
        pass
    finally:
        stats = player.stats()
        player.close()
    if options["json"]:
        for name, row in stats.items():
            _print_json(
                {"topic": name, "frames": row.frames, "bytes": row.bytes, "dropped": row.dropped}
            )
        return EXIT_STOPPED
    rows = [
        [name, str(row.frames), tables.bytes_text(row.bytes), str(row.dropped)]
        for name, row in stats.items()
    ]
    _print_lines(tables.table(["TOPIC", "FRAMES", "PAYLOAD", "DROPPED"], rows, right=" >>>"))
    return EXIT_STOPPED


def _wait_for_subscribers(names: list[str]) -> None:
    from framegate import observe

    while not all(observe.look(name).report.subscribers for name in names):
        time.sleep(POLL_S)


def _list_recording(path: str, as_json: bool) -> int:
    from framegate import recording, tables

    contents = recording.contents(path)
    if as_json:
        for channel in contents.channels:
            _print_json(
                {
                    "topic": channel.topic,
                    "schema": channel.schema,
                    "encoding": channel.encoding,
                    "messages": channel.messages,
                    "start_ns": contents.start_ns,
                    "end_ns": contents.end_ns,
                    "complete": contents.complete,
                }
            )
        return EXIT_STOPPED
    rows = [
        [channel.topic, str(channel.messages), channel.schema or "-", channel.encoding or "-"]
        for channel in contents.channels
    ]
    if rows:
        _print_lines(tables.table(["TOPIC", "MESSAGES", "SCHEMA", "ENCODING"], rows, right=" >"))
    span = tables.age_text((contents.end_ns - contents.start_ns) / 1e9)
    _say(f"{span}{'' if contents.complete else ', cut off'}")
    return EXIT_STOPPED
