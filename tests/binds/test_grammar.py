"""The text of `--bind`: what it means, and what is said about one that means nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framegate.binds import FdBind, SystemdBind, TcpBind, UnixBind, parse_bind
from framegate.config import Config, Source
from framegate.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:8000", TcpBind("127.0.0.1", 8000)),
        ("example.org:0", TcpBind("example.org", 0)),
        ("*:80", TcpBind("*", 80)),
        ("[::1]:65535", TcpBind("::1", 65535)),
        ("[fe80::1%eth0]:1", TcpBind("fe80::1%eth0", 1)),
        ("unix:/run/a.sock", UnixBind("/run/a.sock")),
        ("unix:///run/a.sock", UnixBind("/run/a.sock")),
        ("unix:a.sock?mode=660", UnixBind("a.sock", 0o660)),
        ("unix:a?mode=0600&user=www&group=7", UnixBind("a", 0o600, "www", "7")),
        ("unix:a%20b%3Fc%25", UnixBind("a b?c%")),
        ("unix:@name", UnixBind("@name")),
        ("fd://0", FdBind(0)),
        ("systemd", SystemdBind()),
        ("systemd:web", SystemdBind("web")),
    ],
)
def test_text_means(text: str, bind: object) -> None:
    assert parse_bind(text) == bind
    assert parse_bind(str(bind)) == bind


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8000", "did you mean 127.0.0.1:8000?"),
        (":8000", "did you mean *:8000?"),
        ("localhost", "did you mean localhost:8000?"),
        ("http://127.0.0.1:8000/", "did you mean 127.0.0.1:8000?"),
        ("https://[::1]:443", "did you mean [::1]:443?"),
        ("::1", "did you mean [::1]:8000?"),
        ("[::1]", "did you mean [::1]:8000?"),
        ("::1:8000", "did you mean [::1]:8000?"),
        ("/run/a.sock", "did you mean unix:/run/a.sock?"),
        ("unx:/run/a.sock", "did you mean unix:/run/a.sock?"),
        ("unix=/run/a.sock", "did you mean unix:/run/a.sock?"),
        ("unix://run/a.sock", "did you mean unix:run/a.sock?"),
        ("fd:3", "did you mean fd://3?"),
        ("fd=3", "did you mean fd://3?"),
        ("systemd:", "did you mean systemd?"),
        ("a b:1", "expected host:port"),
        ("", "expected host:port"),
        ("127.0.0.1:65536", "port 65536: expected a whole number from 0 to 65535"),
        ("[127.0.0.1]:80", '"[127.0.0.1]" is no IPv6 address'),
        ("fd://99999999", "expected a descriptor from 0 to 1048576"),
        ("unix:", "expected a path"),
        ("unix:a%00b", "expected a path without zero bytes"),
        ("unix:a?mode=888", "mode=888: expected three octal digits such as 660"),
        ("unix:a?mode=66", "expected three octal digits"),
        ("unix:a?mode", "mode has no value, for example mode=660"),
        ("unix:a?mode=600&mode=660", "mode is given twice"),
        ("unix:a?mod=660", 'no option "mod", but mode, user, group, proxy; did you mean mode?'),
        ("unix:@a?mode=660", "an abstract socket has no mode"),
    ],
)
def test_mistake_is_named_with_the_remedy(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_bind(text)
    assert message in str(caught.value)
    with pytest.raises(ConfigError):
        Config(bind=(text,))


def test_path_has_a_limit_in_bytes() -> None:
    assert parse_bind("unix:" + "x" * 107) == UnixBind("x" * 107)
    with pytest.raises(ValueError, match=r"at most 107 bytes .* not 108"):
        parse_bind("unix:" + "ö" * 54)
    assert Config(uds="ö" * 53).uds == "ö" * 53
    with pytest.raises(ConfigError, match="at most 107 bytes"):
        Config(uds="ö" * 54)


@given(st.text(max_size=30))
def test_any_text_is_a_bind_or_an_explained_error(text: str) -> None:
    try:
        bind = parse_bind(text)
    except ValueError as error:
        assert str(error)
    else:
        assert parse_bind(str(bind)) == bind


@given(
    st.builds(
        UnixBind,
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
        .filter(lambda path: len(path.encode()) <= 107)
        .filter(lambda path: path[0] != "@" and not path.startswith("//")),
        st.none() | st.integers(0, 0o777),
    ).filter(lambda bind: bind.mode is None or bind.mode >= 0o100)
)
def test_unix_socket_survives_its_own_text(bind: UnixBind) -> None:
    assert parse_bind(str(bind)) == bind


class TestInTheConfiguration:
    def test_same_twice_is_refused_but_free_ports_are_not(self) -> None:
        with pytest.raises(ConfigError, match=r'"127\.0\.0\.1:80" is given twice'):
            Config(bind=("127.0.0.1:80", "127.0.0.1:80"))
        assert Config(bind=("[::1]:0", "127.0.0.1:0")).bind == ("[::1]:0", "127.0.0.1:0")

    def test_paths_in_a_file_are_relative_to_it(self, tmp_path: Path) -> None:
        file = tmp_path / "framegate.toml"
        file.write_text('bind = ["unix:run/s?mode=660", "unix:/abs", "unix:@name", "*:80"]')
        config = Config.load(file=file, environment={})
        assert config.bind == (
            f"unix:{tmp_path}/run/s?mode=660",
            "unix:/abs",
            "unix:@name",
            "*:80",
        )

    def test_stronger_origin_replaces_the_weaker_way_to_listen(self) -> None:
        config = Config.load(
            {"bind": ["*:1"]}, environment={"PORT": "2", "FRAMEGATE_UDS": "/s"}, search=False
        )
        assert (config.bind, config.port, config.uds) == (("*:1",), 8000, None)
        config = Config.load(
            environment={"FRAMEGATE_BIND": "*:1"}, command_line={"port": "3"}, search=False
        )
        assert (config.bind, config.port) == ((), 3)
        assert config.origins["port"].source is Source.COMMAND_LINE

    @pytest.mark.parametrize("other", [{"port": 1}, {"host": "::1"}, {"uds": "/s"}, {"fd": 0}])
    def test_bind_says_it_all(self, other: dict[str, object]) -> None:
        with pytest.raises(ConfigError, match="say it all with bind"):
            Config(bind=("*:1",), **other)  # type: ignore[arg-type]
