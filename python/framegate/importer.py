"""From `module:app` to a callable ASGI application.

Two kinds of failure must look different. A typo is the user's at the command line: a few lines say
what was not found and what is near, and a traceback would hide them. An exception inside the user's
module is a bug there: its traceback is kept, without the frames of the import system and of ours.
They are told apart by where the exception was raised, not by its type, since a missing dependency
raises the same ModuleNotFoundError as a misspelled application.
"""

from __future__ import annotations

import contextvars
import importlib
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable
from types import ModuleType, TracebackType
from typing import Any, Final

from framegate.config import Config, suggestion
from framegate.errors import AppImportError, summary

__all__ = ["Application", "import_attribute", "is_importing", "load_application"]

Application = Callable[[Any, Any, Any], Any]
"""An ASGI 3 application: `await app(scope, receive, send)`."""

_IMPORT_STRING: Final = re.compile(
    r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<attribute>[^\W\d]\w*(\.[^\W\d]\w*)*)(?P<call>\(\))?"
)

# Set while user code is imported, so that `framegate.run()` at the top level of the module it
# serves is told apart from a first call; it would start a server inside the start of a server.
_importing: contextvars.ContextVar[str] = contextvars.ContextVar("framegate_importing", default="")


def is_importing() -> str:
    """Return the import string that is being loaded around the caller, or nothing."""
    return _importing.get()


def load_application(config: Config) -> Application:
    """Import and check the application of a configuration, and put its middleware around it.

    Raises:
        AppImportError: It is misspelled, fails to import or cannot be called as ASGI. If user code
            raised, that exception is its `__cause__`.
        ConfigError: `env_file` cannot be read.
    """
    if config.env_file is not None:
        from framegate.env_file import apply_env_file

        apply_env_file(config.env_file, origin=config.origins["env_file"].name)
    if config.app is None:
        raise AppImportError(
            "no application given", fix='name it: "module:app", or FRAMEGATE_APP in the environment'
        )
    if config.sentry_dsn:
        from framegate import sentry

        sentry.begin(config)
    if not isinstance(config.app, str):
        name = config_name = type(config.app).__qualname__
        application, is_factory = config.app, config.factory
    else:
        name, config_name = config.app, config.app
        token = _importing.set(config.app)
        try:
            application, is_factory = _import(config.app, config.app_dir)
        finally:
            _importing.reset(token)
        is_factory = is_factory or config.factory
    if is_factory:
        application = _call_factory(application, config_name)
    _check_callable(application, name, is_factory=is_factory)
    if config.middleware:
        from framegate.middleware import wrap

        application = wrap(application, config)
    if config.sentry_dsn:
        application = sentry.reporting(application)
    if config.debug:
        from framegate.debug_page import DebugPages

        application = DebugPages(application)
    return application


def import_attribute(import_string: str, app_dir: str) -> Any:
    """Import what `module:attribute` names.

    Raises:
        AppImportError: It is misspelled or fails to import.
    """
    token = _importing.set(import_string)
    try:
        found, is_call = _import(import_string, app_dir)
    finally:
        _importing.reset(token)
    if is_call:
        raise AppImportError(
            f'"{import_string}" is called by the server, with the application',
            fix=f'write "{import_string.removesuffix("()")}"',
        )
    return found


def _import(import_string: str, app_dir: str) -> tuple[Any, bool]:
    match = _IMPORT_STRING.fullmatch(import_string)
    if match is None:
        raise AppImportError(
            f'"{import_string}" is no import string',
            cause='expected "module:attribute" or "module:factory()"',
            fix=_repair(import_string),
        )
    directory = os.path.abspath(app_dir)
    if not os.path.isdir(directory):
        raise AppImportError(f"app_dir {directory} is no directory")
    if sys.path[:1] != [directory]:
        sys.path.insert(0, directory)
    module = _import_module(match["module"], import_string, directory)
    found: Any = module
    walked = match["module"]
    for step in match["attribute"].split("."):
        if not hasattr(found, step):
            near = suggestion(step, _candidates(found)).removeprefix("; ")
            raise AppImportError(
                f'"{walked}" has no attribute "{step}" (in "{import_string}")',
                cause=f"imported from {getattr(module, '__file__', None) or 'a namespace package'}",
                fix=near or f"it has: {_list(_candidates(found))}",
            )
        found = getattr(found, step)
        walked = f"{walked}.{step}"
    return found, match["call"] is not None


