"""The median of answers at half of what a server can do.

`half_load.py SERVER --bin FOLDER --tools FOLDER --cores S,L --seconds T` prints one line of JSON.
"""

import json

from framegate_bench import servers
from framegate_bench.loadgen import LoadResult, Times, warm_load
from framegate_bench.own_server import read_words, scratch_folder, serving

SERVERS = servers.by_asgi("hello_app:app") | {"hyper": servers.hyper()}
LOAD = ("http", "--path", "/", "--conns", "64")


def main() -> None:
    """Measure, print the numbers."""
    words = read_words(__doc__, SERVERS)
    times = Times(words.seconds, warmup_s=0.5)
    with serving(SERVERS[words.server], words) as (_, port):

        def measured(rate: float | None) -> LoadResult:
            generator, log = words.tools / "loadgen", scratch_folder() / "load.log"
            with warm_load(generator, LOAD, rate, port, times, words.load_core, log) as warm:
                return warm.measure()

        rate = measured(None).per_s / 2
        print(json.dumps({"p50_us": measured(rate).p50_us, "rate": rate}))


if __name__ == "__main__":
    main()
