"""What the questions about native routes share: the contestants and what is sent.

Each serves the routes of `apps/native_app.py` in its own way; `bodies/` is what is posted.
"""

from dataclasses import replace
from pathlib import Path

from framegate_bench.question import Phase, Server
from framegate_bench.servers import (
    framegate,
    granian,
    hyper,
    robyn,
    socketify,
    spikard,
    uvicorn,
)

BODIES = Path(__file__).resolve().parent.parent / "bodies"
PROBE = "/hello-json"

ON_GRANIAN = replace(granian("fastapi_app:app"), name="granian, FastAPI")
ON_UVICORN = replace(uvicorn("fastapi_app:app"), name="uvicorn, FastAPI")
LITESTAR = replace(granian("litestar_app:app"), name="granian, Litestar")
RIVALS = (ON_GRANIAN, ON_UVICORN, LITESTAR, robyn(), spikard(), socketify())
CONTESTANTS: tuple[Server, ...] = (framegate("native_app:app"), *RIVALS, hyper())


def get(path: str) -> tuple[str, ...]:
    """The load of a GET."""
    return ("http", "--path", path, "--conns", "64")


def post(path: str, body: str, status: int = 200) -> tuple[str, ...]:
    """The load of a POST of `bodies/BODY.json`."""
    return (*get(path), "--body-file", str(BODIES / f"{body}.json"), "--status", str(status))


def phases(load: tuple[str, ...], rate: int, high: int | None = None) -> tuple[Phase, ...]:
    """All at a rate that all keep, ours and the limit at a high one, and a closed loop."""
    found = [Phase("fixed", f"{rate:,} requests/s", load, rate=rate)]
    if high is not None:
        servers = ("framegate", "hyper")
        found.append(Phase("high", f"{high:,} requests/s", load, rate=high, servers=servers))
    return (*found, Phase("closed", "closed loop", load))
