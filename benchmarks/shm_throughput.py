"""How many frames go through in a second, from Python to Python? Five sizes, two cores.

The writer sends as fast as it can; the reader only receives and does not look at every byte.
framegate (policy latest), iceoryx2 and shmx skip frames when the reader is behind and count here
what was received; the others make the writer wait.
"""

from framegate_bench import transports
from framegate_bench.__main__ import main
from framegate_bench.comparison import Comparison

QUESTION = Comparison(
    name="shm_throughput",
    title="Shared memory from Python: frames received",
    unit="Frames per second / GB per second",
    contestants=transports.ALL,
    cases=transports.by_size(("throughput",), ("frames_per_s", "gb_per_s")),
    limits=(),
    rounds_max=3,
)

if __name__ == "__main__":
    raise SystemExit(main(["run", QUESTION.name, "--json"]))
