"""Lines of the access log as others read them: Apache formats, JSON, text without forgeries."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from apachelogs import COMBINED, COMMON, LogParser
from hypothesis import given
from hypothesis import strategies as st

from framegate import Config, ConfigError, _http
from framegate.access_format import NAMED, directives, parse

RECORD: dict[str, Any] = {
    "peer": "192.0.2.7:4711",
    "method": "GET",
    "target": b"/items?q=1",
    "version": "1.1",
    "websocket": False,
    "status": 200,
    "first_byte_ns": 1_000_000,
    "duration_ns": 1_234_567,
    "started_ms": 1_795_201_382_417,
    "bytes_in": 3,
    "bytes_out": 13,
    "aborted": False,
    "request_fields": [],
    "response_fields": [],
}

TOKEN = "!#$%&'*+-.^_`|~09AZaz"
methods = st.text(TOKEN, min_size=1, max_size=40)
# What a client can put into a target that the core takes: no space, no control character.
targets = (
    st.binary(max_size=300)
    .map(
        lambda data: (
            b"/" + bytes(byte for byte in data if byte > 0x20 and byte not in b'\x7f#"<>\\^`{|}')
        )
    )
    .filter(lambda data: _is_utf8(data))
)
# Anything that a field's value may have on the wire.
values = st.binary(max_size=900).map(
    lambda data: bytes(byte for byte in data if byte == 9 or (byte >= 0x20 and byte != 0x7F))
)
records = st.fixed_dictionaries(
    {
        **{name: st.just(value) for name, value in RECORD.items()},
        "peer": st.sampled_from(
            ["192.0.2.7:4711", "[2001:db8::1]:80", 'unix:/a b\n"\x1b[31m\u00e4']
        ),
        "method": methods,
        "target": targets,
        "version": st.sampled_from(["1.0", "1.1", "2"]),
        "websocket": st.booleans(),
        "status": st.none() | st.integers(100, 999),
        "duration_ns": st.integers(0, 2**63),
        "started_ms": st.integers(0, 4_102_444_800_000),
        "bytes_in": st.integers(0, 2**63),
        "bytes_out": st.integers(0, 2**63),
        "aborted": st.booleans(),
        "request_fields": st.lists(
            st.tuples(st.sampled_from(["referer", "user-agent"]), values), max_size=3
        ),
        "response_fields": st.lists(st.tuples(st.just("x-kind"), values), max_size=2),
    }
)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def line_of(form: str, record: dict[str, Any], number: int | None = None) -> str:
    """Return the one line, which must be printable ASCII and end with its line feed."""
    line = _http._access_line(Config(access_log_format=form), record, number)
    assert re.fullmatch(rb"[ -~]*\n", line), line
    return line[:-1].decode()


@given(records, st.none() | st.integers(1, 1000))
def test_json_is_json_whatever_a_client_sends(record: dict[str, Any], number: int | None) -> None:
    found = json.loads(line_of("json", record, number))
    assert found["status"] == record["status"]
    assert (found["bytes_in"], found["bytes_out"]) == (record["bytes_in"], record["bytes_out"])
    assert found["method"] == record["method"] or found["method"].endswith("...")
    target = record["target"].decode()
    assert found["target"] == target or target.startswith(found["target"].removesuffix("..."))
    assert found["worker"] == (number or 1)
    versions = {"1.0": "HTTP/1.0", "1.1": "HTTP/1.1", "2": "HTTP/2"}
    protocol = "websocket" if record["websocket"] else versions[record["version"]]
    assert (found["protocol"], found["http_version"]) == (protocol, record["version"])
    assert found["milliseconds"] == pytest.approx(record["duration_ns"] / 1e6, abs=0.002)
    if record["peer"].startswith("unix:"):
        assert found["client"] == record["peer"]


@given(records)
def test_text_is_one_printable_line(record: dict[str, Any]) -> None:
    line = line_of("text", record)
    match = re.fullmatch(r'\S+Z (\S+) "([^"]*) (HTTP/\S+)" (\d+|-) (\d+) \d+\.\d{3}ms(.*)', line)
    assert match, line
    assert match[4] == str(record["status"] or "-")
    assert match[6].endswith(" aborted") is record["aborted"]


@given(records)
@pytest.mark.parametrize(("name", "known"), [("common", COMMON), ("combined", COMBINED)])
def test_apache_style_lines_are_read_by_a_parser_of_apaches(
    name: str, known: str, record: dict[str, Any]
) -> None:
    """The parser is `apachelogs`, with its own idea of the two formats."""
    record = {**record, "peer": "192.0.2.7:4711", "status": record["status"] or 200}
    found = LogParser(known).parse(line_of(name, record))
    assert found.remote_host == "192.0.2.7"
    assert found.final_status == record["status"]
    assert found.bytes_sent == (record["bytes_out"] or None)
    started = datetime.fromtimestamp(record["started_ms"] // 1000, UTC)
    assert found.request_time == started
    if len(record["method"]) <= 32 and len(record["target"]) < 300:
        version = {"1.0": "HTTP/1.0", "1.1": "HTTP/1.1", "2": "HTTP/2"}[record["version"]]
        line = f"{record['method']} ".encode() + record["target"] + f" {version}".encode()
        assert found.request_line.encode("latin-1") == line
    if name == "combined":
        for field, header in (("referer", "Referer"), ("user-agent", "User-Agent")):
            sent = [value for key, value in record["request_fields"] if key == field]
            text = b", ".join(sent).decode("latin-1")
            shown = found.headers_in[header]
            if len(sent) <= 1 and len(text) < 150:
                assert shown == (text if text and text != "-" else None)


ITEMS = [directive for directive, _ in directives() if directive != "%%"]
literals = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=5).map(
    lambda text: text.replace("%", "%%")
)


@given(st.lists(st.tuples(literals, st.sampled_from(ITEMS)), min_size=1, max_size=12), records)
def test_random_formats_are_read_back(
    pieces: list[tuple[str, str]], record: dict[str, Any]
) -> None:
    """Each directive gives the same text alone and among others, between the same literals."""
    form = "".join(f"{literal}{item}" for literal, item in pieces).replace("%{x}", "%{x-kind}")
    alone = {item: line_of(item.replace("%{x}", "%{x-kind}"), record) for _, item in pieces}
    expected = "".join(literal.replace("%%", "%") + alone[item] for literal, item in pieces)
    assert line_of(form, record) == expected


def test_a_line_cannot_be_forged() -> None:
    evil = b'x" 200 5\r\n127.0.0.1 - - "GET /forged HTTP/1.1" \x1b[2J'
    fields = [("user-agent", bytes(b for b in evil if b not in b"\r\n\x1b"))]
    line = line_of("combined", {**RECORD, "request_fields": fields})
    assert line.count('"') == 6
    assert r"\x22GET /forged HTTP/1.1\x22" in line


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("%h %Z", r'"%Z" is no directive; there are %h %a %l'),
        ("%h %{x}y", r'"%\{x\}y" is no directive'),
        ("%h %", r'"%" is no whole directive; a percent sign is written %%'),
        ("%i", r'"%i" needs the name of a header field: %\{Referer\}i'),
        ("%{a b}i", r'"%\{a b\}i": "a b" is no name of a header field'),
        ("%{nonsense}n", r'"%\{nonsense\}n" is no directive'),
        ("apache", "expected text, json, common, combined, or directives such as %h"),
        ("", "expected text, json, common, combined"),
        ("%h\n", "expected text without control characters"),
    ],
)
def test_mistakes_in_a_format_are_named(form: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config(access_log_format=form)


def test_every_directive_is_understood_by_the_core() -> None:
    for directive in ITEMS:
        assert line_of(directive, RECORD), directive
    assert line_of("%>s %<s 100%%", RECORD) == "200 200 100%"
    assert [kind for kind, _ in parse(NAMED["common"])] == [
        *("client", "literal", "nothing", "literal", "nothing", "literal", "time", "literal"),
        *("request_line", "literal", "status", "literal", "bytes_or_dash"),
    ]