def _repair(import_string: str) -> str:
    module, _, attribute = import_string.partition(":")
    if module.endswith(".py"):
        module = module.removesuffix(".py")
    module = module.replace("/", ".").strip(".")
    guess = f"{module}:{attribute or 'app'}"
    if _IMPORT_STRING.fullmatch(guess) and guess != import_string:
        return f'did you mean "{guess}"?'
    return 'for example "main:app" for app = FastAPI() in main.py'


def _import_module(name: str, import_string: str, directory: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        is_ours = name == missing or name.startswith(missing + ".")
        if is_ours and _raised_by_import_system(error.__traceback__):
            parent, _, leaf = missing.rpartition(".")
            near = suggestion(leaf, _modules(parent, directory)).removeprefix("; ")
            raise AppImportError(
                f'no module "{missing}" (in "{import_string}")',
                cause=f"looked in {directory} and the rest of sys.path",
                fix=near or "start in the directory that holds it, or pass --app-dir",
            ) from None
        raise _broken(name, error) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a module must not end the server silently
        raise _broken(name, error) from error


def _broken(name: str, error: BaseException) -> AppImportError:
    return AppImportError(f'module "{name}" failed while it was imported: {summary(error)}')


def _raised_by_import_system(traceback: TracebackType | None) -> bool:
    """Whether no user code ran between `import_module` and the exception."""
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if file not in (__file__, importlib.__file__) and "importlib" not in file:
            return False
        traceback = traceback.tb_next
    return True


def _modules(parent: str, directory: str) -> Iterable[str]:
    if not parent:
        return [module.name for module in pkgutil.iter_modules([directory])]
    package = sys.modules.get(parent)
    return [module.name for module in pkgutil.iter_modules(getattr(package, "__path__", []))]


def _candidates(owner: object) -> list[str]:
    public = [name for name in vars(owner) if not name.startswith("_")] if _has_dict(owner) else []
    return [
        name
        for name in public
        if callable(getattr(owner, name, None))
        or isinstance(getattr(owner, name, None), ModuleType)
    ]


def _has_dict(owner: object) -> bool:
    return hasattr(owner, "__dict__")


def _list(names: list[str]) -> str:
    shown = sorted(names)[:8]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "") if shown else "nothing"


def _call_factory(factory: Any, name: str) -> Any:
    if not callable(factory):
        raise AppImportError(f'factory "{name}" is not callable: it is a {type(factory).__name__}')
    token = _importing.set(name)
    try:
        application = factory()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise AppImportError(f'factory "{name}" failed: {summary(error)}') from error
    finally:
        _importing.reset(token)
    if inspect.iscoroutine(application):
        application.close()
        raise AppImportError(
            f'factory "{name}" is a coroutine function',
            cause="the application is made before the event loop runs",
            fix="make it a plain function and open connections in the lifespan",
        )
    return application


def _check_callable(application: Any, name: str, *, is_factory: bool) -> None:
    what = f'what factory "{name}" returned' if is_factory else f'"{name}"'
    if not callable(application):
        raise AppImportError(
            f"{what} is not callable: it is a {type(application).__name__}",
            fix="point at the ASGI application, such as app = FastAPI()",
        )
    try:
        signature = inspect.signature(application)
    except (TypeError, ValueError):  # builtins without a signature: the first request will tell
        return
    if _takes(signature, 3):
        return
    if _takes(signature, 0) and not is_factory:
        cause = "it takes no arguments, so it looks like a factory"
        fix = f'pass --factory, or write "{name}()"'
    elif _takes(signature, 2):
        cause = "it takes two arguments, so it looks like a WSGI application"
        fix = "wrap it, for example with a2wsgi.WSGIMiddleware"
    elif _takes(signature, 1):
        cause = "it takes one argument, so it looks like an ASGI 2 application"
        fix = "wrap it with asgiref.compatibility.guarantee_single_callable"
    else:
        cause = f"its signature is {signature}"
        fix = "an ASGI application is called with (scope, receive, send)"
    raise AppImportError(f"{what} is no ASGI application", cause=cause, fix=fix)


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True
