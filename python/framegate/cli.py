"""The `platform` command (and `framegate`, and `python -m framegate`: the same).

The options of `serve` are generated from the schema in `config.py`; argparse only splits the line,
so that a bad value is reported in the same words whether it came from here, from the environment or
from a file. Only what `--help` needs is imported at the top: it must answer at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NoReturn

from framegate.config import SETTINGS, Config, Setting, advice, suggestion
from framegate.config_kinds import Flag
from framegate.errors import EXIT_STOPPED, ConfigError, FramegateError, describe

__all__ = ["main", "parser"]

HELP_WIDTH_MAX: Final = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after the program name; those of the process if None.

    Returns:
        The exit code: 0 asked to stop, 1 failed while running, 2 bad option, 3 startup failed.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(words)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)  # one line: the option, the value, the remedy
        return error.exit_code
    except FramegateError as error:
        print(describe(error), file=sys.stderr)
        return error.exit_code


def _dispatch(words: list[str]) -> int:
    if not words:
        parser().print_help()
        return EXIT_STOPPED
    # The parser is not kept: its thousands of objects would live as long as the server.
    options = _parse(parser(serve_only=words[0] == "serve"), words)
    if options.pop("version", False):
        _print_version(verbose=options.pop("verbose", False))
        return EXIT_STOPPED
    command: Callable[[dict[str, Any]], int] | None = options.pop("command", None)
    if command is None:
        raise ConfigError("no command given; see --help")
    options.pop("verbose", None)
    return command(options)


def _serve(options: dict[str, Any]) -> int:
    from framegate.start import serve_until_stopped

    file = options.pop("config", None)
    config = Config.load(command_line=options, file=file)
    if config.app is not None:
        return serve_until_stopped(config)
    from framegate import demo

    config = demo.configured(config)
    with demo.processes():
        return serve_until_stopped(config)


def _routes(options: dict[str, Any]) -> int:
    from framegate import routes_cli

    return routes_cli.run(options)


def _doctor(options: dict[str, Any]) -> int:
    from framegate import doctor

    return doctor.run(options)


def _print_version(*, verbose: bool) -> None:
    import framegate

    print(f"framegate {framegate.__version__}")
    if verbose:
        for name, value in framegate.build_info().items():
            if name != "version":
                print(f"{name + ':':<20} {value}")


# ----------------------------------------------------------------------------------------------
# From the schema to argparse.


class _Parser(argparse.ArgumentParser):
    """Raises `ConfigError` where argparse would print the usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


