"""`traceparent` and `tracestate` of strangers, against the rules of W3C Trace Context."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace

from tracing.receiver import http_receiver
from tracing.test_spans import serving

RULE = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


def expected(value: bytes) -> tuple[int, bool] | None:
    """The trace and whether it is sampled, by section 3.2 of the recommendation."""
    match = RULE.fullmatch(value)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    if int(trace_id, 16) == 0 or int(span_id, 16) == 0:
        return None
    return int(trace_id, 16), bool(int(flags, 16) & 1)


def hexadecimal(length: int) -> st.SearchStrategy[bytes]:
    usual = st.binary(min_size=length, max_size=length).map(lambda value: value.hex().encode())
    wrong = st.sampled_from([b"00", b"0A", b"0g", b"0", b"000", b"  ", b"0\xe4"])
    odd = wrong.map(lambda two: (two * length)[: 2 * length + 1])
    return st.one_of(usual, usual, usual, st.just(b"00" * length), odd)


versions = st.one_of(st.just(b"00"), st.just(b"00"), st.just(b"ff"), hexadecimal(1))
flags = st.one_of(st.just(b"01"), st.just(b"00"), hexadecimal(1))
ends = st.sampled_from([b"", b"", b"", b"-", b"-more", b"x", b" x"])
made = st.builds(
    lambda *parts: b"-".join(parts[:4]) + parts[4],
    versions,
    hexadecimal(16),
    hexadecimal(8),
    flags,
    ends,
)
anything = st.binary(max_size=60).filter(lambda value: not set(value) & set(b"\r\n\0"))
values = st.one_of(made, made, made, anything)


class Echo:
    """A server that says which trace it takes a request for."""

    def __init__(self, url: str, seen: list[Any]) -> None:
        self.connection = http.client.HTTPConnection(url.removeprefix("http://"))
        self.seen = seen

    def ask(self, *fields: tuple[str, bytes]) -> trace.SpanContext | None:
        """Send fields as they are; None if the request was refused."""
        self.connection.putrequest("GET", "/")
        for name, value in fields:
            self.connection.putheader(name, value)
        self.connection.endheaders()
        response = self.connection.getresponse()
        response.read()
        if response.status != 200:
            self.connection.close()
            return None
        return self.seen.pop()


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.append(trace.get_current_span().get_span_context())
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})

    with pytest.MonkeyPatch.context() as patch, http_receiver() as receiver:
        environment = receiver.environment(OTEL_METRICS_EXPORTER="none")
        with serving(app, patch, environment) as url:
            one = Echo(url, seen)
            yield one
            one.connection.close()


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(values)
def test_traceparent_is_taken_exactly_if_it_is_right(echo: Echo, value: bytes) -> None:
    context = echo.ask(("traceparent", value))
    if context is None:  # what is no value of a field is refused by the parser
        assert any(byte < 32 or byte == 127 for byte in value)
        return
    # Spaces around a value are not part of it (RFC 9110, 5.5).
    rule = expected(value.strip(b" \t"))
    if rule is None:
        assert context.trace_flags.sampled
        assert f"{context.trace_id:032x}".encode() not in value
    else:
        assert (context.trace_id, context.trace_flags.sampled) == rule
    assert context.is_valid


PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

keys = st.from_regex(r"[a-z0-9][a-z0-9_\-*/]{0,12}(@[a-z0-9][a-z0-9_\-*/]{0,5})?", fullmatch=True)
state_values = st.from_regex(r"[!-+\--<>-~]{1,20}", fullmatch=True)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(keys, state_values, min_size=1, max_size=12))
def test_tracestate_passes(echo: Echo, members: dict[str, str]) -> None:
    state = ",".join(f"{key}={value}" for key, value in members.items())
    context = echo.ask(("traceparent", PARENT), ("tracestate", state.encode()))
    assert context is not None
    # What the API itself knows as a pair; it has keys begin with letters, as level 1 had.
    known = {key: value for key, value in members.items() if key in context.trace_state}
    assert dict(context.trace_state) == (known if len(state) <= 512 else {})
    if len(state) <= 512 and all(re.match("[a-z]", key) and "@" not in key for key in members):
        assert dict(context.trace_state) == members


def test_state_without_a_parent_is_nobodys(echo: Echo) -> None:
    context = echo.ask(("tracestate", b"a=1"))
    assert context is not None
    assert not context.trace_state
    twice = echo.ask(("traceparent", PARENT), ("traceparent", PARENT), ("tracestate", b"a=1"))
    assert twice is not None
    assert twice.trace_id != 0x0AF7651916CD43DD8448EB211C80319C
    assert not twice.trace_state
