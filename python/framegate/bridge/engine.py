"""The bridge itself: a Zenoh session, and a thread that decides which topics cross.

Nothing is known in advance. This thread looks at the topics of this host twice a second, and Zenoh
tells which topics other hosts offer: each is a liveliness token that is there as long as its bridge
and the way to it are. What has to wait for an answer (what is the topic like? what is its newest
frame?) is asked here and not in Zenoh's callbacks.

A topic has one origin. What came over a bridge says so in its metadata, which every bridge on the
host sees, so it is not sent on; and of several hosts that offer the same name one is followed until
it goes.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import queue
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from framegate import likeness, shm
from framegate.bridge import wire
from framegate.bridge.calls import CALLS_MAX, Called, Offered
from framegate.bridge.frames import ORIGIN, PARTICIPANT, SEQUENCE, Incoming, Outgoing
from framegate.bridge.options import Call, Publish, Subscribe, first_fit, patterns, rules
from framegate.errors import BridgeError, ConfigError, ShmError, TopicNameInvalid
from framegate.topic_patterns import fits

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["Bridge", "configuration", "import_zenoh"]

LOOK_S: Final = 0.5
"""How often the topics of this host are looked at."""

ASK_S: Final = 5.0
"""How long another host may take to say what a topic is like; then it is asked again."""

LINGER_S: Final = 30.0
"""How long a topic here is kept open after its host went: it comes back after short troubles."""

CONNECT_S: Final = 1.0
"""How long one attempt to reach the first router may take; attempts go on."""

TOPICS_MAX: Final = 256
"""Topics in one direction: each that is sent has a thread, each that is taken has memory."""

TOPIC_BYTES_MAX: Final = 1024 * 1024 * 1024
"""Memory of a topic that another host may make us allocate: 16 slots of 64 MiB."""

QUERIES_MAX: Final = 256
"""Queries of other bridges that wait for an answer, of each kind. They ask again."""

METADATA_BYTES: Final = 512
"""Room for what the bridge itself says about a topic."""

ENDPOINT: Final = re.compile(r"[a-z][a-z0-9_-]*/[^/].*")
"""A protocol and an address."""

log: Final = logging.getLogger("framegate.bridge")


def import_zenoh() -> Any:
    """The module `zenoh`.

    Raises:
        BridgeError: It is not installed.
    """
    try:
        import zenoh
    except ModuleNotFoundError as error:
        if error.name != "zenoh":
            raise
        raise BridgeError(
            "a bridge needs Eclipse Zenoh, which is not installed",
            fix='pip install "framegate[zenoh]"',
        ) from None
    return zenoh


def configuration(
    zenoh: Any,
    connect: Iterable[str],
    listen: Iterable[str],
    file: str | os.PathLike[str] | None,
) -> Any:
    """Zenoh's configuration: the file's, or ours for such endpoints.

    Raises:
        BridgeError: Zenoh does not take it.
    """
    settings: dict[str, Any] = {}
    if file is None:
        settings |= {
            # A router forwards between those who connect to it, which a peer does not.
            "mode": "router" if listen else "client",
            "scouting/multicast/enabled": False,
            "listen/endpoints": [],
            "connect/timeout_ms": int(CONNECT_S * 1000),
            "connect/retry": {"period_init_ms": 200, "period_max_ms": 2000},
            # Shared memory of Zenoh's own would be one more copy: frames are in ours.
            "transport/shared_memory/enabled": False,
        }
        if listen:  # others may come before those whom this one connects to
            settings |= {"connect/timeout_ms": -1, "connect/exit_on_failure": False}
    if connect:
        settings["connect/endpoints"] = list(connect)
    if listen:
        settings["listen/endpoints"] = list(listen)
    try:
        found = zenoh.Config() if file is None else zenoh.Config.from_file(os.fspath(file))
        for key, value in settings.items():
            found.insert_json5(key, json.dumps(value))
    except Exception as error:  # zenoh.ZError
        raise BridgeError(
            f"Zenoh does not take {'its configuration' if file is None else os.fspath(file)}",
            cause=str(error).strip(),
        ) from None
    return found


def endpoints(given: str | Iterable[str]) -> tuple[str, ...]:
    """Endpoints as Zenoh writes them.

    Raises:
        ConfigError: One of them is none.
    """
    found = (given,) if isinstance(given, str) else tuple(given)
    for endpoint in found:
        if not isinstance(endpoint, str) or not ENDPOINT.fullmatch(endpoint):
            raise ConfigError(f"{endpoint} is no endpoint of Zenoh, such as tcp/host:7447")
    return found


def words(what: str, given: Iterable[str]) -> None:
    """Complain about what cannot be part of a key.

    Raises:
        ConfigError: One of them cannot.
    """
    for word in given:
        if not wire.WORD.fullmatch(word):
            raise ConfigError(f"{what} {word}: expected letters, digits, _, . and -, at most 64")


def host_id() -> bytes:
    """16 random bytes that all bridges over this runtime directory share, as long as it is there.

    By the directory and not by the machine: what matters is whose topics they are.
    """
    directory = shm.runtime_directory()
    os.makedirs(directory, mode=0o700, exist_ok=True)
    path = os.path.join(directory, ".bridge-host-id")
    while True:
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as stream:
            found = stream.read()
            if len(found) == 16:
                return found
            raise BridgeError(f"{path} is damaged", fix="remove it")
        # Wholly there or not at all, also if another bridge starts at the same time.
        draft = f"{path}.{secrets.token_hex(8)}"
        with open(draft, "xb") as stream:
            stream.write(secrets.token_bytes(16))
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        os.unlink(draft)


def own_host() -> str:
    """Name of this machine, as far as it can be part of a key."""
    name = socket.gethostname().partition(".")[0]
    return name if wire.WORD.fullmatch(name) else "host"


class Claim(NamedTuple):
    """A topic that a host offers."""

    host: str
    host_id: str
    stream: str
    topic: str


class Place(NamedTuple):
    """What a claim is for here: `frames` or `calls`, of a topic of that name."""

    kind: str
    name: str


class Bridge:
    """Carries frames between topics of this host and those of others, over Eclipse Zenoh.

    It works on threads of its own from `start()` (or `with`) to `close()`. Connections that are
    lost come back by themselves. Needs the extra `framegate[zenoh]`.

    Args:
        connect: Endpoints to connect to: `tcp/host:7447`, `tls/host:7447`; of a Zenoh router or
            of a bridge that listens. Of several, the first that answers counts.
        listen: Endpoints to listen on; then this bridge is a Zenoh router itself.
        publish: Which topics of this host others may have: patterns, or `Publish` for more.
        subscribe: Which topics of other hosts become topics here: patterns, or `Subscribe`.
        offer: Patterns of the topics of this host whose responders others may call.
        call: Topics of other hosts whose responders can be called here: patterns, or `Call`.
        host: Name of this host for others, one word; by default that of the machine.
        prefix: What all keys in Zenoh begin with; bridges of different prefixes never meet.
        zenoh_config: A configuration file of Zenoh's own (TLS, access control, everything);
            `connect` and `listen` come on top of it.
        topics_max: Topics in either direction.
        topic_bytes_max: Memory of a topic that is made for another host's, at most.
        calls_max: Calls in flight of a topic, on either side.

    Raises:
        BridgeError: Zenoh is not installed, or does not take its configuration.
        ConfigError: A rule or a name cannot be.
    """

    def __init__(
        self,
        connect: str | Iterable[str] = (),
        *,
        listen: str | Iterable[str] = (),
        publish: Iterable[str | Mapping[str, Any] | Publish] = (),
        subscribe: Iterable[str | Mapping[str, Any] | Subscribe] = (),
        offer: Iterable[str] = (),
        call: Iterable[str | Mapping[str, Any] | Call] = (),
        host: str | None = None,
        prefix: str = "framegate",
        zenoh_config: str | os.PathLike[str] | None = None,
        topics_max: int = TOPICS_MAX,
        topic_bytes_max: int = TOPIC_BYTES_MAX,
        calls_max: int = CALLS_MAX,
    ) -> None:
        self._zenoh = import_zenoh()
        connect, listen = endpoints(connect), endpoints(listen)
        if not connect and not listen and zenoh_config is None:
            raise ConfigError("a bridge needs an endpoint to connect to, such as tcp/host:7447")
        self.publish: tuple[Publish, ...] = rules(Publish, publish, "publish")
        self.subscribe: tuple[Subscribe, ...] = rules(Subscribe, subscribe, "subscribe")
        self.offer: tuple[str, ...] = patterns(offer, "offer")
        self.call: tuple[Call, ...] = rules(Call, call, "call")
        self.host: str = own_host() if host is None else host
        words("host", [self.host])
        words("prefix", prefix.split("/"))
        self.prefix: str = prefix
        self.topics_max: int = _at_least_one("topics_max", topics_max)
        self.topic_bytes_max: int = _at_least_one("topic_bytes_max", topic_bytes_max)
        self.calls_max: int = _at_least_one("calls_max", calls_max)
        self._endpoints = connect or listen or (str(zenoh_config),)
        self._config = configuration(self._zenoh, connect, listen, zenoh_config)
        # Of two bridges on a host both answer with the same keys, and both answers are wanted.
        self._every_reply: Any = self._zenoh.QueryConsolidation(self._zenoh.ConsolidationMode.NONE)
        self.host_id: str = ""
        self._session: Any = None
        self._thread: threading.Thread | None = None
        self._opened = threading.Event()
        self._stop = threading.Event()
        self._events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._declared: list[Any] = []
        self._answers: list[_Answers] = []
        self._lock = threading.Lock()  # of the tables below, which status() reads
        self._outgoing: dict[Place, Outgoing | Offered] = {}
        self._tokens: dict[Place, Any] = {}
        self._incoming: dict[Place, _Followed] = {}
        self._claims: dict[Place, dict[Claim, Subscribe | Call]] = {}
        self._again: dict[Place, float] = {}  # where to look once more, and when
        self._said: set[str] = set()

    # ------------------------------------------------------------------------------------------
    # From outside

    def start(self) -> None:
        """Begin. Returns at once where the other side is not there yet: it is tried again.

        Raises:
            BridgeError: Zenoh cannot listen, or does not take its configuration.
        """
        if self._thread is not None:
            raise BridgeError("this bridge was started before", fix="make another one")
        self.host_id = host_id().hex()
        self._session = self._open()
        self._thread = threading.Thread(target=self._run, name="bridge", daemon=True)
        self._thread.start()
        # Zenoh's threads call Python, which aborts the process while the interpreter ends.
        atexit.register(self.close)

    def wait_connected(self, timeout: float | None = None) -> bool:
        """Wait for a router or another bridge; False if the time-out passed first."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.connected:
            if self._stop.is_set() or (deadline is not None and time.monotonic() >= deadline):
                return False
            time.sleep(0.02)
        return True

    @property
    def running(self) -> bool:
        """Whether it was started and neither closed nor ended by a fault of its own."""
        return self._thread is not None and self._thread.is_alive() and not self._stop.is_set()

    @property
    def connected(self) -> bool:
        """Whether there is a connection to anybody."""
        if not self._opened.is_set() or self._stop.is_set():
            return False
        return bool(self._session.info.transports())

    def status(self) -> dict[str, Any]:
        """What crosses, and what became of it: plain data, whose keys stay."""
        rows: dict[str, list[dict[str, Any]]] = {
            "outgoing": [], "incoming": [], "offered": [], "called": [],
        }  # fmt: skip
        with self._lock:
            for place, outgoing in sorted(self._outgoing.items()):
                rows["outgoing" if place.kind == "frames" else "offered"].append(outgoing.status())
            for place, followed in sorted(self._incoming.items()):
                rows["incoming" if place.kind == "frames" else "called"].append(followed.status())
        return {
            "host": self.host,
            "host_id": self.host_id,
            "connected": self.connected,
            **rows,
        }

    def close(self) -> None:
        """End; topics that were made here stay. Harmless when it was closed."""
        if self._thread is None:
            return
        self._stop.set()
        self._events.put(("stop", None))
        self._thread.join()
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------
    # The thread

    def _open(self) -> Any:
        """A session, or None if nobody is there yet."""
        try:
            return self._zenoh.open(self._config)
        except Exception as error:  # zenoh.ZError, for everything
            text = str(error)
            if "Unable to connect" not in text:
                raise BridgeError(
                    "Zenoh cannot start", cause=text.strip(), fix="look at the endpoints"
                ) from None
            self._say(f"nobody answers at {', '.join(self._endpoints)} yet")
            return None

    def _run(self) -> None:
        try:
            while self._session is None and not self._stop.wait(CONNECT_S / 5):
                self._session = self._open()
            if self._session is not None:
                self._work()
        except BridgeError as error:
            log.error("bridge: it ended: %s", error)
        except Exception:
            log.exception("bridge: it ended by a fault of its own")
        finally:
            self._stop.set()
            self._end()

    def _work(self) -> None:
        self._declare()
        self._opened.set()
        next_look = 0.0
        while not self._stop.is_set():
            if (now := time.monotonic()) >= next_look:
                self._look()
                next_look = now + LOOK_S
            for place, due in list(self._again.items()):
                if due <= now:
                    del self._again[place]
                    self._settle(place)
            with contextlib.suppress(queue.Empty):
                what, value = self._events.get(timeout=max(next_look - time.monotonic(), 0.001))
                if what == "token":
                    self._on_token(*value)
                elif what == "refresh":
                    self._on_refresh(value)

    def _declare(self) -> None:
        callback = self._zenoh.handlers.Callback
        for kind, answer in (("info", self._answer_info), ("latest", self._answer_latest)):
            key = f"{self.prefix}/{kind}/{self.host}/**"
            answers = _Answers(kind, answer)
            self._answers.append(answers)
            self._declared.append(
                self._session.declare_queryable(key, callback(answers.take, indirect=False))
            )
        self._declared.append(
            self._session.liveliness().declare_subscriber(
                f"{self.prefix}/live/**",
                callback(lambda sample: self._events.put(self._token_of(sample)), indirect=False),
                history=True,
            )
        )

    def _end(self) -> None:
        with self._lock:
            closing: list[Outgoing | Offered | _Followed] = [
                *self._outgoing.values(),
                *self._incoming.values(),
            ]
            self._outgoing, self._incoming = {}, {}
        for declared in (*self._tokens.values(), *self._declared):
            with contextlib.suppress(Exception):
                declared.undeclare()
        for one in closing:
            one.close()
        if self._session is not None:
            with contextlib.suppress(Exception):
                self._session.close()
        # Behind the session, whose end also ends an answer that waits for the link.
        for answers in self._answers:
            answers.close()

    def _say(self, text: str) -> None:
        """Warn, once about the same thing."""
        if text not in self._said and len(self._said) < 1024:
            self._said.add(text)
            log.warning("bridge: %s", text)

    # ------------------------------------------------------------------------------------------
    # Topics of this host

    def _look(self) -> None:
        names = set(shm.topics()) if self.publish or self.offer else set()
        for place in list(self._outgoing):
            if place.name not in names:
                self._withdraw(place)
        for name in sorted(names):
            rule = first_fit(self.publish, name)
            is_offered = any(fits(pattern, name) for pattern in self.offer)
            if rule is None and not is_offered:
                continue
            try:
                self._look_at(name, rule, is_offered)
            except ShmError as error:  # being made or removed just now, or damaged
                self._say(f'topic "{name}" is not offered: {error.problem}')
        for place, followed in list(self._incoming.items()):
            self._check_followed(place, followed)

    def _look_at(self, name: str, rule: Publish | None, is_offered: bool) -> None:
        report = shm.inspect(name)
        is_own = ORIGIN not in report.metadata
        has_responder = any(row.role == "responder" and row.alive for row in report.participants)
        for place, is_wanted in (
            (Place("frames", name), is_own and rule is not None),
            (Place("calls", name), is_own and is_offered and has_responder),
        ):
            known = self._outgoing.get(place)
            if known is not None and (known.identity != report.identity or not is_wanted):
                self._withdraw(place)  # it was made anew, or nobody answers any more
                known = None
            if known is None and is_wanted:
                self._offer(place, rule)

    def _offer(self, place: Place, rule: Publish | None) -> None:
        kind, name = place
        if sum(other.kind == kind for other in self._outgoing) >= self.topics_max:
            self._say(f'topic "{name}" is not offered: topics_max is {self.topics_max}')
            return
        key = f"{self.prefix}/{kind}/{self.host}/{name}"
        topic = shm.Topic.open(name)
        stream, host_id = secrets.token_bytes(16), bytes.fromhex(self.host_id)
        offered: Outgoing | Offered
        if kind == "frames":
            assert rule is not None
            offered = Outgoing(self._zenoh, self._session, key, topic, rule, host_id, stream)
        else:
            offered = Offered(
                self._zenoh, self._session, key, topic, host_id, stream, self.calls_max
            )
        with self._lock:
            self._outgoing[place] = offered
        token = f"{self.prefix}/live/{self.host}/{self.host_id}/{stream.hex()}/{kind}/{name}"
        self._tokens[place] = self._session.liveliness().declare_token(token)
        log.info("bridge: %s of topic %s:%s are offered", kind, self.host, name)

    def _withdraw(self, place: Place) -> None:
        self._tokens.pop(place).undeclare()
        with self._lock:
            offered = self._outgoing.pop(place)
        offered.close()
        log.info("bridge: %s of topic %s:%s are not offered any more", *place[:1], self.host,
                 place.name)  # fmt: skip

    def _asked(self, query: Any, kind: str) -> Iterable[tuple[Place, Outgoing | Offered]]:
        """The topics that a query means."""
        start = f"{self.prefix}/{kind}/{self.host}/"
        with self._lock:
            known = list(self._outgoing.items())
        wanted = query.key_expr
        for place, one in known:
            if wanted.intersects(start + place.name):
                yield place, one

    def _answer_info(self, query: Any) -> None:
        for place, one in self._asked(query, "info"):
            try:
                report = shm.inspect(place.name)
                about = likeness.of(report)
                about["records"] = one.topic._native.records
            except ShmError:
                continue  # removed just now
            answer = {
                "version": wire.VERSION,
                "host": self.host,
                "host_id": self.host_id,
                "stream": one.stream.hex(),
                "kind": place.kind,
                "topic": place.name,
                "identity": one.identity,
                "sequence": report.sequence,
                **about,
            }
            key = f"{self.prefix}/info/{self.host}/{place.name}"
            query.reply(key, json.dumps(answer).encode())

    def _answer_latest(self, query: Any) -> None:
        for place, one in self._asked(query, "latest"):
            if not isinstance(one, Outgoing):
                continue
            try:
                found = one.latest()
            except ShmError:
                continue
            if found is not None:
                key = f"{self.prefix}/latest/{self.host}/{place.name}"
                query.reply(key, found[0], attachment=found[1])

    # ------------------------------------------------------------------------------------------
    # Topics of other hosts

    def _token_of(self, sample: Any) -> tuple[str, Any]:
        return "token", (str(sample.key_expr), sample.kind == self._zenoh.SampleKind.PUT)

    def _on_token(self, key: str, is_there: bool) -> None:
        parts = key.removeprefix(f"{self.prefix}/live/").split("/", 4)
        if len(parts) != 5 or parts[1] == self.host_id:
            return
        host, host_id, stream, kind, topic = parts
        claim = Claim(host, host_id, stream, topic)
        rule: Subscribe | Call | None = None
        if kind == "frames":
            rule = first_fit(self.subscribe, topic)
        elif kind == "calls":
            rule = first_fit(self.call, topic)
        if rule is None:
            return
        if host == self.host:
            self._say(f"another machine is called {host}, too: give one another name (--host)")
        place = Place(kind, rule.name.format(topic=topic, host=host))
        claims = self._claims.setdefault(place, {})
        if is_there:
            claims[claim] = rule
        else:
            claims.pop(claim, None)
        self._settle(place)
        if not claims and place not in self._incoming:
            del self._claims[place]

    def _settle(self, place: Place) -> None:
        """Follow one of those who offer a topic, if any does."""
        claims = self._claims.get(place, {})
        followed = self._incoming.get(place)
        if followed is not None and followed.claim in claims:
            return
        if not claims:
            if followed is not None and followed.gone_at is None:
                followed.gone_at = time.monotonic()
                log.info('bridge: topic "%s": %s is gone', place.name, followed.claim.host)
            return
        near = [
            claim
            for claim in claims
            if followed is not None and claim.host_id == followed.claim.host_id
        ]
        claim = (near or list(claims))[0]
        try:
            self._follow(place, claim, claims[claim])
        except Exception as error:  # whatever another host says ends no bridge
            problem = error.problem if isinstance(error, ShmError) else str(error)
            self._say(f'topic "{place.name}" of {claim.host} is not taken: {problem}')
            self._again[place] = time.monotonic() + ASK_S

    def _ask(self, claim: Claim) -> dict[str, Any]:
        """What a host says about a topic.

        Raises:
            wire.UnreadableError: It says nothing, or nothing that makes sense.
        """
        selector = f"{self.prefix}/info/{claim.host}/{claim.topic}"
        for reply in self._session.get(selector, timeout=ASK_S, consolidation=self._every_reply):
            if reply.ok is None:
                continue
            try:
                about: dict[str, Any] = json.loads(bytes(reply.ok.payload))
                version, stream = about["version"], about["stream"]
            except (ValueError, TypeError, KeyError):
                raise wire.UnreadableError("what it says about the topic makes no sense") from None
            if version != wire.VERSION:
                raise wire.IncompatibleError(
                    f"its bridge speaks version {version}, this one {wire.VERSION}; run the same "
                    "version of framegate on both hosts"
                )
            if stream == claim.stream:
                return about
        raise wire.UnreadableError("it does not say what the topic is like")

    def _follow(self, place: Place, claim: Claim, rule: Subscribe | Call) -> None:
        about = self._ask(claim)
        followed = self._incoming.get(place)
        if followed is not None and followed.one.source != about.get("identity"):
            self._unfollow(place)  # another host's, or made anew: it may have other arrays
            followed = None
        stream, key = bytes.fromhex(claim.stream), f"{claim.host}/{claim.topic}"
        if followed is None:
            if sum(other.kind == place.kind for other in self._incoming) >= self.topics_max:
                raise wire.UnreadableError(f"topics_max is {self.topics_max}")
            one, newest = self._make(place.name, claim, rule, about)
            one.follow(stream, about["identity"], newest)
            followed = _Followed(one, claim)
            with self._lock:
                self._incoming[place] = followed
            one.listen(self._zenoh, self._session, f"{self.prefix}/{place.kind}/{key}")
        else:
            followed.claim, followed.gone_at = claim, None
            followed.one.follow(stream, about["identity"])
        log.info("bridge: %s of %s:%s come as %s", place.kind, claim.host, claim.topic, place.name)
        # After the subscription: what is published in between comes twice, not never.
        if isinstance(followed.one, Incoming):
            self._ask_latest(claim, followed.one)

    def _ask_latest(self, claim: Claim, incoming: Incoming) -> None:
        self._session.get(
            f"{self.prefix}/latest/{claim.host}/{claim.topic}",
            self._zenoh.handlers.Callback(
                lambda reply: None if reply.ok is None else incoming.on_sample(reply.ok),
                indirect=False,
            ),
            timeout=ASK_S,
            consolidation=self._every_reply,
        )

    def _make(
        self, name: str, claim: Claim, rule: Subscribe | Call, about: dict[str, Any]
    ) -> tuple[Incoming | Called, int]:
        """The topic here, and the newest sequence of there that it has."""
        try:
            options = likeness.options(about, slots=rule.slots)
            source = str(about["identity"])
            bytes_needed = int(options["slots"]) * int(options["slot_bytes"] or 0)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise wire.UnreadableError(
                f"what it says about the topic makes no sense: {error}"
            ) from None
        try:
            shm.check_topic_name(name)
        except TopicNameInvalid as error:
            raise wire.UnreadableError(error.problem) from None
        if bytes_needed > self.topic_bytes_max:
            raise wire.UnreadableError(
                f"it needs {bytes_needed} bytes here, topic_bytes_max is {self.topic_bytes_max}"
            )
        own = {ORIGIN: claim.host_id, "bridge.host": claim.host, "bridge.topic": claim.topic}
        options["metadata"] = {**(options.get("metadata") or {}), **own, "bridge.source": source}
        options["metadata_bytes"] = options["metadata_bytes"] + METADATA_BYTES
        topic, newest = self._open_or_create(name, options, own)
        try:
            if topic.metadata.get("bridge.source") != source:
                with contextlib.suppress(ShmError):  # MetadataFull: only a repeated frame more
                    topic.append_metadata({"bridge.source": source})
                newest = 0
            if topic.slot_bytes < (needed := int(options["slot_bytes"] or 0)):
                topic.resize(slot_bytes=needed)
            if isinstance(rule, Call):
                host_id = bytes.fromhex(self.host_id)
                called = Called(
                    self._zenoh, self._session, name, rule, topic, host_id, self.calls_max
                )
                return called, newest
            place = Place("frames", name)
            return Incoming(name, rule, topic, lambda: self._events.put(("refresh", place))), newest
        except BaseException:
            topic.close()
            raise

    def _open_or_create(
        self, name: str, options: shm.TopicOptions, own: Mapping[str, Any]
    ) -> tuple[shm.Topic, int]:
        if name not in shm.topics():
            return shm.Topic.create(name, **options), 0
        there = shm.inspect(name)
        if ORIGIN not in there.metadata:
            raise wire.UnreadableError(
                "this host has a topic of that name itself; take it under another name: "
                f"--subscribe '{own['bridge.topic']},name={{host}}/{{topic}}'"
            )
        others = {"slots", "slot_bytes", "keep", "metadata", "metadata_bytes"}
        wanted: Any = {key: value for key, value in options.items() if key not in others}
        fits = there.metadata[ORIGIN] == own[ORIGIN] and there.checksum == wanted["checksum"]
        if fits:
            with contextlib.suppress(ShmError):
                topic = shm.Topic.open_or_create(
                    name, **wanted, slots=there.slots, slot_bytes=there.slot_bytes
                )
                return topic, self._newest_in(topic)
        # A bridge's topic of another host, or of other arrays: whoever has it open keeps it.
        users = [row for row in there.participants if row.alive and row.role == "publisher"]
        if users:
            raise wire.UnreadableError(f"{users[0].name} (pid {users[0].pid}) publishes on it")
        shm.unlink(name)
        return shm.Topic.create(name, **options), 0

    def _newest_in(self, topic: shm.Topic) -> int:
        with shm.Subscriber(topic, "latest", start="newest", name=PARTICIPANT) as subscriber:
            frame = subscriber.try_take()
            if frame is None:
                return 0
            with frame:
                newest = frame.metadata.get(SEQUENCE, 0)
                return newest if isinstance(newest, int) else 0

    def _check_followed(self, place: Place, followed: _Followed) -> None:
        if followed.gone_at is not None:
            if time.monotonic() - followed.gone_at > LINGER_S:
                self._unfollow(place)
                self._claims.pop(place, None)
            return
        try:
            identity = shm.inspect(place.name).identity
        except ShmError:
            identity = ""
        if identity != followed.one.identity:  # removed from under us
            self._unfollow(place)
            self._settle(place)

    def _on_refresh(self, place: Place) -> None:
        """Frames do not fit any more: ask how large they are now."""
        followed = self._incoming.get(place)
        if followed is None:
            return
        topic = followed.one.topic
        try:
            slot_bytes = int(self._ask(followed.claim)["slot_bytes"])
            if slot_bytes * topic.slots > self.topic_bytes_max:
                raise wire.UnreadableError(
                    f"it has grown beyond topic_bytes_max {self.topic_bytes_max}"
                )
            if slot_bytes > topic.slot_bytes:
                topic.resize(slot_bytes=slot_bytes)
        except (ShmError, ValueError, KeyError, TypeError) as error:
            self._say(f'topic "{place.name}" cannot grow: {error}')

    def _unfollow(self, place: Place) -> None:
        with self._lock:
            followed = self._incoming.pop(place)
        followed.one.close()


