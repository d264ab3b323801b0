"""Who may do what with topics over HTTP: the tokens, as files and the environment have them.

```toml
# tokens.toml, which nobody else may read (chmod 600)
[viewer]
token = "mGJ3vZ...at least 16 characters"
read = ["camera/**"]
list = "**"

[robot]
sha256 = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"
publish = ["camera/front", "camera/back"]

[anybody]  # whoever shows no token
read = ["public/**"]
```

A token is kept as its SHA-256 only. That is enough for tokens that somebody has drawn at random
(`python -c "import secrets; print(secrets.token_urlsafe())"`), and for no others: hence the length.
What is decided with them is in `rust/http/src/topics/access/`.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from typing import Any, Final

from framegate.errors import ConfigError, suggestion
from framegate.topic_patterns import PATTERN, PATTERN_HELP

__all__ = [
    "ACTIONS",
    "ANYBODY",
    "Grant",
    "grants",
    "parse_tokens",
    "read_token_file",
]

ACTIONS: Final = ("list", "read", "publish", "call")

ANYBODY: Final = "anybody"
"""The name of what is allowed without a token."""

TOKEN_LENGTH_MIN: Final = 16
"""Characters: shorter ones can be guessed, and each attempt costs an attacker a request only."""

TOKENS_MAX: Final = 1000
"""Each request that shows a token is compared with all of them."""

FILE_BYTES_MAX: Final = 1024 * 1024
"""What a file of so many tokens has is less than half of it."""

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_DIGEST: Final = re.compile(r"[0-9a-fA-F]{64}")

Grant = tuple[str, bytes | None, dict[str, list[str]]]
"""Name, SHA-256 of the token (none for anybody), and the patterns of topics for each action."""


def parse_tokens(value: object) -> dict[str, dict[str, Any]]:
    """Check a table of tokens, and replace each token by its digest.

    Args:
        value: The table, or its text in TOML.

    Returns:
        The table with `sha256` in place of `token`, and a list for each action.

    Raises:
        ValueError: What is wrong, without any token in it.
    """
    if isinstance(value, str):
        import tomllib

        try:
            value = tomllib.loads(value)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"expected a table of tokens in TOML: {error}") from None
    if not isinstance(value, Mapping):
        raise ValueError("expected a table of tokens")
    if len(value) > TOKENS_MAX:
        raise ValueError(f"there are {len(value)} tokens, more than {TOKENS_MAX}")
    table = {_name(name): _entry(name, entry) for name, entry in value.items()}
    known: dict[str, str] = {}
    for name, entry in table.items():
        if name != ANYBODY and (twin := known.setdefault(entry["sha256"], name)) != name:
            raise ValueError(f"{twin} and {name} have the same token")
    return table


def _name(name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a token: up to 64 of [A-Za-z0-9_.-]")
    return name


def _entry(name: str, entry: object) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{name} is no table: [{name}], then token = ... and what it may do")
    known = (*ACTIONS, "token", "sha256")
    for key in entry:
        if key not in known:
            raise ValueError(f"{name}: unknown key {key}{suggestion(str(key), known)}")
    found: dict[str, Any] = {}
    if name == ANYBODY:
        if "token" in entry or "sha256" in entry:
            raise ValueError(f"{ANYBODY} is whoever shows no token, so it has none")
    else:
        found["sha256"] = _digest(name, entry)
    for action in ACTIONS:
        if action in entry:
            found[action] = _patterns(name, action, entry[action])
    return found


def _digest(name: str, entry: Mapping[Any, Any]) -> str:
    if ("token" in entry) == ("sha256" in entry):
        raise ValueError(f"{name} has a token, or the sha256 of one: one of them")
    if "sha256" in entry:
        if not isinstance(entry["sha256"], str) or not _DIGEST.fullmatch(entry["sha256"]):
            raise ValueError(f"{name}: sha256 is 64 hexadecimal digits")
        return entry["sha256"].lower()
    return token_digest(name, entry["token"]).hex()


def token_digest(name: str, token: object) -> bytes:
    """Return the SHA-256 of a token.

    Raises:
        ValueError: It is none, or too short to be a secret.
    """
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise ValueError(f"{name}: a token is text of ASCII characters")
    if " " in token or len(token) < TOKEN_LENGTH_MIN:
        raise ValueError(
            f"{name}: a token has at least {TOKEN_LENGTH_MIN} characters, drawn at random, "
            'without spaces: python -c "import secrets; print(secrets.token_urlsafe())"'
        )
    return hashlib.sha256(token.encode()).digest()


def _patterns(name: str, action: str, value: object) -> list[str]:
    patterns = [value] if isinstance(value, str) else value
    if not isinstance(patterns, (list, tuple)):
        raise ValueError(f"{name}: {action} is a pattern of topics, or a list of them")
    for pattern in patterns:
        if not isinstance(pattern, str) or not PATTERN.fullmatch(pattern):
            raise ValueError(
                f"{name}: {action}: {pattern!r} is no pattern of topics; {PATTERN_HELP}"
            )
    return list(patterns)


def read_token_file(path: str) -> dict[str, dict[str, Any]]:
    """Read a file of tokens, which nobody else may read or write.

    Raises:
        ConfigError: It cannot be read, others can, or it is wrong; without any token in it.
    """
    try:
        with open(path, "rb") as stream:
            about = os.fstat(stream.fileno())
            content = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    # The group may read it: that is how containers and systemd pass secrets on.
    if stat.S_ISREG(about.st_mode) and about.st_mode & 0o027:
        raise ConfigError(
            f"{path}: has mode {about.st_mode & 0o777:o}, so that others can read or change "
            f"tokens; chmod 600 {path}"
        )
    if stat.S_ISREG(about.st_mode) and about.st_uid not in (0, os.geteuid()):
        raise ConfigError(f"{path}: belongs to another user, who can change it; chown it")
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError(f"{path}: has more than {FILE_BYTES_MAX} bytes")
    try:
        return parse_tokens(content.decode())
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is no UTF-8") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def grants(config: Any) -> list[Grant]:
    """Return all that the settings allow, and to whom; the file is read now.

    Raises:
        ConfigError: The file of tokens is not as it should be, or a name is there twice.
    """
    tables: list[tuple[str, dict[str, dict[str, Any]]]] = []
    if config.topics_token is not None:
        everything: dict[str, Any] = {key: ["**"] for key in ACTIONS}
        everything["sha256"] = token_digest("topics_token", config.topics_token).hex()
        tables.append((str(config.origins["topics_token"]), {"token": everything}))
    if config.topics_tokens:
        tables.append((str(config.origins["topics_tokens"]), config.topics_tokens))
    if config.topics_token_file is not None:
        path = config.topics_token_file
        tables.append((path, read_token_file(path)))
    found: list[Grant] = []
    names: dict[str, str] = {}
    digests: dict[str, str] = {}
    for origin, table in tables:
        for name, entry in table.items():
            if names.setdefault(name, origin) != origin:
                raise ConfigError(f"token {name} is in {names[name]} and in {origin}; rename one")
            digest = entry.get("sha256")
            if digest is not None and digests.setdefault(digest, name) != name:
                raise ConfigError(f"{digests[digest]} and {name} have the same token")
            rights: dict[str, list[str]] = {}
            for action in ACTIONS:
                if action in entry:
                    rights[action] = list(entry[action])
            found.append((name, None if digest is None else bytes.fromhex(digest), rights))
    return found
