"""`platform bridge` and `framegate.bridge.Bridge`: options, files, what is refused and how."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import framegate
from bridge.conftest import Host
from framegate import bridge, bridge_cli, shm
from framegate.bridge import wire
from framegate.bridge.options import FRAME_BYTES_MAX
from framegate.cli import main
from framegate.errors import BridgeError, ConfigError
from tls.authority import Authority, key_pem

WAIT_S = 60.0


def test_rules_say_what_they_say(runtime: Path) -> None:
    made = bridge.Bridge(
        "tcp/127.0.0.1:1",
        publish=[
            "camera/**,policy=queue,rate=2.5,bytes_max=4MiB,congestion=drop,priority=real_time",
            {"pattern": "lidar/*", "rate": 10},
            bridge.Publish("imu"),
        ],
        subscribe=["a/*,name={host}/{topic},slots=3", "b"],
    )
    assert made.publish == (
        bridge.Publish("camera/**", "queue", 2.5, 4 << 20, "drop", "real_time"),
        bridge.Publish("lidar/*", rate=10.0),
        bridge.Publish("imu", "latest", None, FRAME_BYTES_MAX, "block", "data"),
    )
    assert made.subscribe == (
        bridge.Subscribe("a/*", "{host}/{topic}", None, FRAME_BYTES_MAX, 3),
        bridge.Subscribe("b"),
    )
    assert not made.running
    assert not made.connected


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"publish": ["cam*"]}, "is one whole segment"),
        ({"publish": ["a,policy=all"]}, "latest or queue"),
        ({"publish": ["a,polizy=queue"]}, "unknown key polizy"),
        ({"publish": ["a,queue"]}, '"queue" is no NAME=VALUE'),
        ({"publish": ["a,rate=0"]}, "0.001 to 1000000"),
        ({"publish": ["a,rate=1e7"]}, "0.001 to 1000000"),
        ({"publish": ["a,bytes_max=0"]}, "1 to 1099511627776 bytes"),
        ({"publish": [{"policy": "queue"}]}, "a table has a pattern"),
        ({"publish": [5]}, "expected a pattern or a table"),
        ({"subscribe": ["a,slots=1"]}, "from 2 to 4096"),
        ({"subscribe": ["a,slots=4097"]}, "from 2 to 4096"),
        ({"subscribe": ["a,name=b"]}, "{topic} in it"),
        ({"subscribe": ["a,name={topik}"]}, "{topic} in it"),
        ({"call": ["a,rate=1"]}, "unknown key rate"),
        ({"offer": ["a,slots=3"]}, "is no pattern of topics"),
        ({"calls_max": 0}, "from 1"),
        ({"host": "a/b"}, "letters, digits"),
        ({"host": "a" * 65}, "at most 64"),
        ({"host": ""}, "letters, digits"),
        ({"prefix": "a/*"}, "letters, digits"),
        ({"topics_max": 0}, "from 1"),
        ({"topic_bytes_max": True}, "from 1"),
        ({"connect": ()}, "such as tcp/host:7447"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        bridge.Bridge(**{"connect": "tcp/127.0.0.1:1", **options})
    assert says in str(refusal.value)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:7447", "http://127.0.0.1:7447", "tcp"])
def test_an_endpoint_that_is_none_is_said(endpoint: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        bridge.Bridge(endpoint)
    assert "tcp/host:7447" in str(refusal.value)


def test_without_zenoh_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "zenoh", None)
    code = main(["bridge", "--zenoh", "tcp/127.0.0.1:1", "--publish", "a"])
    error = capsys.readouterr().err
    assert code == 1
    assert "error: FG-BRIDGE-001 a bridge needs Eclipse Zenoh, which is not installed" in error
    assert 'fix: pip install "framegate[zenoh]"' in error


def test_importing_framegate_bridge_does_not_import_zenoh() -> None:
    import subprocess

    code = (
        "import framegate.bridge, sys; sys.exit('zenoh' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "nothing crosses"),
        (("--zenoh", "tcp/a:1"), "nothing crosses"),
        (("--publish", "a"), "nobody to talk to"),
        (("--zenoh", "tcp/a:1", "--publish", "a*"), "publish a*"),
        (("--zenoh", "tcp/a:1", "--publish", "a", "--topics-max", "0"), "--topics-max 0"),
        (("--zenoh", "tcp/a:1", "--publish", "a", "--topic-bytes-max", "x"), "64KiB"),
        (("--zenoh", "tcp/a:1", "--publish", "a", "--interval", "0"), "--interval 0"),
        (("--config", "/none"), "/none: cannot be read"),
        (("--publsh", "a"), "did you mean --publish"),
    ],
)
def test_bad_options_are_one_line(
    words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bridge", *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("publish = ", "is no TOML"),
        ("publsh = []", "unknown key publsh"),
        ("connect = []", "unknown key connect"),
        ('publish = [{ pattern = "a", rate = "x" }]\nzenoh = "tcp/a:1"', "publish a: rate x"),
    ],
)
def test_a_bad_file_is_one_line(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bridge.toml"
    file.write_text(text)
    assert main(["bridge", "--config", str(file)]) == 2
    assert says in capsys.readouterr().err


def test_a_file_and_the_command_line_together(
    robot: Host, desk: Host, endpoint: str, tmp_path: Path
) -> None:
    with robot, framegate.Publisher("camera", slot_bytes=8) as camera:
        robot.bridge("--listen", endpoint, "--publish", "**", "--prefix", "a/b")
        file = tmp_path / "bridge.toml"
        file.write_text(
            f'zenoh = "{endpoint}"\nprefix = "wrong"\n'
            '[[subscribe]]\npattern = "*"\nname = "from-{host}/{topic}"\n'
        )
        desk.bridge("--config", str(file), "--prefix", "a/b")
        with desk:
            frames = framegate.Subscriber("from-robot/camera", wait=WAIT_S)
        with frames:
            camera.send(b"here")
            frame = frames.take(timeout=WAIT_S)
            assert frame is not None
            assert bytes(memoryview(frame)) == b"here"
            frame.release()


def test_bridges_of_other_prefixes_do_not_meet(
    robot: Host, desk: Host, host: Callable[[str], Host], endpoint: str
) -> None:
    with robot, framegate.Publisher("camera", slot_bytes=8):
        robot.bridge("--listen", endpoint, "--publish", "**", "--prefix", "one")
        stranger = desk.bridge("--zenoh", endpoint, "--subscribe", "**", "--prefix", "two")
        same = host("same").bridge("--zenoh", endpoint, "--subscribe", "**", "--prefix", "one")
        same.incoming("camera")
        assert stranger.settled()["incoming"] == []


def test_in_code_it_is_a_context_manager(robot: Host, desk: Host, endpoint: str) -> None:
    taker = desk.bridge("--listen", endpoint, "--subscribe", "**")
    with robot, framegate.Publisher("camera", slot_bytes=8) as camera:
        with bridge.Bridge(endpoint, publish=["camera"], host="robot") as running:
            assert running.wait_connected(WAIT_S)
            taker.incoming("camera")
            camera.send(b"by code")
            taker.incoming("camera", lambda row: row["published"] + row["latest"] == 1)
            status = running.status()
            assert status["host"] == "robot"
            assert status["outgoing"][0]["topic"] == "camera"
            with pytest.raises(BridgeError, match="started before"):
                running.start()
        assert not running.running
        running.close()
        assert running.status()["outgoing"] == []
    with desk, framegate.Subscriber("camera") as frames:
        frame = frames.take(timeout=WAIT_S)
        assert frame is not None
        assert bytes(memoryview(frame)) == b"by code"
        frame.release()


def test_no_thread_outlives_it(robot: Host, endpoint: str) -> None:
    """A thread of Zenoh's that still ran Python when the interpreter ended aborted the process."""
    before = set(threading.enumerate())
    with robot, bridge.Bridge(listen=endpoint, publish=["**"]) as running:
        assert running.running
        # Ours: nobody can wait for the end of those that Zenoh makes, which have other names.
        names = {thread.name for thread in set(threading.enumerate()) - before}
        assert all(name.startswith("bridge") for name in names), names
    assert set(threading.enumerate()) <= before


