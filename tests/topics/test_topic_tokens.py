"""Tables of tokens: what is read of them, and what is refused without showing a secret."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from framegate.config import Config
from framegate.errors import ConfigError
from framegate.topic_access import (
    FILE_BYTES_MAX,
    TOKEN_LENGTH_MIN,
    TOKENS_MAX,
    grants,
    parse_tokens,
    read_token_file,
)

SECRET = "hunter2-hunter2-hunter2"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()
EVERYTHING = {action: ["**"] for action in ("list", "read", "publish", "call")}


def write(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_table_keeps_digests_and_patterns() -> None:
    text = f"""
        [viewer]
        token = "{SECRET}"
        read = ["camera/**", "*/left"]
        list = "**"
        [robot]
        sha256 = "{"AB" * 32}"
        publish = ["camera/front"]
        [anybody]
        read = "public/*"
    """
    table = parse_tokens(text)
    assert table == {
        "viewer": {"sha256": DIGEST, "read": ["camera/**", "*/left"], "list": ["**"]},
        "robot": {"sha256": "ab" * 32, "publish": ["camera/front"]},
        "anybody": {"read": ["public/*"]},
    }
    assert parse_tokens(table) == table  # as it crosses to a worker process


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("viewer = 1", "viewer is no table"),
        ("[viewer", "in TOML"),
        (7, "expected a table"),
        ({"a b": {}}, "'a b' is no name"),
        ({"x" * 65: {}}, "is no name"),
        ({"viewer": {}}, "viewer has a token, or the sha256"),
        ({"viewer": {"token": SECRET, "sha256": DIGEST}}, "one of them"),
        ({"viewer": {"sha256": "ab"}}, "64 hexadecimal digits"),
        ({"viewer": {"token": SECRET[: TOKEN_LENGTH_MIN - 1]}}, "at least 16 characters"),
        ({"viewer": {"token": SECRET + " "}}, "without spaces"),
        ({"viewer": {"token": SECRET + "é"}}, "ASCII"),
        ({"viewer": {"token": SECRET + "\n"}}, "ASCII"),
        ({"viewer": {"token": 7}}, "ASCII"),
        ({"viewer": {"token": SECRET, "write": "**"}}, "unknown key write"),
        ({"viewer": {"token": SECRET, "red": "**"}}, "did you mean read"),
        ({"viewer": {"token": SECRET, "read": 7}}, "or a list"),
        ({"viewer": {"token": SECRET, "read": ["cam*"]}}, "is no pattern"),
        ({"viewer": {"token": SECRET, "read": "**/left"}}, "is no pattern"),
        ({"viewer": {"token": SECRET, "read": "a//b"}}, "is no pattern"),
        ({"viewer": {"token": SECRET, "read": "/a"}}, "is no pattern"),
        ({"viewer": {"token": SECRET, "read": ""}}, "is no pattern"),
        ({"anybody": {"token": SECRET}}, "so it has none"),
        ({"a": {"token": SECRET}, "b": {"sha256": DIGEST}}, "a and b have the same token"),
    ],
)
def test_what_is_wrong_is_said_without_the_token(table: Any, complaint: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_tokens(table)
    assert complaint in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_token_of_the_shortest_length_is_taken() -> None:
    assert parse_tokens({"a": {"token": SECRET[:TOKEN_LENGTH_MIN]}})["a"]["sha256"]


def test_number_of_tokens_is_limited() -> None:
    def table(count: int) -> dict[str, Any]:
        return {f"t{n}": {"sha256": f"{n:064x}"} for n in range(count)}

    assert len(parse_tokens(table(TOKENS_MAX))) == TOKENS_MAX
    with pytest.raises(ValueError, match="more than 1000"):
        parse_tokens(table(TOKENS_MAX + 1))


def test_file_that_others_can_read_or_change_is_refused(tmp_path: Path) -> None:
    text = f'[viewer]\ntoken = "{SECRET}"\n'
    for mode in (0o600, 0o400, 0o640, 0o440, 0o700):
        assert read_token_file(write(tmp_path / "good.toml", text, mode))["viewer"]
    for mode in (0o604, 0o602, 0o660, 0o644, 0o620, 0o601):
        path = write(tmp_path / "bad.toml", text, mode)
        with pytest.raises(ConfigError, match=rf"has mode {mode:o}.*chmod 600"):
            read_token_file(path)


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, complaint in [
        (str(tmp_path / "none.toml"), "cannot be read"),
        (str(tmp_path), "cannot be read"),
        (write(tmp_path / "words.toml", "hello"), "in TOML"),
        (write(tmp_path / "long.toml", "#" * (FILE_BYTES_MAX + 1)), "has more than"),
    ]:
        with pytest.raises(ConfigError) as caught:
            read_token_file(path)
        assert str(caught.value).startswith(path) and complaint in str(caught.value)
    assert read_token_file(write(tmp_path / "most.toml", "#" * FILE_BYTES_MAX)) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "tokens.toml", "")
    os.chown(path, 4711, 0)
    with pytest.raises(ConfigError, match="belongs to another user"):
        read_token_file(path)


def test_environment_and_file_are_one_table(tmp_path: Path) -> None:
    path = write(tmp_path / "tokens.toml", f'[robot]\nsha256 = "{"cd" * 32}"\npublish = "a"\n')
    environment = {
        "FRAMEGATE_TOPICS_TOKEN": SECRET,
        "FRAMEGATE_TOPICS_TOKENS": "[anybody]\nread = 'public/**'",
        "FRAMEGATE_TOPICS_TOKEN_FILE": path,
    }
    config = Config.load(environment=environment, search=False)
    digest = bytes.fromhex(DIGEST)
    expected = [
        ("token", digest, EVERYTHING),
        ("anybody", None, {"read": ["public/**"]}),
        ("robot", bytes.fromhex("cd" * 32), {"publish": ["a"]}),
    ]
    assert grants(config) == expected
    assert grants(Config.from_json(config.to_json())) == expected


def test_name_or_token_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "tokens.toml", f'[robot]\ntoken = "{SECRET}"\n')
    for given, complaint in [
        ({"robot": {"sha256": "cd" * 32}}, "token robot is in"),
        ({"other": {"token": SECRET}}, "other and robot have the same token"),
    ]:
        config = Config(topics_tokens=given, topics_token_file=path)
        with pytest.raises(ConfigError, match=complaint):
            grants(config)


def test_secrets_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    config = Config(topics_token=SECRET, topics_tokens={"viewer": {"token": SECRET + "2"}})
    assert "hunter2" not in repr(config)
    with pytest.raises(ConfigError) as caught:
        Config(topics_tokens={"viewer": {"token": SECRET, "red": 1}})
    assert "hunter2" not in str(caught.value)
    environment = {**os.environ, "FRAMEGATE_TOPICS_TOKEN": SECRET}
    words = [sys.executable, "-m", "framegate", "config", "show"]
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert "topics_token" in done.stdout and "hunter2" not in done.stdout + done.stderr


def test_tokens_are_neither_on_the_command_line_nor_in_the_configuration_file(
    tmp_path: Path,
) -> None:
    words = [sys.executable, "-m", "framegate", "serve", "a:b", "--topics-token", SECRET]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2 and "unknown option --topics-token" in done.stderr
    file = tmp_path / "framegate.toml"
    file.write_text(f'topics_token = "{SECRET}"\n')
    with pytest.raises(ConfigError, match="set FRAMEGATE_TOPICS_TOKEN") as caught:
        Config.load(file=file, environment={})
    assert "hunter2" not in str(caught.value)


def test_function_and_tokens_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="a function decides"):
        Config(topics_access="module:function", topics_token=SECRET)
