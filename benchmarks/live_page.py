"""How soon does the live page move, and how smoothly does it scroll over 50 topics?

Debian's Chromium, without a window and without a GPU, drives the page. Both are asked on all cores:
who looks sits at the same machine.
"""

import sys

from framegate_bench.__main__ import main
from framegate_bench.comparison import Case, Comparison, Contestant, Limit

QUESTION = Comparison(
    name="live_page",
    title="The live page in Chromium",
    unit="Milliseconds; frames per second",
    contestants=(
        # Playwright is of the development environment, the server of the one that is measured.
        Contestant(
            "framegate", "framegate", (sys.executable, "{apps}/live_page.py", "{bin}/python")
        ),
    ),
    cases=(
        Case("start", "`platform serve` to a picture that moves, ms", ("start",), ("moving_ms",)),
        Case("scroll", "50 topics, scrolling: frames/s", ("scroll",), ("frames_per_s",)),
        Case("gap", "the same: 99 % of the gaps between frames, ms", ("scroll",), ("gap_p99_ms",)),
        Case("task", "the same: longest task of the page, ms", ("scroll",), ("task_max_ms",)),
    ),
    limits=(
        Limit(
            "ms from `platform serve` to a moving picture",
            ("framegate", "start", "moving_ms"),
            None,
            2000.0,
            at_most=True,
        ),
        Limit(
            "frames per second while scrolling over 50 topics",
            ("framegate", "scroll", "frames_per_s"),
            None,
            57.0,
            at_most=False,
        ),
    ),
    rounds_max=3,
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
