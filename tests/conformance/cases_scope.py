"""What the application is told of a request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .registry import H1, H2, IN_LIFESPAN, NotOfferedError, case, check

if TYPE_CHECKING:
    from .peer import Peer


async def whole(send: Any, body: bytes = b"ok", status: int = 200, headers: Any = ()) -> None:
    """Send a whole response."""
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def show(scope: Any, receive: Any, send: Any, note: Any) -> None:
    """Send the scope as JSON; bytes become ["bytes", latin-1]."""

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return ["bytes", value.decode("latin-1")]
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value

    await whole(send, json.dumps(plain(scope), default=repr).encode())


def scope(peer: Peer, method: str = "GET", rest: str = "", **keys: Any) -> dict[str, Any]:
    shown: dict[str, Any] = peer.request(method, rest, **keys).json()
    return shown


def headers(shown: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name[1], value[1]) for name, value in shown["headers"]]


case("type", "`type` is http")(show)


@check
def _(peer: Peer) -> None:
    assert scope(peer)["type"] == "http"


case("asgi-version", "`asgi.version` is 3.0")(show)


@check
def _(peer: Peer) -> None:
    assert scope(peer)["asgi"]["version"] == "3.0"


case("spec-version", "`asgi.spec_version` is 2.5")(show)


@check
def _(peer: Peer) -> None:
    assert scope(peer)["asgi"]["spec_version"] == "2.5"


case("http-version", "`http_version` is 1.1 or 2")(show)


@check
def _(peer: Peer) -> None:
    assert scope(peer)["http_version"] == ("2" if peer.is_h2 else "1.1")


case("http-version-1.0", "`http_version` of HTTP/1.0 is 1.0", H1)(show)


@check
def _(peer: Peer) -> None:
    data = peer.raw(peer.head("GET", peer.path(), version="1.0"))
    assert json.loads(data.partition(b"\r\n\r\n")[2])["http_version"] == "1.0"


for method in ("POST", "DELETE", "PATCH", "OPTIONS", "REPORT"):
    case(f"method-{method}", f"`method` is {method}")(show)

    @check
    def _(peer: Peer, method: str = method) -> None:
        assert scope(peer, method)["method"] == method


case("scheme", "`scheme` is http, or https with TLS")(show)


@check
def _(peer: Peer) -> None:
    assert scope(peer)["scheme"] == ("https" if peer.is_tls else "http")


for name, title, raw, decoded in (
    ("escape", "`path` is percent-decoded", "/a%20b", "/a b"),
    ("utf8", "`path` is decoded as UTF-8", "/caf%C3%A9", "/caf\xe9"),
    ("slash", "`%2F` is decoded in `path`", "/a%2Fb", "/a/b"),
    ("doubled", "doubled slashes are kept", "//a//b/", "//a//b/"),
    ("dots", "dot segments are kept", "/a/../b/./c", "/a/../b/./c"),
    ("plus", "a plus is a plus in `path`", "/a+b", "/a+b"),
    ("percent", "a percent sign that escapes nothing is kept", "/100%25", "/100%"),
    ("long", "4 KiB of path", "/" + "x" * 4096, "/" + "x" * 4096),
):
    case(f"path-{name}", title)(show)

    @check
    def _(peer: Peer, raw: str = raw, decoded: str = decoded) -> None:
        shown = scope(peer, rest=raw)
        assert shown["path"] == f"/{peer.name}{decoded}"
        assert shown["raw_path"] == ["bytes", f"/{peer.name}{raw}"]


case("path-not-utf8", "a path that is not UTF-8 is served; `raw_path` has its bytes")(show)


@check
def _(peer: Peer) -> None:
    shown = scope(peer, rest="/a%ffb")
    assert shown["raw_path"] == ["bytes", f"/{peer.name}/a%ffb"]
    assert shown["path"].startswith(f"/{peer.name}/a")


case("query", "`query_string` is the client's bytes")(show)


@check
def _(peer: Peer) -> None:
    shown = scope(peer, query="a=%20&b=c+d&&=?/")
    assert shown["query_string"] == ["bytes", f"a=%20&b=c+d&&=?/&id={peer.id}"]
    assert shown["raw_path"] == ["bytes", f"/{peer.name}"]


case("headers-are-bytes", "header names are in lower case, names and values bytes")(show)


@check
def _(peer: Peer) -> None:
    sent = [("x-field" if peer.is_h2 else "X-Field", "Value")]
    shown = scope(peer, headers=sent)
    assert [["bytes", "x-field"], ["bytes", "Value"]] in shown["headers"]


case("header-latin-1", "bytes above 127 in a header value are kept")(show)


@check
def _(peer: Peer) -> None:
    assert ("x-field", "caf\xe9") in headers(scope(peer, headers=[("x-field", "caf\xe9")]))


case("header-empty", "an empty header value is kept")(show)


@check
def _(peer: Peer) -> None:
    assert ("x-field", "") in headers(scope(peer, headers=[("x-field", "")]))


case("header-repeated", "values of a repeated header are kept apart, in order")(show)


@check
def _(peer: Peer) -> None:
    sent = [("x-field", "1"), ("x-other", "-"), ("x-field", "2"), ("x-field", "1, 3")]
    values = [v for n, v in headers(scope(peer, headers=sent)) if n == "x-field"]
    assert values == ["1", "2", "1, 3"]


case("header-blanks", "blanks around a header value are not part of it", H1)(show)


@check
def _(peer: Peer) -> None:
    data = peer.raw(peer.head("GET", peer.path(), "X-Field: \t a b \t ", "connection: close"))
    assert ("x-field", "a b") in headers(json.loads(data.partition(b"\r\n\r\n")[2]))


case("header-large", "a header of 12 KiB is served")(show)


@check
def _(peer: Peer) -> None:
    assert ("x-field", "x" * 12_000) in headers(scope(peer, headers=[("x-field", "x" * 12_000)]))


case("host", "`host` is in the headers once; of HTTP/2 it is `:authority` and first")(show)


@check
def _(peer: Peer) -> None:
    fields = headers(scope(peer, headers=[("host", "example.org:81"), ("x-a", "b")]))
    assert [value for name, value in fields if name == "host"] == ["example.org:81"]
    assert not peer.is_h2 or fields[0][0] == "host"


case("no-pseudo-headers", "pseudo headers are taken out", H2)(show)


@check
def _(peer: Peer) -> None:
    assert not [name for name, _ in headers(scope(peer)) if name.startswith(":")]


case("cookies", "cookies that came apart are joined", H2)(show)


@check
def _(peer: Peer) -> None:
    sent = [("cookie", "a=1"), ("cookie", "b=2")]
    shown = headers(scope(peer, headers=sent))
    assert [value for name, value in shown if name == "cookie"] == ["a=1; b=2"]


case("client", "`client` is an address and a port that is an int")(show)


@check
def _(peer: Peer) -> None:
    shown = scope(peer)
    assert peer.link is not None
    assert shown["client"] == ["127.0.0.1", peer.link.socket.getsockname()[1]]


case("server", "`server` is an address and a port that is an int")(show)


@check
def _(peer: Peer) -> None:
    assert scope(peer)["server"] == ["127.0.0.1", peer.port]


case("root-path", "`root_path` is empty by default")(show)


@check
def _(peer: Peer) -> None:
    assert scope(peer).get("root_path", "") == ""


@case("state", "`state` is a shallow copy of the lifespan's, for each request")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    seen = json.dumps(scope.get("state"), default=repr)
    scope["state"]["mine"] = 1
    scope["state"]["made at startup"].append("seen")
    await whole(send, seen.encode())


@check
def _(peer: Peer) -> None:
    first, second = peer.request().json(), peer.request().json()
    # Other transports of this suite may have been here before.
    assert set(first) == set(second) == {"made at startup"}
    assert len(second["made at startup"]) == len(first["made at startup"]) + 1


@case("scope-apart", "what a request puts into its scope, the next one does not see")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    seen = [
        "mine" in scope,
        "mine" in scope.get("extensions", {}),
        [b"mine", b""] in [list(pair) for pair in scope["headers"]],
        "mine" in scope["asgi"],
    ]
    scope["mine"] = scope["asgi"]["mine"] = 1
    scope.get("extensions", {})["mine"] = 1
    scope["headers"] = [*scope["headers"], (b"mine", b"")]
    await whole(send, json.dumps(seen[:3]).encode())


@check
def _(peer: Peer) -> None:
    for _ in range(3):
        assert peer.request().json() == [False] * 3


case("extensions", "`extensions` has a dictionary for each name")(show)


@check
def _(peer: Peer) -> None:
    assert all(isinstance(value, dict) for value in scope(peer).get("extensions", {}).values())


@case("context-isolated", "a context variable that one request sets, the next one does not see")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    seen = IN_LIFESPAN.get()
    IN_LIFESPAN.set("by a request")
    await whole(send, seen.encode())


@check
def _(peer: Peer) -> None:
    for _ in range(3):
        assert peer.request().body != b"by a request"


@case("context-lifespan", "a context variable that startup sets is visible to requests")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await whole(send, IN_LIFESPAN.get().encode())


@check
def _(peer: Peer) -> None:
    assert peer.request().body == b"set"


case("absolute-form", "a target with scheme and host is its path", H1)(show)


@check
def _(peer: Peer) -> None:
    target = peer.path("/a%20b")
    data = peer.raw(peer.head("GET", f"http://other{target}", "connection: close"))
    shown = json.loads(data.partition(b"\r\n\r\n")[2])
    assert shown["path"] == f"/{peer.name}/a b"
    assert shown["raw_path"] == ["bytes", f"/{peer.name}/a%20b"]


case("absolute-form-host", "the host of such a target replaces `Host`", H1)(show)


@check
def _(peer: Peer) -> None:
    data = peer.raw(peer.head("GET", f"http://other{peer.path()}", "connection: close"))
    hosts = [v for n, v in headers(json.loads(data.partition(b"\r\n\r\n")[2])) if n == "host"]
    assert hosts == ["other"]


case("asterisk", "`OPTIONS *` has the path *", H1)(show)


@check
def _(peer: Peer) -> None:
    data = peer.raw(peer.head("OPTIONS", "*", "connection: close"))
    assert json.loads(data.partition(b"\r\n\r\n")[2])["path"] == "*"


case("tls-extension", "the `tls` extension is there with TLS, and only then")(show)


@check
def _(peer: Peer) -> None:
    tls = scope(peer).get("extensions", {}).get("tls")
    if not peer.is_tls:
        assert tls is None
        return
    if tls is None:
        raise NotOfferedError
    assert tls["tls_version"] in (0x303, 0x304)
    assert isinstance(tls["cipher_suite"], int)
    assert tls["server_cert"] is None or tls["server_cert"].startswith("-----BEGIN CERTIFICATE")
    assert list(tls.get("client_cert_chain", [])) == []
    assert tls.get("client_cert_name") is None and tls.get("client_cert_error") is None
