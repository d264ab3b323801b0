"""The schema as JSON Schema (2020-12), for editors and for whoever checks a file before it is used.

It describes `framegate.toml` and `[tool.framegate]`. Keys may be written with dashes, so each name
that has an underscore stands in it twice. JSON Schema cannot say everything: what two settings mean
together, or which user exists, only `platform config check` knows. What it refuses is refused by
the server too.
"""

from __future__ import annotations

from typing import Any, Final

from framegate import config_kinds as kinds
from framegate.config import SETTINGS, Setting
from framegate.config_kinds import Kind

__all__ = ["json_schema"]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_STRINGS: Final[dict[str, Any]] = {"type": "array", "items": {"type": "string"}}
_BLANK: Final = r"\s*"


def json_schema() -> dict[str, Any]:
    """Return the schema of the configuration file."""
    properties: dict[str, Any] = {}
    for item in SETTINGS:
        properties[item.name] = _property(item)
        if "_" in item.name:
            properties[item.name.replace("_", "-")] = {"$ref": f"#/properties/{item.name}"}
    return {
        "$schema": _DIALECT,
        "title": "framegate",
        "description": "Settings in framegate.toml, or in [tool.framegate] of pyproject.toml.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _property(item: Setting) -> dict[str, Any]:
    # A secret has no place in the file.
    values = _values(item.kind) if item.command_line else {"not": {}}
    found = {"description": item.help, **values}
    if item.default not in (None, (), ""):
        found["default"] = list(item.default) if isinstance(item.default, tuple) else item.default
    return found


def _values(kind: Kind) -> dict[str, Any]:
    """Return what a TOML value of that kind may be: its own type, or text as everywhere else."""
    match kind:
        case kinds.Flag():
            words = sorted(kinds.TRUE_WORDS | kinds.FALSE_WORDS)
            return {"anyOf": [{"type": "boolean"}, {"enum": words}]}
        case kinds.Choice():
            numbers = [number for number, _ in kind.numbers]
            words = sorted({*kind.words, *(kinds.TRUE_WORDS | kinds.FALSE_WORDS)})
            values = [True, False, *words] if kind.flag else [*kind.words]
            return {"enum": [*values, *numbers, *map(str, numbers)]}
        case kinds.Bytes():
            text = r"[0-9]+\s*([kKmMgG][iI][bB]|[bB])?"
            return _number("integer", kind.minimum, kind.maximum, text)
        case kinds.Integer():
            return _number("integer", kind.minimum, kind.maximum, "[+-]?[0-9]+")
        case kinds.Seconds():
            text = r"(?=.*[0-9])([0-9.]+\s*(d|h|m|s|ms|D|H|M|S|MS)?\s*)+"
            number = _number("number", kind.minimum, kind.maximum, text)
            if isinstance(kind, kinds.SecondsOrOff):
                # In any mixture of cases, as the others may be written.
                off = f"^{_BLANK}([oO][fF][fF]|[nN][oO][nN][eE]){_BLANK}$"
                number["anyOf"].append({"type": "string", "pattern": off})
            return number
        case kinds.LogConfig():
            return {"anyOf": [{"type": "string"}, {"type": "object"}]}
        case kinds.Headers() | kinds.StaticMounts():
            pair = {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2}
            return {
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"anyOf": [{"type": "string"}, pair]}},
                    {"type": "object", "additionalProperties": {"type": "string"}},
                ]
            }
        case kinds.TopicRules():
            from framegate.topic_rules import RULE_SCHEMA

            return {
                "anyOf": [
                    {"type": "object", "additionalProperties": RULE_SCHEMA},
                    {"type": "string"},
                    {"type": "array"},
                ]
            }
        case kinds.MiddlewareList():
            one = {"anyOf": [{"type": "string"}, {"type": "object"}, {"type": "array"}]}
            return {"anyOf": [{"type": "string"}, {"type": "array", "items": one}]}
        case kinds.AdminBinds():
            ports: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 65535}
            address: dict[str, Any] = {"anyOf": [{"type": "string"}, ports]}
            return {"anyOf": [{"type": "string"}, ports, {"type": "array", "items": address}]}
        case (
            kinds.Binds()
            | kinds.FilePaths()
            | kinds.Patterns()
            | kinds.Peers()
            | kinds.Ciphers()
            | kinds.UrlPaths()
        ):
            return {"anyOf": [{"type": "string"}, _STRINGS]}
        case (
            kinds.AccessFormat()
            | kinds.LogTarget()
            | kinds.CollectorObject()
            | kinds.AccessFunction()
        ):
            return {"type": "string"}
        case kinds.SocketPath() | kinds.ImportString() | kinds.Secret():
            return {"type": "string"}
        case kinds.Text():
            return {"type": "string", "pattern": f"^(?:{kind.pattern})$"}
        case _:
            raise TypeError(f"no JSON Schema for {type(kind).__name__}")


def _number(name: str, minimum: float, maximum: float, text: str) -> dict[str, Any]:
    return {
        "anyOf": [
            {"type": name, "minimum": minimum, "maximum": maximum},
            {"type": "string", "pattern": f"^{_BLANK}{text}{_BLANK}$"},
        ]
    }
