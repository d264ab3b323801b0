"""Run one module of CPython's own asyncio tests on framegate's loop; a program of its own.

Usage: `python cpython_runner.py test_streams`. Wherever the tests ask asyncio for its default loop,
or for a selector loop with any selector, they get framegate's. The last line of standard output is
JSON: how many loops of ours were made, and what came of each test.
"""

from __future__ import annotations

import asyncio
import asyncio.unix_events
import json
import selectors
import sys
import unittest
import warnings
from types import TracebackType
from typing import Any

from framegate.loop import EventLoop

# The same tests again for selectors that would not be used: see `Loop`.
DUPLICATES = ("PollEventLoopTests", "SelectEventLoopTests", "KqueueEventLoopTests")

# As unittest passes them around.
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class Loop(EventLoop):
    """Stands in for `asyncio.SelectorEventLoop`, whatever selector it is given."""

    count = 0

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        super().__init__()
        Loop.count += 1
        if selector is not None:
            selector.close()


def use_framegate() -> None:
    """Replace asyncio's loop by framegate's."""
    asyncio.unix_events._UnixDefaultEventLoopPolicy._loop_factory = Loop  # type: ignore[attr-defined]
    for module in (asyncio, asyncio.unix_events):
        for name in ("SelectorEventLoop", "EventLoop", "_UnixSelectorEventLoop"):
            if hasattr(module, name):
                setattr(module, name, Loop)


class Result(unittest.TextTestResult):
    """Notes what came of each test; a test with subtests counts as its worst."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.outcomes: dict[str, str] = {}

    def note(self, test: unittest.TestCase, outcome: str) -> None:
        owner = getattr(test, "test_case", test)  # of a subtest
        if not isinstance(owner, unittest.TestCase):
            name = str(owner)  # a failed setUpClass
        else:
            name = f"{type(owner).__name__}.{owner._testMethodName}"
        if self.outcomes.get(name) != "failed":
            self.outcomes[name] = outcome

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().addSuccess(test)
        self.note(test, "passed")

    def addFailure(self, test: unittest.TestCase, err: ExcInfo) -> None:  # noqa: N802
        super().addFailure(test, err)
        self.note(test, "failed")

    def addError(self, test: unittest.TestCase, err: ExcInfo) -> None:  # noqa: N802
        super().addError(test, err)
        self.note(test, "failed")

    def addSubTest(  # noqa: N802
        self, test: unittest.TestCase, subtest: unittest.TestCase, err: ExcInfo | None
    ) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.note(test, "failed")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802
        super().addSkip(test, reason)
        self.note(test, "skipped")


def flatten(suite: unittest.TestSuite) -> list[unittest.TestCase]:
    """All tests of a suite."""
    tests: list[unittest.TestCase] = []
    for item in suite:
        tests += flatten(item) if isinstance(item, unittest.TestSuite) else [item]
    return tests


def main(name: str, only: list[str]) -> None:
    """Run the tests of one module."""
    from test import support  # type: ignore[import-not-found]

    support.use_resources = []  # nothing that needs a network, much time or much memory
    use_framegate()
    warnings.simplefilter("default")
    suite = unittest.defaultTestLoader.loadTestsFromName(f"test.test_asyncio.{name}")
    tests = [
        test
        for test in flatten(suite)
        if not type(test).__name__.startswith(DUPLICATES)
        and (not only or any(part in test.id() for part in only))
    ]
    runner = unittest.TextTestRunner(verbosity=2, resultclass=Result)
    # A new suite: it still sets up and tears down classes and modules, as `tests` are in order.
    result = runner.run(unittest.TestSuite(tests))
    assert isinstance(result, Result)
    print(json.dumps({"loops": Loop.count, "outcomes": result.outcomes}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
