"""`--env-file`: read as python-dotenv reads it, before the application, in every worker."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from dotenv.main import DotEnv
from dotenv.parser import parse_stream
from hypothesis import given
from hypothesis import strategies as st

from framegate import Server
from framegate.cli import main
from framegate.config import Config
from framegate.env_file import FILE_BYTES_MAX, apply_env_file, parse, read_env_file
from framegate.errors import ConfigError
from framegate.testing import client
from server_process import Launch

# The value is looked up while the module is imported: later would be too late.
SOURCE = """
import os
COLOUR, SIZE = os.environ["COLOUR"], os.environ.get("SIZE", "none")

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    text = f"{COLOUR} {SIZE}".encode()
    headers = [(b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "env_app.py").write_text(SOURCE)
    return directory


def read(path: Path, environment: dict[str, str] | None = None) -> dict[str, str]:
    return read_env_file(str(path), environment or {}, origin="--env-file")


def load(path: Path, **environment: str) -> Config:
    return Config.load(command_line={"env_file": str(path)}, environment=environment, search=False)


class TestGrammar:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("A=1", {"A": "1"}),
            ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
            ("export A=1\n  export\tB = 2  \n", {"A": "1", "B": "2"}),
            ("\n# comment\nA=1 # comment\nB=1#2\n", {"A": "1", "B": "1#2"}),
            ("A=two words \n", {"A": "two words"}),
            ("A=\nB=''\n", {"A": "", "B": ""}),
            (r"A='it\'s \n $x'", {"A": r"it's \n $x"}),
            (r'A="say \"a\tb\"" # comment', {"A": 'say "a\tb"'}),
            ('A="two\nlines"\nB=2', {"A": "two\nlines", "B": "2"}),
            ("A=1\nA=2\n", {"A": "2"}),
            ("A\nexport B\nC=3", {"C": "3"}),
            ("'with space'=1\n", {"with space": "1"}),
            ("\ufeffA=1", {"A": "1"}),
            ("A=1\nB=${A}/${A}\nC='${A}'", {"A": "1", "B": "1/1", "C": "1"}),
            ("A=1\nB=${A\nC=$A", {"A": "1", "B": "${A", "C": "$A"}),
            ("A=${NONE}|${NONE:-default}|${NONE:-}", {"A": "|default|"}),
            ("KNOWN=file\nB=${KNOWN:-default}", {"KNOWN": "file", "B": "known"}),
            ("", {}),
        ],
    )
    def test_means(self, text: str, expected: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(text.encode())
        assert read(tmp_path / "file", {"KNOWN": "known"}) == expected

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("A=1\n\n=secret", "line 3: expected NAME=value"),
            ("A=1\nsome secret", "line 2: expected NAME=value"),
            ("A='x\ny'\nB='secret\nC=3\n", "line 3: the ' of the value is not closed"),
            ('A="', 'line 1: the " of the value is not closed'),
            ('A="a" secret', 'line 1: there is something after the closing "'),
            ("A=''secret", "line 1: there is something after the closing '"),
            ("A=1\nB=sec\0ret", "line 2: a variable cannot hold a NUL"),
        ],
    )
    def test_what_cannot_be_read_is_an_error_without_the_value(
        self, text: str, complaint: str, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text(text)
        with pytest.raises(ConfigError) as error:
            read(tmp_path / "file")
        assert str(error.value) == f"--env-file {tmp_path}/file: {complaint}"

    @given(
        st.lists(
            st.one_of(
                st.sampled_from(
                    [
                        *("A", "B=", "=", "'", '"', "\\", "#", " ", "\n", "export ", "export", "$"),
                        *(
                            "\t",
                            "${A}",
                            "${B:-",
                            "}",
                            "\\n",
                            "\\'",
                            '\\"',
                            "=x",
                            "\\\n",
                            "\x0b",
                            "\xa0",
                        ),
                    ]
                ),
                st.text(max_size=3).filter(lambda text: "\0" not in text and "\r" not in text),
            ),
            max_size=20,
        )
    )
    def test_as_python_dotenv(self, pieces: list[str]) -> None:
        text = "".join(pieces)
        try:
            ours = [(name, value) for _, name, value in parse(text)]
        except ValueError:
            return  # it skips a line that is an error here: the next test
        theirs = parse_stream(io.StringIO(text))
        # A name without a value assigns nothing; there it also takes back what was assigned.
        assert ours == [(one.key, one.value) for one in theirs if one.value is not None]

    @pytest.mark.parametrize(
        "text",
        ["A= # no value", "A=\t#", "A=#value", "A='\\\\' # a backslash", 'A="\\\\"', "A='\\"],
    )
    def test_comments_and_backslashes_as_python_dotenv(self, text: str) -> None:
        (theirs,) = parse_stream(io.StringIO(text))
        if theirs.error:
            with pytest.raises(ValueError, match="not closed"):
                list(parse(text))
        else:
            assert list(parse(text)) == [(1, theirs.key, theirs.value)]

    @given(st.text(alphabet="A= '\"#\\\n\tx", max_size=12))
    def test_error_where_python_dotenv_skips_and_nowhere_else(self, text: str) -> None:
        theirs = any(binding.error for binding in parse_stream(io.StringIO(text)))
        try:
            list(parse(text))
        except ValueError:
            assert theirs
        else:
            assert not theirs

    def test_variables_as_python_dotenv(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("KNOWN", "known")
        text = "KNOWN=file\nA=${KNOWN}${NEW:-x}\nNEW=n\nB='${NEW}' \nC=${A:-${B}}\nD=${:-q}${}"
        (tmp_path / "file").write_text(text)
        theirs = DotEnv(None, stream=io.StringIO(text), override=False).dict()  # as load_dotenv
        assert read(tmp_path / "file", dict(os.environ)) == theirs


class TestFile:
    def test_missing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["serve", "a:b", "--env-file", str(tmp_path / "none")]) == 2
        text = capsys.readouterr().err
        assert text == (
            f"error: --env-file {tmp_path}/none: cannot be read: No such file or directory\n"
        )

    def test_no_utf_8(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"A=\xff")
        with pytest.raises(ConfigError, match="is no UTF-8 at byte 2"):
            read(tmp_path / "file")

    def test_directory_and_pipe(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for name in ("pipe", ""):
            with pytest.raises(ConfigError, match=r"is no regular file|Is a directory"):
                read(tmp_path / name)

    def test_size(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("A=1\n" + "#" * (FILE_BYTES_MAX - 4))
        assert read(tmp_path / "file") == {"A": "1"}
        with (tmp_path / "file").open("a") as file:
            file.write("#")
        with pytest.raises(ConfigError, match=f"has more than {FILE_BYTES_MAX} bytes"):
            read(tmp_path / "file")

    def test_ten_thousand_lines_take_no_time(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("".join(f"A{n}='{n}'\n\n" for n in range(30_000)))
        assert len(read(tmp_path / "file")) == 30_000


class TestSettings:
    def test_below_the_environment_and_above_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / ".env"
        path.write_text("FRAMEGATE_PORT=9001\nFRAMEGATE_HOST=127.0.0.3\nWEB_CONCURRENCY=3\n")
        (tmp_path / "framegate.toml").write_text("port = 1\nbacklog = 9\nenv-file = '.env'\n")
        config = Config.load(
            environment={"FRAMEGATE_HOST": "127.0.0.2"}, file=tmp_path / "framegate.toml"
        )
        assert (config.port, config.host, config.workers, config.backlog) == (
            *(9001, "127.0.0.2", 3, 9),
        )
        assert str(config.origins["port"]) == f"environment ({path}: FRAMEGATE_PORT)"
        assert str(config.origins["host"]) == "environment (FRAMEGATE_HOST)"
        assert config.env_file == str(path)  # relative to the file that names it
        assert Config.load({"port": 2}, environment={"FRAMEGATE_ENV_FILE": str(path)}).port == 2

    def test_bad_value_names_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("FRAMEGATE_PORT=eighty\n")
        with pytest.raises(ConfigError, match=r"/file: FRAMEGATE_PORT=eighty: expected a whole"):
            load(tmp_path / "file")
        load(tmp_path / "file", FRAMEGATE_PORT="80")

    def test_near_miss_is_a_warning(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("FRAMEGATE_PROT=80\n")
        assert "did you mean FRAMEGATE_PORT" in load(tmp_path / "file").warnings[0]
        assert len(load(tmp_path / "file", FRAMEGATE_HOSTS="x").warnings) == 2

    def test_it_cannot_name_another_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("FRAMEGATE_ENV_FILE=other\n")
        with pytest.raises(ConfigError, match="FRAMEGATE_ENV_FILE in it cannot name another file"):
            load(tmp_path / "file")

    def test_loading_settings_leaves_the_environment_alone(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("NOT_YET_THERE=1\n")
        config = load(tmp_path / "file")
        assert "NOT_YET_THERE" not in os.environ
        environment = {"THERE": "1"}
        assert apply_env_file(config.env_file, origin="x", environment=environment) == {
            "THERE": "1"
        }
        assert environment == {"THERE": "1", "NOT_YET_THERE": "1"}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_application_sees_it_while_it_is_imported(
    launch: Launch, project: Path, workers: str
) -> None:
    (project / "file").write_text("COLOUR=red\nSIZE=small\n")
    words = ("--app-dir", str(project), "--workers", workers)
    extra = {"SIZE": "large"}
    server = launch("env_app:app", *words, "--env-file", "project/file", extra=extra).wait_ready()
    assert server.get() == "red large"  # what is there is kept
    assert server.stop() == 0


def test_worker_that_starts_later_reads_it_anew(launch: Launch, project: Path) -> None:
    (project / "file").write_text("COLOUR=red\n")
    words = ("--app-dir", str(project), "--workers", "2", "--env-file", "project/file")
    server = launch("env_app:app", *words).wait_ready()
    (project / "file").write_text("COLOUR=blue\nSIZE=small\n")
    server.signal(signal.SIGHUP)
    server.wait_for("reloaded: 2 of 2")
    assert server.get() == "blue small"
    # One that is broken by then keeps the old workers.
    (project / "file").write_text("COLOUR='red\n")
    server.signal(signal.SIGHUP)
    server.wait_for("the reload has failed")
    assert "project/file: line 1: the ' of the value is not closed" in server.text
    assert server.get() == "blue small"
    assert server.stop() == 0


def test_configuration_of_logging_that_imports_the_application(
    launch: Launch, project: Path
) -> None:
    (project / "file").write_text("COLOUR=red\n")
    (project / "env_logs.py").write_text(
        "import logging\nfrom env_app import COLOUR\n"
        "class Format(logging.Formatter):\n"
        "    def format(self, record): return COLOUR + ' ' + super().format(record)\n"
    )
    (project / "logs.json").write_text(
        '{"version": 1, "formatters": {"own": {"()": "env_logs.Format"}},'
        ' "handlers": {"h": {"class": "logging.StreamHandler", "formatter": "own"}},'
        ' "loggers": {"framegate": {"level": "INFO", "handlers": ["h"]}}}'
    )
    for workers in ("1", "2"):
        server = launch(
            *("env_app:app", "--app-dir", str(project), "--workers", workers),
            *("--env-file", "project/file", "--log-config", "project/logs.json"),
            extra={"PYTHONPATH": str(project)},
        )
        server.wait_for("red ready: pid")
        assert server.get() == "red none"
        assert server.stop() == 0


def test_reload_when_it_changes(launch: Launch, project: Path) -> None:
    package = project / "env_package"
    package.mkdir()
    (project / "env_app.py").rename(package / "__init__.py")
    (project / ".env").write_text("COLOUR=red\n")
    words = ("--app-dir", str(project), "--reload", "--env-file", "project/.env")
    server = launch("env_package:app", *words).wait_ready()
    assert server.get() == "red none"
    (project / "beside.py").touch()  # not of the application: nothing happens
    since = len(server.lines)
    (project / ".env").write_text("COLOUR=blue\n")
    server.wait_for(r"\.env changed: starting", after=since)
    server.wait_for("ready: pid", after=since)
    assert server.get() == "blue none"
    since = len(server.lines)
    (project / ".env").write_text("COLOUR='blue\n")
    server.wait_for("ready: pid", after=since)
    page = httpx.get(f"http://127.0.0.1:{server.port}/", timeout=60, trust_env=False)
    assert "of the value is not closed" in page.text
    (project / ".env").write_text("COLOUR=green\n")
    server.wait_for("changed: starting", after=since + 1)
    assert "beside.py changed" not in server.text
    assert server.stop() == 0


def test_in_a_program_and_in_tests(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "file").write_text("COLOUR=red\n")
    monkeypatch.setenv("COLOUR", "")  # so that it is put back at the end
    monkeypatch.delenv("COLOUR")
    options = {"app_dir": str(project), "env_file": str(project / "file"), "lifespan": "off"}
    with client("env_app:app", **options) as peer:
        assert peer.get("/").text == "red none"
    with pytest.raises(ConfigError, match="cannot be read"):
        Server("env_app:app", port=0, env_file=str(project / "none")).start_in_thread()


def test_check_of_the_application(project: Path) -> None:
    (project / "file").write_text("COLOUR=red\n")
    words = ["check", "env_app:app", "--port", "0", "--app-dir", str(project)]
    for more, code in (([], 3), (["--env-file", str(project / "file")], 0)):
        done = subprocess.run(
            [sys.executable, "-m", "framegate", *words, *more],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stderr
