"""What does a message cost a WebSocket client in Python? Echo by one and the same server in Rust.

Each client sends a message for each that comes back, with as many under way as the case says; one
connection, no compression. The CPU time is the client's alone. The asyncio forms of the rivals run
on uvloop, their fastest; ours on asyncio's own loop and on framegate's.
"""

from framegate_bench.__main__ import main
from framegate_bench.comparison import Case, Comparison, Contestant, Limit

METRICS = ("messages_per_s", "cpu_us")


def client(name: str, venv: str, kind: str) -> Contestant:
    """One that `apps/client_echo.py` knows."""
    return Contestant(name, venv, ("{bin}/python", "{apps}/client_echo.py", kind, "{tools}/limit"))


def faster(case: str, ours: str, theirs: str, bound: float) -> Limit:
    """Our messages per second, as a multiple of theirs."""
    text = f"times the messages of {theirs} that {ours} echoes, {case}"
    rate = METRICS[0]
    return Limit(text, (ours, case, rate), (theirs, case, rate), bound, at_most=False)


QUESTION = Comparison(
    name="client_echo",
    title="WebSocket clients in Python: echo on one connection (server: bare hyper)",
    unit="Messages per second / microseconds of CPU of the client per message",
    contestants=(
        client("framegate, threads", "framegate", "framegate-threads"),
        client("framegate, asyncio", "framegate", "framegate-asyncio"),
        client("framegate, own loop", "framegate", "framegate-loop"),
        client("websockets, threads", "clients", "websockets-threads"),
        client("websockets, uvloop", "clients", "websockets"),
        client("aiohttp, uvloop", "clients", "aiohttp"),
        client("picows, uvloop", "clients", "picows"),
    ),
    cases=(
        Case("alone", "128 B, one at a time", ("--bytes", "128", "--under-way", "1"), METRICS),
        Case("small", "128 B, 64 under way", ("--bytes", "128", "--under-way", "64"), METRICS),
        Case("large", "64 KiB, 8 under way", ("--bytes", "65536", "--under-way", "8"), METRICS),
    ),
    limits=tuple(
        faster("small", ours, theirs, bound)
        for ours in ("framegate, threads", "framegate, asyncio")
        for theirs, bound in (("websockets, uvloop", 3.0), ("picows, uvloop", 1.2))
    ),
    has_tools=True,
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
