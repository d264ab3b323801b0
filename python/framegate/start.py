"""From a configuration to a running server: one worker in this process, or a supervisor.

Each loads only what it needs. A supervisor lives for years beside its workers and does nothing most
of the time: without asyncio, the application and the native modules it is a third of the size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from framegate.config import Config
from framegate.logging import configure_from, logger
from framegate.open_files import raise_open_files_limit

if TYPE_CHECKING:
    from framegate.worker import Toolkit

__all__ = ["serve_until_stopped"]


def serve_until_stopped(
    config: Config, *, toolkit: Toolkit | None = None, ends_process: bool = True
) -> int:
    """Serve in this process, or with a supervisor if there are several workers.

    Args:
        config: The settings.
        toolkit: What makes the loop and the core; the native ones if None.
        ends_process: Whether nothing comes after this but the end of the process.

    Returns:
        The exit code.

    Raises:
        FramegateError: It never started.
    """
    before = None
    if config.env_file is not None:
        from framegate.env_file import apply_env_file

        # Also in a supervisor: the configuration of logging may import from the application.
        before = apply_env_file(config.env_file, origin=config.origins["env_file"].name)
    configure_from(config)
    for warning in config.warnings:
        logger.warning("%s", warning)
    logger.debug("%d open files are allowed", raise_open_files_limit())
    if config.reload:
        from framegate.reloader import Reloader

        return Reloader(config, environment=before).run()
    if config.supervised_because:
        from framegate.supervisor import Supervisor

        return Supervisor(config, environment=before).run()
    from framegate.server import serve_alone

    return serve_alone(config, toolkit=toolkit, ends_process=ends_process)
