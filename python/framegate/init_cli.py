"""`platform init systemd | docker | compose | k8s`: files that deploy an application.

They are made from the templates in `deployment/` and the options of `serve` that are given: times
to stop and to start follow its time limits, the size of /dev/shm what frame routes may create.
Then they are the user's, to be read, changed and kept.
"""

from __future__ import annotations

import json
import math
import re
import string
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from framegate.config import SETTINGS, Config
from framegate.config_cli import print_help
from framegate.config_kinds import Flag
from framegate.errors import EXIT_STOPPED, ConfigError

__all__ = ["add_verbs"]

NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,29}[a-z0-9])?")
"""A label of RFC 1123 that is also a user's name (31 characters, useradd(8))."""

MARGIN_S: Final = 15
"""Between what a stop takes at most and the kill."""

START_MARGIN_S: Final = 30
ADMIN_PORT: Final = 9000

TOPICS_OF_A_PATTERN: Final = 4
"""How many topics the size of /dev/shm is made for where a pattern of `topic_rules` fits many."""

SHM_MIB: Final = 512
"""Without rules: several topics of 1080p pictures (6 MB, 8 slots)."""

MEMORY_MIB: Final = 512
"""For the workers; shared memory counts against the same limit."""


class _Template(string.Template):
    delimiter = "@"  # the files themselves are full of dollars
    flags = re.ASCII


def add_verbs(commands: Any, program: str, formatter: Any, parser_class: Any) -> None:
    """Add `init` to the commands of the command line."""
    init = commands.add_parser(
        "init",
        usage=f"{program} init KIND module:app [options of serve]",
        help="write files for systemd, Docker, compose or Kubernetes",
        description="Write files that deploy an application, to be read, changed and kept.",
        formatter_class=formatter,
        allow_abbrev=False,
    )
    verbs = init.add_subparsers(
        title="kinds", metavar="", parser_class=parser_class, prog=f"{program} init"
    )
    for kind, (explanation, make) in KINDS.items():
        verb = verbs.add_parser(
            kind,
            usage=(
                f"{program} init {kind} module:app [--name NAME] [--output DIRECTORY] [--force] "
                "[--print] [options of serve]"
            ),
            help=explanation,
            description=(
                f"Write {explanation}. Options of serve that are given here become those of the "
                "command in it; times to wait and the size of /dev/shm follow from them and from "
                "framegate.toml."
            ),
            formatter_class=formatter,
            allow_abbrev=False,
        )
        verb.add_argument(
            "--name", help="of unit, user, image or pod; default: that of the directory"
        )
        verb.add_argument("--output", metavar="DIRECTORY", default=".", help="where to write")
        verb.add_argument("--force", action="store_true", help="replace files that are there")
        verb.add_argument(
            "--print", action="store_true", dest="only_print", help="print, write nothing"
        )
        verb.set_defaults(command=_runner(make), takes_settings=True)
    init.set_defaults(command=lambda options: print_help(init))


def _runner(make: Callable[[Plan], dict[str, str]]) -> Callable[[dict[str, Any]], int]:
    def run(options: dict[str, Any]) -> int:
        files = make(Plan(options))
        if options["only_print"]:
            for name, text in files.items():
                print(f"# {name}\n{text}" if len(files) > 1 else text, end="")
            return EXIT_STOPPED
        _write(files, Path(options["output"]), force=options["force"])
        return EXIT_STOPPED

    return run


