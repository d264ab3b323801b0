"""What does it cost to see and to bound everything? hello, plain and with all of it on.

All of it: the access log as JSON in a file, metrics, a name for each request, and the limits that
all workers share: connections, requests at once, requests of a client. They are wide enough for the
load, since what is refused costs less.
"""

from framegate_bench.__main__ import main
from framegate_bench.question import Bar, Phase, Question
from framegate_bench.servers import framegate

APP = "hello_app:app"
LOAD = ("http", "--path", "/", "--conns", "64")
ALL = (
    "--access-log-format", "json", "--access-log-file", "{folder}/access.log",
    "--admin-bind", "unix:{folder}/admin.sock",
    "--request-id",
    "--limit-connections", "1000", "--limit-requests", "100", "--rate-limit", "999999/s",
)  # fmt: skip

QUESTION = Question(
    name="observability",
    title="Hello with JSON log, metrics, ids and limits: 13 bytes, 64 connections",
    unit="request",
    # Ours is the one with everything: bars divide the others by it.
    servers=(
        framegate(APP, options=ALL, access_log=True),
        framegate(APP, name="framegate, plain"),
    ),
    phases=(
        Phase("fixed", "20,000 requests/s", LOAD, rate=20_000),
        Phase("high", "60,000 requests/s", LOAD, rate=60_000),
        Phase("closed", "closed loop", LOAD),
    ),
    # At most 15 percent more. Waking up, which both pay, is a smaller share at the high rate.
    bars=(Bar("framegate, plain", "fixed", 0.87), Bar("framegate, plain", "high", 0.87)),
    probe="/",
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
