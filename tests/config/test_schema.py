"""The JSON Schema of the configuration file says what the server says."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from framegate.config import SETTINGS, Config, Setting
from framegate.config_schema import json_schema
from framegate.errors import ConfigError

VALIDATOR = Draft202012Validator(json_schema())

# (setting, as TOML, whether it is accepted)
CASES = [
    ("port", "80", True),
    ("port", '"80"', True),
    ("port", "65536", False),
    ("port", "-1", False),
    ("port", "true", False),
    ("port", "1.5", False),
    ("port", '"http"', False),
    ("access_log", "true", True),
    ("access_log", '"off"', True),
    ("access_log", '"maybe"', False),
    ("access_log_format", '"combined"', True),
    ("access_log_format", "1", False),
    ("access_log_file", '"stderr"', True),
    ("access_log_file", "1", False),
    ("access_log_exclude", '["/livez", "/static/*"]', True),
    ("access_log_exclude", "[1]", False),
    ("slow_request", '"off"', True),
    ("slow_request", '"soon"', False),
    ("collector", '"main:collector"', True),
    ("collector", "1", False),
    ("max_body", '"16MiB"', True),
    ("max_body", '"16 MiB"', True),
    ("max_body", '"16MB"', False),
    ("max_body", "1.5", False),
    ("timeout_header", '"1h30m"', True),
    ("timeout_header", "0.5", True),
    ("timeout_header", '"500ms"', True),
    ("timeout_header", "0", False),
    ("timeout_header", '"soon"', False),
    ("timeout_header", '""', False),
    ("lifespan", '"on"', True),
    ("lifespan", '"onn"', False),
    ("ssl_version", "2", True),
    ("ssl_version", "3", False),
    ("ws_per_message_deflate", '"context"', True),
    ("ws_per_message_deflate", "false", True),
    ("ws_per_message_deflate", '"yes"', True),
    ("ws_per_message_deflate", '"maybe"', False),
    ("lifespan", "true", False),
    ("headers", '["x-a: 1", ["x-b", "2"]]', True),
    ("headers", '{ x-a = "1" }', True),
    ("headers", "[1]", False),
    ("static", '["/a=b", ["/c", "d"]]', True),
    ("static", '{ "/a" = "b" }', True),
    ("static", "[1]", False),
    ("topics", '"/topics"', True),
    ("topics", '"/"', False),
    ("topic_rules", '{ "a/*" = { create = true, slot_bytes = "1MiB" } }', True),
    ("topic_rules", '{ a = { dtype = "uint8", shape = [2, 3] } }', True),
    ("topic_rules", "{ a = { slots = 1 } }", False),
    ("topic_rules", "{ a = { size = 1 } }", False),
    ("static_cache_control", '"public, max-age=60"', True),
    ("static_cache_control", '" "', False),
    ("bind", '["localhost:80", "unix:/s"]', True),
    ("bind", '"localhost:80"', True),
    ("bind", "80", False),
    ("root_path", '"/api"', True),
    ("root_path", '"api"', False),
    ("host", '"::1"', True),
    ("host", '"a b"', False),
    ("app", '"main:app"', True),
    ("app", "1", False),
    ("middleware", '["a:B", { c = 1 }]', True),
    ("middleware", "[1]", False),
    ("log_config", '"log.json"', True),
    ("log_config", "{ version = 1 }", True),
    ("log_config", "1", False),
    ("use_colors", "true", True),
    ("use_colors", '"maybe"', False),
]


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize(("name", "text", "accepted"), CASES)
def test_schema_and_server_agree(name: str, text: str, accepted: bool) -> None:
    document = tomllib.loads(f"{name.replace('_', '-')} = {text}")
    value = next(iter(document.values()))
    assert VALIDATOR.is_valid(document) is accepted
    assert VALIDATOR.is_valid({name: value}) is accepted
    try:
        Config(**{name: value})
    except ConfigError:
        assert not accepted
    else:
        assert accepted


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda item: item.name)
def test_limits_have_two_sides(setting: Setting) -> None:
    minimum, maximum = (getattr(setting.kind, name, None) for name in ("minimum", "maximum"))
    if minimum is None or maximum is None:
        return
    for value, accepted in ((minimum, True), (maximum, True), (minimum - 1, False)):
        assert VALIDATOR.is_valid({setting.name: value}) is accepted
    assert not VALIDATOR.is_valid({setting.name: maximum + 1})


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda item: item.name)
def test_each_setting_is_described(setting: Setting) -> None:
    properties: Any = json_schema()["properties"]
    assert properties[setting.name]["description"] == setting.help
    assert setting.name.replace("_", "-") in properties


def test_unknown_keys_are_refused() -> None:
    assert not VALIDATOR.is_valid({"prot": 1})
