"""Kinds of value: what a setting takes, in which forms, and what is said about it.

`config.py` declares each setting with one of these. A kind turns text (of the command line, of the
environment) and Python values (of code, of TOML) into the one form that the server reads, and says
in a `ValueError` what it would have accepted, phrased to follow `--port 99999: `.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from framegate.errors import suggestion


class Kind:
    """What values a setting takes.

    Attributes:
        unit: What a number counts, for the reference; empty where there is none.
        placeholder: What stands for the value in `--help`.
        expectation: The accepted values, to follow "expected".
    """

    unit: ClassVar[str] = ""
    placeholder: str = ""
    expectation: str = ""

    def parse(self, value: object) -> object:
        """Return the value in its one Python form.

        Raises:
            ValueError: It is none of the accepted ones; the text says which those are.
        """
        raise NotImplementedError

    def metavar(self) -> str:
        """Return the placeholder in `--help`."""
        return self.placeholder

    def accepts(self) -> str:
        """Return the accepted values, for the reference and for complaints."""
        return self.expectation

    def show(self, value: Any) -> str:
        """Return a parsed value as it would be typed."""
        return "none" if value is None else str(value)

    def below(self, value: object, directory: str) -> object:
        """Return a value from a configuration file, with paths as seen from its directory."""
        return value


@dataclass(frozen=True)
class Text(Kind):
    """Any text without control characters."""

    placeholder: str = "TEXT"
    pattern: str = r"[^\x00-\x1f\x7f]*"
    expectation: str = "text without control characters"

    def parse(self, value: object) -> str:
        """Return the text, all of which the pattern must match; of a path object, its path."""
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if not isinstance(value, str) or not re.fullmatch(self.pattern, value):
            raise ValueError(f"expected {self.expectation}")
        return value


@dataclass(frozen=True)
class Prefix(Text):
    """A path that others lie below."""

    SEGMENT: ClassVar[str] = r"(/[A-Za-z0-9._~!$&'()*+,;:@-]+)"
    """RFC 3986, 3.3, without escapes: what a client writes is what is compared."""

    placeholder: str = "/PREFIX"
    pattern: str = f"{SEGMENT}+"


class FilePath(Text):
    """A path; one from a configuration file is relative to that file."""

    def below(self, value: object, directory: str) -> object:
        """Return the path as seen from the directory of the file that names it."""
        return os.path.join(directory, value) if isinstance(value, str) else value


class LogConfig(FilePath):
    """A file for Python's logging, or the dictionary itself."""

    def parse(self, value: object) -> Any:
        """Return the path, or a copy of the dictionary; what is in it, logging itself checks."""
        return dict(value) if isinstance(value, Mapping) else super().parse(value)

    def accepts(self) -> str:
        """Return both forms."""
        return "a path; in code, or as a table in a file, what logging.config.dictConfig takes"

    def show(self, value: Any) -> str:
        """Return the path; a dictionary is too long for a line."""
        return "<a dictionary>" if isinstance(value, dict) else super().show(value)


STANDARD_STREAMS: Final = ("stdout", "stderr")


class LogTarget(FilePath):
    """A standard stream, or a file."""

    def parse(self, value: object) -> str:
        """Return the name of the stream, or the path, which may not be empty."""
        path = super().parse(value)
        if not path:
            raise ValueError(f"expected {self.accepts()}")
        return path

    def below(self, value: object, directory: str) -> object:
        """Return a path as seen from that directory; streams are everywhere the same."""
        return value if value in STANDARD_STREAMS else super().below(value, directory)

    def accepts(self) -> str:
        """Return the names of the streams, or a path."""
        return "stdout, stderr or the path of a file"


class AccessFormat(Text):
    """What a line of the access log looks like."""

    def parse(self, value: object) -> str:
        """Return the text after a look at its directives (`access_format.py`)."""
        text = super().parse(value)
        if text not in ("text", "json"):
            from framegate.access_format import parse

            parse(text)
        return text

    def metavar(self) -> str:
        """Return the placeholder in `--help`."""
        return "FORMAT"

    def accepts(self) -> str:
        """Return the names of the formats, and how one is written."""
        return "text, json, common, combined, or a text with directives of Apache such as %h"


