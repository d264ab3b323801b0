"""Requests of HTTP to frame routes: lists of topics, their newest frames, and calls."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import select
import ssl
from collections import deque
from collections.abc import Mapping
from email.message import Message
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from framegate import _http, errors
from framegate._shm import Frame, frame_over
from framegate.client import (
    ClientArgumentError,
    ClientError,
    ClientTimeout,
    ConnectOptions,
    ProxyFailed,
    ServerUnreachable,
    TlsFailed,
)
from framegate.errors import RequestRefused
from framegate.remote.wire import Payload, local_ns, settings, translated, websocket_url

if TYPE_CHECKING:
    from typing import Self, Unpack

__all__ = [
    "Caller",
    "call",
    "call_async",
    "latest",
    "latest_async",
    "topics",
    "topics_async",
]

IDLE_CONNECTIONS_MAX = 8
"""Connections that a caller keeps for its next calls: as many threads call at once, usually."""

CALL_TIMEOUT_S = 5.0
"""How long a call may take unless it says otherwise, as for calls on one machine."""

ANSWER_S = 10.0
"""How much longer than what was asked for the server may take to say how it ended."""

REFUSAL_BYTES_MAX = 64 * 1024
"""How much of a refusal is read, as for `HandshakeRefused`."""


class _Requests:
    """Requests of HTTP/1.1 to one address, on connections that are kept; redirects are refusals."""

    def __init__(self, url: str, token: str | None, options: ConnectOptions) -> None:
        self.url = url
        options = settings(options, token)
        address = websocket_url(url)
        proxy = options.get("proxy", True)
        is_secure, (host, port, field), path, self._proxy = _http.client_way(address, proxy)
        self._place = host, port
        self._path = path
        self._headers = dict(options["headers"])
        if (agent := options.get("user_agent", "framegate")) is not None:
            self._headers.setdefault("User-Agent", agent)
        if field is not None:
            self._headers.setdefault("Authorization", field)
        self._bytes_max = options["message_bytes_max"]
        self._patience = options.get("open_timeout", ANSWER_S)
        self._context = _tls(options) if is_secure else None
        self._idle: deque[http.client.HTTPConnection] = deque()

    def _connection(self, timeout: float | None) -> http.client.HTTPConnection:
        while self._idle:
            connection = self._idle.pop()
            readable = select.poll()
            readable.register(connection.sock, select.POLLIN)
            if not readable.poll(0):
                connection.sock.settimeout(timeout)
                return connection
            connection.close()  # the server has closed it
        place = self._place if self._proxy is None else self._proxy[:2]
        if self._context is None:
            connection = http.client.HTTPConnection(*place, timeout=timeout)
        else:
            connection = http.client.HTTPSConnection(*place, timeout=timeout, context=self._context)
        if self._proxy is not None:
            field = self._proxy[2]
            fields = {} if field is None else {"Proxy-Authorization": field}
            connection.set_tunnel(*self._place, fields)
        return connection

    def send(
        self,
        method: str,
        query: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
        body: memoryview | None = None,
        patience: float = 0.0,
    ) -> tuple[int, Message, bytes]:
        """Make a request; its status, fields and body.

        Raises:
            ShmError: The server refused it, for a reason that has a name on one machine.
            RequestRefused: It refused it for another reason.
            ClientError: It did not answer.
        """
        timeout = None if self._patience is None else self._patience + patience
        target = self._path
        if query:
            target += ("&" if "?" in target else "?") + urlencode(query)
        connection = self._connection(timeout)
        is_whole = False
        try:
            connection.request(method, target, body, {**self._headers, **(headers or {})})
            with connection.getresponse() as response:
                is_refused = not 200 <= response.status < 300
                most = REFUSAL_BYTES_MAX if is_refused else self._bytes_max
                data = response.read(most + 1)
                is_whole = len(data) <= most and not response.will_close
        except TimeoutError as error:
            raise _passing(ClientTimeout(f"{self.url} gave no answer in {timeout:g} s")) from error
        except ssl.SSLError as error:
            raise TlsFailed(f"{self.url}: no connection in TLS", cause=str(error)) from error
        except (OSError, http.client.HTTPException) as error:
            # A refusal of the proxy is told from others by its text alone.
            by_proxy = str(error).startswith("Tunnel connection failed")
            kind = ProxyFailed if by_proxy else ServerUnreachable
            raise _passing(kind(f"{self.url} gives no answer", cause=str(error))) from error
        finally:
            if is_whole and len(self._idle) < IDLE_CONNECTIONS_MAX:
                self._idle.append(connection)
            else:
                connection.close()
        if is_refused:
            refusal = RequestRefused(f"{self.url} answers {response.status} {response.reason}")
            refusal.status = response.status
            refusal.headers = [(name.lower(), text) for name, text in response.getheaders()]
            refusal.body = data[:most]
            refusal.is_passing = response.status >= 500 or response.status in (408, 425, 429)
            raise translated(refusal)
        if len(data) > most:
            raise errors.FrameTooLarge(
                f"{self.url} answers with more than {most} bytes", fix="message_bytes_max=..."
            )
        return response.status, response.headers, data

    def close(self) -> None:
        """Close the connections that are idle."""
        while self._idle:
            self._idle.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _passing(error: ClientError) -> ClientError:
    error.is_passing = True
    return error


def _tls(options: ConnectOptions) -> ssl.SSLContext:
    files = options.get("ca_file") or ()
    if isinstance(files, str | os.PathLike):
        files = (files,)
    try:
        context = ssl.create_default_context(cafile=files[0] if files else None)
        for file in files[1:]:
            context.load_verify_locations(file)
        if (certificate := options.get("certificate")) is not None:
            context.load_cert_chain(certificate, options.get("key"), options.get("key_password"))
    except OSError as error:
        raise TlsFailed("a file of certificates cannot be used", cause=str(error)) from error
    return context


def _frame_of(headers: Message, body: bytes) -> Frame:
    """An answer as a frame."""
    try:
        timestamp, published = headers.get("Frame-Timestamp"), headers.get("Frame-Published")
        shape, content_type = headers.get("Frame-Shape") or "", headers.get("Content-Type") or ""
        # Of a picture that was made of an array, and of a file, they say what the array was.
        is_file = content_type.startswith("image/") or content_type == "application/x-npy"
        dtype = None if is_file else headers.get("Frame-Dtype")
        is_bytes = content_type == "application/octet-stream"
        return frame_over(
            body,
            0,
            dtype=dtype,
            shape=[int(length) for length in shape.split(",") if length.strip()],
            content_type="" if is_bytes or dtype is not None else content_type,
            sequence=int(headers.get("Frame-Sequence", 0)),
            timestamp=None if timestamp is None else float(timestamp),
            published_ns=0 if published is None else local_ns(int(published.replace(".", ""))),
        )
    except (ValueError, TypeError) as error:
        raise errors.RemoteProtocolError(
            "the server describes its frame in a way that means nothing", cause=str(error)
        ) from error


def topics(
    url: str, *, token: str | None = None, **options: Unpack[ConnectOptions]
) -> list[dict[str, Any]]:
    """List the topics of a server that one may see.

    Args:
        url: `http://host:port/topics`.
        token: Sent as `Authorization: Bearer`.
        **options: As for `framegate.client.connect`.

    Returns:
        What `GET /topics` says of each: `name`, `dtype`, `shape`, `slots`, `slot_bytes`,
        `sequence`, `publishers`, `subscribers`.

    Raises:
        PermissionDenied: One may not list them.
        RequestRefused: It is no list of topics that is there.
        ServerUnreachable: Nothing answers.
    """
    with _Requests(url, token, options) as requests:
        _, _, body = requests.send("GET", {})
    try:
        found: list[dict[str, Any]] = json.loads(body)["topics"]
    except (ValueError, TypeError, KeyError) as error:
        raise errors.RemoteProtocolError(f"{url} lists no topics", cause=repr(error)) from error
    return found


async def topics_async(
    url: str, *, token: str | None = None, **options: Unpack[ConnectOptions]
) -> list[dict[str, Any]]:
    """As `topics`, on a thread of the running event loop's pool."""
    return await asyncio.to_thread(topics, url, token=token, **options)


