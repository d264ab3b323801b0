"""From an import string to an application; typos and bugs look different."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from framegate.config import Config
from framegate.errors import EXIT_STARTUP, AppImportError, describe
from framegate.importer import is_importing, load_application

SOURCE = """
from types import SimpleNamespace
async def app(scope, receive, send): ...
def make():
    return app
async def make_async():
    return app
def make_nothing():
    return None
def make_broken():
    raise LookupError("no such thing")
def wsgi(environ, start_response): ...
def asgi2(scope): ...
def odd(a, b, c, d, e): ...
inner = SimpleNamespace(app=app)
number = 3
"""


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory of modules whose traces in the interpreter are removed afterwards."""
    path, modules = list(sys.path), set(sys.modules)
    (tmp_path / "demo_app.py").write_text(SOURCE)
    (tmp_path / "package").mkdir()
    (tmp_path / "package/__init__.py").write_text("")
    (tmp_path / "package/views.py").write_text(SOURCE)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def load(directory: Path, app: object, **options: object) -> object:
    return load_application(Config(app=app, app_dir=str(directory), **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["demo_app:app", "demo_app:inner.app", "package.views:app"])
def test_attribute_is_found(directory: Path, text: str) -> None:
    assert load(directory, text).__name__ == "app"  # type: ignore[attr-defined]


def test_factory_is_called_by_flag_or_by_parentheses(directory: Path) -> None:
    for app in (load(directory, "demo_app:make()"), load(directory, "demo_app:make", factory=True)):
        assert app.__name__ == "app"  # type: ignore[attr-defined]


def test_object_and_factory_object_are_taken_as_they_are(directory: Path) -> None:
    async def app(scope: object, receive: object, send: object) -> None: ...

    assert load(directory, app) is app
    assert load(directory, lambda: app, factory=True) is app


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "demo_ap:app",
            ['no module "demo_ap" (in "demo_ap:app")', "looked in", "did you mean demo_app?"],
        ),
        (
            "package.view:app",
            ['no module "package.view"', "looked in", "did you mean views?"],
        ),
        ("zzz:app", ['no module "zzz"', "looked in", "pass --app-dir"]),
        (
            "demo_app:ap",
            ['"demo_app" has no attribute "ap" (in "demo_app:ap")', "imported from", "mean app?"],
        ),
        (
            "demo_app:inner.apq",
            ['"demo_app.inner" has no attribute "apq"', "imported from", "did you mean app?"],
        ),
        ("demo_app:zzz", ["has no attribute", "imported from", "it has: SimpleNamespace, app,"]),
        ("demo_app", ["is no import string", "expected", 'did you mean "demo_app:app"?']),
        (
            "./package/views.py:app",
            ["is no import string", "expected", 'did you mean "package.views:app"?'],
        ),
        ("demo_app:wsgi", ["is no ASGI application", "WSGI", "a2wsgi"]),
        ("demo_app:asgi2", ["is no ASGI application", "ASGI 2", "asgiref"]),
        ("demo_app:make", ["is no ASGI application", "like a factory", '"demo_app:make()"']),
        ("demo_app:odd", ["is no ASGI application", "signature", "(scope, receive, send)"]),
        ("demo_app:make_async()", ["coroutine function", "before the event loop", "lifespan"]),
    ],
)
def test_typo_gives_four_lines_and_no_traceback(
    directory: Path, text: str, lines: list[str]
) -> None:
    with pytest.raises(AppImportError) as caught:
        load(directory, text)
    shown = describe(caught.value).splitlines()
    assert shown.pop() == f"  more: platform docs {AppImportError.code}"
    assert len(shown) == 3
    for line, part in zip(shown, lines, strict=True):
        assert part in line
    assert caught.value.exit_code == EXIT_STARTUP


@pytest.mark.parametrize("text", ["demo_app:number", "demo_app:make_nothing()"])
def test_application_that_is_not_callable_is_named(directory: Path, text: str) -> None:
    with pytest.raises(AppImportError, match=r"is not callable: it is a (int|NoneType)"):
        load(directory, text)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import missing_dependency", "ModuleNotFoundError: No module named 'missing_dependency'"),
        ("from broken import nothing", "ImportError: cannot import name 'nothing'"),
        ("x = 1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:\n  pass", "SyntaxError: invalid syntax"),
        ("import sys; sys.exit(4)", "SystemExit: 4"),
        # the module is its own missing submodule: found by where it was raised, not by its name
        ("import broken.part", "No module named 'broken.part'"),
    ],
)
def test_bug_in_the_users_module_keeps_its_traceback(
    directory: Path, source: str, expected: str
) -> None:
    (directory / "broken.py").write_text(source)
    with pytest.raises(AppImportError) as caught:
        load(directory, "broken:app")
    shown = describe(caught.value)
    assert 'error: FG-START-002 module "broken" failed while it was imported' in shown
    assert expected in shown
    assert str(directory / "broken.py") in shown
    assert "importlib" not in shown
    assert "framegate/importer.py" not in shown


def test_bug_in_a_factory_keeps_its_traceback(directory: Path) -> None:
    with pytest.raises(AppImportError) as caught:
        load(directory, "demo_app:make_broken()")
    shown = describe(caught.value)
    assert 'factory "demo_app:make_broken()" failed: LookupError: no such thing' in shown
    assert "in make_broken" in shown


def test_missing_app_dir_is_named(tmp_path: Path) -> None:
    with pytest.raises(AppImportError, match="missing is no directory"):
        load(tmp_path / "missing", "a:b")


def test_import_is_visible_while_it_runs(directory: Path) -> None:
    (directory / "curious.py").write_text(
        "from framegate.importer import is_importing\nseen = is_importing()\n"
        "async def app(scope, receive, send): ...\n"
    )
    load(directory, "curious:app")
    assert sys.modules["curious"].seen == "curious:app"
    assert is_importing() == ""
