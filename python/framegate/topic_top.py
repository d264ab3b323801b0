"""`platform topic top`: every topic, live, in a terminal; tables where there is none.

It looks without taking part; only the preview of frames subscribes, for as long as it is shown.
What is drawn where is in `rust/py/src/top.rs`, with ratatui; it gives the terminal back as it was,
however this ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from framegate import observe, shm, tables
from framegate.errors import EXIT_STOPPED, ShmError
from framegate.topic_cli import (
    POLL_S,
    SORTS,
    _gaps_json,
    _print_json,
    _print_lines,
    frame_lines,
    participant_rows,
)

if TYPE_CHECKING:
    from framegate._http import TopScreen

__all__ = ["run"]

HEADER: Final = "TOPIC HZ BANDWIDTH AGE LEASED PUB SUB DEAD LOST MEMORY TYPE PUBLISHER".split()
RIGHT: Final = " >>>>>>>>>"
KEYS: Final = "q ends  s sorts  / filters  Enter readers  p preview  ? help"
HELP: Final = (
    ("q, Ctrl-C", "end"),
    ("up, down, PgUp, PgDn, Home, End", "choose a topic"),
    ("Enter", "show or hide who takes part in it"),
    ("p", "show or hide its newest frame; subscribes meanwhile"),
    ("s", "sort by the next column"),
    ("/", "show topics with these letters alone; Enter keeps, Esc drops it"),
    ("Esc", "close what is open"),
    ("*", "somebody holds a frame for over 1 s"),
    ("!", "dead participants; they have what they held until somebody tidies up"),
)
PAGE_ROWS: Final = 10
"""Topics that PgUp and PgDn go."""

PREVIEW_S: Final = 0.2
"""A preview is drawn so often."""

PREVIEW_VALUES: Final = 64
"""Values of a frame that is no picture."""

OLD_LEASE_S: Final = 1.0
"""A frame held for longer than this is marked."""


def run(options: dict[str, Any]) -> int:
    """Run the verb."""
    observe.matching(options["topics"])  # complains about a name that does not exist
    live = sys.stdout.isatty() and sys.stdin.isatty()
    if options["json"] or options["count"] == 1 or not live:
        return _tables(options)
    return _screen(options)


class _Meters:
    """One meter per topic that matches, as topics come and go."""

    def __init__(self, patterns: list[str]) -> None:
        self._patterns = patterns
        self._meters: dict[str, observe.Meter] = {}
        self._refresh()

    def _refresh(self) -> None:
        try:
            names = observe.matching(self._patterns)
        except ShmError:  # one that was named is gone; it may come back
            names = [name for name in shm.topics() if name in self._patterns]
        for name in list(self._meters):
            if name not in names:
                self._meters.pop(name).close()
        for name in names:
            if name not in self._meters:
                meter = observe.Meter(name)
                with contextlib.suppress(ShmError):
                    meter.open()
                    self._meters[name] = meter

    def poll(self) -> None:
        for meter in self._meters.values():
            meter.poll()

    def read(self) -> dict[str, observe.Gaps]:
        found = {name: meter.read() for name, meter in self._meters.items()}
        self._refresh()
        return {name: gaps for name, gaps in found.items() if gaps.look is not None}

    def close(self) -> None:
        for meter in self._meters.values():
            meter.close()


def _row(name: str, gaps: observe.Gaps) -> list[str]:
    look = gaps.look
    assert look is not None
    report = look.report
    old = any((lease.age_s or 0) > OLD_LEASE_S for lease in look.leases())
    return [
        name,
        f"{gaps.hz():.1f}",
        f"{tables.bytes_text(gaps.bytes_per_s())}/s",
        tables.age_text(look.age_s()),
        f"{report.slots_leased}/{report.slots}{'*' if old else ''}",
        str(report.publishers),
        str(report.subscribers),
        f"{report.dead}{'!' if report.dead else ''}",
        f"{gaps.lost / gaps.interval_s:.0f}/s" if gaps.lost else "0",
        tables.bytes_text(report.total_bytes),
        observe.type_text(report.schema),
        next((f"{p.pid} {p.name}" for p in report.participants if p.role == "publisher"), "-"),
    ]


def _sorted(found: dict[str, observe.Gaps], by: str) -> list[tuple[str, observe.Gaps]]:
    def key(item: tuple[str, observe.Gaps]) -> Any:
        name, gaps = item
        look = gaps.look
        assert look is not None
        values: dict[str, float] = {
            "topic": 0.0,
            "hz": -gaps.hz(),
            "bandwidth": -gaps.bytes_per_s(),
            "age": -(look.age_s() or 0.0),
            "lost": -float(gaps.lost),
            "memory": -float(look.report.total_bytes),
        }
        return values[by], name

    return sorted(found.items(), key=key)


def _summary(found: dict[str, observe.Gaps]) -> str:
    directory = shm.runtime_directory()
    used = sum(gaps.look.report.total_bytes for gaps in found.values() if gaps.look)
    free = "-"
    with contextlib.suppress(OSError):
        space = os.statvfs(directory)
        free = tables.bytes_text(space.f_bavail * space.f_frsize)
    rate = tables.bytes_text(sum(gaps.bytes_per_s() for gaps in found.values()))
    return f"{len(found)} topics, {tables.bytes_text(used)} in {directory}, {free} free, {rate}/s"


def _lines(found: dict[str, observe.Gaps], by: str) -> list[str]:
    rows = [_row(name, gaps) for name, gaps in _sorted(found, by)]
    return [_summary(found), "", *tables.table(HEADER, rows, right=RIGHT)]


def _tables(options: dict[str, Any]) -> int:
    meters = _Meters(options["topics"])
    done, began = 0, time.monotonic()
    try:
        while options["count"] is None or done < options["count"]:
            until = began + (done + 1) * options["interval"]
            while (left := until - time.monotonic()) > 0:
                time.sleep(min(left, POLL_S))
                meters.poll()
            found = meters.read()
            if options["json"]:
                for name, gaps in _sorted(found, options["sort"]):
                    assert gaps.look is not None
                    _print_json(gaps.look.to_json() | _gaps_json(name, gaps))
            else:
                _print_lines([*([""] if done else []), *_lines(found, options["sort"])])
            done += 1
    finally:
        meters.close()
    return EXIT_STOPPED


# ----------------------------------------------------------------------------------------------
# On a terminal.

Pane = tuple[str, list[str], str, list[list[str]]]
"""Title, columns, alignment and rows of a table."""


class _Preview:
    """The newest frame of one topic."""

    def __init__(self) -> None:
        self._topic: str | None = None
        self._subscriber: shm.Subscriber | None = None
        self._shown: tuple[str, bytes | None, list[str]] | None = None

    def of(self, topic: str, width: int, height: int) -> tuple[str, bytes | None, list[str]]:
        """A title, and a JPEG of at most this size or lines."""
        if topic != self._topic:
            self.close()
            self._topic = topic
        try:
            if self._subscriber is None:
                self._subscriber = shm.Subscriber(
                    topic, "latest", start="newest", max_leases=1, name="platform topic top"
                )
            frame = self._subscriber.take(timeout=0)
            if frame is not None:
                with frame:
                    title = f" {topic}, frame {frame.sequence} "
                    self._shown = (title, *self._drawn(frame, width, height))
        except ShmError as error:  # it is gone, or damaged; it may come back
            self._close_subscriber()
            return f" {topic} ", None, [str(error)]
        return self._shown or (f" {topic} ", None, ["no frame yet"])

    @staticmethod
    def _drawn(frame: shm.Frame, width: int, height: int) -> tuple[bytes | None, list[str]]:
        from framegate._http import make_frame_picture

        encoding = frame.metadata.get("encoding")
        try:
            picture = make_frame_picture(
                bytes(frame),
                frame.dtype if frame.shape else None,
                frame.shape,
                encoding if isinstance(encoding, str) else None,
                frame.content_type,
                "jpeg",
                f"quality=95&width={width}&height={height}",
            )
        except ShmError:  # it is no picture
            return None, frame_lines(frame, PREVIEW_VALUES)
        return picture, []

    def _close_subscriber(self) -> None:
        if self._subscriber is not None:
            self._subscriber.close()
        self._subscriber = None

    def close(self) -> None:
        self._close_subscriber()
        self._topic, self._shown = None, None


class _View:
    """What is shown, and what keys change in it."""

    def __init__(self, by: str) -> None:
        self.by = by
        self.found: dict[str, observe.Gaps] = {}
        self.filter = ""
        self.typing = self.readers = self.preview = self.help = False
        self._selected: str | None = None
        self._index = 0
        self._preview = _Preview()

    def names(self) -> list[str]:
        """Names of the topics that are shown, in order."""
        wanted = self.filter.lower()
        return [name for name, _ in _sorted(self.found, self.by) if wanted in name.lower()]

    def selected(self, names: list[str]) -> str | None:
        """The topic that is chosen, wherever it moves; another one at its place when it is gone."""
        if self._selected in names:
            self._index = names.index(self._selected)
        self._index = max(0, min(self._index, len(names) - 1))
        self._selected = names[self._index] if names else None
        return self._selected

    def press(self, key: str) -> bool:
        """Do what a key says; False ends."""
        if key == "ctrl-c" or (key == "q" and not self.typing):
            return False
        if self.typing:
            self._type(key)
            return True
        names = self.names()
        self.selected(names)
        steps = {
            "up": -1,
            "k": -1,
            "down": 1,
            "j": 1,
            "page up": -PAGE_ROWS,
            "page down": PAGE_ROWS,
        }
        steps |= {"home": -len(names), "end": len(names)}
        if key in steps and names:
            self._index = max(0, min(self._index + steps[key], len(names) - 1))
            self._selected = names[self._index]
        elif key == "s":
            self.by = SORTS[(SORTS.index(self.by) + 1) % len(SORTS)]
        elif key == "/":
            self.typing, self.filter = True, ""
        elif key == "enter":
            self.readers, self.help = not self.readers, False
        elif key == "?":
            self.help, self.readers = not self.help, False
        elif key == "p":
            self.preview = not self.preview
        elif key == "escape":
            self.readers = self.preview = self.help = False
            self.filter = ""
        if not self.preview:
            self._preview.close()
        return True

    def _type(self, key: str) -> None:
        if key in ("enter", "escape"):
            self.typing = False
            self.filter = self.filter if key == "enter" else ""
        elif key == "backspace":
            self.filter = self.filter[:-1]
        elif len(key) == 1:
            self.filter += key

    def draw(self, screen: TopScreen) -> None:
        """Draw all of it."""
        names = self.names()
        selected = self.selected(names)
        preview = None
        pane = self._pane(selected)
        if self.preview and selected is not None:
            preview = self._preview.of(selected, *screen.preview_size(pane is not None))
        if self.typing:
            footer = f"filter: {self.filter}_"
        else:
            only = f", with {self.filter}" if self.filter else ""
            footer = f"by {self.by}{only}; {KEYS}"
        screen.draw(
            f"{os.uname().nodename}: {_summary(self.found)}",
            footer,
            ("", HEADER, RIGHT, [_row(name, self.found[name]) for name in names]),
            self._index,
            pane,
            preview,
        )

    def _pane(self, selected: str | None) -> Pane | None:
        if self.help:
            return " keys and marks ", ["KEY", "DOES"], "", [list(row) for row in HELP]
        look = self.found[selected].look if self.readers and selected is not None else None
        if look is None:
            return None
        header, right, rows = participant_rows(look)
        for row, participant in zip(rows, look.report.participants, strict=True):
            held = [lease for lease in look.leases() if lease.holder == participant]
            if any((lease.age_s or 0) > OLD_LEASE_S for lease in held):
                row[-1] += " *"
        return f" {look.name}: who takes part ", header, right, rows

    def close(self) -> None:
        self._preview.close()


def _ended(_number: int, _frame: Any) -> None:
    raise KeyboardInterrupt


def _screen(options: dict[str, Any]) -> int:
    from framegate._http import TopScreen

    meters = _Meters(options["topics"])
    view = _View(options["sort"])
    # The terminal is given back also when a terminal window closes or somebody ends this politely.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ended)
    done = 0
    with contextlib.closing(meters), contextlib.closing(view):
        screen = TopScreen()
        with contextlib.closing(screen):
            until = time.monotonic() + min(0.2, options["interval"])  # something to see at once
            while options["count"] is None or done < options["count"]:
                drawn = 0.0
                while (left := until - time.monotonic()) > 0:
                    key = screen.key(min(left, POLL_S))
                    meters.poll()
                    if key is not None and not view.press(key):
                        return EXIT_STOPPED
                    moves = view.preview and time.monotonic() - drawn > PREVIEW_S
                    if key is not None or moves:
                        view.draw(screen)
                        drawn = time.monotonic()
                view.found = meters.read()
                view.draw(screen)
                until = time.monotonic() + options["interval"]
                done += 1
    return EXIT_STOPPED
