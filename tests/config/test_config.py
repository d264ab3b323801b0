"""Where settings come from, which origin wins, and what is said about a wrong one."""

from __future__ import annotations

import dataclasses
import os
import typing
from pathlib import Path

import pytest

from framegate.config import SETTINGS, Config, Setting, Source, suggestion
from framegate.config_kinds import Seconds, SecondsOrOff
from framegate.errors import ConfigError

ENV_FILE = str(Path(__file__).with_name("sample.env"))  # it is read

# One value per setting that differs from its default, as text and as what the text becomes.
SAMPLES: dict[str, tuple[str, object]] = {
    "app": ("main:app", "main:app"),
    "factory": ("true", True),
    "app_dir": ("/srv", "/srv"),
    "env_file": (ENV_FILE, ENV_FILE),
    "lifespan": ("on", "on"),
    "root_path": ("/api", "/api"),
    "host": ("::1", "::1"),
    "port": ("9000", 9000),
    "uds": ("/tmp/s", "/tmp/s"),
    "fd": ("0", 0),
    "bind": ("localhost:0 unix:/s?mode=660", ("localhost:0", "unix:/s?mode=660")),
    "middleware": ('a:B {"c": [1]}\nd:E', (("a:B", {"c": [1]}), ("d:E", {}))),
    "worker_scope": ("off", "off"),
    "timeout_worker_startup": ("1m", 60.0),
    "timeout_worker_shutdown": ("2", 2.0),
    "backlog": ("7", 7),
    "forwarded_allow_ips": ("10.0.0.0/8,::1 unix", ("10.0.0.0/8", "::1", "unix")),
    "forwarded_headers": ("Forwarded", "forwarded"),
    "request_id": ("on", True),
    "workers": ("3", 3),
    "worker_restarts_max": ("9", 9),
    "worker_timeout": ("30s", 30.0),
    "limit_max_requests": ("10000", 10000),
    "limit_max_requests_jitter": ("500", 500),
    "limit_max_rss": ("512MiB", 2**29),
    "limit_max_lifetime": ("24h", 86_400.0),
    "log_stalls": ("500ms", 0.5),
    "huge_pages": ("false", False),
    "timeout_startup": ("500ms", 0.5),
    "timeout_body": ("2m", 120.0),
    "timeout_write": ("10s", 10.0),
    "timeout_half_close": ("100ms", 0.1),
    "timeout_linger": ("500ms", 0.5),
    "target_bytes_max": ("2KiB", 2048),
    "max_body": ("16MiB", 2**24),
    "body_rate_min": ("240", 240),
    "limit_concurrency": ("1000", 1000),
    "limit_connections": ("10000", 10000),
    "limit_requests": ("64", 64),
    "limit_queue": ("0", 0),
    "limit_queue_timeout": ("250ms", 0.25),
    "rate_limit": ("600/m:50", "600/m:50"),
    "rate_limit_key": ("x-api-key=10/s", "x-api-key=10/s"),
    "rate_limit_entries": ("1024", 1024),
    "limit_exempt_paths": ("/health /ready", ("/health", "/ready")),
    "keep_alive_max_requests": ("100", 100),
    "timeout_graceful_shutdown": ("1m", 60.0),
    "timeout_keep_alive": ("5", 5.0),
    "timeout_header": ("1.5s", 1.5),
    "header_bytes_max": ("128KiB", 131072),
    "header_count_max": ("9", 9),
    "http": ("2", "2"),
    "http2_max_concurrent_streams": ("50", 50),
    "http2_initial_stream_window_size": ("1MiB", 2**20),
    "http2_initial_connection_window_size": ("2MiB", 2**21),
    "http2_keep_alive_interval": ("1m", 60.0),
    "ws_max_size": ("1MiB", 2**20),
    "ws_ping_interval": ("500ms", 0.5),
    "ws_ping_timeout": ("off", None),
    "send_buffer_bytes": ("4096", 4096),
    "ws_per_message_deflate": ("Context", "context"),
    "ws_deflate_min_size": ("1KiB", 1024),
    "ws_deflate_max_contexts": ("0", 0),
    "date_header": ("off", False),
    "server_header": ("no", False),
    "headers": ("x-a: 1\nx-b: 2", (("x-a", "1"), ("x-b", "2"))),
    "compress": ("on", True),
    "compress_min_size": ("2KiB", 2048),
    "compress_types": ("text/* application/json", ("text/*", "application/json")),
    "compress_level": ("Small", "small"),
    "compress_cookies": ("yes", True),
    "static": ("/a=/b\n/c/d/=/e=f", (("/a", "/b"), ("/c/d", "/e=f"))),
    "static_cache_control": ("public, max-age=60", "public, max-age=60"),
    "static_immutable": ("*.????????.js /assets/*", ("*.????????.js", "/assets/*")),
    "static_precompressed": ("off", False),
    "topics": ("/topics", "/topics"),
    "topics_bind": ("127.0.0.1:9001 unix:/t.sock", ("127.0.0.1:9001", "unix:/t.sock")),
    "live": ("/live", "/live"),
    "topic_rules": (
        'a/* {"create": true, "slot_bytes": "1KiB"}',
        (
            (
                "a/*",
                {
                    "create": True,
                    "slots": 8,
                    "slot_bytes": 1024,
                    "dtype": None,
                    "shape": None,
                    "decode": False,
                },
            ),
        ),
    ),
    "topics_max": ("9", 9),
    "topics_wait": ("500ms", 0.5),
    "topics_parts_max": ("9", 9),
    "topics_poll": ("1m", 60.0),
    "topics_calls": ("/ask", "/ask"),
    "topics_call_timeout": ("2s", 2.0),
    "topics_call_timeout_max": ("20s", 20.0),
    "topics_calls_max": ("9", 9),
    "topics_token_file": ("/tokens.toml", "/tokens.toml"),
    "topics_tokens": (
        f'[robot]\nsha256 = "{"ab" * 32}"\nread = "**"',
        {"robot": {"sha256": "ab" * 32, "read": ["**"]}},
    ),
    "topics_token": ("a-token-of-enough-length", "a-token-of-enough-length"),
    "topics_local": ("off", False),
    "topics_access": ("main:may", "main:may"),
    "topics_access_timeout": ("2s", 2.0),
    "topics_viewers": ("9", 9),
    "topics_queue_max": ("9", 9),
    "topics_queue_bytes": ("9MiB", 9 << 20),
    "topics_pixels_max": ("1000", 1000),
    "topics_picture_threads": ("3", 3),
    "log_level": ("DEBUG", "debug"),
    "reload": ("yes", True),
    "reload_dirs": ("/a:/b", ("/a", "/b")),
    "reload_includes": ("*.sql data/*", ("*.sql", "data/*")),
    "reload_excludes": ("old_*", ("old_*",)),
    "reload_delay": ("1s", 1.0),
    "debug": ("on", True),
    "log_config": ("/log.json", "/log.json"),
    "log_format": ("json", "json"),
    "use_colors": ("yes", True),
    "access_log": ("0", False),
    "access_log_format": ("%h %D", "%h %D"),
    "access_log_file": ("stderr", "stderr"),
    "access_log_exclude": ("/livez /static/*", ("/livez", "/static/*")),
    "slow_request": ("1s", 1.0),
    "server_timing": ("on", True),
    "collector": ("main:collector", "main:collector"),
    "admin_bind": ("9000 unix:/run/admin.sock", ("127.0.0.1:9000", "unix:/run/admin.sock")),
    "health_path": ("/healthz", "/healthz"),
    "metrics_path": ("/-/metrics", "/-/metrics"),
    "metrics_topics": ("9", 9),
    "ready_lag_max": ("5s", 5.0),
    "otel": ("on", True),
    "otel_active_requests": ("on", True),
    "sentry_dsn": ("https://key@sentry.example.org/1", "https://key@sentry.example.org/1"),
    "sentry_environment": ("staging", "staging"),
    "sentry_release": ("app@1.2", "app@1.2"),
    "ssl_certfile": ("/a.pem:/b.pem", ("/a.pem", "/b.pem")),
    "ssl_keyfile": ("/a.key", ("/a.key",)),
    "ssl_keyfile_password": ("sesame", "sesame"),
    "ssl_keyfile_password_file": ("/password", "/password"),
    "ssl_version": ("TLS1.3", "tls1.3"),
    "ssl_ciphers": (
        "TLS_AES_128_GCM_SHA256:TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        ("TLS_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
    ),
    "ssl_cert_reqs": ("2", "required"),
    "ssl_ca_certs": ("/ca.pem", ("/ca.pem",)),
    "ssl_ca_system": ("yes", True),
    "ssl_crl": ("/crl.pem", ("/crl.pem",)),
    "https_redirect_bind": ("localhost:80", ("localhost:80",)),
    "https_redirect_port": ("443", 443),
    "ssl_handshake_timeout": ("3s", 3.0),
    "ssl_handshakes_max": ("64", 64),
}