@dataclass(frozen=True)
class Secret(Text):
    """Text that is never shown."""

    placeholder: str = "PASSWORD"

    def show(self, value: Any) -> str:
        """Return whether there is one, no more."""
        return "none" if value is None else "***"


@dataclass(frozen=True)
class TokenTable(Secret):
    """Tokens by name, and what they allow; only their digests are kept."""

    placeholder: str = "TOML"

    def parse(self, value: object) -> Any:
        """Return the tokens by name, as `topic_access.py` reads them."""
        from framegate.topic_access import parse_tokens

        return parse_tokens(value)

    def accepts(self) -> str:
        """Return where the form of the tables is described."""
        return "tables of tokens as in topics_token_file, as TOML; in code also a dictionary"

    def show(self, value: Any) -> str:
        """Return the names of the tokens, which are no secret."""
        return " ".join(value or ()) or "none"


@dataclass(frozen=True)
class UrlPath(Text):
    """A path of requests that the server answers itself."""

    placeholder: str = "PATH"
    pattern: str = r"/[!$&-;=@-Z_a-z~]*"
    expectation: str = "a path that begins with / and needs no escapes, without a query"


class SocketPath(FilePath):
    """The path of a Unix socket, which has a limit in bytes."""

    def parse(self, value: object) -> str:
        """Return the path, if it fits into the kernel's address (`binds.py`)."""
        from framegate.binds import unix_path

        return unix_path(super().parse(value))


RATE_PATTERN: Final = r"[1-9][0-9]{0,5}/[smh](:[1-9][0-9]{0,5})?"
RATE_WINDOWS: Final = {"s": 1, "m": 60, "h": 3600}
RATE_SECONDS_MAX: Final = 30 * 86_400


class Rate(Text):
    """So many requests in a time, and at once: `100/s`, `600/m:50`."""

    def parse(self, value: object) -> str:
        """Return the text, if all that is allowed at once comes back within 30 days."""
        text = super().parse(value)
        quota, window, burst = rate_terms(text.rpartition("=")[2])
        if burst * window > RATE_SECONDS_MAX * quota:
            raise ValueError(f"it would take more than 30 days until {burst} are allowed again")
        return text


def rate_terms(text: str) -> tuple[int, int, int]:
    """Return the requests, the seconds and the requests at once."""
    rate, _, burst = text.partition(":")
    quota, _, unit = rate.partition("/")
    return int(quota), RATE_WINDOWS[unit], int(burst or quota)


class Imported(Kind):
    """`module:attribute`, or in code the object itself."""

    def parse(self, value: object) -> object:
        """Return the import string as it is, or the object; importing is the worker's part."""
        if isinstance(value, str) and re.fullmatch(r"[^\s:]+:[^\s:()]+", value):
            return value
        if not isinstance(value, str) and self.fits(value):
            return value
        raise ValueError(f"expected {self.accepts()}")

    def fits(self, value: object) -> bool:
        """Return whether an object looks like what is meant."""
        return callable(value)

    def show(self, value: Any) -> str:
        """Return the import string, or in angle brackets what the object is called."""
        if value is None or isinstance(value, str):
            return value or "none"
        named = value if hasattr(value, "__qualname__") else type(value)
        return f"<{named.__module__}.{named.__qualname__}>"


class AccessFunction(Imported):
    """The function that judges who may use a topic."""

    placeholder = "module:function"
    expectation = "`module:function`, or in code an async function"


class CollectorObject(Imported):
    """The object that events are handed to."""

    placeholder = "module:object"
    expectation = "`module:object`, or in code an object with a method record_batch(events)"

    def fits(self, value: object) -> bool:
        """Return whether it takes batches of events."""
        return callable(getattr(value, "record_batch", None))


class ImportString(Imported):
    """The application: its import string is checked by the importer, which can say more."""

    placeholder = "module:app"
    expectation = "`module:attribute`, `module:factory()`, or in code the application itself"

    def parse(self, value: object) -> object:
        """Return the import string, which may not be blank, or the application."""
        if isinstance(value, str):
            if not value.strip():
                raise ValueError("expected module:attribute")
            return value
        if not self.fits(value):
            raise ValueError("expected module:attribute or an ASGI application")
        return value


