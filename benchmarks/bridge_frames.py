"""What does the bridge cost beyond plain Zenoh?

The same bytes from one process to another, over TCP on loopback. Plain: `put` of bytes, and `bytes`
of what the subscriber's callback gets. Bridged: a publisher of a topic, `platform bridge` on either
side, a subscriber of the topic there; two processes and two copies more, out of a slot and into
one. What is of one host is on one core. One frame at a time for the latency, four under way for the
throughput, blocks of both in turn.
"""

from framegate_bench.__main__ import main
from framegate_bench.comparison import Case, Comparison, Contestant, Limit

LATENCY = ("plain_us", "bridge_us", "added_us")
THROUGHPUT = ("plain_mb_s", "bridge_mb_s", "share")
SIZES = {"small": ("4 KiB", 4096), "medium": ("1 MiB", 1 << 20), "large": ("6.2 MB", 6_220_800)}


QUESTION = Comparison(
    name="bridge_frames",
    title="Frames across machines: the bridge beside plain Zenoh",
    unit="Latency: us, plain / bridged / added. Throughput: MB/s, plain / bridged / share",
    contestants=(Contestant("framegate", "framegate", ("{bin}/python", "{apps}/bridged.py")),),
    cases=tuple(
        Case(f"{name}_{what}", f"{title}, {what}", ("--bytes", str(size)), metrics)
        for name, (title, size) in SIZES.items()
        for what, metrics in (("latency", LATENCY), ("throughput", THROUGHPUT))
    ),
    limits=(
        Limit(
            "share of plain Zenoh's throughput, 1 MiB",
            ("framegate", "medium_throughput", "share"),
            None,
            0.85,
            at_most=False,
        ),
        Limit(
            "microseconds that the bridge adds, 4 KiB",
            ("framegate", "small_latency", "added_us"),
            None,
            150.0,
            at_most=True,
        ),
        Limit(
            "microseconds that the bridge adds, 1 MiB",
            ("framegate", "medium_latency", "added_us"),
            None,
            150.0,
            at_most=True,
        ),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
