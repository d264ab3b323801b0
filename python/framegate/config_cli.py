"""`platform config show | schema | check` and `platform check`: the settings, before they count.

Both take every option of `platform serve`, so that what is looked at is what would be served.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

from framegate.config import SETTINGS, Config, Setting, Source
from framegate.errors import EXIT_STOPPED

__all__ = ["add_verbs", "print_help"]

VALUE_WIDTH_MAX: Final = 48


def add_verbs(commands: Any, program: str, formatter: Any, parser_class: Any) -> None:
    """Add `check` and `config` to the commands of the command line."""
    check = commands.add_parser(
        "check",
        usage=f"{program} check module:app [options of serve]",
        help="import an application, start and stop it, check the options",
        description=(
            "Do what serve does before it accepts, and stop again: check every option, read "
            "certificates, bind the addresses, import the application, run the startup and the "
            "shutdown of its lifespan. Exit code 0 if all of it works, else that of serve."
        ),
        formatter_class=formatter,
        allow_abbrev=False,
    )
    check.set_defaults(command=_check, takes_settings=True)
    config = commands.add_parser(
        "config",
        usage=f"{program} config VERB [options]",
        help="the settings: where each comes from, whether they are right, their schema",
        description="Look at the settings without serving.",
        formatter_class=formatter,
        allow_abbrev=False,
    )
    verbs = config.add_subparsers(
        title="verbs", metavar="", parser_class=parser_class, prog=f"{program} config"
    )
    show = verbs.add_parser(
        "show",
        usage=f"{program} config show [--changed] [--json] [options of serve]",
        help="each setting, its value, and where that comes from",
        description=(
            "Print each setting with its value and where that comes from: command line, "
            "environment, file or default. Secrets are not shown."
        ),
        formatter_class=formatter,
        allow_abbrev=False,
    )
    show.add_argument("--changed", action="store_true", help="only those that are no default")
    show.add_argument("--json", action="store_true", help="one JSON object")
    show.set_defaults(command=_show, takes_settings=True)
    schema = verbs.add_parser(
        "schema",
        usage=f"{program} config schema",
        help="JSON Schema of framegate.toml, for editors",
        description="Print the JSON Schema of framegate.toml and of [tool.framegate].",
        formatter_class=formatter,
        allow_abbrev=False,
    )
    schema.set_defaults(command=_schema)
    verify = verbs.add_parser(
        "check",
        usage=f"{program} config check [options of serve]",
        help="whether the settings are right; imports nothing",
        description=(
            "Read the settings from everywhere and check them, each and together, without "
            "importing the application. Exit code 0, or 2 with one line that says what is wrong."
        ),
        formatter_class=formatter,
        allow_abbrev=False,
    )
    verify.set_defaults(command=_verify, takes_settings=True)
    config.set_defaults(command=lambda options: print_help(config))


def print_help(parser: argparse.ArgumentParser) -> int:
    """Run a command that was given no verb: it tells its verbs."""
    parser.print_help()
    return EXIT_STOPPED


def _load(options: dict[str, Any]) -> Config:
    settings = dict(options["settings"])
    config = Config.load(file=settings.pop("config", None), command_line=settings)
    for warning in config.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return config


def _show(options: dict[str, Any]) -> int:
    config = _load(options)
    items = [
        item
        for item in SETTINGS
        if not options["changed"] or config.origins[item.name].source is not Source.DEFAULT
    ]
    if options["json"]:
        import json

        found = {
            item.name: {"value": _plain(item, config), "origin": str(config.origins[item.name])}
            for item in items
        }
        print(json.dumps(found, indent=2))
        return EXIT_STOPPED
    group = ""
    for item in items:
        if item.group != group:
            print(f"{'' if not group else chr(10)}{item.group}")
            group = item.group
        value = item.kind.show(getattr(config, item.name)) or '""'
        shown = f"  {item.name:<36} {value}"
        print(f"{shown:<{38 + VALUE_WIDTH_MAX // 2}}  {config.origins[item.name]}")
    return EXIT_STOPPED


def _plain(item: Setting, config: Config) -> Any:
    """Return a value that JSON can hold; what it cannot hold, and secrets, as they are shown."""
    import json

    value = getattr(config, item.name)
    shown = item.kind.show(value)
    if shown == "***":
        return shown
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return shown


def _schema(options: dict[str, Any]) -> int:
    import json

    from framegate.config_schema import json_schema

    print(json.dumps(json_schema(), indent=2))
    return EXIT_STOPPED


def _verify(options: dict[str, Any]) -> int:
    config = _load(options)
    changed = sum(origin.source is not Source.DEFAULT for origin in config.origins.values())
    files = sorted(
        {o.name.rpartition(": ")[0] for o in config.origins.values() if o.source is Source.FILE}
    )
    print(
        f"{len(SETTINGS)} settings are right, {changed} of them are no default; "
        f"{'read from ' + ', '.join(files) if files else 'no file was read'}"
    )
    return EXIT_STOPPED


def _check(options: dict[str, Any]) -> int:
    from framegate.application_check import check_application

    return check_application(_load(options))
