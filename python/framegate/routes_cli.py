"""`platform routes`: the native routes of an application, without serving it."""

from __future__ import annotations

import json
from typing import Any

from framegate.config import Config
from framegate.errors import RouteError

__all__ = ["run"]


def run(options: dict[str, Any]) -> int:
    """Print the routes of an application.

    Args:
        options: `app`, and `app_dir`, `json` or `openapi`.

    Returns:
        The exit code.

    Raises:
        AppImportError: The application cannot be imported.
        RouteError: It has no native routes.
    """
    from framegate.app import App
    from framegate.importer import load_application

    words = {"app": options["app"], "app_dir": options["app_dir"]}
    config = Config.load(command_line={name: word for name, word in words.items() if word})
    app = load_application(config)
    if not isinstance(app, App):
        raise RouteError(
            f"{options['app']} is a {type(app).__qualname__}, which has no native routes",
            fix="name a framegate.App",
        )
    if options["openapi"]:
        print(json.dumps(app.openapi(), indent=2, ensure_ascii=False))
        return 0
    rows = [
        (one.method, one.path, f"{one.handler.__module__}.{one.handler.__qualname__}")
        for one in app.routes
    ]
    if options["json"]:
        names = ("method", "path", "handler")
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=2))
        return 0
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    for method, path, handler in rows:
        print(f"{method:{widths[0]}}  {path:{widths[1]}}  {handler}")
    return 0
