"""`platform docs`: the documentation of this very version, without a network.

Wheels carry the guide and the reference as they are in the repository; a development build reads
those. Only what `--help` needs is imported at the top.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any, Final

from framegate.config import suggestion
from framegate.errors import EXIT_STOPPED, ConfigError, FramegateError

__all__ = ["add_verbs", "pages"]

CODE: Final = re.compile(r"FG-[A-Z]+-\d+|FG-\d+", re.IGNORECASE)
ERRORS: Final = "reference/errors"


def add_verbs(
    commands: Any, program: str, formatter: Any, _parser_class: type[argparse.ArgumentParser]
) -> None:
    """Add `docs` to the commands of the command line."""
    docs = commands.add_parser(
        "docs",
        usage=f"{program} docs [PAGE | CODE] [--find WORDS]",
        help="read the documentation, offline; explain the code of an error",
        description=(
            "Print a page of the documentation of this version, or what the code of an error "
            "means (FG-SHM-005). Without either: the list of pages."
        ),
        formatter_class=formatter,
        allow_abbrev=False,
    )
    docs.add_argument("page", nargs="?", metavar="PAGE", help="a page, or the code of an error")
    docs.add_argument("--find", metavar="WORDS", help="lines of all pages that have these words")
    docs.set_defaults(command=run)


def directory() -> Path:
    """Where the pages are."""
    package = Path(__file__).resolve().parent
    installed, developed = package / "docs", package.parents[1] / "docs"
    for found in (installed, developed):
        if (found / "guide").is_dir():
            return found
    raise FramegateError(
        f"there is no documentation in {installed}",
        cause="this framegate was built without it",
        fix="install a wheel of framegate, or read docs/ of its source",
    )


def pages() -> dict[str, Path]:
    """Every page by its name: `tutorial`, `frames` of the guide, `reference/config`."""
    root = directory()
    found = {path.stem: path for path in sorted(root.glob("*.md"))}
    found |= {path.stem: path for path in sorted((root / "guide").glob("*.md"))}
    return found | {
        f"reference/{path.stem}": path for path in sorted((root / "reference").glob("*.md"))
    }


def run(options: dict[str, Any]) -> int:
    """Run the command."""
    page, words = options["page"], options["find"]
    if words is not None:
        return _find(words, page)
    if page is None:
        _print_list()
    elif CODE.fullmatch(page):
        _print(_explained(page.upper()))
    else:
        _print(_path(page).read_text(encoding="utf-8"))
    return EXIT_STOPPED


def _path(name: str) -> Path:
    known = pages()
    wanted = name.removesuffix(".md").removeprefix("docs/").removeprefix("guide/")
    if wanted not in known:
        raise ConfigError(
            f'there is no page "{name}"{suggestion(wanted, known) or "; platform docs lists them"}'
        )
    return known[wanted]


def _title(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line[2:] for line in lines if line.startswith("# ")), path.stem)


def _print_list() -> None:
    from framegate import tables

    rows = [[name, _title(path)] for name, path in pages().items()]
    print("\n".join(tables.table(["PAGE", "TITLE"], rows)))


def _explained(code: str) -> str:
    text = _path(ERRORS).read_text(encoding="utf-8")
    for section in text.split("\n## ")[1:]:
        if section.startswith(f"{code}\n"):
            return f"## {section.rstrip()}\n"
    known = re.findall(r"^## (FG\S+)$", text, re.M)
    raise ConfigError(f'there is no error "{code}"{suggestion(code, known)}')


def _find(words: str, page: str | None) -> int:
    wanted = words.lower().split()
    found = 0
    for name, path in pages().items() if page is None else [(page, _path(page))]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if all(word in line.lower() for word in wanted):
                print(f"{name}:{number}: {line.strip()}")
                found += 1
    if not found:
        raise ConfigError(f'no page has a line with "{words}"')
    return EXIT_STOPPED


def _print(text: str) -> None:
    if sys.stdout.isatty():
        import pydoc

        pydoc.pager(text)
    else:
        print(text, end="")
