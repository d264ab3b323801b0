"""`App`: routes, what is mounted beside them, and the life of both."""

from __future__ import annotations

import contextlib
import decimal
import functools
import inspect
import json
import types
import urllib.parse
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack

from framegate.app.answers import HttpRequest, Problem, Response, simplify
from framegate.app.forms import FormLimits, with_form
from framegate.app.openapi import About, Described, document, page
from framegate.app.schemas import schema_of_return
from framegate.app.signatures import Argument, read_arguments
from framegate.app.sockets import WebSocket
from framegate.app.streams import Streamed, deliver
from framegate.app.threads import HandlerThreads
from framegate.errors import ResponseInvalid, RouteError

if TYPE_CHECKING:
    from framegate._http import RouteTable

__all__ = ["App", "Cors", "Router"]

Handler = TypeVar("Handler", bound=Callable[..., Any])
Around = TypeVar("Around", bound=Callable[..., Any])
Receive = Callable[[], Any]
Send = Callable[[MutableMapping[str, Any]], Any]

MOUNTED_STARTUP_SECONDS: Final = 3600.0
"""The server's own `--timeout-startup` ends what takes too long; this must not be first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cors:
    """Which pages of other origins may use the routes.

    Attributes:
        origins: Theirs: `https://example.com`. `*` is every one.
        headers: Fields that they may send beside those that they always may; `*` is every one.
        expose: Fields of answers that they may read beside those that they always may.
        credentials: Whether they may send cookies, and read what is answered then.
        max_age: Seconds for which a browser need not ask again.
    """

    origins: Sequence[str]
    headers: Sequence[str] = ("authorization", "content-type")
    expose: Sequence[str] = ()
    credentials: bool = False
    max_age: int = 600

    def __post_init__(self) -> None:
        if self.credentials and "*" in self.origins:
            raise RouteError(
                "credentials for every origin: any page could act as the user who looks at it",
                fix="name the origins, or leave credentials out",
            )
        for origin in self.origins:
            scheme, _, host = origin.partition("://")
            if origin != "*" and origin != "null" and (not scheme or not host or "/" in host):
                raise RouteError(
                    f"{origin!r} is no origin", fix="scheme and host: https://example.com"
                )


@dataclass(frozen=True, slots=True)
class Route:
    """One route, as `_http.RouteTable` reads it."""

    method: str
    path: str
    handler: Callable[..., Any]
    arguments: list[Argument]


@dataclass(frozen=True, slots=True)
class Declared:
    """One route as it was declared.

    Attributes:
        method: `GET`.
        path: With its parameters.
        handler: The function.
        about: What the OpenAPI document says of it.
    """

    method: str
    path: str
    handler: Callable[..., Any]
    about: About


REQUEST: Final = Argument(
    name="framegate_request", source="request", wire="framegate_request", is_keyword=True
)
"""For what stands around a handler."""


class Router:
    """Routes with a common prefix, for `App.include`.

    Args:
        prefix: What their paths begin with, such as `/v1`.
    """

    def __init__(self, prefix: str = "") -> None:
        if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
            raise RouteError(f"the prefix {prefix!r} has to begin with a slash and not to end so")
        self._prefix = prefix
        self._routes: list[Declared] = []
        self._sockets: list[Declared] = []

    def route(
        self, path: str, *, methods: Iterable[str], **about: Unpack[About]
    ) -> Callable[[Handler], Handler]:
        """Let a handler answer these methods at a path.

        Args:
            path: Static text and parameters: `/items/{item_id:int}`. Kinds are `str` (the default),
                `int`, `float`, `decimal`, `bool`, `uuid`, `date`, `time`, `datetime`, and `path`,
                which takes all that is left.
            methods: Such as `["GET", "POST"]`. `GET` answers `HEAD`, too.
            **about: What the OpenAPI document says of it.

        Raises:
            RouteError: The handler has an argument that no request gives.
        """

        def add(handler: Handler) -> Handler:
            self._add(methods, self._prefix + path, handler, about)
            return handler

        return add

    def _add(
        self, methods: Iterable[str], path: str, handler: Callable[..., Any], about: About
    ) -> None:
        read_arguments(path, handler)  # a mistake shows where it was made
        self._routes += [Declared(method.upper(), path, handler, about) for method in methods]

    def websocket(self, path: str) -> Callable[[Handler], Handler]:
        """Let a coroutine function serve the WebSockets at a path.

        One of its arguments is annotated with `WebSocket`; the others are as those of handlers, and
        checked before it is called.

        Args:
            path: As in `route`.

        Raises:
            RouteError: The handler has an argument that no WebSocket gives, or is no coroutine.
        """

        def add(handler: Handler) -> Handler:
            self._add_socket(self._prefix + path, handler)
            return handler

        return add

    def _add_socket(self, path: str, handler: Callable[..., Any]) -> None:
        where = f"{getattr(handler, '__qualname__', handler)} for {path}"
        arguments = read_arguments(path, handler)
        if not inspect.iscoroutinefunction(inspect.unwrap(handler)):
            raise RouteError(f"{where} serves WebSockets and is no `async def`")
        if not any(one.annotation is WebSocket for one in arguments):
            raise RouteError(
                f"{where} has no WebSocket", fix="annotate an argument with framegate.app.WebSocket"
            )
        if any(one.is_body or one.source in {"form", "file"} for one in arguments):
            raise RouteError(f"{where} wants a body, and a WebSocket has none")
        self._sockets.append(Declared("GET", path, handler, {}))

    def get(self, path: str, **about: Unpack[About]) -> Callable[[Handler], Handler]:
        """Let a handler answer `GET` (and `HEAD`) at a path; `about` is for the document."""
        return self.route(path, methods=["GET"], **about)

    def post(self, path: str, **about: Unpack[About]) -> Callable[[Handler], Handler]:
        """Let a handler answer `POST` at a path; `about` is for the document."""
        return self.route(path, methods=["POST"], **about)

    def put(self, path: str, **about: Unpack[About]) -> Callable[[Handler], Handler]:
        """Let a handler answer `PUT` at a path; `about` is for the document."""
        return self.route(path, methods=["PUT"], **about)

    def patch(self, path: str, **about: Unpack[About]) -> Callable[[Handler], Handler]:
        """Let a handler answer `PATCH` at a path; `about` is for the document."""
        return self.route(path, methods=["PATCH"], **about)

    def delete(self, path: str, **about: Unpack[About]) -> Callable[[Handler], Handler]:
        """Let a handler answer `DELETE` at a path; `about` is for the document."""
        return self.route(path, methods=["DELETE"], **about)


class App(Router):
    """An application of native routes, and of ASGI applications beside them.

    Args:
        lifespan: A function that takes the app and returns an asynchronous context manager: entered
            before the first request, left after the last.
        redirect_slashes: Whether a path that would be a route's with a slash more or less at its
            end is redirected there (308). Else it is another path.
        json_bytes_max: How long a body for a handler may be; longer ones are answered with 413.
            4 MiB: read as values such a body takes up to 80 MiB.
        threads_max: How many handlers that are no coroutines run at once.
        queue_max: How many of them may wait for a thread; the next is answered with 503.
        validate_responses: Whether what handlers return as JSON is held against the schema of their
            return annotation before it is sent: what does not fit raises `ResponseInvalid`, a 500.
        cors: Which pages of other origins may use the routes; none if it is not said.
        forms: What forms may be.
        docs: Path of a page that shows the routes, such as `/docs`; the OpenAPI document is below
            it, at `/docs/openapi.json`. Neither is there if it is not said.
        described: What the document says of the app.
    """

    def __init__(
        self,
        *,
        lifespan: Callable[[App], AbstractAsyncContextManager[Any]] | None = None,
        redirect_slashes: bool = False,
        json_bytes_max: int = 4 << 20,
        threads_max: int = 40,
        queue_max: int = 1000,
        validate_responses: bool = False,
        cors: Cors | None = None,
        forms: FormLimits | None = None,
        docs: str | None = None,
        described: Described | None = None,
    ) -> None:
        super().__init__()
        self._cors = cors
        self._forms = forms or FormLimits()
        self._lifespan = lifespan
        self._redirect_slashes = redirect_slashes
        self._json_bytes_max = json_bytes_max
        self._mounts: list[tuple[str, Any]] = []
        self._table: RouteTable | None = None
        self.threads: HandlerThreads = HandlerThreads(threads_max, queue_max)
        self._validate_responses = validate_responses
        self._middleware: list[Callable[..., Any]] = []
        self._socket_middleware: list[Callable[..., Any]] = []
        self._exception_handlers: dict[type[Exception], Callable[..., Any]] = {}
        self._socket_table: RouteTable | None = None
        self._described = described or Described()
        if docs is not None:
            self._show(docs)

    def include(self, router: Router) -> None:
        """Add the routes of a router, those that it has now."""
        for one in router._routes:
            self._add([one.method], one.path, one.handler, one.about)
        for one in router._sockets:
            self._add_socket(one.path, one.handler)

    def mount(self, prefix: str, application: Any) -> None:
        """Let an ASGI application answer what begins with a prefix and is no route.

        It gets lifespan events. Its `root_path` is the prefix.

        Args:
            prefix: `/` for everything that is left, or such as `/admin`.
            application: The ASGI application.
        """
        self._change()
        if not prefix.startswith("/"):
            raise RouteError(f"the prefix {prefix!r} of a mount has to begin with a slash")
        prefix = prefix.rstrip("/")
        if any(prefix == other for other, _ in self._mounts):
            raise RouteError(f"something is mounted at {prefix or '/'} already")
        self._mounts.append((prefix, application))
        # The longest fits first.
        self._mounts.sort(key=lambda mount: -len(mount[0]))

    def _add(
        self, methods: Iterable[str], path: str, handler: Callable[..., Any], about: About
    ) -> None:
        self._change()
        super()._add(methods, path, handler, about)

    def _add_socket(self, path: str, handler: Callable[..., Any]) -> None:
        self._change()
        super()._add_socket(path, handler)

    def middleware(self, function: Around) -> Around:
        """Let a coroutine function stand around every handler that is called from now on.

        It takes the request and what comes next, `await following(request)`, which gives a
        `Response`; it returns one, or anything that a handler may. The first that was added is the
        outermost. Requests that Rust refuses or that are no route do not come to it.

        Raises:
            RouteError: It is no `async def`.
        """
        self._change()
        _check_coroutine_function(function)
        self._middleware.append(function)
        return function

    def websocket_middleware(self, function: Around) -> Around:
        """Let a coroutine function stand around every WebSocket handler.

        It takes the `WebSocket` and what comes next, `await following(socket)`, which returns when
        the handler has. A `Problem` that it raises before the first use of the socket is the answer
        to the handshake, as in a handler; without `following` no handler is called. The first that
        was added is the outermost. Handshakes that Rust refuses do not come to it.

        Raises:
            RouteError: It is no `async def`.
        """
        self._change()
        _check_coroutine_function(function)
        self._socket_middleware.append(function)
        return function

    def exception_handler(self, kind: type[Exception]) -> Callable[[Around], Around]:
        """Let a coroutine function answer exceptions of a class and its subclasses in handlers.

        It takes the request and the exception, and returns what a handler may. Middleware sees its
        answer. The nearest class decides.

        Args:
            kind: The class; `Problem` is one.
        """

        def add(function: Around) -> Around:
            self._change()
            _check_coroutine_function(function)
            self._exception_handlers[kind] = function
            return function

        return add

    @property
    def routes(self) -> list[Declared]:
        """The routes, in the order in which they were added."""
        return list(self._routes)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI 3.1 document of the routes."""
        return document(self._described, self._routes)

    def _show(self, path: str) -> None:
        """Routes for the page and the document, which are made when they are first asked for."""
        where = path.rstrip("/") + "/openapi.json"

        @functools.cache
        def whole() -> str:
            return json.dumps(self.openapi(), ensure_ascii=False, separators=(",", ":"))

        shown = functools.cache(page)

        async def openapi_document() -> Response:
            return Response(whole(), media_type="application/json")

        async def docs() -> Response:
            text, headers = shown(where)
            return Response(text, headers=headers, media_type="text/html; charset=utf-8")

        self.get(where, hidden=True)(openapi_document)
        self.get(path, hidden=True)(docs)

    def _change(self) -> None:
        if self._table is not None:
            raise RouteError("routes and mounts are added before the app answers its first request")

    @property
    def __framegate_routes__(self) -> RouteTable:
        """The routes as Rust has them; from now on they stay as they are.

        Raises:
            RouteError: Two routes are the same, or a path is none.
        """
        if self._table is None:
            from framegate._http import RouteTable

            lent = types.SimpleNamespace(
                response=Response,
                problem=Problem,
                request=HttpRequest,
                simplify=simplify,
                streamed=Streamed,
                deliver=functools.partial(deliver, self.threads),
                decimal=decimal.Decimal,
                uuid=uuid.UUID,
                handlers=self.threads.queue,
            )
            try:
                routes = [
                    self._complete(one.method, one.path, one.handler, lent) for one in self._routes
                ]
                self._table = RouteTable(
                    routes,
                    lent,
                    redirect_slashes=self._redirect_slashes,
                    has_fallback=bool(self._mounts),
                    json_bytes_max=self._json_bytes_max,
                    cors=self._cors,
                )
                if self._sockets:
                    sockets = [
                        Route("GET", one.path, one.handler, read_arguments(one.path, one.handler))
                        for one in self._sockets
                    ]
                    self._socket_table = RouteTable(
                        sockets,
                        lent,
                        redirect_slashes=False,
                        has_fallback=True,
                        json_bytes_max=0,
                    )
            except ValueError as error:
                self._table = None
                raise RouteError(str(error)) from None
        return self._table

    def _complete(
        self, method: str, path: str, handler: Callable[..., Any], lent: types.SimpleNamespace
    ) -> Route:
        """A route as Rust takes it: what stands around the handler is in it."""
        arguments = read_arguments(path, handler)
        function = self._coroutine_function(handler)
        if self._validate_responses and (schema := schema_of_return(handler)) is not None:
            function = _validated(function, schema, handler, lent)
        files = [one for one in arguments if one.source == "file"]
        fields = [one for one in arguments if one.source == "form"]
        if files or fields:
            from framegate._http import FormFields

            function = with_form(function, files, FormFields(fields, lent), self._forms)
            others = [
                replace(one, is_keyword=True)
                for one in arguments
                if one.source not in {"file", "form"}
            ]
            arguments = [*others, REQUEST]
        if self._middleware or self._exception_handlers:
            function = around(
                function,
                list(self._middleware),
                dict(self._exception_handlers),
                wants_request=any(one is REQUEST for one in arguments),
            )
            if REQUEST not in arguments:
                arguments = [*arguments, REQUEST]
        return Route(method, path, function, arguments)

    def _coroutine_function(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        handler = _returning_generator(handler)
        if inspect.iscoroutinefunction(inspect.unwrap(handler)):
            return handler
        return functools.partial(self.threads.run, handler)

    # --- ASGI

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer as an ASGI application: on other servers, and behind middleware."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await self.fallback(scope, receive, send)

    async def fallback(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer what is no route: by what is mounted, or by saying that there is nothing."""
        if scope["type"] == "websocket" and await self._serve_socket(scope, receive, send):
            return
        path = _path_below(scope)
        for prefix, application in self._mounts:
            if path == prefix or path.startswith(prefix + "/"):
                inner = dict(scope)
                inner["root_path"] = scope.get("root_path", "") + prefix
                await application(inner, receive, send)
                return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        elif scope["type"] == "http":
            answer = self.__framegate_routes__.refusal(Problem(404))
            assert answer is not None
            await _send_answer(answer, send)

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        table = self.__framegate_routes__
        head = (scope["method"], *_head_below(scope))
        decided: Any = table.decide(*head)
        if isinstance(decided, int):
            body = await _read_body(receive, decided)
            if body is None:
                problem = Problem(413, f"the body may have {decided} bytes")
                decided = table.refusal(problem)
            else:
                decided = table.decide(*head, body)
        if decided is None:
            await self.fallback(scope, receive, send)
            return
        if not isinstance(decided[0], int):
            handler, positional, named, request, has_read_body = decided
            if request is not None and not has_read_body:
                request._receive = receive
            has_begun = False

            async def watched_send(message: Any) -> None:
                nonlocal has_begun
                has_begun = True
                await send(message)

            try:
                value = await handler(*positional, **(named or {}))
                if table.is_delivered(value):
                    await deliver(
                        self.threads, table, value, dict(scope), receive, watched_send, request
                    )
                    return
                decided = table.answer(value)
            except Exception as error:
                decided = None if has_begun else table.refusal(error)
                if decided is None:
                    raise
        status, fields, body = decided
        if self._cors is not None:
            fields += table.cors(list(scope["headers"]))
        await _send_answer((status, fields, body), send)

    async def _serve_socket(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> bool:
        """Serve a WebSocket by its handler; false if it has none."""
        _ = self.__framegate_routes__  # makes both tables
        table = self._socket_table
        if table is None:
            return False
        decided: Any = table.decide("GET", *_head_below(scope))
        if decided is None or (isinstance(decided[0], int) and decided[0] == 405):
            return False
        if isinstance(decided[0], int):
            await receive()
            await _refuse_socket(decided, scope, send)
            return True
        handler, positional, named, request, _ = decided
        socket: WebSocket = request._socket
        socket._receive_event, socket._send_event = receive, send

        async def serve(_: WebSocket) -> None:
            await handler(*positional, **(named or {}))

        following: Callable[[Any], Any] = serve
        for one in reversed(self._socket_middleware):
            following = _standing_around(one, following)
        try:
            await following(socket)
        except Exception as error:
            answer = table.refusal(error)
            if answer is not None and not socket._is_accepted:
                await receive()
                await _refuse_socket(answer, scope, send)
                return True
            if isinstance(error, ConnectionError) and socket._is_over:
                return True  # the client went away: nobody is to blame
            if socket._is_accepted and not socket._is_over:
                detail = str(error) if answer is not None else ""
                code = 1008 if answer is not None else 1011
                # RFC 6455, section 5.5: a close frame has 125 bytes, two of them the code.
                reason = detail.encode()[:120].decode(errors="ignore")
                await socket.close(code, reason)
            if answer is None:
                raise
            return True
        await socket.close()
        return True

    async def _live(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Lifespan: that of the app around those of what is mounted."""
        await receive()
        async with contextlib.AsyncExitStack() as stack:
            try:
                _ = self.__framegate_routes__
                stack.callback(self.threads.close)
                if self._lifespan is not None:
                    state = await stack.enter_async_context(self._lifespan(self))
                    if state is not None:
                        scope["state"].update(state)
                for prefix, application in self._mounts:
                    await stack.enter_async_context(_mounted(prefix, application, scope))
            except Exception as error:
                await stack.aclose()
                text = f"{type(error).__name__}: {error}"
                await send({"type": "lifespan.startup.failed", "message": text})
                raise
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


@contextlib.asynccontextmanager
async def _mounted(
    prefix: str, application: Any, scope: MutableMapping[str, Any]
) -> AsyncIterator[None]:
    """The lifespan of what is mounted."""
    from framegate.lifespan import Lifespan

    lifespan = Lifespan(application, "auto")
    await lifespan.startup(MOUNTED_STARTUP_SECONDS)
    scope.get("state", {}).update(lifespan.state)
    try:
        yield
    finally:
        await lifespan.shutdown(MOUNTED_STARTUP_SECONDS)


def _validated(
    function: Callable[..., Any],
    schema: dict[str, Any],
    handler: Callable[..., Any],
    lent: types.SimpleNamespace,
) -> Callable[..., Any]:
    """The same function, with its values held against the schema of the handler's annotation."""
    from framegate._http import ResponseSchema

    expected = ResponseSchema(json.dumps(schema), lent)
    name = getattr(handler, "__qualname__", repr(handler))

    async def validate(*positional: Any, **named: Any) -> Any:
        value = await function(*positional, **named)
        if faults := expected.faults(value):
            listed = "; ".join(f"{place or 'the whole'}: {detail}" for place, detail in faults)
            raise ResponseInvalid(f"{name} returned what its annotation does not allow: {listed}")
        return value

    return validate


def _check_coroutine_function(function: Callable[..., Any]) -> None:
    if not inspect.iscoroutinefunction(inspect.unwrap(function)):
        raise RouteError(f"{getattr(function, '__qualname__', function)} is no `async def`")


def _returning_generator(handler: Callable[..., Any]) -> Callable[..., Any]:
    """The same handler; one that is a generator itself returns it, at once and on the loop."""
    inner = inspect.unwrap(handler)
    if not inspect.isasyncgenfunction(inner) and not inspect.isgeneratorfunction(inner):
        return handler

    @functools.wraps(handler)
    async def call(*positional: Any, **named: Any) -> Any:
        return handler(*positional, **named)

    del call.__wrapped__
    return call


async def _refuse_socket(
    answer: tuple[int, list[tuple[bytes, bytes]], bytes],
    scope: MutableMapping[str, Any],
    send: Send,
) -> None:
    """Answer a WebSocket that was not accepted, by its status where the server lets us."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    status, headers, body = answer
    start = {"type": "websocket.http.response.start", "status": status, "headers": headers}
    await send(start)
    await send({"type": "websocket.http.response.body", "body": body})


def around(
    function: Callable[..., Any],
    middleware: list[Callable[..., Any]],
    exception_handlers: Mapping[type[Exception], Callable[..., Any]],
    *,
    wants_request: bool,
) -> Callable[..., Any]:
    """Return a handler with others around it.

    Args:
        function: The handler.
        middleware: The outermost first.
        exception_handlers: By the class that they answer.
        wants_request: Whether the handler takes `framegate_request` itself.
    """

    async def call(*positional: Any, framegate_request: HttpRequest, **named: Any) -> Any:
        async def innermost(request: HttpRequest) -> Any:
            if wants_request:
                named["framegate_request"] = request
            try:
                return await function(*positional, **named)
            except Exception as error:
                for kind in type(error).__mro__:
                    handler = exception_handlers.get(kind)
                    if handler is not None:
                        return await handler(request, error)
                raise

        following: Callable[[HttpRequest], Any] = innermost
        for one in reversed(middleware):
            following = _standing_around(one, _as_response(following))
        return await following(framegate_request)

    return call


def _standing_around(
    function: Callable[..., Any], following: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    async def call(asked: Any) -> Any:
        return await function(asked, following)

    return call


def _as_response(following: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    async def call(request: HttpRequest) -> Response:
        value = await following(request)
        if isinstance(value, Response):
            return value
        return Response(value, status=204 if value is None else 200)

    return call


def _head_below(
    scope: MutableMapping[str, Any],
) -> tuple[str, str, list[tuple[bytes, bytes]]]:
    """Path, query and fields as a table takes them."""
    raw_path = scope.get("raw_path") or urllib.parse.quote(scope["path"]).encode()
    root_path = urllib.parse.quote(scope.get("root_path", ""))
    path = raw_path.decode("latin-1").removeprefix(root_path) or "/"
    return path, scope["query_string"].decode("latin-1"), list(scope["headers"])


def _path_below(scope: MutableMapping[str, Any]) -> str:
    """The path without what the app itself is mounted at."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) or "/"


async def _read_body(receive: Receive, bytes_max: int) -> bytes | None:
    """The whole body; `None` if it is too long."""
    body = bytearray()
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return bytes(body)
        body += event.get("body", b"")
        if len(body) > bytes_max:
            return None
        if not event.get("more_body", False):
            return bytes(body)


async def _send_answer(answer: tuple[int, list[tuple[bytes, bytes]], bytes], send: Send) -> None:
    status, headers, body = answer
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