@dataclass(frozen=True)
class Integer(Kind):
    """A whole number between two bounds, both included."""

    placeholder = "N"

    minimum: int = 0
    maximum: int = 2**31 - 1

    def parse(self, value: object) -> int:
        """Return the number; text may have a sign and spaces around it."""
        number = self._number(value)
        if number is None or not self.minimum <= number <= self.maximum:
            raise ValueError(f"expected {self.accepts()}")
        return number

    def _number(self, value: object) -> int | None:
        if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]+\s*", value, re.ASCII):
            return int(value)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def accepts(self) -> str:
        """Return the bounds."""
        return f"a whole number from {self.minimum} to {self.maximum}"


_SIZE_FACTORS: Final = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30}


class Bytes(Integer):
    """A number of bytes; text may say `64KiB`."""

    unit = "bytes"
    placeholder = "BYTES"

    def _number(self, value: object) -> int | None:
        if isinstance(value, str):
            parts = re.fullmatch(r"\s*([0-9]+)\s*([a-z]*)\s*", value.lower(), re.ASCII)
            if parts is None or parts[2] not in _SIZE_FACTORS:
                return None
            return int(parts[1]) * _SIZE_FACTORS[parts[2]]
        return super()._number(value)

    def accepts(self) -> str:
        """Return the bounds, and that units may be written."""
        return f"{self.minimum} to {self.maximum} bytes (64KiB, 16MiB also work)"


_DURATION_FACTORS: Final = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

# A number alone, or at least one number with a unit, the larger units first.
DURATION_PATTERN: Final = (
    r"\s*(?:(?P<plain>[0-9]+(?:\.[0-9]+)?)|(?=[0-9])"
    + "".join(rf"(?:(?P<{unit}>[0-9]+(?:\.[0-9]+)?)\s*{unit}\s*)?" for unit in _DURATION_FACTORS)
    + r")\s*"
)


def _seconds(text: str) -> float | None:
    """Return what `1h30m` means; a number alone is seconds, and no unit comes twice."""
    parts = re.fullmatch(DURATION_PATTERN, text, re.ASCII)
    if parts is None:
        return None
    if parts["plain"]:
        return float(parts["plain"])
    return sum(float(parts[unit] or 0) * factor for unit, factor in _DURATION_FACTORS.items())


@dataclass(frozen=True)
class Seconds(Kind):
    """A duration in seconds; text may say `500ms`, `30s`, `1h30m`."""

    unit = "seconds"
    placeholder = "SECONDS"

    minimum: float = 0.0
    maximum: float = 86_400.0

    def parse(self, value: object) -> float:
        """Return the seconds."""
        number: float | None = None
        if isinstance(value, str):
            number = _seconds(value.lower())
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            number = float(value)
        if number is None or not self.minimum <= number <= self.maximum:
            raise ValueError(f"expected {self.accepts()}")
        return number

    def accepts(self) -> str:
        """Return the bounds, and that units may be written."""
        return f"{self.minimum:g} to {self.maximum:g} seconds (500ms, 30s, 1h30m also work)"

    def show(self, value: Any) -> str:
        """Return the seconds, without a fraction that is zero."""
        return "none" if value is None else f"{value:g}"


@dataclass(frozen=True)
class SecondsOrOff(Seconds):
    """A duration, or `off`, which is `None`."""

    def parse(self, value: object) -> Any:
        """Return the seconds, or `None` for `off` and `none`."""
        if value is None or (isinstance(value, str) and value.strip().lower() in {"off", "none"}):
            return None
        return super().parse(value)

    def accepts(self) -> str:
        """Return the bounds, and the word."""
        return f"{super().accepts()}, or off"

    def show(self, value: Any) -> str:
        """Return the seconds, or `off`."""
        return "off" if value is None else super().show(value)


TRUE_WORDS: Final = frozenset({"1", "true", "yes", "on"})
FALSE_WORDS: Final = frozenset({"0", "false", "no", "off"})