# What a setting makes no sense without.
_TLS: dict[str, typing.Any] = {"ssl_certfile": ("/a.pem",)}
_CLIENTS: dict[str, typing.Any] = {**_TLS, "ssl_cert_reqs": "required"}
COMPANIONS: dict[str, dict[str, typing.Any]] = {
    "ssl_keyfile": _TLS,
    "https_redirect_bind": _TLS,
    "ssl_cert_reqs": {**_TLS, "ssl_ca_certs": ("/ca.pem",)},
    "ssl_ca_certs": _CLIENTS,
    "ssl_ca_system": _CLIENTS,
    "ssl_crl": {**_CLIENTS, "ssl_ca_certs": ("/ca.pem",)},
    "live": {"topics": "/topics"},
    "topics_bind": {"topics": "/topics"},
}


def companions(setting: Setting) -> dict[str, typing.Any]:
    return COMPANIONS.get(setting.name, {})


def load(**keywords: typing.Any) -> Config:
    """Load without the environment and directory of the test run."""
    return Config.load(**{"environment": {}, "search": False, **keywords})


def each(setting: Setting) -> str:
    return setting.name


@pytest.mark.parametrize("setting", SETTINGS, ids=each)
class TestEverySetting:
    def test_is_read_from_the_environment(self, setting: Setting) -> None:
        text, value = SAMPLES[setting.name]
        config = load(environment={setting.environment[0]: text}, options=companions(setting))
        assert getattr(config, setting.name) == value
        assert config.origins[setting.name].source is Source.ENVIRONMENT

    def test_is_read_from_the_command_line(self, setting: Setting) -> None:
        text, value = SAMPLES[setting.name]
        if not setting.command_line:
            with pytest.raises(ConfigError, match="is a secret"):
                load(command_line={setting.name: text})
            return
        config = load(command_line={setting.name: text}, options=companions(setting))
        assert getattr(config, setting.name) == value
        assert str(config.origins[setting.name]).startswith("command line (")

    def test_is_read_from_code(self, setting: Setting) -> None:
        value = SAMPLES[setting.name][1]
        options = {**companions(setting), setting.name: value}
        assert getattr(load(options=options), setting.name) == value
        assert getattr(Config(**options), setting.name) == value

    def test_is_read_from_a_file(self, setting: Setting, tmp_path: Path) -> None:
        text, value = SAMPLES[setting.name]
        file = tmp_path / "framegate.toml"
        file.write_text(f'{setting.name.replace("_", "-")} = """{text}"""')
        if not setting.command_line:
            with pytest.raises(ConfigError, match="is a secret"):
                load(file=file)
            return
        config = load(file=file, options=companions(setting))
        assert getattr(config, setting.name) == value
        assert config.origins[setting.name].source is Source.FILE

    def test_default_passes_its_own_check(self, setting: Setting) -> None:
        assert setting.parse(setting.default, Config().origins[setting.name]) == setting.default

    def test_says_what_it_is_for(self, setting: Setting) -> None:
        assert setting.help.endswith(".")
        assert setting.kind.accepts()

    def test_annotation_is_the_type_of_the_value(self, setting: Setting) -> None:
        hint = typing.get_type_hints(Config)[setting.name]
        allowed = typing.get_args(hint) or (hint,)
        for value in (setting.default, SAMPLES[setting.name][1]):
            kinds = [typing.get_origin(kind) or kind for kind in allowed]
            assert value in allowed or any(
                isinstance(kind, type) and type(value) is kind for kind in [*kinds, tuple]
            )

    def test_crosses_to_a_worker_unchanged(self, setting: Setting) -> None:
        config = Config(**{**companions(setting), setting.name: SAMPLES[setting.name][1]})
        copy = Config.from_json(config.to_json())
        assert copy == config
        assert copy.origins == config.origins


