"""Who may do what with topics over HTTP, decided for each request."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import framegate
from framegate.errors import AppImportError, ConfigError
from peers.h2_client import Client
from server_process import Launch, launch
from server_thread import Serve, Server
from topics.wire import Wire, app, ask, bearer

__all__ = ["launch"]

TOPIC = "camera/front"
VIEWER = "viewer-viewer-viewer"
ROBOT = "robot-robot-robot-robot"
TOKENS = {
    "viewer": {"token": VIEWER, "read": ["camera/**"], "list": "camera/*"},
    "robot": {"token": ROBOT, "publish": "camera/front"},
}


@pytest.fixture
def topic(runtime: Path) -> Iterator[framegate.Publisher]:
    with framegate.Publisher(TOPIC, slot_bytes=1024, slots=8) as publisher:
        publisher.send(b"first")
        yield publisher


def sequence() -> int:
    """Of the newest frame of the topic."""
    with framegate.Subscriber(TOPIC, policy="latest") as subscriber:
        frame = subscriber.take(timeout=5)
        assert frame is not None
        with frame:
            return int(frame.sequence)


PATH = f"/topics/{TOPIC}"
LATEST = f"{PATH}?view=latest"


def test_this_machine_may_do_everything(serve_either: Serve, topic: framegate.Publisher) -> None:
    server = serve_either(app, topics="/topics")
    for host in ("localhost", "localhost:80", "127.0.0.1", "[::1]:1", "camera.localhost"):
        assert ask(server, "GET", LATEST, host=host).body == b"first"
    assert ask(server, "GET", "/topics").status == 200
    same = ("origin: http://localhost:8000", "sec-fetch-site: same-origin")
    answer = ask(server, "POST", PATH, *same, host="localhost:8000", body=b"second")
    assert answer.status == 200
    assert sequence() == 2


STRANGERS: dict[str, dict[str, Any]] = {
    "page of another site": {"lines": ["origin: http://evil.example"]},
    "page of another port": {"lines": ["origin: http://localhost:3000"]},
    "page without an origin": {"lines": ["origin: null"]},
    "fetch of another site": {"lines": ["sec-fetch-site: cross-site"]},
    "fetch of the same site": {"lines": ["sec-fetch-site: same-site"]},
    "name that DNS leads here": {"host": "evil.example"},
    "rebinding, with its own origin": {
        "host": "evil.example:8000",
        "lines": ["origin: http://evil.example:8000", "sec-fetch-site: same-origin"],
    },
    "name that begins with localhost": {"host": "localhost.evil.example"},
    "address of the network": {"host": "192.168.0.7"},
    "all addresses": {"host": "0.0.0.0"},
    "proxy: x-forwarded-for": {"lines": ["x-forwarded-for: 192.0.2.1"]},
    "proxy: x-forwarded-proto": {"lines": ["x-forwarded-proto: http"]},
    "proxy: forwarded": {"lines": ["forwarded: for=192.0.2.1"]},
    "proxy: via": {"lines": ["via: 1.1 cache"]},
    "proxy: x-real-ip": {"lines": ["x-real-ip: 127.0.0.1"]},
    "proxy that speaks 1.0, as nginx does": {"version": "1.0"},
    "no host": {"version": "1.0", "host": None},
}


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("trust", [(), "127.0.0.1"])
def test_stranger_may_do_nothing(
    serve_either: Serve, topic: framegate.Publisher, stranger: str, trust: Any
) -> None:
    # Who is not trusted has fields of proxies taken out: they count all the same.
    server = serve_either(app, topics="/topics", forwarded_allow_ips=trust)
    options = dict(STRANGERS[stranger])
    lines = options.pop("lines", [])
    for method, target in [
        ("GET", LATEST),
        ("GET", PATH),
        ("HEAD", PATH),
        ("GET", "/topics"),
        ("GET", "/topics/unknown"),
        ("POST", PATH),
        ("PUT", PATH),
        ("OPTIONS", PATH),
        ("DELETE", PATH),
    ]:
        answer = ask(server, method, target, *lines, **options, body=b"x")
        assert answer.status == 403, (method, target)
        assert "www-authenticate" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers
        if method != "HEAD":
            assert answer.problem["code"] == "forbidden"
            assert "this machine" in answer.problem["detail"]
    assert sequence() == 1
    beside = ask(server, "GET", "/", *lines, **options)
    assert beside.status == (404 if server.config.topics_bind else 418)


def test_machine_itself_can_be_left_out(serve_either: Serve, topic: framegate.Publisher) -> None:
    server = serve_either(app, topics="/topics", topics_local=False)
    assert ask(server, "GET", LATEST).status == 403
    server = serve_either(app, topics="/topics", topics_local=False, topics_token=VIEWER)
    assert ask(server, "GET", LATEST).status == 401
    assert ask(server, "GET", LATEST, bearer(VIEWER)).status == 200


def test_unix_socket_needs_a_token(serve_either: Serve, topic: framegate.Publisher) -> None:
    server = serve_either(app, uds=True, topics="/topics", topics_token=VIEWER)
    assert ask(server, "GET", LATEST).status == 401
    assert ask(server, "GET", LATEST, bearer(VIEWER)).body == b"first"
    assert ask(serve_either(app, uds=True, topics="/topics"), "GET", LATEST).status == 403


@pytest.mark.parametrize("bind", ["bind", "topics_bind"])
def test_connection_with_a_proxy_header_is_not_local(topic: framegate.Publisher, bind: str) -> None:
    options: dict[str, Any] = {
        **{"bind": "127.0.0.1:0", bind: "127.0.0.1:0?proxy=on"},
        "forwarded_allow_ips": "127.0.0.1",
        "topics": "/topics",
        "access_log": False,
        "lifespan": "off",
    }
    headers = {
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n": 403,
        b"PROXY UNKNOWN\r\n": 403,
        b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n": 403,
    }
    with framegate.Server(app, **options).start_in_thread() as server:
        (url,) = server.topics_urls if bind == "topics_bind" else server.urls
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        for header, status in headers.items():
            with socket.create_connection(address, timeout=30) as connection:
                connection.sendall(header)
                assert Wire(connection).ask("GET", LATEST).status == status


def test_two_users_of_one_connection_are_two(
    serve_either: Serve, topic: framegate.Publisher
) -> None:
    server = serve_either(app, topics="/topics", topics_tokens=TOKENS, topics_local=False)
    wire = Wire(server.connect())
    for _ in range(2):
        assert wire.ask("GET", LATEST, bearer(VIEWER)).body == b"first"
        refused = wire.ask("POST", PATH, bearer(VIEWER), body=b"x")
        assert refused.status == 403
        assert "insufficient_scope" in refused.headers["www-authenticate"]
        assert wire.ask("GET", LATEST).status == 401
        assert wire.ask("GET", LATEST, bearer(ROBOT)).status == 403
    assert wire.ask("POST", PATH, bearer(ROBOT), body=b"second").status == 200
    assert wire.ask("POST", "/topics/camera/back", bearer(ROBOT), body=b"x").status == 403
    assert wire.ask("POST", PATH, body=b"x").status == 401
    assert wire.ask("GET", LATEST, bearer(VIEWER)).body == b"second"
    wire.close()
    assert sequence() == 2


def test_wrong_token_is_401_with_a_challenge(
    serve_either: Serve, topic: framegate.Publisher
) -> None:
    server = serve_either(app, topics="/topics", topics_tokens=TOKENS)
    for lines in [
        [bearer(VIEWER + "x")],
        [bearer(VIEWER[:-1])],
        ["authorization: Bearer"],
        [bearer(VIEWER), bearer(VIEWER)],
    ]:
        answer = ask(server, "GET", LATEST, *lines)
        assert answer.status == 401 and answer.problem["code"] == "unauthorized"
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
        assert VIEWER[:-1] not in answer.body.decode()
    answer = ask(server, "GET", LATEST, host="elsewhere.example")
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="framegate"'
    # A token in the query is none.
    answer = ask(server, "GET", f"{LATEST}&token={VIEWER}&access_token={VIEWER}", host="a.example")
    assert answer.status == 401
    # Another scheme is somebody else's business: this is the machine itself.
    assert ask(server, "GET", LATEST, "authorization: Basic YTpi").status == 200


def test_token_counts_from_anywhere_and_in_any_page(
    serve_either: Serve, topic: framegate.Publisher
) -> None:
    server = serve_either(app, topics="/topics", topics_tokens=TOKENS)
    for stranger in ("page of another site", "name that DNS leads here", "proxy: forwarded"):
        options = dict(STRANGERS[stranger])
        lines = [*options.pop("lines", []), bearer(VIEWER)]
        assert ask(server, "GET", LATEST, *lines, **options).body == b"first"


def test_list_has_what_may_be_listed(serve_either: Serve, topic: framegate.Publisher) -> None:
    server = serve_either(app, topics="/topics", topics_tokens=TOKENS, topics_local=False)

    def listed(*lines: str) -> list[str]:
        found = json.loads(ask(server, "GET", "/topics", *lines).body)["topics"]
        return [item["name"] for item in found]

    with (
        framegate.Publisher("radar", slot_bytes=64, slots=4),
        framegate.Publisher("camera/front/depth", slot_bytes=64, slots=4),
    ):
        assert listed(bearer(VIEWER)) == [TOPIC]
        assert ask(server, "GET", "/topics", bearer(ROBOT)).status == 403
        assert ask(server, "GET", "/topics").status == 401


def test_anybody_may_what_needs_no_token_but_not_from_a_page_of_another_origin(
    serve_either: Serve, topic: framegate.Publisher
) -> None:
    tokens = {"anybody": {"read": "camera/**", "publish": "camera/**"}}
    server = serve_either(app, topics="/topics", topics_tokens=tokens, topics_local=False)
    for host in ("frames.example", "localhost"):
        assert ask(server, "GET", LATEST, host=host).status == 200
        own = f"origin: http://{host}"
        assert ask(server, "POST", PATH, own, host=host, body=b"x").status == 200
        other = "origin: http://evil.example"
        assert ask(server, "POST", PATH, other, host=host, body=b"x").status == 403
        assert ask(server, "GET", LATEST, "sec-fetch-site: cross-site", host=host).status == 403
    assert ask(server, "GET", "/topics").status == 403
    assert sequence() == 3


def test_http2_is_judged_as_http1_is(serve_either: Serve, topic: framegate.Publisher) -> None:
    server = serve_either(app, topics="/topics", topics_tokens=TOKENS)
    with Client(server.connect()) as client:

        def status(*fields: tuple[str, str], authority: str = "localhost") -> int | None:
            stream = client.request(LATEST, authority=authority, fields=fields)
            return client.answer(stream).status

        assert status() == 200
        assert status(authority="evil.example") == 401
        assert status(("origin", "http://evil.example")) == 401
        assert status(("x-forwarded-for", "127.0.0.1")) == 401
        assert status(("authorization", f"Bearer {VIEWER}"), authority="evil.example") == 200
        assert status(("authorization", f"Bearer {ROBOT}")) == 403


def test_secrets_are_masked_in_logs(
    serve_either: Serve, topic: framegate.Publisher, tmp_path: Path
) -> None:
    log = tmp_path / "access.log"
    server = serve_either(
        app,
        topics="/topics",
        topics_tokens=TOKENS,
        access_log=True,
        access_log_file=str(log),
        access_log_format="%s [%{authorization}i] [%{sec-websocket-protocol}i]",
    )
    protocols = "sec-websocket-protocol: framegate.v1, framegate.bearer.dmlld2Vy"
    assert ask(server, "GET", LATEST, bearer(VIEWER)).status == 200
    assert ask(server, "GET", LATEST, protocols).status == 401
    server.stop()
    assert log.read_text().splitlines() == [
        "200 [Bearer ***] [-]",
        "401 [-] [framegate.v1, framegate.bearer.***]",
    ]


def write_tokens(path: Path, name: str, token: str) -> None:
    path.write_text(f'[{name}]\ntoken = "{token}"\nread = "**"\n')
    path.chmod(0o600)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_file_of_tokens_is_read_anew_on_sighup(
    launch: Launch, tmp_path: Path, workers: str
) -> None:
    tokens = tmp_path / "tokens.toml"
    write_tokens(tokens, "first", VIEWER)
    server = launch(
        "supervised_apps:app",
        "--topics=/topics",
        "--topics-bind=127.0.0.1:0",
        "--no-topics-local",
        f"--workers={workers}",
        f"--topics-token-file={tokens}",
    ).wait_ready()
    ports = [server.port, int(server.wait_for(r"topics: http://127\.0\.0\.1:(\d+)")[1])]

    def status_at(port: int, token: str) -> int:
        wire = Wire(socket.create_connection(("127.0.0.1", port)))
        try:
            return wire.ask("GET", "/topics/unknown", bearer(token)).status
        finally:
            wire.close()

    def status(token: str) -> set[int]:
        return {status_at(port, token) for port in ports}

    assert (status(VIEWER), status(ROBOT)) == ({404}, {401})
    write_tokens(tokens, "second", ROBOT)
    os.kill(server.pid, signal.SIGHUP)
    while status(ROBOT) != {404}:  # until the watchdog of the test
        threading.Event().wait(0.05)
    if workers == "1":
        assert status(VIEWER) == {401}
        tokens.chmod(0o666)
        os.kill(server.pid, signal.SIGHUP)
        server.wait_for("tokens were not read anew, the old ones stay: .*has mode 666")
        assert status(ROBOT) == {404}


def test_file_that_others_can_read_stops_the_start(topic: Any, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    write_tokens(tokens, "viewer", VIEWER)
    tokens.chmod(0o644)
    server = framegate.Server(app, port=0, topics="/topics", topics_token_file=str(tokens))
    with pytest.raises(ConfigError, match="chmod 600"), server.start_in_thread():
        pass


class Judge:
    """Decides by the topic, and notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, scope: dict[str, Any]) -> Any:
        self.asked.append(scope)
        user = dict(scope["headers"]).get(b"x-user", b"")
        match scope["action"], user:
            case _, b"broken":
                raise RuntimeError("no database")
            case _, b"vague":
                return "yes"
            case "list", b"ann":
                return scope["topic"] in (None, TOPIC)
            case "read", b"ann":
                return scope["topic"] == TOPIC
        return False