def latest(
    url: str,
    *,
    after: int | None = None,
    timeout: float | None = None,
    token: str | None = None,
    **options: Unpack[ConnectOptions],
) -> Frame | None:
    """Get the newest frame of a topic, by one request.

    Args:
        url: `http://host:port/topics/NAME`; `?format=jpeg` and its like may follow.
        after: Only a frame behind the one of this number; it is waited for.
        timeout: Seconds to wait for it, as far as the server allows.
        token: Sent as `Authorization: Bearer`.
        **options: As for `framegate.client.connect`.

    Returns:
        The frame, or None when there is none.

    Raises:
        TopicNotFound: There is no such topic.
        PermissionDenied: The server does not allow it.
    """
    query: dict[str, Any] = {"view": "latest"}
    if after is not None:
        query["after"] = after
        if timeout is not None:
            query["timeout"] = f"{timeout:g}"
    elif timeout is not None:
        raise ClientArgumentError("timeout goes with after: what is there is not waited for")
    with _Requests(url, token, options) as requests:
        status, headers, body = requests.send("GET", query, patience=timeout or 0.0)
    return None if status == 204 else _frame_of(headers, body)


async def latest_async(
    url: str,
    *,
    after: int | None = None,
    timeout: float | None = None,
    token: str | None = None,
    **options: Unpack[ConnectOptions],
) -> Frame | None:
    """As `latest`, on a thread of the running event loop's pool."""
    return await asyncio.to_thread(
        latest, url, after=after, timeout=timeout, token=token, **options
    )


