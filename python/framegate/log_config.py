"""`--log-config`: Python's logging, configured as for uvicorn.

A file ending in .json, .yaml, .yml or .toml is what `logging.config.dictConfig` takes, any other
what `fileConfig` takes; code may give the dictionary itself.

A configuration written for uvicorn works as it is. What it says of a logger of uvicorn counts for
the logger here that says the same, if that one is not named itself:

| of uvicorn                 | here               |
|----------------------------|--------------------|
| `uvicorn`, `uvicorn.error` | `framegate`        |
| `uvicorn.asgi`             | `framegate.asgi`   |
| `uvicorn.access`           | `framegate.access` |

and its formatters are replaced by ours (`uvicorn_formatters.py`), so that uvicorn need not be
installed. Loggers that exist already are not disabled unless the configuration asks for it:
forgetting that would silence the application.
"""

from __future__ import annotations

import configparser
import json
import logging
import logging.config
import os
from collections.abc import Iterable
from typing import Any, Final

from framegate.config import Config
from framegate.errors import ConfigError

__all__ = ["apply"]

# In the order in which they are applied: the later one says it more exactly.
_LOGGERS: Final = (
    ("uvicorn", "framegate"),
    ("uvicorn.error", "framegate"),
    ("uvicorn.asgi", "framegate.asgi"),
    ("uvicorn.access", "framegate.access"),
)
_FORMATTERS: Final = {
    "uvicorn.logging.DefaultFormatter": "framegate.uvicorn_formatters.DefaultFormatter",
    "uvicorn.logging.ColourizedFormatter": "framegate.uvicorn_formatters.DefaultFormatter",
    "uvicorn.logging.AccessFormatter": "framegate.uvicorn_formatters.AccessFormatter",
}


def apply(config: Config) -> bool:
    """Configure logging as the settings say.

    Returns:
        Whether what framegate says now goes somewhere.

    Raises:
        ConfigError: The file cannot be read or is wrong.
    """
    source = config.log_config
    origin = config.origins["log_config"]
    shown = source if isinstance(source, str) else "a dictionary"
    try:
        if isinstance(source, dict):
            names = _apply_dictionary(source, config.use_colors)
        else:
            assert source is not None
            names = _apply_file(source, config.use_colors)
    except OSError as error:
        raise ConfigError(f"{origin}: {shown} cannot be read: {error.strerror}") from None
    except ImportError as error:
        raise ConfigError(f"{origin}: {shown}: {error}") from None
    except Exception as error:  # whatever a handler's constructor raises
        reason = ": ".join(str(item) for item in (error, error.__cause__) if item)
        raise ConfigError(f"{origin}: {shown} is no configuration of logging: {reason}") from None
    _copy_from_uvicorn(names)
    return logging.getLogger("framegate").hasHandlers()


def _apply_file(path: str, use_colors: bool | None) -> Iterable[str]:
    ending = os.path.splitext(path)[1].lower()
    if ending in (".json", ".yaml", ".yml", ".toml"):
        with open(path, "rb") as stream:
            content = stream.read()
        return _apply_dictionary(_parse(content.decode(), ending), use_colors)
    parser = configparser.RawConfigParser()
    with open(path, encoding="utf-8") as stream:
        parser.read_file(stream)
    for section in parser.sections():
        name = parser.get(section, "class", fallback="")
        if name in _FORMATTERS:
            parser.set(section, "class", _FORMATTERS[name])
    logging.config.fileConfig(parser, disable_existing_loggers=False)
    return [
        parser.get(section, "qualname")
        for section in parser.sections()
        if section.startswith("logger_") and parser.has_option(section, "qualname")
    ]


def _parse(text: str, ending: str) -> dict[str, Any]:
    found: Any
    if ending == ".json":
        found = json.loads(text)
    elif ending == ".toml":
        import tomllib

        found = tomllib.loads(text)
    else:
        try:
            import yaml
        except ModuleNotFoundError:
            raise ImportError("needs PyYAML: pip install pyyaml, or write JSON") from None
        found = yaml.safe_load(text)
    if not isinstance(found, dict):
        raise ValueError("expected a mapping at the top")
    return found


def _apply_dictionary(source: dict[str, Any], use_colors: bool | None) -> Iterable[str]:
    formatters = {name: {**item} for name, item in source.get("formatters", {}).items()}
    found = {"disable_existing_loggers": False, **source, "formatters": formatters}
    for formatter in formatters.values():
        for key in ("()", "class"):
            if formatter.get(key) in _FORMATTERS:
                formatter[key] = _FORMATTERS[formatter[key]]
                if key == "()" and use_colors is not None:
                    formatter["use_colors"] = use_colors
    logging.config.dictConfig(found)
    return list(found.get("loggers", {}))


def _copy_from_uvicorn(names: Iterable[str]) -> None:
    named = set(names)
    for theirs, ours in _LOGGERS:
        if theirs not in named or ours in named:
            continue
        source, target = logging.getLogger(theirs), logging.getLogger(ours)
        target.handlers[:] = source.handlers or target.handlers
        target.propagate = source.propagate and not (theirs == "uvicorn.error" and target.handlers)
        if source.level != logging.NOTSET:
            target.setLevel(source.level)