def test_application_decides(
    serve_either: Serve, topic: framegate.Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    judge = Judge()
    server: Server = serve_either(app, topics="/topics", topics_access=judge)
    wire = Wire(server.connect())
    assert wire.ask("GET", f"{LATEST}&a=1", "x-user: ann").body == b"first"
    (scope,) = judge.asked
    client = scope.pop("client")
    assert client[0] == "127.0.0.1" and client[1] == wire.connection.getsockname()[1]
    assert dict(scope.pop("headers"))[b"x-user"] == b"ann"
    assert scope == {
        "type": "framegate.topic",
        "action": "read",
        "topic": TOPIC,
        "local": True,
        "method": "GET",
        "path": PATH,
        "query_string": b"view=latest&a=1",
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", server.port),
    }
    # The next request of the same connection is another question.
    assert wire.ask("GET", LATEST, "x-user: bob").status == 403
    refused = wire.ask("POST", PATH, "x-user: ann", body=b"x")
    assert refused.status == 403 and "application" in refused.problem["detail"]
    assert judge.asked[-1]["action"] == "publish"
    with framegate.Publisher("radar", slot_bytes=64, slots=4):
        found = json.loads(wire.ask("GET", "/topics", "x-user: ann").body)["topics"]
        assert [item["name"] for item in found] == [TOPIC]
    assert wire.ask("GET", "/topics", "x-user: bob").status == 403
    for user, complaint in (("broken", "no database"), ("vague", "returns True or False")):
        answer = wire.ask("GET", LATEST, f"x-user: {user}")
        assert answer.status == 500 and answer.problem["code"] == "internal"
        assert complaint in caplog.text and complaint not in answer.body.decode()
    judge.asked.clear()
    assert wire.ask("GET", LATEST, "x-user: ann", host="evil.example").status == 200
    assert judge.asked[0]["local"] is False
    wire.close()
    assert sequence() == 1


def test_function_may_be_no_coroutine_function(
    serve_either: Serve, topic: framegate.Publisher
) -> None:
    server = serve_either(
        app, topics="/topics", topics_access=lambda scope: scope["action"] == "read"
    )
    assert ask(server, "GET", LATEST).status == 200
    assert ask(server, "POST", PATH, body=b"x").status == 403


def test_function_that_is_none_is_said_at_the_start(topic: Any) -> None:
    for name, error in (("json:nothing", AppImportError), ("json:__name__", ConfigError)):
        server = framegate.Server(app, port=0, topics="/topics", topics_access=name)
        with pytest.raises(error), server.start_in_thread():
            pass
