"""The exceptions: one tree, documented where it is defined, usable from native code."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from framegate import errors
from framegate.errors import ClientDisconnected, ConfigError, FramegateError, describe

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and value.__module__ == errors.__name__
]


def test_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    found: dict[str, str] = {}
    path: list[str] = []
    for line in errors.__doc__.splitlines():
        if match := re.match(r"^([│├└─ ]*)([A-Z]\w+)(?: |$)", line):
            if not match[1] and match[2] != "FramegateError":
                continue
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            found[match[2]] = path[depth - 1] if depth else "Exception"
    assert found == {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES}


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in CLASSES]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_class_takes_the_one_string_that_native_code_passes(cls: type[FramegateError]) -> None:
    error = cls("topic cam")
    assert str(error) == "topic cam"
    assert str(pickle.loads(pickle.dumps(error))) == "topic cam"
    assert cls.__name__ in errors.__all__


def test_problem_cause_fix_and_where_to_read_more_are_four_lines() -> None:
    error = ConfigError("port is odd", cause="it is 3", fix="add one")
    assert describe(error).splitlines() == [
        "error: FG-CONFIG-001 port is odd",
        "  cause: it is 3",
        "  fix: add one",
        "  more: platform docs FG-CONFIG-001",
    ]


def test_disconnect_is_an_os_error() -> None:
    assert issubclass(ClientDisconnected, OSError)
    assert str(ClientDisconnected("gone")) == "gone"
