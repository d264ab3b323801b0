"""What tests ask of the live page in a browser."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

__all__ = ["look", "newer", "shot", "tile"]

SCREENSHOTS = os.environ.get("FRAMEGATE_SCREENSHOTS")


def tile(page: Page, topic: str) -> Any:
    return page.locator(f'.tile[data-topic="{topic}"]')


def look(page: Page, selector: str) -> tuple[int, int]:
    """A number that stands for what a canvas shows, and how many values its pixels have."""
    digest, values = page.evaluate(
        "selector => { const c = document.querySelector(selector);"
        " const all = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " let digest = 0; for (const one of all) digest = (digest * 31 + one) | 0;"
        " return [digest, new Set(all).size] }",
        selector,
    )
    return int(digest), int(values)


def newer(page: Page, selector: str, than: int) -> None:
    page.wait_for_function(
        "([selector, than]) =>"
        " Number(document.querySelector(selector)?.dataset.sequence ?? 0) > than",
        arg=[selector, than],
    )


def shot(page: Page, tmp_path: Path, name: str) -> None:
    path = Path(SCREENSHOTS or tmp_path) / f"{name}.png"
    page.screenshot(path=path)
    assert path.stat().st_size > 10_000