class Flag(Kind):
    """On or off."""

    expectation = "true or false"

    def parse(self, value: object) -> bool:
        """Return what the word says, in any case: `yes`, `on`, `1` and their opposites too."""
        if isinstance(value, bool):
            return value
        word = value.strip().lower() if isinstance(value, str) else ""
        if word not in TRUE_WORDS | FALSE_WORDS:
            raise ValueError(f"expected {self.expectation}")
        return word in TRUE_WORDS

    def show(self, value: Any) -> str:
        """Return the word of TOML."""
        return "true" if value else "false"


class OptionalFlag(Flag):
    """On, off, or as the circumstances are."""

    def show(self, value: Any) -> str:
        """Return the word of TOML, or `none` where the circumstances decide."""
        return "none" if value is None else super().show(value)


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few words."""

    words: tuple[str, ...] = ()
    numbers: tuple[tuple[int, str], ...] = ()
    """Numbers that mean the same: those of uvicorn, which are constants of Python's `ssl`."""
    flag: tuple[str, str] | None = None
    """What true and false mean, where uvicorn has a flag."""

    def parse(self, value: object) -> str:
        """Return the word, in lower case, that the value is or means."""
        if isinstance(value, bool) and self.flag:
            return self.flag[not value]
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(int(value))
        word = value.strip().lower() if isinstance(value, str) else ""
        word = {str(number): meaning for number, meaning in self.numbers}.get(word, word)
        if self.flag and word in TRUE_WORDS | FALSE_WORDS:
            word = self.flag[word in FALSE_WORDS]
        if word not in self.words:
            hint = suggestion(word, self.words) if word else ""
            raise ValueError(f"expected {self.accepts()}{hint}")
        return word

    def metavar(self) -> str:
        """Return the words in braces, as argparse shows choices."""
        return "{" + ",".join(self.words) + "}"

    def accepts(self) -> str:
        """Return the words."""
        return f"{', '.join(self.words[:-1])} or {self.words[-1]}"


class Peers(Kind):
    """Whom to believe: addresses, networks, `unix` for Unix sockets, `*` for everybody."""

    placeholder = "PEERS"
    expectation = (
        "addresses, networks such as 10.0.0.0/8, unix (peers on Unix sockets) or * "
        "(everybody), separated by commas or spaces; in a file also a list of them"
    )

    def parse(self, value: object) -> tuple[str, ...]:
        """Return each of them once, addresses and networks in their canonical form."""
        if isinstance(value, str):
            value = value.replace(",", " ").split()
        if not isinstance(value, Iterable):
            raise ValueError(f"expected {self.accepts()}")
        return tuple(dict.fromkeys(self._peer(item) for item in value))

    def _peer(self, item: object) -> str:
        if item in ("*", "unix"):
            return str(item)
        import ipaddress

        try:
            if not isinstance(item, str) or not item:
                raise ValueError
            if "/" not in item:
                return str(ipaddress.ip_address(item))
            address, _, prefix = item.partition("/")
            if not prefix.isdecimal():
                raise ValueError
            network = ipaddress.ip_network(item, strict=False)
        except ValueError:
            raise ValueError(f'"{item}" is none; expected {self.accepts()}') from None
        if network.network_address != ipaddress.ip_address(address):
            raise ValueError(f'"{item}" is no network; did you mean {network} or {address}?')
        return str(network)

    def show(self, value: Any) -> str:
        """Return them, separated by commas as uvicorn has it."""
        return ",".join(value) or "none"


class Ciphers(Kind):
    """Names of cipher suites."""

    placeholder = "NAMES"
    expectation = "names of OpenSSL or IANA, separated by colons"

    def parse(self, value: object) -> tuple[str, ...]:
        """Return IANA's names, in the order given (`ciphers.py`)."""
        if not isinstance(value, str):
            if not isinstance(value, Iterable):
                raise ValueError(f"expected {self.accepts()}")
            value = ":".join(map(str, value))
        if not value:
            return ()  # the default, which is parsed at every start
        from framegate.ciphers import parse_ciphers

        return parse_ciphers(value)

    def show(self, value: Any) -> str:
        """Return the names, separated by colons as OpenSSL has it."""
        return ":".join(value) or "none"


