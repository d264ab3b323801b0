"""`--env-file`: variables from a file, as python-dotenv reads it for uvicorn.

    # a comment
    export NAME=value            # and another one
    SINGLE='as it stands, \\' is a quote'
    DOUBLE="\\n is a line's end, and a value
    may have several lines"
    URL=postgres://${USER}@${HOST:-localhost}/db

A variable that exists already is kept: the file says what is missing, `docker run -e` and systemd
have the last word. `${NAME}` is the variable, or what the file said of it further up; it counts in
quotes of both kinds, too.

A name without a value assigns nothing, and takes nothing back either. Where python-dotenv skips a
line that it cannot read, or a file that does not exist, this is an error: whatever the application
would have read from it is missing. Errors never show values, which are secrets more often than not.

Who reads it when:

- `Config.load`, because `FRAMEGATE_*` in it are settings like those of the environment.
- The process that serves, before anything of the application is imported. Workers of a supervisor
  are started in the environment that the supervisor was started in, and read the file themselves,
  so that one that is started later (SIGHUP, `--reload`) has what the file says then.

A test compares this to python-dotenv.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Final

from framegate.errors import ConfigError

__all__ = ["FILE_BYTES_MAX", "apply_env_file", "parse", "read_env_file"]

FILE_BYTES_MAX: Final = 1 << 20
"""The kernel gives a new program about two megabytes of arguments and environment together."""

# One statement. Nothing in it is tried a second way (atomic groups), as python-dotenv goes forward
# only. Blank is white space that ends no line.
_BLANK: Final = r"[^\S\r\n]"
_STATEMENT: Final = re.compile(
    rf"""
    (?>(?:export{_BLANK}+)?)
    (?> (?=\#) | '(?P<quoted_name>[^']+)' | (?P<name>[^=\#\s'][^=\#\s]*) )
    {_BLANK}*+
    (?> (?P<assigned>=)
        (?> {_BLANK}++(?=\#)
          | {_BLANK}*+
            (?> '(?P<single>(?:\\(?s:.)|[^'\\])*)'
              | "(?P<double>(?:\\(?s:.)|[^"\\])*)"
              | (?!['"])(?P<plain>[^\r\n]*) ) ) )?
    (?>(?:{_BLANK}*\#[^\r\n]*)?)
    {_BLANK}*+(?:\n|\Z)
    """,
    re.VERBOSE,
)
_SPACE: Final = re.compile(r"\s*")
_COMMENT_AFTER: Final = re.compile(r"\s+#.*")
_ESCAPES_SINGLE: Final = re.compile(r"\\[\\']")
_ESCAPES_DOUBLE: Final = re.compile(r"\\[\\'\"abfnrtv]")
_MEANINGS: Final = {
    **{character: character for character in "\\'\""},
    **{"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"},
}
_VARIABLE: Final = re.compile(r"\$\{(?P<name>[^}:]*)(?::-(?P<default>[^}]*))?\}")


def parse(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, name and value of each assignment, with `${...}` as it stands.

    Args:
        text: What the file holds, with `\\n` at the ends of its lines.

    Raises:
        ValueError: Something is none; the message begins with the number of its line.
    """
    at, line = 0, 1
    while True:
        space = _SPACE.match(text, at)
        assert space is not None  # it may be empty
        start = space.end()
        line += text.count("\n", at, start)
        if start == len(text):
            return
        match = _STATEMENT.match(text, start)
        if match is None:
            raise ValueError(f"line {line}: {_what_is_wrong(text[start:])}")
        at, number = match.end(), line
        line += text.count("\n", start, at)
        if match["assigned"] is None:
            continue  # a comment, or `export NAME`, which assigns nothing
        name = match["quoted_name"] or match["name"]
        if match["single"] is not None:
            value = _ESCAPES_SINGLE.sub(_meaning, match["single"])
        elif match["double"] is not None:
            value = _ESCAPES_DOUBLE.sub(_meaning, match["double"])
        else:
            # None: a comment in its place.
            value = _COMMENT_AFTER.sub("", match["plain"] or "").rstrip()
        if "\0" in name or "\0" in value:
            raise ValueError(f"line {number}: a variable cannot hold a NUL")
        yield number, name, value


def _meaning(match: re.Match[str]) -> str:
    return _MEANINGS[match[0][1]]


def _what_is_wrong(rest: str) -> str:
    """Return why a statement could not be read, without what it says."""
    first = rest.partition("\n")[0]
    value = first.partition("=")[2].lstrip()
    if value[:1] in ("'", '"'):
        quote = value[0]
        closed = re.search(rf"[^\\]{quote}", rest.partition("=")[2].lstrip()[1:] or " ")
        if closed or value.startswith(quote * 2):
            return f"there is something after the closing {quote}"
        return f"the {quote} of the value is not closed"
    return "expected NAME=value"


def read_env_file(path: str, environment: Mapping[str, str], *, origin: str) -> dict[str, str]:
    """Return the variables of a file.

    Args:
        path: The file.
        environment: What exists already, for `${NAME}`.
        origin: Who named the file, for errors.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        # Not blocking: of a pipe nobody may be at the other end.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, encoding="utf-8-sig") as stream:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode):
                raise ConfigError(
                    f"{origin} {path}: is no regular file; each worker that starts reads it anew"
                )
            if about.st_size > FILE_BYTES_MAX:
                raise ConfigError(f"{origin} {path}: has more than {FILE_BYTES_MAX} bytes")
            text = stream.read()
    except OSError as error:
        raise ConfigError(f"{origin} {path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{origin} {path}: is no UTF-8 at byte {error.start}") from None
    found: dict[str, str] = {}
    try:
        for _, name, value in parse(text):
            found[name] = _expand(value, found, environment)
    except ValueError as error:
        raise ConfigError(f"{origin} {path}: {error}") from None
    return found


def _expand(value: str, found: Mapping[str, str], environment: Mapping[str, str]) -> str:
    def replace(match: re.Match[str]) -> str:
        name = match["name"]
        if name in environment:
            return environment[name]
        return found.get(name, match["default"] or "")

    return _VARIABLE.sub(replace, value)


def apply_env_file(
    path: str | None, *, origin: str, environment: MutableMapping[str, str] | None = None
) -> dict[str, str]:
    """Put what a file says into the environment; doing it again changes nothing.

    Args:
        path: The file; nothing is done without one.
        origin: Who named the file, for errors.
        environment: Where to; that of the process if None.

    Returns:
        The environment as it was.

    Raises:
        ConfigError: The file cannot be read.
    """
    target = os.environ if environment is None else environment
    before = dict(target)
    if path is not None:
        for name, value in read_env_file(path, before, origin=origin).items():
            target.setdefault(name, value)
    return before
