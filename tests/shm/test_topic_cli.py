"""`platform topic`: what it prints of topics whose participants are other processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from framegate import shm
from framegate.cli import main
from privileges import needs_root

PeerStarter = Callable[..., Any]
PLATFORM = [sys.executable, "-m", "framegate"]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: exit code, stdout, stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["topic", *words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def camera(peer: PeerStarter) -> Iterator[Any]:
    """A publisher `camera` of topic rig/cam that has published 20 frames of 4x6x3."""
    publisher = peer("publish_when_told", "rig/cam", "4x6x3", "camera")
    assert publisher.line() == "ready"
    publisher.tell("20")
    assert publisher.line() == "20"
    yield publisher


def rows(text: str) -> list[dict[str, str]]:
    """A table as a list of rows by column; columns are two or more spaces apart."""
    lines = [line for line in text.splitlines() if line]
    starts = [i for i in range(len(lines[0])) if lines[0][i : i + 1].strip()]
    assert starts, text
    header = lines[0].split()
    result = []
    for line in lines[1:]:
        cells = [cell for cell in (part.strip() for part in line.split("  ")) if cell]
        assert len(cells) == len(header), (header, cells)
        result.append(dict(zip(header, cells, strict=True)))
    return result


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_list_shows_a_line_per_topic(run: Any, camera: Any, peer: PeerStarter) -> None:
    assert peer("publish_when_told", "lidar", "8", "scanner").line() == "ready"
    code, out, err = run("list")
    assert (code, err) == (0, "")
    lidar, cam = rows(out)
    assert (lidar["TOPIC"], cam["TOPIC"]) == ("lidar", "rig/cam")
    assert (cam["FRAMES"], cam["PUB"], cam["SUB"], cam["DEAD"]) == ("20", "1", "0", "0")
    assert (cam["LEASED"], cam["TYPE"]) == ("0/8", "uint8 (4, 6, 3)")
    assert (lidar["FRAMES"], lidar["HZ"], lidar["AGE"]) == ("0", "-", "-")
    assert lidar["TYPE"] == "uint8 (8,)"


def test_list_takes_names_and_patterns(run: Any, camera: Any) -> None:
    shm.Topic.create("lidar", slot_bytes=8).close()
    assert [row["TOPIC"] for row in rows(run("list", "rig/*")[1])] == ["rig/cam"]
    assert [row["TOPIC"] for row in rows(run("list", "lidar", "rig/*")[1])] == ["lidar", "rig/cam"]
    assert run("list", "nothing*") == (0, "", "")


def test_no_topics_is_said_where_people_look(run: Any, runtime_directory: Path) -> None:
    assert run("list") == (0, "", f"no topics in {runtime_directory}\n")
    assert run("list", "--json")[:2] == (0, "")


def test_list_json_is_an_object_per_topic(run: Any, camera: Any) -> None:
    shm.Topic.create("lidar", slot_bytes=8).close()
    code, out, _ = run("list", "--json")
    assert code == 0
    lidar, cam = objects(out)
    assert lidar["topic"] == "lidar"
    assert lidar["arrays"] == {}
    assert (lidar["sequence"], lidar["age_s"], lidar["hz"]) == (0, None, None)
    assert cam["arrays"] == {
        "": {"dtype": "uint8", "shape": [4, 6, 3], "units": None, "metadata": {}}
    }
    assert (cam["sequence"], cam["frame_bytes"], cam["slots"]) == (20, 72, 8)
    assert cam["memory_bytes"] == shm.inspect("rig/cam").total_bytes
    assert 0 <= cam["age_s"] < 100


def test_info_says_who_holds_what(run: Any, camera: Any, peer: PeerStarter) -> None:
    holder = peer("hold", "rig/cam", 3)
    assert holder.line() == "ready"
    camera.tell("5")
    camera.line()
    assert holder.line() == "21 22 23"
    code, out, _ = run("info", "rig/cam")
    assert code == 0
    head, _, participants = out.partition("\n\n")
    facts = dict(line.strip().split(":", 1) for line in head.splitlines()[1:])
    assert head.splitlines()[0] == "rig/cam"
    assert facts["type"].strip() == "uint8 (4, 6, 3)"
    assert facts["frames"].strip().startswith("25, newest ")
    assert "8 of 72 B" in facts["slots"]
    assert "3 leased" in facts["slots"]
    publisher, subscriber = rows(participants)
    assert (publisher["NAME"], publisher["PID"]) == ("camera", str(camera.pid))
    assert (publisher["ROLE"], publisher["FRAMES"], publisher["HOLDS"]) == ("publisher", "25", "0")
    assert (subscriber["NAME"], subscriber["PID"]) == ("peer.py", str(holder.pid))
    assert (subscriber["POLICY"], subscriber["STATE"]) == ("queue", "alive")
    assert (subscriber["FRAMES"], subscriber["LAG"], subscriber["HOLDS"]) == ("3", "2", "3")
    assert subscriber["OLDEST"] != "-"

    (report,) = objects(run("info", "rig/cam", "--json")[1])
    _, row = report["participants"]
    assert row["pid"] == holder.pid
    assert [lease["sequence"] for lease in row["leases"]] == [21, 22, 23]
    assert all(lease["nbytes"] == 72 and lease["frame_age_s"] > 0 for lease in row["leases"])
    assert (row["lag"], row["lost"], row["policy"]) == (2, 0, "queue")


def test_info_shows_the_checksum_and_what_failed_it(run: Any) -> None:
    with (
        shm.Topic.create("summed", slot_bytes=8, checksum="xxh3") as topic,
        topic.subscriber(),
    ):
        assert "checksum:     xxh3 of each payload" in run("info", "summed")[1]
        (report,) = objects(run("info", "summed", "--json")[1])
        assert report["checksum"] == "xxh3"
        assert report["participants"][0]["corrupt"] == 0
    shm.Topic.create("plain", slot_bytes=8).close()
    assert "checksum" not in run("info", "plain")[1]


def test_info_shows_units_and_what_is_said_about_a_topic(run: Any) -> None:
    arrays = {"depth": shm.ArraySpec("float32", (2, 2), units="m", metadata={"near": 0.5})}
    with shm.Topic.create("rig", arrays=arrays, metadata={"serial": "A7", "key": b"\x01"}):
        text = run("info", "rig")[1]
        assert "type:         depth: float32 (2, 2) m\n" in text
        assert "metadata:     serial: 'A7', key: b'\\x01'\n" in text
        (report,) = objects(run("info", "rig", "--json")[1])
        assert report["metadata"] == {"serial": "A7", "key": "01"}
        assert report["arrays"]["depth"]["units"] == "m"
        assert report["arrays"]["depth"]["metadata"]["near"] == 0.5


def test_info_shows_who_fills_slots(run: Any, camera: Any, peer: PeerStarter) -> None:
    filler = peer("loan", "rig/cam", 2)
    assert filler.line() == "ready 2"
    (report,) = objects(run("info", "rig/cam", "--json")[1])
    assert {row["pid"]: row["loans"] for row in report["participants"]} == {
        camera.pid: 0,
        filler.pid: 2,
    }
    assert report["slots_loaned"] == 2


def test_info_shows_the_dead(run: Any, camera: Any, peer: PeerStarter) -> None:
    holder = peer("hold", "rig/cam", 1)
    assert holder.line() == "ready"
    camera.tell("1")
    assert holder.line() == "21"
    holder.kill()
    code, out, _ = run("info", "rig/cam")
    assert code == 0
    assert "dead !" in out
    assert "! dead: what they hold comes back" in out
    (report,) = objects(run("list", "--json")[1])
    assert report["dead"] == 1
    (dead,) = [row for row in report["participants"] if not row["alive"]]
    assert dead["pid"] == holder.pid
    assert [lease["sequence"] for lease in dead["leases"]] == [21]
    assert rows(run("list")[1].replace(" !", ""))[0]["DEAD"] == "1"


def test_looking_changes_no_byte(run: Any, camera: Any, runtime_directory: Path) -> None:
    def content() -> dict[str, bytes]:
        return {
            file: (runtime_directory / file).read_bytes() for file in os.listdir(runtime_directory)
        }

    before = content()
    for words in (["list"], ["info", "rig/cam"], ["hz", "--interval", "0.1", "-n", "1"]):
        assert run(*words)[0] == 0
    assert content() == before


@pytest.mark.parametrize("verb", ["info", "list", "hz", "bw", "echo"])
def test_a_missing_topic_gets_a_suggestion(run: Any, camera: Any, verb: str) -> None:
    code, out, err = run(verb, "rig/cma")
    assert (code, out) == (1, "")
    assert err.startswith('error: FG-SHM-002 there is no topic "rig/cma"')
    assert "fix: did you mean rig/cam?" in err
    _, _, err = run(verb, "zzz")
    assert "fix: topics here: rig/cam" in err


def test_a_bad_name_says_the_grammar(run: Any) -> None:
    code, _, err = run("info", "a//b")
    assert code == 1
    assert err.startswith("error: FG-SHM-004")


def test_a_damaged_topic_does_not_hide_the_others(
    run: Any, camera: Any, runtime_directory: Path
) -> None:
    shm.Topic.create("broken", slot_bytes=8).close()
    with (runtime_directory / "broken.ctl").open("r+b") as file:
        file.seek(64)  # the number of slots
        file.write(b"\xff" * 16)
    code, out, err = run("list")
    assert code == 1
    broken, cam = rows(out)
    assert (broken["TOPIC"], broken["HZ"]) == ("broken", "!")
    assert cam["FRAMES"] == "20"
    assert "error: FG-SHM-011" in err
    assert '"broken"' in err
    assert "fix: " in err
    code, out, _ = run("list", "--json")
    assert code == 1
    assert [("error" in row) for row in objects(out)] == [True, False]
    code, out, err = run("info", "broken")
    assert (code, out) == (1, "")
    assert "error: FG-SHM-011" in err


@needs_root
def test_another_users_topic_says_how_to_share(runtime_directory: Path) -> None:
    nobody = 65534
    os.chown(runtime_directory, 0, nobody)
    runtime_directory.chmod(0o2770)
    shm.Topic.create("private", slot_bytes=8).close()
    shm.Topic.create("shared", slot_bytes=8, mode=0o660).close()
    # Everything is imported while root may still read this tree.
    program = (
        "import os, sys\n"
        "from framegate.cli import main\n"
        "assert main(['topic', 'list']) == 0 and main(['topic', 'info', 'none']) == 1\n"
        "sys.stdout.flush(); print('---', file=sys.stderr, flush=True)\n"
        f"os.setgroups([]); os.setgid({nobody}); os.setuid({nobody})\n"
        "print(main(['topic', 'list']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "1"
    private, shared = rows("\n".join(done.stdout.splitlines()[3:-1]))
    assert (private["TOPIC"], private["HZ"]) == ("private", "!")
    assert (shared["TOPIC"], shared["FRAMES"]) == ("shared", "0")
    complaint = done.stderr.partition("---\n")[2]
    assert complaint.startswith("error: FG-SHM-013 ")
    assert '"private"' in complaint
    assert "mode=0o660" in complaint


def test_unlink_removes_topics_that_nobody_uses(run: Any, camera: Any) -> None:
    shm.Topic.create("left/over", slot_bytes=8).close()
    assert run("unlink", "left/over") == (0, "removed left/over\n", "")
    assert shm.topics() == ["rig/cam"]
    code, out, err = run("unlink", "rig/cam")
    assert (code, out) == (1, "")
    assert f'topic "rig/cam" is in use by camera (pid {camera.pid})' in err
    assert "--force" in err
    assert run("unlink", "--force", "rig/cam") == (0, "removed rig/cam\n", "")
    code, _, err = run("unlink", "rig/cam")
    assert code == 1
    assert "FG-SHM-002" in err


def test_unlink_removes_a_damaged_topic(run: Any, runtime_directory: Path) -> None:
    shm.Topic.create("broken", slot_bytes=8).close()
    with (runtime_directory / "broken.ctl").open("r+b") as file:
        file.write(b"nonsense")
    assert run("list")[0] == 1
    assert run("unlink", "broken") == (0, "removed broken\n", "")
    assert run("list")[0] == 0


def test_hz_measures_rate_and_gaps(run: Any, peer: PeerStarter) -> None:
    assert peer("publish_steadily", "ticks", 100, 50).line() == "ready"
    code, out, err = run("hz", "ticks", "--interval", "1", "-n", "2", "--json")
    assert (code, err) == (0, "")
    first, second = objects(out)
    for row in (first, second):
        assert row["topic"] == "ticks"
        assert row["frames"] == pytest.approx(row["hz"] * row["interval_s"])
        assert 0 < row["hz"] < 60
        assert 1 / 50 <= row["gap_min_s"] <= row["gap_mean_s"] <= row["gap_max_s"]
        assert row["frame_bytes_mean"] == 100
        assert row["bytes_per_s"] == pytest.approx(row["hz"] * 100)
    code, out, _ = run("hz", "ticks", "--interval", "0.5", "-n", "2")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 3
    assert lines[0].split() == ["TOPIC", "HZ", "FRAMES", "GAP", "MIN", "MAX", "DEVIATION", "LOST"]
    assert float(lines[1].split()[1]) > 0


def test_bw_measures_bytes(run: Any, peer: PeerStarter) -> None:
    assert peer("publish_steadily", "ticks", 5000, 50).line() == "ready"
    code, out, _ = run("bw", "ticks", "--interval", "0.3", "-n", "1")
    assert code == 0
    (row,) = rows(out)
    assert row["BANDWIDTH"].endswith("kB/s")
    assert row["FRAME"] == row["MIN"] == row["MAX"] == "5.0 kB"


def test_hz_goes_on_when_the_topic_is_made_anew(peer: PeerStarter) -> None:
    from framegate.observe import Meter

    first = shm.Publisher("t", slot_bytes=8)
    meter = Meter("t")
    meter.open()
    for _ in range(5):
        first.send(b"x")
    assert meter.read().frames == 5
    first.close()
    shm.unlink("t")
    gone = meter.read()
    assert gone.look is None
    with shm.Publisher("t", slot_bytes=8) as second:
        for _ in range(3):
            second.send(b"x")
        again = meter.read()
        assert again.look is not None
        assert again.frames == 3
    meter.close()


def test_a_resized_topic_is_looked_at_and_measured_on(run: Any) -> None:
    from framegate.observe import Meter, look

    with shm.Topic.create("t", slots=3, slot_bytes=8) as topic, topic.publisher() as publisher:
        meter = Meter("t")
        meter.open()
        publisher.send(b"1")
        topic.resize(slots=6, slot_bytes=100)
        meter.poll()
        publisher.send(b"2" * 50)
        meter.poll()
        publisher.send(b"3" * 100)
        gaps = meter.read()
        meter.close()
        assert gaps.frames == 3
        assert set(gaps.nbytes) >= {50, 100}
        now = look("t")
        assert [slot.nbytes for slot in now.frames()][-2:] == [50, 100]
        assert (now.report.slots, now.report.slot_bytes) == (6, 100)
        assert "6 of 100 B" in run("info", "t")[1]


def test_hz_ends_with_its_topics(camera: Any) -> None:
    process = subprocess.Popen(
        [*PLATFORM, "topic", "hz", "--interval", "0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("TOPIC")
    shm.unlink("rig/cam")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == 'topic "rig/cam" is gone\n'


def test_echo_shows_the_newest_frame(run: Any, camera: Any) -> None:
    code, out, err = run("echo", "rig/cam", "-n", "1", "--values", "3")
    assert code == 0
    assert 'subscribed to "rig/cam" with policy latest' in err
    first, *rest = out.splitlines()
    assert first.startswith("--- frame 20, ")
    assert rest == [
        "timestamp: 4.75",
        "metadata:",
        "  number: 19",
        "uint8 (4, 6, 3): 19 19 19 ...",
    ]
    assert shm.inspect("rig/cam").subscribers == 0


def test_echo_json(run: Any, camera: Any) -> None:
    code, out, _ = run("echo", "rig/cam", "-n", "1", "--values", "2", "--json")
    assert code == 0
    (frame,) = objects(out)
    assert (frame["topic"], frame["sequence"], frame["nbytes"]) == ("rig/cam", 20, 72)
    assert (frame["timestamp"], frame["metadata"]) == (4.75, {"number": 19})
    assert frame["arrays"] == {"": {"dtype": "uint8", "shape": [4, 6, 3], "values": [19, 19]}}


def test_echo_of_every_type_and_of_bytes(run: Any) -> None:
    np = pytest.importorskip("numpy")
    arrays = {
        "flag": np.array([True, False]),
        "small": np.array([-5, 7], "i2"),
        "half": np.array([0.5, float("nan")], "f2"),
        "pair": np.array([1 + 2j], "c8"),
    }
    with shm.Publisher("mixed", arrays=arrays) as publisher:
        publisher.send(arrays)
        (frame,) = objects(run("echo", "mixed", "-n", "1", "--json")[1])
        assert {name: entry["values"] for name, entry in frame["arrays"].items()} == {
            "flag": [True, False],
            "small": [-5, 7],
            "half": [0.5, None],
            "pair": [[1.0, 2.0]],
        }
    with shm.Publisher("raw", slot_bytes=100) as publisher:
        publisher.send(b"hello world", content_type="text/plain")
        assert run("echo", "raw", "-n", "1")[1].splitlines()[1:] == [
            "content type: text/plain",
            "bytes: b'hello world'",
        ]
        (frame,) = objects(run("echo", "raw", "-n", "1", "--json", "--values", "1")[1])
        assert frame["hex"] == b"hell".hex()


def test_echo_values_without_numpy_are_the_same() -> None:
    np = pytest.importorskip("numpy")
    from framegate.topic_cli import _values

    for dtype in ("bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"):
        array = np.arange(6).astype(dtype).reshape(2, 3)
        assert _values(memoryview(array), 4) == _values(array, 4)
    for dtype in ("c8", "c16"):
        array = np.arange(3).astype(dtype) * (1 + 1j)
        assert _values(memoryview(array), 2) == _values(array, 2)


def test_echo_gives_up_when_told(run: Any, runtime_directory: Path) -> None:
    shm.Topic.create("quiet", slot_bytes=8).close()
    code, _, err = run("echo", "quiet", "--timeout", "0.05")
    assert code == 1
    assert 'error: FG-SHM-017 no frame on topic "quiet" for 0.05 s' in err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["lst"], 'error: unknown verb "topic lst"; did you mean list?'),
        (["hz", "--interval", "0"], "expected seconds from 0.05 to 3600, not 0"),
        (["hz", "--cuont", "1"], "error: unknown option --cuont; did you mean --count?"),
        (["echo", "a", "b"], "error: unexpected argument b; see platform topic echo --help"),
        (["echo", "a", "-n", "0"], "expected a whole number from 1, not 0"),
        (["info"], "see platform topic info --help"),
    ],
)
def test_bad_options_are_one_line(run: Any, words: list[str], line: str) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert line in err
    assert err.count("\n") == 1


def test_topic_alone_shows_its_verbs(run: Any) -> None:
    code, out, _ = run()
    assert code == 0
    for verb in ("list", "info", "hz", "bw", "echo", "unlink"):
        assert f"    {verb} " in out


@pytest.mark.parametrize("words", [["hz"], ["echo", "rig/cam"]])
def test_ctrl_c_ends_a_verb_in_peace(camera: Any, words: list[str]) -> None:
    process = subprocess.Popen(
        [*PLATFORM, "topic", *words, *(["--interval", "0.1"] if words == ["hz"] else [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in err


def test_a_reader_that_goes_away_ends_a_verb(peer: PeerStarter) -> None:
    assert peer("publish_steadily", "ticks", 8, 100).line() == "ready"
    process = subprocess.Popen(
        [*PLATFORM, "topic", "echo", "ticks"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 0
    assert "Traceback" not in err
    deadline = time.monotonic() + 30
    while shm.inspect("ticks").subscribers and time.monotonic() < deadline:
        time.sleep(0.01)
    assert shm.inspect("ticks").subscribers == 0
