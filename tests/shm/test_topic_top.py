"""`platform topic top`: on a terminal, and where there is none."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from framegate import shm
from framegate.cli import main
from shm.screen import PATIENCE_S, Terminal

TOP = [sys.executable, "-m", "framegate", "topic", "top"]


@pytest.fixture
def terminal() -> Iterator[Any]:
    started: list[Terminal] = []

    def start(*words: str, **options: Any) -> Terminal:
        started.append(Terminal([*TOP, "--interval", "0.1", *words], **options))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_topics_come_and_go_and_q_gives_the_terminal_back(terminal: Any, peer: Any) -> None:
    assert peer("publish_steadily", "ticks", 100, 50).line() == "ready"
    top = terminal()
    top.wait(r"1 topics, .* free, .*/s\n *TOPIC +HZ .*ticks +\d+\.\d .*by topic; q ends")
    shm.Topic.create("another", slot_bytes=8).close()
    top.wait(r"2 topics.*another.*ticks")
    shm.unlink("another")
    top.wait(r"1 topics", absent="another")
    top.press("q")
    assert top.end() == 0
    top.assert_given_back()


def test_enter_shows_who_takes_part_and_marks_what_is_held_long(terminal: Any, peer: Any) -> None:
    publishing = peer("publish_steadily", "ticks", 100, 50)
    assert publishing.line() == "ready"
    top = terminal(size=(24, 160))
    top.wait(r"ticks +\d")
    with shm.Subscriber("ticks", name="slow \x1b[31mreader") as reader:
        frame = reader.take(timeout=PATIENCE_S)
        assert frame is not None
        with frame:
            top.press("\r")
            # Names are of anybody: what would steer the terminal is left out.
            shown = top.wait(r"ticks: who takes part.*NAME +PID .*slow \[31mreader.* s \*")
            assert str(os.getpid()) in shown
            top.wait(r"ticks .* 1/\d+\*")
            assert top.colours("1/8*") == {"cdcd00"}, "yellow, beside the mark"
    top.wait("who takes part", absent="slow")
    # Killed, it holds its row until somebody tidies up: dead, and said so without colours too.
    publishing.kill()
    top.wait(r"dead !")
    top.wait(r"ticks +0\.0 .* 1! ")
    assert top.colours("1!") == {"cd0000"}, "red"
    top.press("\x1b")
    top.wait("TOPIC", absent="who takes part")
    top.press("?")
    top.wait("keys and marks.*PgUp")
    top.press("q")
    assert top.end() == 0
    top.assert_given_back()


def test_topics_are_chosen_sorted_and_filtered(terminal: Any, peer: Any) -> None:
    assert peer("publish_steadily", "ticks", 100, 50).line() == "ready"
    for name in ("a/one", "a/two", "b"):
        shm.Topic.create(name, slot_bytes=8).close()
    top = terminal()
    top.wait(r"a/one.*a/two.*\nb .*ticks")
    top.press("ss")
    top.wait(r"ticks .*a/one.*a/two.*by bandwidth;")
    top.press("/")
    top.wait(r"filter: _")
    top.press("A/x\x7f")
    top.wait(r"filter: A/_", absent="ticks")
    top.press("\r")
    top.wait(r"a/one.*a/two.*with A/;", absent="ticks")
    # The one that is chosen stays so when others go.
    top.press("\x1b[B\r")
    top.wait(r"a/two: who takes part")
    shm.unlink("a/one")
    top.wait(r"a/two: who takes part", absent="a/one")
    shm.unlink("a/two")
    top.wait("TOPIC", absent="a/two")
    top.press("\x1b")
    top.wait(r"\nb .*ticks|ticks.*\nb ", absent="with A/")
    for keys in ("\x1b[F", "\x1b[H", "\x1b[6~", "\x1b[5~", "\x1b[A", "jjjk", "\x01", "\t"):
        top.press(keys)
    top.press("q")
    assert top.end() == 0


def test_the_preview_is_a_picture_in_half_blocks(terminal: Any) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:, :48] = (255, 0, 0)
    picture[:, 48:] = (0, 0, 255)
    with (
        shm.Publisher("camera", dtype="uint8", shape=picture.shape) as camera,
        shm.Publisher("numbers", dtype="float32", shape=(3,)) as numbers,
    ):
        camera.send(picture)
        top = terminal(COLORTERM="truecolor")
        top.wait(r"camera.*numbers")
        with shm.Inspector("camera") as inspector:
            assert inspector.report().subscribers == 0
            top.press("p")
            top.wait(r"camera, frame 1.*▀▀▀▀")
            (viewer,) = [p for p in inspector.report().participants if p.role == "subscriber"]
            assert (viewer.name, viewer.policy) == ("platform topic top", "latest")
            blocks = top.blocks()
            # JPEG: nearly red on the left, nearly blue on the right.
            reds = [fg for fg, _ in blocks if fg[:2] >= "f0" and fg[4:] <= "10"]
            blues = [fg for fg, _ in blocks if fg[:2] <= "10" and fg[4:] >= "f0"]
            assert reds and blues, blocks
            # It moves by itself, and follows the choice; a frame that is no picture is written out.
            camera.send(picture[:, ::-1])
            top.wait(r"camera, frame 2")
            top.press("\x1b[B")
            top.wait(r"numbers.*no frame yet")
            numbers.send(np.array([1.5, 2.5, -3.0], np.float32))
            top.wait(r"numbers, frame 1.*float32 \(3,\): 1\.5 2\.5 -3", absent="▀")
            top.press("p")
            top.wait("TOPIC", absent="numbers, frame 1")
            assert inspector.report().subscribers == 0
        with shm.Inspector("numbers") as inspector:
            assert inspector.report().subscribers == 0
        top.press("\x03")
        assert top.end() == 0
        top.assert_given_back()


@pytest.mark.parametrize(
    ("variables", "wanted"), [({"NO_COLOR": "1"}, "█"), ({"NO_COLOR": "", "COLORTERM": ""}, "▀")]
)
def test_pictures_on_terminals_with_fewer_colours(
    terminal: Any, variables: dict[str, str], wanted: str
) -> None:
    picture = np.full((32, 32), 255, np.uint8)
    with shm.Publisher("camera", dtype="uint8", shape=picture.shape) as camera:
        camera.send(picture)
        top = terminal(**variables)
        top.wait("camera")
        top.press("p")
        top.wait(wanted)
        if wanted == "▀":
            assert top.blocks() == {("ffffff", "ffffff")}, "the brightest of 256 colours"


def test_another_size_is_drawn_at_once(terminal: Any, peer: Any) -> None:
    assert peer("publish_steadily", "ticks", 100, 50).line() == "ready"
    top = terminal(size=(24, 140))
    top.wait(r"ticks.*by topic")
    assert "MEMORY" in "\n".join(top.lines)
    top.resize(10, 50)
    # What has no room on the right is left out; the last line is still the last.
    top.wait(r"TOPIC +HZ.*ticks.*by topic", absent="MEMORY")
    assert len(top.lines) == 10
    assert top.lines[-1].startswith("by topic")
    top.resize(30, 160)
    top.wait(r"MEMORY.*PUBLISHER.*ticks.*peer")
    for lines, columns in ((1, 1), (2, 3), (24, 80)):
        top.resize(lines, columns)
    top.wait(r"TOPIC.*ticks.*by topic")
    top.press("p\r")
    top.resize(3, 10)
    top.resize(24, 80)
    top.wait(r"who takes part")
    top.press("q")
    assert top.end() == 0
    top.assert_given_back()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_give_the_terminal_back(terminal: Any, peer: Any, number: signal.Signals) -> None:
    assert peer("publish_steadily", "ticks", 100, 50).line() == "ready"
    top = terminal()
    top.wait("ticks")
    top.press("p")
    top.wait("ticks, frame")
    top.process.send_signal(number)
    assert top.end() == 0
    top.assert_given_back()
    assert top.process.stderr.read() == b""


def test_a_count_ends_it(terminal: Any) -> None:
    shm.Topic.create("quiet", slot_bytes=8).close()
    top = terminal("-n", "3")
    assert top.end() == 0
    top.assert_given_back()


def test_without_a_terminal_tables_follow_each_other(
    capsys: pytest.CaptureFixture[str], peer: Any
) -> None:
    assert peer("publish_steadily", "ticks", 100, 50).line() == "ready"
    shm.Topic.create("quiet", slot_bytes=8).close()
    assert main(["topic", "top", "--interval", "0.2", "-n", "2", "--sort", "hz"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    first, second = out.split("\n\n2 topics")
    assert first.startswith("2 topics, ")
    lines = second.splitlines()
    assert lines[2].split()[:3] == ["TOPIC", "HZ", "BANDWIDTH"]
    assert [line.split()[0] for line in lines[3:]] == ["ticks", "quiet"]
    assert float(lines[3].split()[1]) > 0
    assert main(["topic", "top", "--once", "--interval", "0.05"]) == 0
    assert capsys.readouterr().out.count("topics, ") == 1


def test_json_has_the_look_and_the_rates(capsys: pytest.CaptureFixture[str], peer: Any) -> None:
    assert peer("publish_steadily", "ticks", 100, 50).line() == "ready"
    assert main(["topic", "top", "--json", "--interval", "0.3", "-n", "1"]) == 0
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert row["topic"] == "ticks"
    assert row["frames"] > 0
    assert row["bytes_per_s"] == pytest.approx(100 * row["hz"])
    assert row["participants"][0]["role"] == "publisher"


def test_a_missing_topic_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    shm.Topic.create("camera", slot_bytes=8).close()
    assert main(["topic", "top", "camra"]) == 1
    assert "did you mean camera?" in capsys.readouterr().err
    assert main(["topic", "top", "--sort", "hzz"]) == 2
