"""Errors to Sentry, if the settings have a DSN: its own SDK, switched on by configuration.

The package is an extra (`framegate[sentry]`) and is imported by workers only, when a DSN is set. It
is started before the application is imported, because it changes the frameworks that it knows, and
so that what fails at the import is told, too.
"""

from __future__ import annotations

from typing import Any

from framegate.config import Config
from framegate.errors import WorkerError

__all__ = ["begin", "reporting"]


def begin(config: Config) -> None:
    """Start to report, unless the process already does.

    Raises:
        WorkerError: The package is not installed, or the DSN is none.
    """
    try:
        import sentry_sdk
        from sentry_sdk.utils import BadDsn
    except ImportError:
        raise WorkerError(
            "sentry_dsn is set, but the package sentry-sdk is not installed",
            fix="install framegate[sentry], or leave sentry_dsn out",
        ) from None
    if sentry_sdk.get_client().is_active():
        # Whoever started it has said more than three settings can.
        return
    try:
        sentry_sdk.init(
            dsn=config.sentry_dsn,
            environment=config.sentry_environment,
            release=config.sentry_release,
        )
    except BadDsn as error:
        raise WorkerError(
            "sentry_dsn is not a DSN of Sentry", cause=str(error), fix="copy it from the project"
        ) from None


def reporting(application: Any) -> Any:
    """Return the application with its exceptions reported."""
    from sentry_sdk.integrations.asgi import SentryAsgiMiddleware

    return SentryAsgiMiddleware(application)
