"""What does a call over HTTP cost beyond a plain request?

The plain request is a POST of the same bytes that becomes a frame nobody waits for: they arrive in
a slot, and the answer is short. A call also wakes a responder, a Python process that answers
with as many bytes as it got, waits for it and sends them back. Beside it the call alone, from
process to process without HTTP, and what its two wakes add to a request where nothing else is done:
a call may add those and 40 us.

One connection, one request at a time, blocks of each kind in turn. System calls are those of
client, server and responder together, per request.
"""

from framegate_bench.__main__ import main
from framegate_bench.comparison import Case, Comparison, Contestant, Limit

METRICS = ("plain_us", "call_us", "alone_us", "added_us", "wakes_us", "beyond_us")
TOOLS = ("--tools", "{tools}")

QUESTION = Comparison(
    name="topic_call",
    title="Calls over HTTP: POST /call/{topic} to a responder in Python, and back",
    unit="Microseconds, medians: plain POST / call over HTTP / without HTTP / added by the call / "
    "added by its two wakes alone / beyond those",
    contestants=(Contestant("framegate", "framegate", ("{bin}/python", "{apps}/topic_calls.py")),),
    cases=(
        Case("small", "64 bytes", ("--bytes", "64", *TOOLS), METRICS),
        Case("large", "64 KiB", ("--bytes", "65536", *TOOLS), METRICS),
        *(
            Case(
                f"{kind}_syscalls",
                f"system calls of all, {title}",
                ("--bytes", "64", "--kind", kind),
                ("syscalls",),
                count="syscalls",
            )
            for kind, title in (("plain", "plain POST"), ("call", "call"))
        ),
    ),
    limits=tuple(
        Limit(
            f"microseconds that a call adds to a plain request{beyond}, 64 bytes",
            ("framegate", "small", metric),
            None,
            40.0,
            at_most=True,
        )
        for beyond, metric in (("", "added_us"), (" beyond its two wakes", "beyond_us"))
    ),
    has_tools=True,
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
