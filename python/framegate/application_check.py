"""`platform check module:app`: everything that serving does before the first connection.

    options -> certificates -> addresses bound -> import -> lifespan startup -> its shutdown

Nobody can connect: the sockets are bound and never listen, so a check next to a running server says
that the port is taken. Where that is not wanted, `--port 0` checks the rest.

What fails is raised as when serving, with the same exit code. What is odd, but served, is printed.
"""

from __future__ import annotations

import asyncio
import time
from importlib.metadata import version

from framegate.config import Config
from framegate.env_file import apply_env_file
from framegate.errors import EXIT_RUNTIME, EXIT_STOPPED, AppImportError, StartupFailed
from framegate.importer import load_application
from framegate.lifespan import Lifespan
from framegate.listener import open_listeners
from framegate.logging import configure_from
from framegate.loop import new_event_loop
from framegate.worker import NativeToolkit

__all__ = ["check_application"]


def check_application(config: Config) -> int:
    """Check an application and the settings it would be served with; say each step.

    Returns:
        The exit code: 0, or 1 if its shutdown failed.

    Raises:
        FramegateError: It would not be served.
    """
    if config.app is None:
        raise AppImportError("no application given", fix="name it: platform check module:app")
    apply_env_file(config.env_file, origin=config.origins["env_file"].name)
    configure_from(config)
    _say("options", f"{config.app}, framegate {version('framegate')}")
    NativeToolkit().prepare(config)
    if config.ssl_certfile:
        _say("certificates", ", ".join(config.ssl_certfile))
    listeners = open_listeners(config)
    try:
        _say("addresses", " ".join(listeners.urls))
        begin = time.monotonic()
        application = load_application(config)
        _say("import", f"{time.monotonic() - begin:.2f} s")
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            is_clean = runner.run(_live(Lifespan(application, config.lifespan), config))
    finally:
        listeners.close()
    if not is_clean:
        print("the application does not shut down cleanly")
        return EXIT_RUNTIME
    print("ok: it can be served")
    return EXIT_STOPPED


async def _live(lifespan: Lifespan, config: Config) -> bool:
    begin = time.monotonic()
    try:
        await lifespan.startup(config.timeout_startup)
    except StartupFailed:
        await lifespan.shutdown(config.timeout_graceful_shutdown)
        raise
    seconds = time.monotonic() - begin
    if lifespan.is_off:
        _say("lifespan", "off")
    elif not lifespan.is_known:
        _say("lifespan", "the application has none")
    else:
        _say("lifespan startup", f"{seconds:.2f} s")
    begin = time.monotonic()
    was_known = lifespan.is_known
    is_clean = await lifespan.shutdown(config.timeout_graceful_shutdown)
    if was_known and is_clean:
        _say("lifespan shutdown", f"{time.monotonic() - begin:.2f} s")
    return is_clean


def _say(step: str, result: str) -> None:
    print(f"{step + ':':<18} {result}", flush=True)
