"""ASGI middleware from the configuration, around the application.

A middleware is a factory: called with the application it returns another application. The first one
of the list is the outermost: it sees each call first and each answer last. Like those that a
framework adds itself, it sees every scope, `lifespan` and `framegate.worker` too.

What goes wrong is named by the place in the list, since the same factory may stand there twice.
"""

from __future__ import annotations

import inspect
from typing import Any

from framegate.config import Config, suggestion
from framegate.errors import AppImportError, summary
from framegate.importer import Application, import_attribute

__all__ = ["wrap"]


def wrap(application: Application, config: Config) -> Application:
    """Return the application inside the middleware of a configuration.

    Raises:
        AppImportError: A factory cannot be imported or called, or makes no application. If its
            code raised, that exception is the `__cause__`.
    """
    for number, (factory, options) in reversed(list(enumerate(config.middleware, start=1))):
        application = _wrap_once(application, factory, options, number, config.app_dir)
    return application


def _wrap_once(
    application: Application, factory: Any, options: dict[str, Any], number: int, app_dir: str
) -> Application:
    if isinstance(factory, str):
        name = f'middleware {number}, "{factory}",'
        try:
            factory = import_attribute(factory, app_dir)
        except AppImportError as error:
            raise AppImportError(
                f"middleware {number}: {error.problem}", cause=error.cause, fix=error.fix
            ) from error.__cause__
    else:
        name = f"middleware {number}, {getattr(factory, '__qualname__', repr(factory))},"
    if not callable(factory):
        raise AppImportError(
            f"{name} is not callable: it is a {type(factory).__name__}",
            fix="name the class or the function that takes the application",
        )
    _check_options(factory, options, name)
    try:
        wrapped = factory(application, **options)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: it must not end the server silently
        raise AppImportError(f"{name} failed: {summary(error)}") from error
    if inspect.iscoroutine(wrapped):
        wrapped.close()
        raise AppImportError(
            f"{name} is a coroutine function",
            cause="it was called with the application and its options, and returned a coroutine",
            fix="name a class or a plain function that takes the application and returns another",
        )
    if not callable(wrapped):
        raise AppImportError(
            f"{name} returned no application but a {type(wrapped).__name__}",
            fix="it has to return what is called with (scope, receive, send)",
        )
    made: Application = wrapped
    return made


def _check_options(factory: Any, options: dict[str, Any], name: str) -> None:
    """Say in our words what a call would say in Python's."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # builtins without a signature: the call will tell
        return
    try:
        signature.bind(None, **options)
    except TypeError as error:
        names = [
            parameter.name
            for parameter in list(signature.parameters.values())[1:]
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        unknown = [option for option in options if option not in names]
        near = suggestion(unknown[0], names).removeprefix("; ") if unknown else ""
        raise AppImportError(
            f"{name} cannot be called with the application and {_list(options)}",
            cause=str(error),
            fix=near or f"it takes {_list(names)}",
        ) from None


def _list(names: Any) -> str:
    return f"options {', '.join(names)}" if names else "no options"
