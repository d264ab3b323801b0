"""A C++ and a C program built against the installed package exchange frames with Python."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from framegate import shm

CMAKE = """
cmake_minimum_required(VERSION 3.20)
project(users LANGUAGES C CXX)
find_package(framegate REQUIRED)
add_executable(publish publish.cpp)
target_compile_features(publish PRIVATE cxx_std_20)
target_link_libraries(publish PRIVATE framegate::shm)
add_executable(subscribe subscribe.c)
target_link_libraries(subscribe PRIVATE framegate::shm)
"""

PUBLISH = """
#include <cstring>
#include <framegate/publisher.hpp>

int main() {
    auto topic = framegate::Topic::open("t");
    if (!topic) { return 1; }
    auto publisher = framegate::Publisher::open(*topic, "c++");
    if (!publisher) { return 2; }
    auto loan = publisher->loan(9);
    if (!loan) { return 3; }
    std::memcpy(loan->bytes().data(), "hello c++", 9);
    auto sequence = loan->publish(framegate::FrameInfo(9));
    return sequence && *sequence == 1 ? 0 : 4;
}
"""

SUBSCRIBE = """
#include <stdio.h>
#include <framegate/shm.h>

int main(void) {
    fg_topic* topic = NULL;
    fg_subscriber* subscriber = NULL;
    fg_frame frame;
    if (fg_topic_open("t", 1, &topic) != FG_OK) { return 1; }
    if (fg_subscriber_open(topic, NULL, &subscriber) != FG_OK) { return 2; }
    if (fg_subscriber_take(subscriber, INT64_C(10000000000), &frame) != FG_OK) { return 3; }
    printf("%.*s", (int)frame.bytes, (const char*)frame.data);
    fg_subscriber_release(subscriber, &frame);
    fg_subscriber_close(subscriber);
    fg_topic_close(topic);
    return 0;
}
"""


def test_programs_of_a_cmake_project_exchange_frames_with_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(runtime))
    source = tmp_path / "source"
    source.mkdir()
    (source / "CMakeLists.txt").write_text(CMAKE)
    (source / "publish.cpp").write_text(PUBLISH)
    (source / "subscribe.c").write_text(SUBSCRIBE)
    command = [sys.executable, "-m", "framegate", "topic", "cmake-dir"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    cmake = shutil.which("cmake")
    assert cmake is not None
    build = tmp_path / "build"
    subprocess.run([cmake, "-S", source, "-B", build, f"-Dframegate_DIR={said}"], check=True)
    subprocess.run([cmake, "--build", build], check=True)
    with (
        shm.Topic.create("t", slots=4, slot_bytes=64) as topic,
        topic.subscriber("queue") as subscriber,
        topic.publisher() as publisher,
    ):
        subprocess.run([build / "publish"], check=True, timeout=60)
        frame = subscriber.take(timeout=10)
        assert frame is not None
        assert bytes(frame) == b"hello c++"
        frame.release()
        publisher.send(b"hello c")
        result = subprocess.run([build / "subscribe"], capture_output=True, check=True, timeout=60)
        assert result.stdout == b"hello c"
        # The same program without CMake.
        flags = subprocess.run(
            ["pkg-config", "--cflags", "--libs", "framegate"],
            env={**os.environ, "PKG_CONFIG_PATH": str(Path(said) / "../../pkgconfig")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        plain = tmp_path / "plain"
        subprocess.run(["cc", source / "subscribe.c", "-o", plain, *flags], check=True)
        result = subprocess.run([plain], capture_output=True, check=True, timeout=60)
        assert result.stdout == b"hello c"
    shm.unlink("t")
