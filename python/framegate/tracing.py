"""The span of a request, as Python sees it; called by the core, where requests have spans.

The core begins and ends the spans. Here each becomes the current span of OpenTelemetry's API in the
context of the request, so that instrumentation of databases and HTTP clients hangs its spans below
it and sends `traceparent` on. Without that package the extension `framegate.trace` of the scope
still says which trace a request belongs to.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final

from framegate._http import RequestSpan

__all__ = ["attacher", "describe", "route_of"]

STACK_CHARACTERS_MAX: Final = 4000


def attacher() -> Callable[[RequestSpan], None] | None:
    """Return what makes a span the current one; None without OpenTelemetry's API."""
    try:
        from opentelemetry import context, trace
        from opentelemetry.baggage.propagation import W3CBaggagePropagator
    except ImportError:
        return None
    current_span = _current_span_type()
    baggage = W3CBaggagePropagator()

    def attach(span: RequestSpan) -> None:
        """Run in the context that the request will have."""
        base = None
        if span.baggage is not None:
            base = baggage.extract({"baggage": span.baggage})
        context.attach(trace.set_span_in_context(current_span(span), base))

    return attach


def route_of(scope: Mapping[str, Any]) -> str | None:
    """Return the pattern that a path has met, if the application has told it.

    Starlette and FastAPI put their `route` into the scope, Litestar a `path_template`. Below a
    mount whose own path has parameters nobody knows the whole pattern.
    """
    route = scope.get("route")
    if route is None:
        template = scope.get("path_template")
        return template if isinstance(template, str) and template else None
    inner = scope.get("fastapi")
    if isinstance(inner, dict):
        # A router that was included: the route alone does not know under which prefix.
        effective = inner.get("effective_route_context")
        if getattr(effective, "original_route", None) is route:
            route = effective
    path = getattr(route, "path", None)
    if not isinstance(path, str):
        return None
    root: str = scope.get("root_path", "")
    own_root: str | None = scope.get("app_root_path")
    if own_root is None or own_root == root:
        return path
    parameters = scope.get("path_params") or {}
    if not set(parameters) <= set(getattr(route, "param_convertors", ())):
        return None
    return root.removeprefix(own_root) + path


def describe(error: BaseException) -> tuple[str, list[tuple[str, str]]]:
    """Return an exception in a line, and the attributes of an event that tells of it."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    stack = "".join(traceback.format_exception(error))
    return f"{kind.__name__}: {error}", [
        ("exception.type", name),
        ("exception.message", str(error)),
        # The end is what tells: there it was raised.
        ("exception.stacktrace", stack[-STACK_CHARACTERS_MAX:]),
    ]


def _current_span_type() -> Any:
    from opentelemetry.trace import (
        Span,
        SpanContext,
        Status,
        StatusCode,
        TraceFlags,
        TraceState,
    )

    class CurrentSpan(Span):
        """A span that the core has begun and ends: what is said of it here goes there."""

        __slots__ = ("_context", "_native")

        def __init__(self, native: RequestSpan) -> None:
            self._native = native
            self._context: SpanContext | None = None

        def get_span_context(self) -> SpanContext:
            if self._context is None:
                native = self._native
                state = native.trace_state
                self._context = SpanContext(
                    trace_id=native.trace_id,
                    span_id=native.span_id,
                    is_remote=False,
                    trace_flags=TraceFlags(int(native.is_sampled)),
                    trace_state=TraceState() if state is None else TraceState.from_header([state]),
                )
            return self._context

        def is_recording(self) -> bool:
            return self._native.is_recording()

        def set_attribute(self, key: str, value: Any) -> None:
            self._native.set_attribute(key, value)

        def set_attributes(self, attributes: Mapping[str, Any]) -> None:
            for key, value in attributes.items():
                self._native.set_attribute(key, value)

        def update_name(self, name: str) -> None:
            self._native.set_name(name)

        def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
            code = status
            if isinstance(status, Status):
                code, description = status.status_code, status.description
            if code is StatusCode.ERROR:
                self._native.set_error(description or "")
            elif code is StatusCode.OK:
                self._native.set_well()

        def add_event(
            self,
            name: str,
            attributes: Mapping[str, Any] | None = None,
            timestamp: int | None = None,
        ) -> None:
            self._native.add_event(name, attributes or {}, timestamp)

        def add_link(self, context: SpanContext, attributes: Any = None) -> None:
            if context.is_valid:
                self._native.add_link(
                    context.trace_id,
                    context.span_id,
                    context.trace_flags.sampled,
                    attributes or {},
                )

        def record_exception(
            self,
            exception: BaseException,
            attributes: Mapping[str, Any] | None = None,
            timestamp: int | None = None,
            escaped: bool = False,
        ) -> None:
            if self._native.is_recording():
                said = dict(describe(exception)[1]) | dict(attributes or {})
                self._native.add_event("exception", said, timestamp)

        def end(self, end_time: int | None = None) -> None:
            """Nothing: it ends with the last byte of the response."""

    return CurrentSpan