class Several(Kind):
    """Any number of values: a list, or one text with all of them.

    The command line takes them one by one, by repeating the option.
    """

    separator: ClassVar[str] = " "
    """What stands between two of them in one text; a space means any white space, a line feed any
    end of a line."""

    def items(self, value: object) -> list[Any]:
        """Take them apart; what each of them is shows later.

        Raises:
            ValueError: It is neither text nor a list.
        """
        if isinstance(value, str):
            match self.separator:
                case " ":
                    parts = value.split()
                case "\n":
                    parts = value.splitlines()
                case other:
                    parts = value.split(other)
            return [part for part in parts if part.strip()]
        if isinstance(value, Mapping) or not isinstance(value, Iterable):
            raise ValueError(f"expected {self.accepts()}")
        return list(value)

    def show(self, value: Any) -> str:
        """Return them as one text."""
        return self.separator.join(value) or "none"


class UrlPaths(Several):
    """Paths of URLs; as one text, separated by spaces."""

    placeholder = "PATH"
    expectation = "paths such as /health or, with all below it, /health/*; in a file a list of them"

    def parse(self, value: object) -> tuple[str, ...]:
        """Return the paths; a star may end each of them."""
        items = tuple(self.items(value))
        for item in items:
            if not isinstance(item, str) or not re.fullmatch(r"/[!-)+->@-~]*\*?", item):
                raise ValueError(f"expected {self.accepts()}")
        return items


@dataclass(frozen=True)
class Patterns(Several):
    """Patterns of names; as one text, separated by spaces."""

    placeholder: str = "PATTERN"
    expectation = "patterns such as *.sql or data/*; in a file a list of them"

    def parse(self, value: object) -> tuple[str, ...]:
        """Return the patterns, none of them empty."""
        items = tuple(self.items(value))
        if not all(isinstance(item, str) and item for item in items):
            raise ValueError(f"expected {self.accepts()}")
        return items


@dataclass(frozen=True)
class FilePaths(Several):
    """Paths of files; as one text separated as in PATH."""

    separator: ClassVar[str] = os.pathsep
    placeholder: str = "FILE"

    def parse(self, value: object) -> tuple[str, ...]:
        """Return the paths as text."""
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        path = FilePath(placeholder=self.placeholder)
        return tuple(path.parse(item) for item in self.items(value))

    def accepts(self) -> str:
        """Return how several paths are written."""
        return f"paths, separated by {os.pathsep} in the environment; in a file a path or a list"

    def below(self, value: object, directory: str) -> object:
        """Return each of the paths as seen from the directory of the file that names them."""
        items = self.items(value) if isinstance(value, str) else value
        if not isinstance(items, list):
            return value
        return [os.path.join(directory, item) if isinstance(item, str) else item for item in items]


class Binds(Several):
    """Addresses to listen on, in the grammar of `binds.py`; as one text, separated by spaces."""

    placeholder = "ADDRESS"
    expectation = (
        "host:port, [v6]:port, *:port, unix:path?mode=660&user=name&group=name, fd://3, "
        "systemd or systemd:name, each with ?proxy=on for PROXY headers; in a file a list"
    )

    def parse(self, value: object) -> tuple[str, ...]:
        """Return the addresses in their canonical form; only port 0 may come twice."""
        items = self.items(value)
        if not items:
            return ()  # the default, which is parsed at every start
        from framegate.binds import parse_bind

        found: dict[str, None] = {}
        for item in items:
            if not isinstance(item, str):
                raise ValueError(f"expected {self.accepts()}")
            try:
                bind = str(parse_bind(item))
            except ValueError as error:
                raise ValueError(str(error) if len(items) == 1 else f'"{item}": {error}') from None
            if bind in found and not bind.removesuffix("?proxy=on").endswith(":0"):
                raise ValueError(f'"{bind}" is given twice')
            found[bind] = None
        return tuple(found)

    def below(self, value: object, directory: str) -> object:
        """Return the addresses, those of Unix sockets as seen from that directory."""
        items = self.items(value) if isinstance(value, str) else value
        if not isinstance(items, list):
            return value
        return [self._below(item, directory) for item in items]

    @staticmethod
    def _below(item: object, directory: str) -> object:
        if not isinstance(item, str) or not item.startswith("unix:"):
            return item
        path = item.removeprefix("unix:")
        if path.startswith(("/", "@")):
            return item
        from urllib.parse import quote

        return f"unix:{quote(directory)}/{path}" if directory else item