class _HelpFormatter(argparse.HelpFormatter):
    """Options and their explanation in two columns, as wide as the terminal up to a limit."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=_help_width())


def _help_width() -> int:
    # argparse would import shutil for this, and with it three compression libraries.
    try:
        columns = int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
    except (ValueError, OSError):
        columns = HELP_WIDTH_MAX
    return max(40, min(columns, HELP_WIDTH_MAX) - 2)


def parser(program: str = "platform", *, serve_only: bool = False) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Args:
        program: What the user calls it.
        serve_only: Whether the command is `serve`: a server has no use for the other commands.
    """
    top = _Parser(
        prog=program,
        usage=f"{program} COMMAND [options]",
        description="Serve ASGI apps on a Rust core; hand frames to local processes.",
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="store_true", help="print the version")
    top.add_argument("--verbose", action="store_true", help="with --version: how it was built")
    commands = top.add_subparsers(title="commands", metavar="", parser_class=_Parser, prog=program)
    serve = commands.add_parser(
        "serve",
        usage=f"{program} serve [module:app] [options]",
        help="serve an ASGI application; without one, a demo",
        description=(
            "Serve an ASGI application: module:app, or module:factory(). Without one, a demo. "
            "Every option is also read from the environment and from framegate.toml or "
            "[tool.framegate] in pyproject.toml; the command line wins."
        ),
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    serve.set_defaults(command=_serve)
    groups: dict[str, Any] = {}
    for item in SETTINGS:
        if item.group not in groups:
            groups[item.group] = serve.add_argument_group(item.group)
        _add(groups[item.group], item)
    secrets = [name for item in SETTINGS if not item.command_line for name in item.environment]
    serve.epilog = f"From the environment only, because they are secrets: {', '.join(secrets)}."
    files = serve.add_argument_group("Configuration file")
    files.add_argument("--config", metavar="FILE", help="read this file, not one found here")
    if serve_only:
        return top
    from framegate import bridge_cli, config_cli, docs_cli, init_cli, topic_cli

    config_cli.add_verbs(commands, program, _HelpFormatter, _Parser)
    init_cli.add_verbs(commands, program, _HelpFormatter, _Parser)
    topic_cli.add_verbs(commands, program, _HelpFormatter, _Parser)
    bridge_cli.add_verbs(commands, program, _HelpFormatter, _Parser)
    docs_cli.add_verbs(commands, program, _HelpFormatter, _Parser)
    routes = commands.add_parser(
        "routes",
        usage=f"{program} routes module:app [--json | --openapi] [--app-dir DIRECTORY]",
        help="show the native routes of an application",
        description=(
            "Import an application that is a framegate.App and show its routes in the order in "
            "which they were added: method, path, handler. Nothing is served."
        ),
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    routes.add_argument("app", metavar="module:app", help="the application")
    routes.add_argument("--app-dir", metavar="DIRECTORY", help="import it from there")
    shape = routes.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="a JSON list")
    shape.add_argument("--openapi", action="store_true", help="the OpenAPI document")
    routes.set_defaults(command=_routes)
    doctor = commands.add_parser(
        "doctor",
        usage=f"{program} doctor [--json]",
        help="check this machine: shared memory, limits, permissions, stale topics",
        description=(
            "Look at what framegate depends on: Python and the native modules, /dev/shm and its "
            "space, the runtime directory, limits, namespaces, file locks, wake-ups, topics that "
            "lie around. What is not as it should be comes with what to do. Exit code 1 if "
            "something is broken."
        ),
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    doctor.add_argument("--json", action="store_true", help="one JSON object")
    doctor.set_defaults(command=_doctor)
    return top


def subcommands(of: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the commands (or verbs of a command) by name; empty where there are none."""
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _add(group: Any, item: Setting) -> None:
    if not item.command_line:
        return  # a secret
    facts = []
    if item.default not in (None, (), ""):
        facts.append(f"default: {_default(item)}")
    facts.append(", ".join(item.environment))
    explanation = f"{item.help} [{'; '.join(facts)}]".replace("%", "%%")
    spellings = item.command_line
    keywords: dict[str, Any] = {"help": explanation}
    if spellings == (item.name,):
        group.add_argument(item.name, nargs="?", metavar=item.kind.metavar(), **keywords)
        return
    if isinstance(item.kind, Flag):
        if len(spellings) == 1:
            keywords["action"] = "store_true"
        else:
            keywords["action"] = argparse.BooleanOptionalAction
            spellings = spellings[:1]
    else:
        keywords["metavar"] = item.kind.metavar()
        if item.is_repeatable:
            keywords["action"] = "append"
    group.add_argument(*spellings, dest=item.name, **keywords)


def _default(item: Setting) -> str:
    unit = f" {item.kind.unit}" if item.kind.unit else ""
    return f"{item.kind.show(item.default)}{unit}"


def _parse(top: argparse.ArgumentParser, words: list[str]) -> dict[str, Any]:
    chosen = _choose(top, words)
    namespace, unknown = top.parse_known_args(words)
    if chosen.get_default("takes_settings"):
        # What is not the command's own is an option of serve.
        del namespace.takes_settings
        namespace.settings = argparse.Namespace()
        own, chosen = chosen, subcommands(top)["serve"]
        _, unknown = chosen.parse_known_args(unknown, namespace.settings)
        del namespace.settings.command
        namespace.settings = vars(namespace.settings)
        if unknown and unknown[0].startswith("-"):
            known = [option for action in own._actions for option in action.option_strings]
            chosen = own if suggestion(unknown[0], known) else chosen
    if unknown:
        word = unknown[0].partition("=")[0]
        if not word.startswith("-"):
            raise ConfigError(f"unexpected argument {word}; see {chosen.prog} --help")
        known = [option for action in chosen._actions for option in action.option_strings]
        raise ConfigError(f"unknown option {word}{advice(word, known)}")
    return vars(namespace)


def _choose(top: argparse.ArgumentParser, words: list[str]) -> argparse.ArgumentParser:
    """Return the parser that the first words name.

    Complains about a command or verb that does not exist in better words than argparse.
    """
    chosen, what, path = top, "command", ""
    for word in words:
        names = subcommands(chosen)
        if not names or word.startswith("-"):
            break
        if word not in names:
            if not path and ":" in word:
                raise ConfigError(f'unknown command "{word}"; did you mean: platform serve {word}')
            raise ConfigError(
                f'unknown {what} "{path}{word}"{suggestion(word, names) or _among(names)}'
            )
        chosen, what, path = names[word], "verb", f"{path}{word} "
    return chosen


def _among(names: Iterable[str]) -> str:
    return f"; there are {', '.join(names)}"
