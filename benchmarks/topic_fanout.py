"""What does it cost to show one topic to many viewers?

A JPEG of 100 KB, published by another process at a fixed rate, to 1, 100 and 1000 viewers that read
and throw away (`?view=mjpeg`). The hand-made ones are the best that asyncio can do: one copy of a
frame, shared by all streams of the process. It comes out of the ring, by pyzmq (PUB and SUB over
ipc) or by Redis (publish and subscribe on a Unix socket; its CPU counts). The limit writes the same
bytes out of its own memory, with one epoll and no protocol. CPU is the server's; the publisher is
not in it.
"""

from framegate_bench.__main__ import main
from framegate_bench.comparison import Case, Comparison, Limit, program

METRICS = ("cpu_us", "delivered_percent", "rss_mib")


QUESTION = Comparison(
    name="topic_fanout",
    title="Fan-out: a JPEG topic of 100 KB to viewers over HTTP",
    unit="CPU us per frame that a viewer got / frames delivered, % / memory of the server, MiB",
    contestants=(
        program("fan_out", "framegate"),
        program("fan_out", "uvicorn, ring", "uvicorn", word="uvicorn"),
        program("fan_out", "granian, ring", "granian", word="granian"),
        program("fan_out", "uvicorn, pyzmq", "uvicorn", word="pyzmq"),
        program("fan_out", "uvicorn, Redis", "redis", word="redis"),
        # Python's own venv, because there is none: the program is one of the tools.
        program("fan_out", "epoll alone", "framegate", word="sender", is_limit=True),
    ),
    cases=(
        Case("one", "1 viewer, 60/s", ("--viewers", "1", "--rate", "60"), METRICS),
        Case("hundred", "100 viewers, 15/s", ("--viewers", "100", "--rate", "15"), METRICS),
        Case(
            "thousand",
            "1000 viewers, 2/s",
            ("--viewers", "1000", "--rate", "2"),
            METRICS,
            contestants=("framegate", "epoll alone"),
        ),
    ),
    limits=(
        *(
            Limit(
                f"CPU of the bare sender / CPU of framegate, {title}",
                ("epoll alone", case, "cpu_us"),
                ("framegate", case, "cpu_us"),
                0.8,
                at_most=False,
            )
            for case, title in (("hundred", "100 viewers"), ("thousand", "1000 viewers"))
        ),
        Limit(
            "MiB of memory of the server with 1000 viewers",
            ("framegate", "thousand", "rss_mib"),
            None,
            150.0,
            at_most=True,
        ),
    ),
    has_tools=True,
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