class AdminBinds(Binds):
    """The same, where a port alone is one of this machine: what is there is for its operators."""

    def parse(self, value: object) -> tuple[str, ...]:
        """Return the addresses in their canonical form, all with a host."""
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        binds = super().parse([self._with_host(item) for item in self.items(value)])
        if any("proxy=on" in bind for bind in binds):
            raise ValueError("expected no proxy=on: operators ask directly")
        return binds

    @staticmethod
    def _with_host(item: object) -> object:
        if isinstance(item, int) and not isinstance(item, bool):
            item = str(item)
        is_port = isinstance(item, str) and re.fullmatch(r":?[0-9]+", item, re.ASCII)
        return f"127.0.0.1:{str(item).removeprefix(':')}" if is_port else item

    def accepts(self) -> str:
        """Return what else is accepted here, and the addresses."""
        return f"a port of 127.0.0.1, or {super().accepts()}"


class MiddlewareList(Several):
    """ASGI middleware, outermost first: pairs of a factory and its options.

    A list holds import strings, each followed by a table of options or not, or pairs of the two;
    in code also classes and what Starlette calls `Middleware`. A text holds one per line: the
    import string, then the options as a JSON object.
    """

    separator = "\n"
    placeholder = "'module:Factory {options}'"
    expectation = (
        "module:Factory, each followed by its options or not: as a table in a list, "
        "as JSON in a text with one per line"
    )

    def parse(self, value: object) -> tuple[tuple[object, dict[str, Any]], ...]:
        """Return pairs of a factory (an import string or the object) and its options."""
        found: list[tuple[object, dict[str, Any]]] = []
        is_open = False  # whether a table may follow
        for item in self.items(value):
            if isinstance(item, Mapping):
                if not is_open:
                    raise ValueError("a table of options follows the string that it belongs to")
                found[-1] = (found[-1][0], self._options(item))
                is_open = False
                continue
            found.append(self._one(item))
            is_open = isinstance(item, str) or callable(item)
        return tuple(found)

    def _one(self, item: object) -> tuple[object, dict[str, Any]]:
        if isinstance(item, str):
            name, _, rest = item.strip().partition(" ")
            return self._factory(name), self._from_json(rest)
        if isinstance(item, (list, tuple)) and len(item) in (1, 2):
            options = item[1] if len(item) == 2 else {}
            if isinstance(options, Mapping):
                return self._factory(item[0]), self._options(options)
        elif hasattr(item, "cls") and hasattr(item, "kwargs"):  # starlette.middleware.Middleware
            if getattr(item, "args", ()):
                raise ValueError("middleware takes options by name, not by position")
            return self._factory(item.cls), self._options(item.kwargs)
        elif callable(item):
            return item, {}
        raise ValueError(f"{item!r} is no middleware; expected {self.accepts()}")

    def _factory(self, factory: object) -> object:
        if isinstance(factory, str):
            if ":" not in factory:
                raise ValueError(f'"{factory}" is no module:Factory')
        elif not callable(factory):
            raise ValueError(f"{factory!r} is no middleware; expected module:Factory")
        return factory

    def _options(self, options: Mapping[Any, Any]) -> dict[str, Any]:
        for name in options:
            if not isinstance(name, str) or not name.isidentifier():
                raise ValueError(f"{name!r} is no name of an option")
        return dict(options)

    def _from_json(self, text: str) -> dict[str, Any]:
        import json

        if not text.strip():
            return {}
        try:
            options = json.loads(text)
        except ValueError as error:
            raise ValueError(f"options {text.strip()}: are no JSON: {error}") from None
        if not isinstance(options, dict):
            raise ValueError(f"options {text.strip()}: expected a JSON object")
        return self._options(options)

    def show(self, value: Any) -> str:
        """Return the factories, without their options, which may be secrets."""
        return ", ".join(str(factory) for factory, _ in value) or "none"