def _write(files: dict[str, str], directory: Path, *, force: bool) -> None:
    """Write all files or none: the first that is there already stops it."""
    paths = {directory / name: text for name, text in files.items()}
    there = [str(path) for path in paths if path.exists()]
    if there and not force:
        raise ConfigError(
            f"{', '.join(there)} is there already; --force replaces it, --output writes elsewhere, "
            "--print only shows what would be written"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in paths.items():
            path.write_text(text)
            print(f"wrote {path}")
    except OSError as error:
        raise ConfigError(
            f"--output: {error.filename}: {error.strerror}; give a directory that can be written"
        ) from error


class Plan:
    """What all files are made from: the settings, and what follows from them.

    Raises:
        ConfigError: No application, a setting that is wrong, or a name that is none.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self.given: dict[str, Any] = dict(options["settings"])
        # The environment of whoever runs this is not that of the server.
        self.config: Config = Config.load(
            command_line={key: value for key, value in self.given.items() if key != "config"},
            file=self.given.get("config"),
            environment={},
        )
        for warning in self.config.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        if self.config.app is None:
            raise ConfigError("name the application, for example: platform init systemd main:app")
        self.name: str = options["name"] or re.sub(
            r"[^a-z0-9]+", "-", Path.cwd().name.lower()
        ).strip("-")
        if not NAME.fullmatch(self.name):
            raise ConfigError(
                f'--name: "{self.name}" is no name of a user, an image and a pod; give 1 to 31 '
                "lower-case letters, digits and hyphens, with neither end a hyphen"
            )

    def has(self, *names: str) -> str | None:
        """Return the spelling of the first of these settings that was given here, if any."""
        spelling = {item.name: item.command_line[0] for item in SETTINGS if item.command_line}
        return next((spelling[name] for name in names if name in self.given), None)

    def words(self, **defaults: str) -> list[str]:
        """Return the command: `platform serve module:app`, these unless given, what was given."""
        found = ["platform", "serve", str(self.config.app)]
        for name, value in defaults.items():
            if name not in self.given:
                found += [f"--{name.replace('_', '-')}", value]
        for item in SETTINGS:
            if item.name == "app" or item.name not in self.given:
                continue
            value = self.given[item.name]
            if isinstance(item.kind, Flag):
                wanted = item.command_line[0] if value else f"--no-{item.command_line[0][2:]}"
                found.append(wanted)
                continue
            for one in value if item.is_repeatable else [value]:
                found += [item.command_line[0], str(one)]
        if "config" in self.given:
            found += ["--config", str(self.given["config"])]
        return found

    def values(self, **more: object) -> dict[str, object]:
        """Return what the templates name."""
        from framegate.worker import stop_seconds

        config = self.config
        stop_s = math.ceil((stop_seconds(config) + MARGIN_S) / 5) * 5
        shm_mib, shm_why = self._shared_memory()
        return {
            "name": self.name,
            "port": config.port,
            "admin_port": ADMIN_PORT,
            "graceful": f"{config.timeout_graceful_shutdown:g}",
            "worker": f"{config.timeout_worker_shutdown:g}",
            "startup": math.ceil(config.timeout_startup),
            "start_s": math.ceil(config.timeout_startup) + START_MARGIN_S,
            "stop_s": stop_s,
            "shm_mib": shm_mib,
            "shm_why": shm_why,
            "memory_mib": MEMORY_MIB + shm_mib,
            **more,
        }

    def _shared_memory(self) -> tuple[int, str]:
        """Return MiB of /dev/shm and why as many: frame routes leave half of it free."""
        rules = [(pattern, rule) for pattern, rule in self.config.topic_rules if rule["create"]]
        if not rules:
            return SHM_MIB, "no rule says how large"
        total = sum(
            rule["slots"] * rule["slot_bytes"] * (TOPICS_OF_A_PATTERN if "*" in pattern else 1)
            for pattern, rule in rules
        )
        mib = math.ceil(2 * total / 2**26) * 64
        many = (
            f", {TOPICS_OF_A_PATTERN} of each pattern" if any("*" in it for it, _ in rules) else ""
        )
        return mib, f"twice those of topic_rules{many}: half of it stays free"


def _template(name: str, values: dict[str, object]) -> str:
    text = (Path(__file__).parent / "deployment" / name).read_text(encoding="utf-8")
    return _Template(text).substitute(values)


def _systemd(plan: Plan) -> dict[str, str]:
    defaults = {"workers": "0"}
    has_socket = plan.has("bind", "host", "port", "uds", "fd") is None
    if has_socket:
        # What the proxy at the Unix socket says of clients is believed, what others say is not.
        defaults["forwarded_allow_ips"] = "unix"
    command = " ".join(_systemd_word(word) for word in plan.words(**defaults))
    values = plan.values(command=command)
    files = {f"{plan.name}.service": _template("service", values)}
    if has_socket:
        files[f"{plan.name}.socket"] = _template("socket", values)
    return files


def _systemd_word(word: str) -> str:
    """Quote by systemd.service(5), "Command lines"."""
    word = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    if word and not re.search(r"[\s\"';]", word):
        return word
    return '"' + word.replace('"', '\\"').replace("\n", "\\n") + '"'


def _container_words(plan: Plan, **defaults: str) -> list[str]:
    given = plan.has("bind", "host", "uds", "fd", "admin_bind")
    if given:
        raise ConfigError(
            f"{given}: leave it out, a container listens on its own port; --port says which"
        )
    # In a container the port is what is published, so all of its addresses.
    return plan.words(host="0.0.0.0", workers="0", log_format="json", **defaults)


def _docker(plan: Plan) -> dict[str, str]:
    values = plan.values(words=json.dumps(_container_words(plan)))
    return {
        "Dockerfile": _template("Dockerfile", values),
        ".dockerignore": _template("dockerignore", values),
    }


def _compose(plan: Plan) -> dict[str, str]:
    return {**_docker(plan), "compose.yaml": _template("compose.yaml", plan.values())}


def _kubernetes(plan: Plan) -> dict[str, str]:
    if plan.config.port == ADMIN_PORT:
        raise ConfigError(f"--port: {ADMIN_PORT} is the port of the probes there; give another one")
    words = _container_words(plan, admin_bind=f"0.0.0.0:{ADMIN_PORT}")
    values = plan.values(program=json.dumps(words[:3]), arguments=json.dumps(words[3:]))
    return {f"{plan.name}.yaml": _template("kubernetes.yaml", values)}


KINDS: Final[dict[str, tuple[str, Callable[[Plan], dict[str, str]]]]] = {
    "systemd": ("a unit, and one for its socket where no address is given", _systemd),
    "docker": ("a Dockerfile and .dockerignore", _docker),
    "compose": ("compose.yaml, and the Dockerfile for it", _compose),
    "k8s": ("a Deployment and a Service for Kubernetes", _kubernetes),
}
"""Kind to what is written, and who makes it."""