def test_a_process_may_end_without_closing_it(robot: Host, endpoint: str) -> None:
    program = f"""
        from framegate.bridge import Bridge
        bridge = Bridge(listen={endpoint!r}, publish=["**"], subscribe=["**"])
        bridge.start()
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=robot.environment, timeout=WAIT_S, capture_output=True, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_it_starts_before_anybody_is_there(robot: Host, desk: Host, endpoint: str) -> None:
    early = robot.bridge("--zenoh", endpoint, "--subscribe", "**")
    assert not early.status()["connected"]
    assert f"nobody answers at {endpoint} yet" in early.wait_said("yet")
    desk.bridge("--listen", endpoint)
    early.status(lambda status: status["connected"])
    assert early.end() == 0


def test_an_endpoint_that_is_taken_ends_it(robot: Host, desk: Host, endpoint: str) -> None:
    robot.bridge("--listen", endpoint).status()
    second = desk.bridge("--listen", endpoint, "--publish", "**")
    assert second.process.wait() == 1
    assert "FG-BRIDGE-001" in second.text()
    assert endpoint in second.text()


def test_the_counts_are_for_prometheus_too(
    robot: Host, desk: Host, endpoint: str, tmp_path: Path
) -> None:
    file = tmp_path / "bridge.prom"
    with robot, framegate.Publisher("camera", slot_bytes=8) as camera:
        robot.bridge("--listen", endpoint, "--publish", "**")
        taker = desk.bridge("--zenoh", endpoint, "--subscribe", "**", "--prometheus", str(file))
        taker.incoming("camera")
        camera.send(b"1234567")
        # It may have come as the newest one before, and is repeated then.
        row = taker.incoming("camera", lambda row: row["received"] == 1)
        assert taker.end() == 0
    found = {
        (sample.name, sample.labels.get("result")): (sample.value, sample.labels)
        for family in text_string_to_metric_families(file.read_text())
        for sample in family.samples
    }
    assert ("framegate_bridge_connected", None) in found
    value, labels = found["framegate_bridge_incoming_frames_total", "received"]
    assert value == 1
    assert labels == {"topic": "camera", "host": "robot", "result": "received"}
    bytes_published = found["framegate_bridge_incoming_bytes_total", "published"][0]
    assert bytes_published == 7 * row["published"]
    assert [path.name for path in tmp_path.glob("bridge.prom*")] == ["bridge.prom"]


def test_it_ends_with_whoever_reads_its_counts(robot: Host, endpoint: str) -> None:
    running = robot.bridge("--listen", endpoint)
    running.status()
    assert running.process.stdout is not None
    # As `| head` does. The thread that reads sits in read(), so its file is replaced below it.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, running.process.stdout.fileno())
    os.close(nothing)
    assert running.process.wait() == 0, running.text()
    assert "Error" not in running.text()


def test_every_count_has_a_line_of_prometheus() -> None:
    from dataclasses import asdict

    from framegate.bridge.calls import Answered, Asked
    from framegate.bridge.frames import Received, Sent

    status = {
        "host": "h", "connected": True,
        "outgoing": [{"topic": "t", "wanted": True, "policy": "latest", **asdict(Sent())}],
        "incoming": [{"topic": "t", "there": True, "host": "o", **asdict(Received())}],
        "offered": [{"topic": "t", **asdict(Answered())}],
        "called": [{"topic": "t", "there": True, "host": "o", **asdict(Asked())}],
    }  # fmt: skip
    lines = [line for line in bridge_cli.exposition(status) if not line.startswith("#")]
    counts = (Sent(), Received(), Answered(), Asked())
    assert len(lines) == 1 + sum(len(asdict(one)) for one in counts)


# ----------------------------------------------------------------------------------------------
# Discovery


def test_what_other_hosts_offer_is_listed(
    robot: Host, desk: Host, endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = shm.ArraySpec("uint8", (4, None), units="lux")
    with robot:
        camera = shm.Topic.create(
            "camera/front", arrays={"": spec}, slots=3, slot_bytes=100, metadata={"lens": "wide"}
        )
    with robot, camera, camera.publisher() as frames, framegate.Responder("resize"):
        frames.send(np.zeros((4, 5), "u1"))
        first = desk.bridge("--listen", endpoint, "--publish", "**")
        second = robot.bridge("--zenoh", endpoint, "--publish", "**", "--offer", "**")
        second.status(lambda status: len(status["outgoing"]) == 2 and status["offered"])
        first.status(lambda status: status["connected"])
        found = bridge.discover(endpoint)
        assert [(topic.host, topic.name, topic.frames, topic.calls) for topic in found] == [
            ("robot", "camera/front", True, False),
            ("robot", "resize", True, True),
        ]
        assert found[0].schema == {"": spec}
        assert (found[0].slots, found[0].slot_bytes, found[0].sequence) == (3, 100, 1)
        assert found[0].metadata == {"lens": "wide"}

        assert main(["topic", "list", "--remote", "--zenoh", endpoint]) == 0
        header, *rows = capsys.readouterr().out.splitlines()
        assert header.split() == ["HOST", "TOPIC", "OFFERS", "FRAMES", "MEMORY", "TYPE"]
        assert rows[0].split() == ("robot camera/front frames 1 300 B uint8 (4, any) lux".split())
        assert "frames, calls" in rows[1]
        assert main(["topic", "list", "cam*", "--remote", "--zenoh", endpoint, "--json"]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        row = json.loads(line)
        assert (row["host"], row["topic"], row["sequence"]) == ("robot", "camera/front", 1)
        assert row["arrays"][""]["units"] == "lux"

        words = ("topic", "list", "--remote", "--zenoh", endpoint, "--prefix", "other")
        assert main(words) == 0
        assert "no bridge offers any topic" in capsys.readouterr().err


def test_a_list_of_nobody_says_so(endpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topic", "list", "--remote", "--zenoh", endpoint]) == 1
    assert f"nobody answers at {endpoint}" in capsys.readouterr().err
    assert main(["topic", "list", "--remote"]) == 2
    assert "--zenoh tcp/host:7447" in capsys.readouterr().err
    assert main(["topic", "list", "--zenoh", endpoint]) == 2
    assert "go with --remote" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------
# Zenoh's own configuration


def secured(directory: Path, **changes: Any) -> Path:
    """A configuration file of Zenoh: TLS on both sides."""
    authority = Authority()
    server = authority.issue("127.0.0.1")
    client = authority.issue("robot", client=True)
    files = {
        "root_ca_certificate": authority.pem,
        "listen_certificate": server.chain_pem,
        "listen_private_key": key_pem(server.key),
        "connect_certificate": client.chain_pem,
        "connect_private_key": key_pem(client.key),
    }
    tls: dict[str, Any] = {"enable_mtls": True}
    for name, content in files.items():
        path = directory / f"{name}.pem"
        path.write_bytes(content)
        tls[name] = str(path)
    return _written(directory / "tls.json5", {"transport": {"link": {"tls": tls}}, **changes})


def _written(path: Path, settings: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"scouting": {"multicast": {"enabled": False}}, **settings}))
    return path


def test_tls_with_client_certificates_by_zenohs_own_file(
    robot: Host, desk: Host, host: Callable[[str], Host], endpoint: str, tmp_path: Path
) -> None:
    secure = endpoint.replace("tcp/", "tls/")
    router = secured(tmp_path, mode="router")
    client = tmp_path / "client.json5"
    client.write_text(router.read_text().replace('"router"', '"client"'))
    with robot, framegate.Publisher("camera", slot_bytes=8) as camera:
        robot.bridge("--listen", secure, "--zenoh-config", str(router), "--publish", "**")
        taker = desk.bridge("--zenoh", secure, "--zenoh-config", str(client), "--subscribe", "**")
        taker.incoming("camera")
        camera.send(b"sealed")
        taker.incoming("camera", lambda row: row["published"] + row["latest"] == 1)
        # Whoever has no certificate of that authority stays outside.
        stranger = host("stranger").bridge("--zenoh", secure, "--subscribe", "**")
        assert "nobody answers" in stranger.wait_said("nobody answers")
        assert not stranger.status()["connected"]


def test_access_control_by_zenohs_own_file(
    robot: Host, desk: Host, endpoint: str, tmp_path: Path
) -> None:
    """The router lets everybody read `open/**` of the robot and nothing else of its frames."""
    every = ["put", "declare_subscriber", "query", "reply", "declare_queryable", "liveliness_token",
             "liveliness_query", "declare_liveliness_subscriber"]  # fmt: skip
    rules = [
        {"id": "rest", "permission": "allow", "messages": every, "flows": ["ingress", "egress"],
         "key_exprs": ["framegate/info/**", "framegate/live/**", "framegate/latest/**",
                       "framegate/frames/robot/open/**"]},
    ]  # fmt: skip
    control = {
        "enabled": True, "default_permission": "deny", "rules": rules,
        "subjects": [{"id": "all"}], "policies": [{"rules": ["rest"], "subjects": ["all"]}],
    }  # fmt: skip
    file = _written(tmp_path / "acl.json5", {"mode": "router", "access_control": control})
    desk.bridge("--listen", endpoint, "--zenoh-config", str(file))
    with (
        robot,
        framegate.Publisher("open/camera", slot_bytes=8) as public,
        framegate.Publisher("camera", slot_bytes=8) as private,
    ):
        sender = robot.bridge("--zenoh", endpoint, "--publish", "**")
        taker = desk.bridge("--zenoh", endpoint, "--subscribe", "**")
        taker.incoming("camera")
        taker.incoming("open/camera")
        sender.outgoing("open/camera", lambda row: row["wanted"])
        for _ in range(3):
            public.send(b"public")
            private.send(b"private")
        taker.incoming("open/camera", lambda row: row["published"])
        status = taker.settled()
        rows = {row["topic"]: row for row in status["incoming"]}
        assert rows["camera"]["received"] == 0


@pytest.mark.parametrize("text", ["{", '{"mode": "boss"}', '{"nonsense": 1}'])
def test_a_file_that_zenoh_does_not_take_is_said(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "zenoh.json5"
    file.write_text(text)
    code = main(["bridge", "--zenoh", "tcp/a:1", "--publish", "a", "--zenoh-config", str(file)])
    assert code == 1
    assert f"Zenoh does not take {file}" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------
# Heads


def test_heads_and_tails_come_back() -> None:
    head = wire.Head(wire.FRAME, bytes(16), bytes(range(16)), 2**64 - 1, 7, 1, 0.25)
    tail = wire.Tail([["", "uint8", [3]]], {"a": b"\0", "b": 1.5, "c": "x", "d": True}, "a/b")
    found, rest = wire.head_of(wire.head_to(head, wire.tail_to(tail)))
    assert found == head
    assert wire.tail_of(rest) == tail
    assert wire.tail_to(wire.Tail()) == b""
    assert wire.tail_of(b"") == wire.Tail()
    assert wire.head_of(wire.head_to(head._replace(timestamp=None), b""))[0].timestamp is None


def test_a_tail_may_be_as_large_as_frames_need_and_no_larger() -> None:
    head = wire.Head(wire.FRAME, bytes(16), bytes(16), 1, 1, 1, None)
    assert wire.head_of(wire.head_to(head, bytes(wire.TAIL_BYTES_MAX)))
    with pytest.raises(wire.UnreadableError):
        wire.head_of(wire.head_to(head, bytes(wire.TAIL_BYTES_MAX + 1)))


def test_all_bridges_of_a_runtime_directory_have_one_id(runtime: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from framegate.bridge.engine import host_id

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: host_id(), range(32)))
    assert len(found) == 1
    assert len(found.pop()) == 16
    assert [path.name for path in runtime.iterdir()] == [".bridge-host-id"]
    assert shm.topics() == []
    (runtime / ".bridge-host-id").write_bytes(b"short")
    with pytest.raises(BridgeError, match="is damaged"):
        host_id()