class Pairs(Several):
    """Names and what they stand for: a table, a list of pairs, or text with a pair per line."""

    separator = "\n"

    def items(self, value: object) -> list[Any]:
        """Take them apart; what each of them is shows later."""
        return super().items(list(value.items()) if isinstance(value, Mapping) else value)


_HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2, token
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110 section 5.5, field-value

# The message framing is ours to decide; a header that contradicts it desyncs the connection.
_HEADERS_RESERVED: Final = frozenset(
    {"connection", "content-length", "keep-alive", "trailer", "transfer-encoding", "upgrade"}
)


class Headers(Pairs):
    """Pairs of header name and value; as text one `name: value` per line."""

    placeholder = '"name: value"'
    expectation = '"name: value", one per line; in a file a list of them or a table'

    def parse(self, value: object) -> tuple[tuple[str, str], ...]:
        """Return the pairs, without those white spaces that are no part of a value."""
        return tuple(self._pair(item) for item in self.items(value))

    def _pair(self, item: object) -> tuple[str, str]:
        if isinstance(item, str):
            name, colon, content = item.partition(":")
            if not colon:
                raise ValueError(f'expected "name: value", got "{item}"')
        elif isinstance(item, Sequence) and len(item) == 2 and {str} == set(map(type, item)):
            name, content = item
        else:
            raise ValueError(f"expected {self.accepts()}")
        name, content = name.strip(), content.strip(" \t")
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(content):
            raise ValueError(f"{item!r} is no valid header")
        if name.lower() in _HEADERS_RESERVED:
            raise ValueError(f"the server itself decides about {name.lower()}")
        return name, content

    def show(self, value: Any) -> str:
        """Return the headers on one line."""
        return "; ".join(f"{name}: {content}" for name, content in value) or "none"


class StaticMounts(Pairs):
    """Directories and the prefixes that they are served below, as `static_mounts.py` has them."""

    placeholder = "/PREFIX=DIRECTORY"
    expectation = "/prefix=directory, one per line; in a file a list of them or a table"

    def parse(self, value: object) -> tuple[tuple[str, str], ...]:
        """Return pairs of a prefix and a directory."""
        items = self.items(value)
        if not items:
            return ()  # the default, which is parsed at every start
        from framegate.static_mounts import parse_mounts

        return parse_mounts(items)

    def show(self, value: Any) -> str:
        """Return the pairs on one line."""
        return " ".join(f"{prefix}={directory}" for prefix, directory in value) or "none"

    def below(self, value: object, directory: str) -> object:
        """Return the pairs, with directories as seen from that of the file that names them."""
        items = self.items(value) if isinstance(value, (str, dict)) else value
        if not isinstance(items, list):
            return value
        return [self._below(item, directory) for item in items]

    @staticmethod
    def _below(item: object, directory: str) -> object:
        if isinstance(item, str) and "=" in item:
            item = item.split("=", 1)
        if isinstance(item, (list, tuple)) and len(item) == 2 and isinstance(item[1], str):
            return item[0], os.path.join(directory, item[1].strip())
        return item


class TopicRules(Pairs):
    """What frame routes may create, as `topic_rules.py` has it: pairs of a pattern and a rule."""

    placeholder = "'PATTERN {rule}'"
    expectation = (
        "in a file a table of tables by pattern; else a pattern and its rule as JSON, one per "
        "line, with the keys create, slots, slot_bytes, dtype and shape"
    )

    def parse(self, value: object) -> tuple[tuple[str, dict[str, Any]], ...]:
        """Return pairs of a pattern and a rule, with the keys that have defaults."""
        items = self.items(value)
        if not items:
            return ()  # the default, which is parsed at every start
        from framegate.topic_rules import parse_rules

        return parse_rules(items)

    def show(self, value: Any) -> str:
        """Return the pairs on one line, with the keys that were given."""
        import json

        def said(rule: dict[str, Any]) -> str:
            return json.dumps({key: item for key, item in rule.items() if item is not None})

        return "; ".join(f"{pattern} {said(rule)}" for pattern, rule in value) or "none"