class _Followed:
    """A topic here, and whose it is."""

    def __init__(self, one: Incoming | Called, claim: Claim) -> None:
        self.one = one
        self.claim = claim
        self.gone_at: float | None = None

    def status(self) -> dict[str, Any]:
        return {
            **self.one.status(),
            "host": self.claim.host,
            "source": self.claim.topic,
            "there": self.gone_at is None,
        }

    def close(self) -> None:
        self.one.close()


class _Answers:
    """Answers queries on a thread of its own, as to answer may mean to wait for the link.

    Zenoh has such threads too. But nobody can wait for one of those to end, and what still runs
    when the interpreter ends aborts the process.
    """

    def __init__(self, what: str, answer: Callable[[Any], None]) -> None:
        self._what = what
        self._answer = answer
        self._queries: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"bridge {what}", daemon=True)
        self._thread.start()

    def take(self, query: Any) -> None:
        """A query, from a thread of Zenoh's."""
        if self._queries.qsize() < QUERIES_MAX:
            self._queries.put(query)
        else:
            query.drop()

    def close(self) -> None:
        """End behind the query that is being answered."""
        self._closed = True
        self._queries.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (query := self._queries.get()) is not None and not self._closed:
            try:
                self._answer(query)
            except Exception as error:
                log.warning("bridge: a query for %s was not answered: %s", self._what, error)
            finally:
                query.drop()


def _at_least_one(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} {value}: expected a whole number from 1")
    return value