def test_samples_cover_the_schema() -> None:
    assert set(SAMPLES) == {setting.name for setting in SETTINGS}
    for setting in SETTINGS:
        assert SAMPLES[setting.name][1] != setting.default


def test_stronger_origin_wins(tmp_path: Path) -> None:
    file = tmp_path / "framegate.toml"
    file.write_text("port = 1")
    layers: list[dict[str, typing.Any]] = [
        {},
        {"file": file},
        {"environment": {"PORT": "2"}},
        {"environment": {"PORT": "2", "FRAMEGATE_PORT": "3"}},
        {"options": {"port": 4}},
        {"command_line": {"port": "5"}},
    ]
    keywords: dict[str, typing.Any] = {}
    ports = []
    for layer in layers:
        keywords |= layer
        config = load(**keywords)
        ports.append((config.port, config.origins["port"].source))
    assert ports == list(zip([8000, 1, 2, 3, 4, 5], Source, strict=True))


def test_platform_names_are_honoured() -> None:
    config = load(environment={"HOST": "0.0.0.0", "PORT": "80", "WEB_CONCURRENCY": "4"})
    assert (config.host, config.port, config.workers) == ("0.0.0.0", 80, 4)


def test_empty_variable_is_unset() -> None:
    assert load(environment={"PORT": "", "FRAMEGATE_WORKERS": ""}) == Config()


