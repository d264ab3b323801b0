"""Directories of static files and the prefixes that they are served below: `/prefix=directory`.

A prefix is compared with the path as the client wrote it, so it has no escapes, no empty segments
and no dots that mean something. `/` is refused: it would hide the whole application.

Read only when there are any.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable
from typing import Final

from framegate.errors import ConfigError

__all__ = ["check_mounts", "parse_mounts"]

# RFC 3986 section 3.3, pchar, without escapes.
_PREFIX: Final = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;:@-]+)+")


def parse_mounts(items: Iterable[object]) -> tuple[tuple[str, str], ...]:
    """Return pairs of prefix and directory.

    Args:
        items: Texts, or pairs of the two.

    Raises:
        ValueError: What is wrong, phrased to follow the name of the setting.
    """
    found: dict[str, str] = {}
    for item in items:
        prefix, directory = _parse(item)
        if prefix in found:
            raise ValueError(f"the prefix {prefix} is given twice")
        found[prefix] = directory
    return tuple(found.items())


def _parse(item: object) -> tuple[str, str]:
    if isinstance(item, str):
        prefix, equals, directory = item.partition("=")
        if not equals:
            raise ValueError(f'expected /prefix=directory, got "{item}"')
        return _checked(prefix.strip(), directory.strip())
    if isinstance(item, (list, tuple)) and len(item) == 2:
        prefix, directory = item
        if isinstance(directory, os.PathLike):
            directory = os.fspath(directory)
        if isinstance(prefix, str) and isinstance(directory, str):
            return _checked(prefix, directory)
    raise ValueError(f"expected /prefix=directory, got {item!r}")


def _checked(prefix: str, directory: str) -> tuple[str, str]:
    if prefix == "/":
        raise ValueError("the prefix / would hide the application; take one such as /static")
    prefix = prefix.removesuffix("/")
    segments = prefix.split("/")[1:]
    if not _PREFIX.fullmatch(prefix) or "." in segments or ".." in segments:
        raise ValueError(f'"{prefix}" is no prefix; expected a path such as /static')
    if not directory or "\0" in directory:
        raise ValueError(f"{prefix} has no directory; expected /prefix=directory")
    return prefix, directory


def check_mounts(mounts: Iterable[tuple[str, str]], origin: object) -> None:
    """Look whether the directories can be served.

    Args:
        mounts: Pairs of prefix and directory.
        origin: Where they were given.

    Raises:
        ConfigError: One of them cannot.
    """
    for prefix, directory in mounts:
        try:
            is_directory = stat.S_ISDIR(os.stat(directory).st_mode)
            problem = "" if is_directory else os.strerror(errno.ENOTDIR)
        except OSError as error:
            problem = str(error.strerror)
        if problem:
            raise ConfigError(
                f"static {prefix}: the directory {os.path.abspath(directory)} cannot be served: "
                f"{problem} ({origin})"
            )
