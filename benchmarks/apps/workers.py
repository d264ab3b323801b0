"""CPU time of a request to one worker on one core, or to two on two.

`workers.py SERVER --bin FOLDER --tools FOLDER one|two --cores S,L --seconds T` prints one line of
JSON. The load has no core of its own beside two workers, so each is asked for far less than it can
do.
"""

import json

from framegate_bench import servers
from framegate_bench.loadgen import Times, warm_load
from framegate_bench.own_server import read_words, scratch_folder, serving, session_pss
from framegate_bench.procfs import session_usage

WORKERS = {"one": 1, "two": 2}
SERVERS = {count: servers.by_asgi("hello_app:app", workers=count) for count in WORKERS.values()}
LOAD = ("http", "--path", "/", "--conns", "64")
RATE_PER_WORKER = 10_000.0


def main() -> None:
    """Measure, print the numbers."""
    words = read_words(__doc__, SERVERS[1], WORKERS)
    workers = WORKERS[words.kind]
    cores = ("taskset", "--cpu-list", words.cores) if workers > 1 else ()
    times = Times(words.seconds, warmup_s=0.5)
    with serving(SERVERS[workers][words.server], words, cores) as (session, port):
        generator, log = words.tools / "loadgen", scratch_folder() / "load.log"
        rate = workers * RATE_PER_WORKER
        with warm_load(generator, LOAD, rate, port, times, words.load_core, log) as warm:
            before = session_usage(session)
            found = warm.measure()
            used = session_usage(session) - before
        answer = {
            "cpu_us": used.cpu_s / found.completed * 1e6,
            "kept_percent": 100 * found.per_s / rate,
            "mib": session_pss(session) / 2**20,
        }
        print(json.dumps(answer))


if __name__ == "__main__":
    main()
