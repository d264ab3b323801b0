"""The benchmarks' reading of /proc: CPU time, context switches, the processes of a session."""

import os
import subprocess
import sys

import pytest
from framegate_bench import procfs

STAT = (
    "4242 (a (strange) name) S 1 4240 4239 0 -1 4194560 1000 0 0 0 "
    "150 25 0 0 20 0 3 0 100 1000000 500 18446744073709551615 0 0 0 0"
)
CPUS = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 100 1 50 900 5 2 3 7 0 0\ncpu1 1 1 1 1 1 1 1 1 0 0\nintr 5\n"


def test_stat_is_read_behind_a_name_with_brackets() -> None:
    ticks = procfs.TICKS_PER_S
    expected = procfs.ProcessStat(
        pid=4242, is_zombie=False, session=4239, user_s=150 / ticks, system_s=25 / ticks
    )
    assert procfs.parse_stat(STAT) == expected
    assert procfs.parse_stat(STAT.replace(") S ", ") Z ")).is_zombie


def test_voluntary_switches_are_not_the_involuntary_ones() -> None:
    text = "Name:\tx\nvoluntary_ctxt_switches:\t17\nnonvoluntary_ctxt_switches:\t4\n"
    assert procfs.parse_voluntary_switches(text) == 17


def test_busy_and_stolen_time_of_a_core() -> None:
    ticks = procfs.TICKS_PER_S
    busy = (100 + 1 + 50 + 2 + 3) / ticks
    assert procfs.parse_core(CPUS, 0) == procfs.CoreTime(busy, 7 / ticks)
    with pytest.raises(ValueError, match="core 5"):
        procfs.parse_core(CPUS, 5)


def test_the_clock_of_another_process_moves_only_when_it_works() -> None:
    # It works for a while on each line it is sent, and has a child of its own in the session.
    program = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
        "print(child.pid, flush=True)\n"
        "for line in sys.stdin:\n"
        "    sum(range(3_000_000))\n"
        "    time.sleep(0.001)\n"
        "    print('done', flush=True)\n"
        "child.communicate(b'end')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        child = int(process.stdout.readline())
        assert sorted(procfs.session_pids(process.pid)) == sorted([process.pid, child])
        before = procfs.process_usage(process.pid)
        session_before = procfs.session_usage(process.pid)
        process.stdin.write("work\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
        used = procfs.process_usage(process.pid) - before
        session_used = procfs.session_usage(process.pid) - session_before
        process.stdin.close()
        assert process.wait() == 0
    assert used.cpu_s > 0.001
    assert used.voluntary_switches >= 1
    assert session_used.cpu_s >= used.cpu_s - 1e-9  # sums of floats, in another order
    assert procfs.process_usage(process.pid) == procfs.NOTHING
    assert procfs.session_pids(process.pid) == []


def test_our_own_core_has_worked() -> None:
    core = min(os.sched_getaffinity(0))
    assert procfs.core_time(core).busy_s > 0
