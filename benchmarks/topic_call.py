"""What does a call over HTTP cost beyond a plain request?

The plain request is a POST of the same bytes that becomes a frame nobody waits for: they arrive in
a slot, and the answer is short. A call also wakes a responder, a Python process that answers
with as many bytes as it got, waits for it and sends them back. Beside it the call alone, from
process to process without HTTP. One connection, one request at a time, blocks of each kind in turn.
"""

from framegate_bench.__main__ import main
from framegate_bench.comparison import Case, Comparison, Contestant, Limit

METRICS = ("plain_us", "call_us", "alone_us", "added_us")

QUESTION = Comparison(
    name="topic_call",
    title="Calls over HTTP: POST /call/{topic} to a responder in Python, and back",
    unit="Microseconds, medians: plain POST / call over HTTP / without HTTP / added by the call",
    contestants=(Contestant("framegate", "framegate", ("{bin}/python", "{apps}/topic_calls.py")),),
    cases=(
        Case("small", "64 bytes", ("--bytes", "64"), METRICS),
        Case("large", "64 KiB", ("--bytes", "65536"), METRICS),
    ),
    limits=(
        Limit(
            "microseconds that a call adds to a plain request, 64 bytes",
            ("framegate", "small", "added_us"),
            None,
            40.0,
            at_most=True,
        ),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
