"""Pictures of the docs, photographed by the tests that look at what they show.

`task docs:pictures` writes them anew; otherwise a test only compares sizes, since pictures move.
"""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

__all__ = ["BYTES_MAX", "FOLDER", "docs_picture"]

FOLDER = Path(__file__).resolve().parents[1] / "docs/images"
# A page of the docs is to be there at once.
BYTES_MAX = 128 * 1024


def docs_picture(page: Page, name: str, height: int) -> None:
    """Photograph the upper part of a page for docs/images/NAME.png.

    Args:
        page: It shows what the docs are to show.
        name: Also looked for by `tests/project/test_docs.py`: it has to stand in the call.
        height: Pixels from the top of the window.
    """
    size = page.viewport_size
    assert size is not None
    clip = {"x": 0.0, "y": 0.0, "width": float(size["width"]), "height": float(height)}
    taken = Image.open(BytesIO(page.screenshot(clip=clip)))  # type: ignore[arg-type]
    picture = taken.convert("RGB")
    assert len(picture.getcolors(size["width"] * height) or ()) > 16, "nothing to see"
    file = FOLDER / f"{name}.png"
    if os.environ.get("FRAMEGATE_DOCS_PICTURES"):
        picture.save(file, optimize=True)
    with Image.open(file) as shown:
        assert shown.size == picture.size, f"docs/images/{name}.png: run `task docs:pictures`"
