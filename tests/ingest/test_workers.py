"""All workers of a server publish into the same topics, also across the death of one."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import framegate


def post(url: str, body: bytes) -> dict[str, int]:
    # A new connection each time: which worker takes it is the kernel's choice.
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=20) as response:
        answer: dict[str, int] = json.load(response)
        return answer


def test_workers_share_a_topic_and_the_death_of_one_loses_nothing(runtime: Path) -> None:
    command = [sys.executable, "-m", "framegate", "serve", "small_camera:app"]
    command += ["--app-dir", str(Path(__file__).parent), "--port", "0", "--workers", "2"]
    process = subprocess.Popen(
        command,
        env={**os.environ, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        url = ""
        for line in process.stdout:
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            url = found[0] + "/frames" if found else url
            if "ready" in line and url:
                break
        sequences: list[int] = []
        pids: set[int] = set()
        while len(pids) < 2:
            answer = post(url, b"abcd")
            sequences.append(answer["sequence"])
            pids.add(answer["pid"])
            assert len(sequences) < 500, "one worker takes everything"

        with framegate.Subscriber("camera/small", policy="latest") as subscriber:
            os.kill(pids.pop(), signal.SIGKILL)
            survivors = 0
            while survivors < 20:
                try:
                    answer = post(url, b"wxyz")
                except (urllib.error.URLError, ConnectionError):
                    continue  # it was on its way to the worker that died
                sequences.append(answer["sequence"])
                survivors += 1
            frame = subscriber.take(timeout=5)
            assert frame is not None
            with frame:
                assert bytes(frame) == b"wxyz"
        # One topic, one count: every frame has a sequence of its own, in the order of publication.
        assert sequences == sorted(set(sequences))
        process.terminate()
        assert process.wait(timeout=40) == 0
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
    assert not [path for path in runtime.iterdir() if "runtime" in path.name]