class Caller:
    """The asking side of a topic of another machine, over its `/call` routes.

    May be used from several threads. Connections are kept for the next call.

    Args:
        url: `http://host:port/call/NAME`, or `https://`.
        token: Sent as `Authorization: Bearer`.
        **options: As for `framegate.client.connect`.
    """

    def __init__(
        self, url: str, *, token: str | None = None, **options: Unpack[ConnectOptions]
    ) -> None:
        self.url = url
        self._requests = _Requests(url, token, options)

    def call(
        self,
        data: Any = b"",
        *,
        timeout: float = CALL_TIMEOUT_S,
        timestamp: float | None = None,
        content_type: str | None = None,
    ) -> Frame:
        """Ask a responder and wait for its reply.

        Args:
            data: Bytes, an array, or a frame.
            timeout: Seconds until the reply, as far as the server allows.
            timestamp: A time of the application in seconds.
            content_type: Media type of bytes that are encoded.

        Returns:
            The reply, as a frame without a number.

        Raises:
            TopicNotFound: There is no such topic.
            NoResponder: Nobody answers calls on this topic.
            ResponderDied: The responder died or closed before it answered.
            CallFailed: The responder failed; the server's log says why.
            ShmTimeout: The reply did not come in time.
            PermissionDenied: The server does not allow it.
        """
        payload = Payload(data, content_type)
        headers = payload.headers
        if timestamp is not None:
            headers["Frame-Timestamp"] = repr(float(timestamp))
        query = {"timeout": f"{timeout:g}"}
        _, fields, body = self._requests.send("POST", query, headers, payload.data, timeout)
        return _frame_of(fields, body)

    async def call_async(
        self,
        data: Any = b"",
        *,
        timeout: float = CALL_TIMEOUT_S,
        timestamp: float | None = None,
        content_type: str | None = None,
    ) -> Frame:
        """As `call`, on a thread of the running event loop's pool, which goes on when cancelled."""
        return await asyncio.to_thread(
            self.call, data, timeout=timeout, timestamp=timestamp, content_type=content_type
        )

    def close(self) -> None:
        """Close the connections that are kept."""
        self._requests.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Caller of {self.url}>"


def call(
    url: str,
    data: Any = b"",
    *,
    timeout: float = CALL_TIMEOUT_S,
    token: str | None = None,
    **options: Unpack[ConnectOptions],
) -> Frame:
    """Ask a responder of another machine once; see `Caller`."""
    with Caller(url, token=token, **options) as caller:
        return caller.call(data, timeout=timeout)


async def call_async(
    url: str,
    data: Any = b"",
    *,
    timeout: float = CALL_TIMEOUT_S,
    token: str | None = None,
    **options: Unpack[ConnectOptions],
) -> Frame:
    """As `call`, on a thread of the running event loop's pool."""
    return await asyncio.to_thread(call, url, data, timeout=timeout, token=token, **options)