def test_file_is_found_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.framegate]\nport = 1\n[tool.other]\nx = 1")
    assert load(search=True).port == 1
    (tmp_path / "framegate.toml").write_text("port = 2")
    assert load(search=True).port == 2
    assert load(search=False).port == 8000


class TestFileAbove:
    def test_is_found_from_a_directory_below(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        below = tmp_path / "a/b"
        below.mkdir(parents=True)
        monkeypatch.chdir(below)
        (tmp_path / "framegate.toml").write_text('port = 1\nuds = "socket"')
        config = load(search=True, command_line={"port": 2})
        assert config.port == 2
        (tmp_path / "framegate.toml").write_text('log_config = "log.json"\nport = 1')
        config = load(search=True)
        assert (config.port, config.log_config) == (1, str(tmp_path / "log.json"))
        assert str(config.origins["port"]) == f"file ({tmp_path}/framegate.toml: port)"

    def test_the_nearest_one_counts_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        below = tmp_path / "a/b"
        below.mkdir(parents=True)
        monkeypatch.chdir(below)
        (tmp_path / "framegate.toml").write_text("port = 1\nbacklog = 1")
        (tmp_path / "a/pyproject.toml").write_text("[tool.framegate]\nport = 2")
        (below / "pyproject.toml").write_text("[tool.other]\nport = 3")
        config = load(search=True)
        assert (config.port, config.backlog) == (2, 2048)

    def test_its_application_is_imported_from_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        below = tmp_path / "below"
        below.mkdir()
        monkeypatch.chdir(below)
        file = tmp_path / "framegate.toml"
        file.write_text('app = "main:app"')
        assert load(search=True).app_dir == str(tmp_path)
        assert load(search=True, command_line={"app": "other:app"}).app_dir == "."
        assert load(search=True, command_line={"app_dir": "x"}).app_dir == "x"
        monkeypatch.chdir(tmp_path)
        assert load(search=True).app_dir == "."

    def test_one_of_another_user_is_not_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        below = tmp_path / "below"
        below.mkdir()
        monkeypatch.chdir(below)
        file = tmp_path / "framegate.toml"
        file.write_text("port = 1")
        owner = file.stat().st_uid
        monkeypatch.setattr(os, "geteuid", lambda: owner)
        assert load(search=True).port == 1
        real = os.stat

        def stat(path: typing.Any, **keywords: typing.Any) -> typing.Any:
            found = real(path, **keywords)
            if str(path).endswith("framegate.toml"):
                return os.stat_result((*found[:4], 12345, *found[5:10]))
            return found

        monkeypatch.setattr(os, "stat", stat)
        assert load(search=True).port == 8000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30.0),
        ("30s", 30.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("1m30.5s", 90.5),
        ("1s500ms", 1.5),
        ("1.5H", 5400.0),
        ("1d", 86400.0),
        ("", None),
        ("h", None),
        ("30m1h", None),
        ("1h1h", None),
        ("1h30", None),
        ("-1s", None),
        ("1e3", None),
        ("\N{ARABIC-INDIC DIGIT ONE}s", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    kind = Seconds()
    if seconds is None:
        with pytest.raises(ValueError, match="1h30m"):
            kind.parse(text)
    else:
        assert kind.parse(text) == seconds


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    file = tmp_path / "framegate.toml"
    file.write_text('uds = "run/socket"\nheaders = ["x-a: 1"]')
    config = load(file=file)
    assert config.uds == str(tmp_path / "run/socket")
    assert config.headers == (("x-a", "1"),)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        (
            {"command_line": {"port": "99999"}},
            "--port 99999: expected a whole number from 0 to 65535",
        ),
        ({"options": {"port": True}}, "port=True: expected a whole number from 0 to 65535"),
        (
            {"environment": {"PORT": "http"}},
            "PORT=http: expected a whole number from 0 to 65535",
        ),
        (
            {"environment": {"FRAMEGATE_LIFESPAN": "onn"}},
            "FRAMEGATE_LIFESPAN=onn: expected auto, on or off; did you mean on?",
        ),
        ({"options": {"prot": 1}}, "unknown option prot; did you mean port?"),
        ({"options": {"access_log": "maybe"}}, "access_log=maybe: expected true or false"),
        (
            {"options": {"headers": ["connection: close"]}},
            "headers=['connection: close']: the server itself decides about connection",
        ),
        (
            {"options": {"headers": {"x-a": "1\r\nx-b: 2"}}},
            "headers={'x-a': '1\\r\\nx-b: 2'}: ('x-a', '1\\r\\nx-b: 2') is no valid header",
        ),
        (
            {"options": {"uds": "/a", "fd": 3}},
            "code (uds) and code (fd) contradict each other; several addresses need bind",
        ),
        (
            {"command_line": {"bind": ["127.0.0.1:0"], "port": "1"}},
            "command line (--port) and command line (--bind) contradict each other; "
            "say it all with bind",
        ),
        (
            {"command_line": {"bind": ["8000"]}},
            "--bind 8000: expected host:port, [v6]:port, *:port, unix:path?mode=660, fd://3 or "
            "systemd; did you mean 127.0.0.1:8000?",
        ),
        (
            {"options": {"uds": "x" * 108}},
            f"uds={'x' * 108}: expected a path of at most 107 bytes (the size of sun_path), not "
            "108; a relative path, or one below /run, is shorter",
        ),
        (
            {"options": {"timeout_header": float("nan")}},
            "timeout_header=nan: expected 0.1 to 86400 seconds (500ms, 30s, 1h30m also work)",
        ),
        (
            {"options": {"root_path": "api/"}},
            "root_path=api/: expected nothing, or a path that begins with / and does not end "
            "with one",
        ),
    ],
)
def test_complaint_is_one_line_that_names_value_origin_and_remedy(
    keywords: dict[str, typing.Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**keywords)
    assert str(caught.value) == message


def test_complaint_about_a_file_names_it(tmp_path: Path) -> None:
    file = tmp_path / "framegate.toml"
    for text, message in {
        "prot = 1": f"{file}: unknown key prot; did you mean port?",
        "port = -1": f"{file}: port = -1: expected a whole number from 0 to 65535",
        "port": f"{file}: is no TOML: ",
    }.items():
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load(file=file)
        assert str(caught.value).startswith(message)
    file.unlink()
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(file=file)


def test_misspelled_variable_is_a_warning() -> None:
    config = load(environment={"FRAMEGATE_WORKER": "3", "FRAMEGATE_RUNTIME_DIR": "/x"})
    assert config.warnings == (
        "environment variable FRAMEGATE_WORKER is not known; did you mean FRAMEGATE_WORKERS?",
    )


def test_unknown_allocator_is_a_warning() -> None:
    for known in ({}, {"FRAMEGATE_ALLOCATOR": ""}, {"FRAMEGATE_ALLOCATOR": "system"}):
        assert load(environment=known).warnings == ()
    assert load(environment={"FRAMEGATE_ALLOCATOR": "malloc"}).warnings == (
        "environment variable FRAMEGATE_ALLOCATOR is 'malloc', which is not known: leave it out, "
        "or set it to 'system'",
    )


def test_strongest_way_to_listen_is_kept() -> None:
    config = load(environment={"PORT": "80"}, command_line={"uds": "/s"})
    assert (config.uds, config.port) == ("/s", 8000)
    config = load(environment={"FRAMEGATE_UDS": "/s"}, command_line={"port": "80"})
    assert (config.uds, config.port) == (None, 80)
    config = load(environment={"FRAMEGATE_UDS": "/s"}, command_line={"fd": "0"})
    assert (config.uds, config.fd) == (None, 0)


def test_several_workers_need_an_import_string() -> None:
    def app() -> None: ...

    assert Config(app=app).workers == 1
    with pytest.raises(ConfigError, match=r"workers=2 .* needs the application as a string"):
        Config(app=app, workers=2)


@pytest.mark.parametrize(("value", "mode"), [(True, "shared"), ("no", "off"), ("ON", "shared")])
def test_a_flag_of_uvicorn_is_understood_where_there_are_modes(value: object, mode: str) -> None:
    assert load(options={"ws_per_message_deflate": value}).ws_per_message_deflate == mode


def test_config_is_frozen_and_replaceable() -> None:
    config = Config(port=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.port = 2  # type: ignore[misc]
    changed = config.replace(workers=2)
    assert (changed.port, changed.workers) == (1, 2)
    assert changed.origins["workers"].source is Source.CODE
    with pytest.raises(ConfigError, match="did you mean workers"):
        config.replace(worker=2)


@pytest.mark.parametrize("setting", SETTINGS, ids=each)
def test_limits_have_two_sides(setting: Setting) -> None:
    minimum, maximum = (getattr(setting.kind, name, None) for name in ("minimum", "maximum"))
    if minimum is None or maximum is None:
        return
    step = 0.01 if isinstance(setting.kind, Seconds) else 1
    origin = Config().origins[setting.name]
    for good in (minimum, maximum):
        assert setting.parse(good, origin) == good
        assert setting.parse(str(good), origin) == good
    may_be_none = setting.default is None or isinstance(setting.kind, SecondsOrOff)
    for bad in (minimum - step, maximum + step, "", "x", "1x" if may_be_none else None, True):
        with pytest.raises(ConfigError):
            setting.parse(bad, origin)


def test_suggestion_needs_a_near_name() -> None:
    assert suggestion("prot", ["port", "host"]) == "; did you mean port?"
    assert suggestion("zzz", ["port", "host"]) == ""
