"""What does framegate add to the copy that a producer of pictures makes anyway? 1080p RGB, Python.

The producer copies its picture into a loan and publishes that, against the same copy into memory of
its own: always the same buffer, which is as warm as memory can be, and eight in turn, as one that
keeps a history does.
"""

from framegate_bench import transports
from framegate_bench.__main__ import main
from framegate_bench.comparison import Case, Comparison, Limit

QUESTION = Comparison(
    name="shm_loan",
    title="Shared memory from Python: a 1080p picture copied into a loan and published",
    unit="Microseconds per picture, in the producer; one process",
    contestants=(transports.FRAMEGATE,),
    cases=(
        Case("own", "own copy, one buffer", ("loan",), ("own_us",)),
        Case("ring", "own copy, eight buffers in turn", ("loan",), ("ring_us",)),
        Case("loan", "copy into a loan, publish", ("loan",), ("loan_us",)),
        Case("send", "send of an array", ("loan",), ("send_us",)),
    ),
    limits=(
        Limit(
            "loan and publish / the producer's own copy into one buffer",
            ("framegate", "loan", "loan_us"),
            ("framegate", "own", "own_us"),
            1.1,
            at_most=True,
        ),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
