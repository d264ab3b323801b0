"""The setting `topics_access`: a function of the application that says who may do what with topics.

Asked by `rust/py/src/topics/judge.rs`, on the event loop, for each request and topic anew.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from framegate.errors import ConfigError
from framegate.importer import import_attribute

__all__ = ["load_judge"]

log: logging.Logger = logging.getLogger("framegate")


def load_judge(config: Any) -> Callable[[dict[str, Any]], Awaitable[bool | None]] | None:
    """Return what asks the function of the setting `topics_access`; None without one.

    Raises:
        ConfigError: It is no function.
    """
    found = config.topics_access
    if found is None:
        return None
    if isinstance(found, str):
        found = import_attribute(found, config.app_dir)
    if not callable(found):
        raise ConfigError(f"topics_access {config.topics_access} is no function")

    async def judge(scope: dict[str, Any]) -> bool | None:
        """Allow it, or not; None when the function has failed, which is no permission."""
        try:
            answer = found(scope)
            if inspect.isawaitable(answer):
                answer = await answer
            if isinstance(answer, bool):
                return answer
            raise TypeError(f"topics_access returns True or False, not {answer!r}")
        except Exception:
            log.exception("topics_access failed for %s of %s", scope["action"], scope["topic"])
            return None

    return judge
