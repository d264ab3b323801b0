"""`platform topic top`: every topic, live, in a terminal; tables where there is none.

Draws by moving the cursor home and clearing each line's rest, so that nothing flickers. It looks
without taking part and gives the terminal back as it was, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from framegate import observe, shm, tables
from framegate.errors import EXIT_STOPPED, ShmError
from framegate.topic_cli import POLL_S, SORTS, _gaps_json, _print_json, _print_lines

__all__ = ["run"]

HEADER: Final = "TOPIC HZ BANDWIDTH AGE LEASED PUB SUB DEAD LOST MEMORY TYPE".split()
ALTERNATE_SCREEN: Final = ("\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l")
HOME, CLEAR_LINE, CLEAR_REST, BOLD, PLAIN = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[1m", "\x1b[m"

OLD_LEASE_S: Final = 1.0
"""A frame held for longer than this is marked."""


def run(options: dict[str, Any]) -> int:
    """Run the verb."""
    observe.matching(options["topics"])  # complains about a name that does not exist
    live = sys.stdout.isatty() and sys.stdin.isatty()
    if options["json"] or options["count"] == 1 or not live:
        return _tables(options)
    with _terminal() as keys:
        return _screen(options, keys)


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


def _lines(found: dict[str, observe.Gaps], by: str, participants: bool) -> list[str]:
    directory = shm.runtime_directory()
    used = sum(gaps.look.report.total_bytes for gaps in found.values() if gaps.look)
    free = "-"
    with contextlib.suppress(OSError):
        space = os.statvfs(directory)
        free = tables.bytes_text(space.f_bavail * space.f_frsize)
    rate = tables.bytes_text(sum(gaps.bytes_per_s() for gaps in found.values()))
    lines = [
        f"{len(found)} topics, {tables.bytes_text(used)} in {directory}, {free} free, {rate}/s",
        "",
        *tables.table(
            HEADER, [_row(name, gaps) for name, gaps in _sorted(found, by)], right=" >>>>>>>>>"
        ),
    ]
    if participants:
        from framegate.topic_cli import participant_table

        for name, gaps in _sorted(found, by):
            if gaps.look is not None and gaps.look.report.participants:
                lines += ["", name, *("  " + line for line in participant_table(gaps.look))]
    return lines


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
                _print_lines([*([""] if done else []), *_lines(found, options["sort"], False)])
            done += 1
    finally:
        meters.close()
    return EXIT_STOPPED


class _Keys:
    """Keys that were pressed, without waiting for them."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, timeout: float) -> str:
        import select

        if not select.select([self._fd], [], [], timeout)[0]:
            return ""
        return os.read(self._fd, 64).decode("ascii", "replace")


@contextlib.contextmanager
def _terminal() -> Iterator[_Keys]:
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        sys.stdout.write(ALTERNATE_SCREEN[0])
        yield _Keys(fd)
    finally:
        sys.stdout.write(ALTERNATE_SCREEN[1])
        sys.stdout.flush()
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _draw(lines: Sequence[str]) -> None:
    size = os.get_terminal_size(sys.stdout.fileno())
    shown = [line[: size.columns] for line in lines[: max(1, size.lines - 1)]]
    if len(shown) > 2:
        shown[2] = f"{BOLD}{shown[2]}{PLAIN}"
    sys.stdout.write(HOME + "".join(f"{line}{CLEAR_LINE}\r\n" for line in shown) + CLEAR_REST)
    sys.stdout.flush()


def _screen(options: dict[str, Any], keys: _Keys) -> int:
    meters = _Meters(options["topics"])
    by, participants, done = options["sort"], False, 0
    found: dict[str, observe.Gaps] = {}
    footer = "q ends, s sorts by the next column, p participants; * held over 1 s, ! dead"
    try:
        until = time.monotonic() + min(0.2, options["interval"])  # something to see at once
        while options["count"] is None or done < options["count"]:
            while (left := until - time.monotonic()) > 0:
                pressed = keys.read(min(left, POLL_S))
                meters.poll()
                if "q" in pressed:
                    return EXIT_STOPPED
                if "s" in pressed:
                    by = SORTS[(SORTS.index(by) + 1) % len(SORTS)]
                if "p" in pressed:
                    participants = not participants
                if pressed:
                    _draw([*_lines(found, by, participants), "", f"by {by}; {footer}"])
            found = meters.read()
            _draw([*_lines(found, by, participants), "", f"by {by}; {footer}"])
            until = time.monotonic() + options["interval"]
            done += 1
    finally:
        meters.close()
    return EXIT_STOPPED
