"""The docs site builds without a warning, has every page, and loads nothing from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Elements that a browser loads, or asks for, without a click.
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


class Links(HTMLParser):
    """All addresses of a page, those that are loaded apart."""

    def __init__(self) -> None:
        super().__init__()
        self.clicked: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("id"):
            self.anchors.add(str(values["id"]))
        address = values.get(LOADED.get(tag, ""))
        if address and values.get("rel") != "canonical":
            self.loaded.append(address)
        if tag == "a" and values.get("href"):
            self.clicked.append(str(values["href"]))


def pages_of(nav: list[dict[str, Any]]) -> Iterator[str]:
    for entry in nav:
        for value in entry.values():
            if isinstance(value, str):
                yield value
            else:
                yield from pages_of(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A copy: the folder to build into, and its cache, lie beside the configuration.
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "zensical.toml", folder)
    done = subprocess.run(
        ["zensical", "build", "--strict"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "build" / "docs"


def test_every_page_of_docs_is_in_the_navigation_once() -> None:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    listed = sorted(pages_of(nav))
    there = sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md"))
    assert listed == there


def test_every_link_of_the_site_leads_somewhere_and_nothing_comes_from_elsewhere(
    site: Path,
) -> None:
    pages = {}
    for page in site.rglob("*.html"):
        if page.name == "404.html":  # has absolute addresses, for a server
            continue
        pages[page] = Links()
        pages[page].feed(page.read_text())
    assert len(pages) > 40
    dead, foreign = [], []
    for page, links in pages.items():
        for address in links.clicked + links.loaded:
            parts = urlsplit(address)
            if parts.scheme:
                if address in links.loaded and parts.scheme != "data":
                    foreign.append((page.name, address))
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if target in pages:
                if parts.fragment and parts.fragment not in pages[target].anchors:
                    dead.append((page.name, address))
            elif not target.exists():
                dead.append((page.name, address))
    assert dead == []
    assert foreign == []


def test_the_styles_of_the_site_load_nothing_from_elsewhere(site: Path) -> None:
    styles = list(site.rglob("*.css"))
    assert styles
    for style in styles:
        assert not re.search(r"@import\s+[^;]*//|url\(\s*['\"]?https?:", style.read_text()), style
