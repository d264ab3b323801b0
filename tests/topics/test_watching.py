"""A topic goes to viewers at the pace of each: pictures in one response, events, WebSockets."""

import base64
import contextlib
import io
import itertools
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

import framegate
from server_process import Launch
from server_thread import Serve, Server
from topics.waiting import traced, wait_until

SHAPE = (48, 64, 3)
HEAD = struct.Struct("<BBHIQQd")


async def app(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve(app, topics="/topics")


@pytest.fixture
def camera() -> Iterator[framegate.Publisher]:
    with framegate.Publisher("cam", dtype="uint8", shape=SHAPE, slots=8) as publisher:
        yield publisher


@pytest.fixture
def files() -> Iterator[framegate.Publisher]:
    with framegate.Publisher("files", slots=8, slot_bytes=4 << 20) as publisher:
        yield publisher


def picture(value: int) -> np.ndarray:
    array = np.full(SHAPE, value, np.uint8)
    array[:24] = 255 - value
    return array


def jpeg(value: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture(value)).save(out, "JPEG", quality=95)
    return out.getvalue()


def url(server: Server, rest: str, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{server.port}/topics/{rest}"


def request(server: Server, target: str, *fields: str) -> socket.socket:
    connection = server.connect()
    lines = [f"GET /topics/{target} HTTP/1.1", "Host: 127.0.0.1", *fields]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    return connection


class Stream:
    """The body of a response that does not end, out of its chunks."""

    def __init__(self, connection: socket.socket) -> None:
        self.file = connection.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        self.fields: dict[str, str] = {}
        while line := self.file.readline().strip():
            name, value = line.decode().split(":", 1)
            self.fields[name.lower()] = value.strip()
        self.left = b""

    def more(self) -> bool:
        size = int(self.file.readline(), 16)
        self.left += self.file.read(size)
        self.file.readline()
        return size > 0

    def until(self, mark: bytes) -> bytes:
        while mark not in self.left:
            assert self.more(), self.left
        found, self.left = self.left.split(mark, 1)
        return found

    def exactly(self, count: int) -> bytes:
        while len(self.left) < count:
            assert self.more(), self.left
        found, self.left = self.left[:count], self.left[count:]
        return found


def test_parts_with_a_length_are_whole_without_the_next_one(
    server: Server, camera: framegate.Publisher
) -> None:
    with request(server, "cam?view=mjpeg") as connection:
        stream = Stream(connection)
        assert stream.status == 200
        assert stream.fields["content-type"] == "multipart/x-mixed-replace; boundary=frame"
        assert stream.fields["cache-control"] == "no-store"
        for value in (10, 20, 200):
            sequence = camera.send(picture(value))
            head = stream.until(b"\r\n\r\n").strip().decode().split("\r\n")
            assert head[0] == "--frame" and head[1] == "Content-Type: image/jpeg"
            fields = dict(line.split(": ") for line in head[2:])
            assert int(fields["Frame-Sequence"]) == sequence
            data = stream.exactly(int(fields["Content-Length"]))
            shown = np.asarray(Image.open(io.BytesIO(data)))
            assert shown.shape == SHAPE and abs(int(shown[40, 40, 0]) - value) <= 2
            assert stream.exactly(2) == b"\r\n"


def test_img_gets_the_head_of_the_next_part_with_each_picture(
    server: Server, files: framegate.Publisher
) -> None:
    accept = "Accept: image/avif,image/webp,*/*;q=0.8"
    with request(server, "files?view=mjpeg", accept) as connection:
        stream = Stream(connection)
        mark = b"--frame\r\nContent-Type: image/jpeg\r\n\r\n"
        assert stream.until(mark) == b""
        for value in (10, 20):
            files.send(jpeg(value), content_type="image/jpeg")
            # The frame is a JPEG: it goes out as it is.
            assert stream.until(b"\r\n" + mark) == jpeg(value)


def test_framing_can_be_said(server: Server, files: framegate.Publisher) -> None:
    with request(server, "files?view=mjpeg&framing=announced") as connection:
        assert Stream(connection).until(b"\r\n\r\n").startswith(b"--frame")
    files.send(jpeg(3), content_type="image/jpeg")
    target = "files?view=mjpeg&framing=length"
    with request(server, target, "Accept: image/*") as connection:
        assert b"Content-Length" in Stream(connection).until(b"\r\n\r\n")
    answer = httpx.get(url(server, "files?view=mjpeg&framing=other"))
    assert answer.status_code == 400 and answer.json()["code"] == "query"


def test_latest_is_a_picture_in_the_size_that_is_asked_for(
    server: Server, camera: framegate.Publisher
) -> None:
    camera.send(picture(100))
    for name, mode in [("jpeg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")]:
        answer = httpx.get(url(server, f"cam?view=latest&format={name}&width=32"))
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == f"image/{name}"
        image = Image.open(io.BytesIO(answer.content))
        assert image.format == mode and image.size == (32, 24)
        again = httpx.get(
            url(server, f"cam?view=latest&format={name}&width=32"),
            headers={"if-none-match": answer.headers["etag"]},
        )
        assert again.status_code == 304
        other = httpx.get(
            url(server, f"cam?view=latest&format={name}&width=16"),
            headers={"if-none-match": answer.headers["etag"]},
        )
        assert other.status_code == 200
    answer = httpx.get(url(server, "cam?view=latest&format=jpeg&quality=101"))
    assert answer.status_code == 400 and "1 to 100" in answer.json()["detail"]


def test_seventeenth_setting_of_a_frame_is_503_until_the_next_frame(
    server: Server, camera: framegate.Publisher
) -> None:
    def ask(quality: int) -> httpx.Response:
        return httpx.get(url(server, f"cam?view=latest&format=jpeg&quality={quality}"))

    camera.send(picture(100))
    for quality in range(1, 17):
        assert ask(quality).status_code == 200
    refused = ask(17)
    assert (refused.status_code, refused.json()["code"]) == (503, "pictures-busy")
    assert refused.headers["retry-after"] == "1"
    assert ask(16).status_code == 200  # it is made already
    camera.send(picture(100))
    assert ask(17).status_code == 200


def test_frame_that_is_no_picture_says_so(server: Server, files: framegate.Publisher) -> None:
    files.send(b"abc")
    for view in ("view=latest&format=jpeg", "view=mjpeg"):
        answer = httpx.get(url(server, f"files?{view}"))
        assert answer.status_code == 422 and answer.json()["code"] == "no-picture"


def test_picture_over_the_limit_is_refused(
    serve: Serve, camera: framegate.Publisher, files: framegate.Publisher
) -> None:
    server = serve(app, topics="/topics", topics_pixels_max=48 * 64 - 1)
    camera.send(picture(1))
    files.send(jpeg(1), content_type="image/jpeg")
    for topic in ("cam", "files"):
        answer = httpx.get(url(server, f"{topic}?view=latest&format=png"))
        assert answer.status_code == 422
        assert "topics_pixels_max" in answer.json()["detail"]


def picture_threads() -> int:
    names = [comm.read_text().strip() for comm in Path("/proc/self/task").glob("*/comm")]
    return names.count("framegate-pics")


def test_pictures_are_made_by_threads(serve: Serve) -> None:
    before = picture_threads()
    serve(app, topics="/topics", topics_picture_threads=3)
    while picture_threads() < before + 3:  # each names itself
        time.sleep(0.01)
    assert picture_threads() == before + 3


def test_events_say_what_frames_are(server: Server, camera: framegate.Publisher) -> None:
    with request(server, "cam?view=sse") as connection:
        stream = Stream(connection)
        assert stream.fields["content-type"] == "text/event-stream"
        for value in (1, 2):
            sequence = camera.send(picture(value), timestamp=1.5)
            lines = stream.until(b"\n\n").decode().split("\n")
            assert lines[0] == f"id: {sequence}"
            said = json.loads(lines[1].removeprefix("data: "))
            assert said["sequence"] == sequence and said["timestamp"] == 1.5
            assert said["dtype"] == "uint8" and said["shape"] == list(SHAPE)
            assert said["bytes"] == 48 * 64 * 3


def frame_of(message: str | bytes) -> tuple[int, int, float, dict[str, Any] | None, bytes]:
    assert isinstance(message, bytes), message
    version, kind, begin, flags, sequence, _, timestamp = HEAD.unpack_from(message)
    assert version == 1 and (flags == 1) == (begin > 32)
    extension = json.loads(message[32:begin]) if flags else None
    return kind, sequence, timestamp, extension, message[begin:]


def ack(sequence: int) -> bytes:
    return struct.pack("<BQ", 1, sequence)


def test_viewer_gets_the_newest_frame_after_each_acknowledgement(
    server: Server, camera: framegate.Publisher
) -> None:
    with connect(url(server, "cam", "ws"), max_size=None) as viewer:
        first = camera.send(picture(1), timestamp=2.5)
        kind, sequence, timestamp, extension, payload = frame_of(viewer.recv(timeout=20))
        assert (kind, sequence, timestamp) == (0, first, 2.5)
        assert extension == {"dtype": "uint8", "shape": list(SHAPE)}
        assert payload == picture(1).tobytes()
        camera.send(picture(2))
        newest = camera.send(picture(3))
        viewer.send(ack(first))
        _, sequence, timestamp, extension, payload = frame_of(viewer.recv(timeout=20))
        assert sequence == newest and extension is None and np.isnan(timestamp)
        assert payload == picture(3).tobytes()
        last = camera.send(picture(4))
        viewer.send(json.dumps({"ack": newest}))
        assert frame_of(viewer.recv(timeout=20))[1] == last


def test_viewer_gets_pictures(server: Server, camera: framegate.Publisher) -> None:
    camera.send(picture(50))
    target = url(server, "cam?format=jpeg&width=32&policy=unasked", "ws")
    with connect(target, max_size=None) as viewer:
        kind, _, _, extension, payload = frame_of(viewer.recv(timeout=20))
        assert kind == 1 and extension == {"content_type": "image/jpeg"}
        assert Image.open(io.BytesIO(payload)).size == (32, 24)
        # Nobody has to ask for the next one.
        sequence = camera.send(picture(60))
        assert frame_of(viewer.recv(timeout=20))[1] == sequence


def test_what_a_websocket_publishes_is_a_frame(server: Server, camera: framegate.Publisher) -> None:
    target = url(server, "cam?mode=publish&dtype=uint8&shape=48,64,3", "ws")
    with (
        framegate.Subscriber("cam") as subscriber,
        connect(target, max_size=None) as publisher,
    ):
        for value in (1, 2, 3):
            head = HEAD.pack(1, 0, 32, 0, 0, 0, 0.5 * value)
            publisher.send(head + picture(value).tobytes())
            answer = publisher.recv(timeout=20)
            with subscriber.take(timeout=20) as frame:
                assert (np.asarray(frame) == picture(value)).all()
                assert frame.timestamp == 0.5 * value
                assert answer == ack(frame.sequence)
        # Too short for the schema: refused, and the next one is taken.
        publisher.send(HEAD.pack(1, 0, 32, 0, 0, 0, 0.0) + b"short")
        problem = json.loads(publisher.recv(timeout=20))
        assert problem["code"] == "frame-length"
        publisher.send(HEAD.pack(1, 0, 32, 0, 0, 0, 0.0) + picture(9).tobytes())
        assert publisher.recv(timeout=20) == ack(4)
        # In fragments, as browsers send what is large: wherever they are cut.
        whole = HEAD.pack(1, 0, 32, 0, 0, 0, 0.0) + picture(7).tobytes()
        for number, cuts in enumerate(((0, 5), (32,), (40, 41), (10, 32, 60)), start=5):
            places = [0, *cuts, len(whole)]
            publisher.send([whole[a:b] for a, b in itertools.pairwise(places)])
            assert publisher.recv(timeout=20) == ack(number)
            with subscriber.take(timeout=20) as frame:
                assert (np.asarray(frame) == picture(7)).all()
        publisher.send([whole[:40], whole[40:50]])
        assert json.loads(publisher.recv(timeout=20))["code"] == "frame-length"
        publisher.send(whole)
        assert publisher.recv(timeout=20) == ack(9)


@pytest.mark.parametrize(
    "message",
    [
        b"x",
        "hello",
        "x" * 65,
        HEAD.pack(2, 0, 32, 0, 0, 0, 0.0),
        HEAD.pack(1, 0, 33, 0, 0, 0, 0.0),
        bytes(100),
    ],
)
def test_message_that_means_nothing_ends_the_websocket(
    server: Server, camera: framegate.Publisher, message: str | bytes
) -> None:
    with connect(url(server, "cam?mode=both", "ws"), max_size=None) as peer:
        peer.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                peer.recv(timeout=20)
        assert closed.value.rcvd is not None and closed.value.rcvd.code in (1002, 1009)


def test_viewers_are_counted_and_leave_at_once(serve: Serve, camera: framegate.Publisher) -> None:
    server = serve(app, topics="/topics", topics_viewers=2)
    camera.send(picture(1))
    with connect(url(server, "cam", "ws"), max_size=None) as one:
        one.recv(timeout=20)
        with request(server, "cam?view=mjpeg") as other:
            assert Stream(other).status == 200
            for view in ("mjpeg", "sse"):
                answer = httpx.get(url(server, f"cam?view={view}"))
                assert answer.status_code == 503
                assert answer.json()["code"] == "viewers-exhausted"
                assert answer.headers["retry-after"]
            with pytest.raises(InvalidStatus):
                connect(url(server, "cam", "ws"))
            # Who publishes only takes no place; nor does who looks once.
            with connect(url(server, "cam?mode=publish&dtype=uint8&shape=48,64,3", "ws")):
                pass
            assert httpx.get(url(server, "cam?view=latest")).status_code == 200
    for _ in range(1000):
        with request(server, "cam?view=sse") as connection:
            if Stream(connection).status == 200:
                break
    else:
        pytest.fail("places are not given back")


def test_unknown_topic_is_404_for_all_ways_of_watching(server: Server) -> None:
    for view in ("mjpeg", "sse"):
        assert httpx.get(url(server, f"none?view={view}")).status_code == 404
    with pytest.raises(InvalidStatus) as refused:
        connect(url(server, "none", "ws"))
    assert refused.value.response.status_code == 404


UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)
WAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mjpeg": ("files?view=mjpeg", ()),
    "latest": ("files?view=latest", ()),
    "websocket": ("files?policy=unasked", UPGRADE),
    "queue": ("files?policy=queue&queue=3", UPGRADE),
}


@pytest.mark.parametrize("way", WAYS)
def test_viewers_that_stop_in_mid_frame_delay_nobody(
    serve_either: Serve, files: framegate.Publisher, way: str
) -> None:
    """100 viewers of 3 MB frames read a few bytes and stop, each at another frame; slots are 8."""
    payload = bytes(range(256)) * (3 << 12)
    server = serve_either(app, topics="/topics")
    target, fields = WAYS[way]
    if way == "mjpeg":
        payload = b"\xff\xd8" + payload  # whatever it is, it goes out as it is
    stopped = []
    for number in range(100):
        if number % 10 == 0 and way != "queue":
            files.send(payload, content_type="image/jpeg", timeout=20)
        connection = request(server, target, *fields)
        if way == "queue":
            # What was there before it is not in its queue.
            while b"\r\n\r\n" not in connection.recv(1000, socket.MSG_PEEK):
                pass
            if number % 10 == 0:
                files.send(payload, content_type="image/jpeg", timeout=20)
        received = b""
        while len(received) < (100 if way == "queue" else 1000):
            received += connection.recv(1000)
        stopped.append(connection)
    # The others see each frame of many more than there are slots, one by one.
    with connect(url(server, "files", "ws"), max_size=None) as viewer:
        shown = frame_of(viewer.recv(timeout=60))[1]
        for _ in range(20):
            sequence = files.send(payload, content_type="image/jpeg", timeout=20)
            viewer.send(ack(shown))
            _, shown, _, _, got = frame_of(viewer.recv(timeout=60))
            assert shown == sequence and got == payload
    # And what the slow ones get in the end is the frame that they began.
    if way == "latest":
        for connection in stopped[::10]:
            stream = connection.makefile("rb")
            rest = stream.read(len(payload) - 4000)
            assert rest in payload + payload
    for connection in stopped:
        connection.close()


@pytest.mark.parametrize("way", ["mjpeg", "websocket", "queue"])
def test_viewer_that_takes_nothing_for_the_write_timeout_is_cut(
    serve_either: Serve, files: framegate.Publisher, way: str
) -> None:
    """Others, who take a little now and then for longer than that, are not."""
    frame = b"\xff\xd8" + bytes(range(256)) * (3 << 12)
    target, fields = WAYS[way]
    cut = serve_either(app, topics="/topics", topics_viewers=1, timeout_write=0.3)

    def begin(server: Server) -> socket.socket:
        connection = socket.socket()
        # What the kernels take of a frame is little of it, so that every read makes room.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.settimeout(30)
        connection.connect((server.host, server.port))
        lines = [f"GET /topics/{target} HTTP/1.1", "Host: 127.0.0.1", *fields]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return connection

    def frames_follow(connection: socket.socket) -> None:
        """Send more than the kernels take, when the head is there: a queue has what comes then."""
        while b"\r\n\r\n" not in connection.recv(1000, socket.MSG_PEEK):
            pass
        for _ in range(3):
            files.send(frame, content_type="image/jpeg", timeout=20)

    files.send(frame, content_type="image/jpeg", timeout=20)
    with begin(cut) as stopped:
        frames_follow(stopped)
        received = len(stopped.recv(1000))
        # The place is another's then.
        wait_until(lambda: is_seated(cut))
        with contextlib.suppress(ConnectionResetError):
            while piece := stopped.recv(1 << 20):
                received += len(piece)
        assert received < 2 * len(frame)
    # With places for all: that of the one who asked above may not be free yet.
    # A second: a reader that a busy machine lets wait is not one that takes nothing.
    with begin(serve_either(app, topics="/topics", timeout_write=1)) as slow:
        frames_follow(slow)
        received, begun = 0, time.monotonic()
        pause = threading.Event()
        while time.monotonic() - begun < 2.4:
            received += len(slow.recv(1 << 16))
            pause.wait(0.1)  # the pace of its link
        while received < len(frame):
            piece = slow.recv(1 << 20)
            assert piece, "a viewer that reads was cut"
            received += len(piece)


def test_reader_of_events_that_takes_nothing_for_the_write_timeout_is_cut(
    serve_either: Serve, files: framegate.Publisher
) -> None:
    server = serve_either(app, topics="/topics", topics_viewers=1, timeout_write=0.3)
    with socket.socket() as stopped:
        stopped.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        stopped.settimeout(30)
        stopped.connect((server.host, server.port))
        stopped.sendall(b"GET /topics/files?view=sse HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        while b"\r\n\r\n" not in stopped.recv(1000, socket.MSG_PEEK):
            pass
        assert not is_seated(server)

        def is_cut() -> bool:
            # Events are small: it takes many until the kernels have no room for one more.
            for _ in range(200):
                files.send(b"x", content_type="text/plain", timeout=20)
            return is_seated(server)

        wait_until(is_cut)


def is_seated(server: Server) -> bool:
    """Whether there is a place for a viewer."""
    with request(server, "files?view=sse") as connection:
        return Stream(connection).status == 200


def test_frames_are_leased_while_they_are_sent_only(
    server: Server, camera: framegate.Publisher
) -> None:
    with connect(url(server, "cam", "ws"), max_size=None) as viewer:
        shown = camera.send(picture(0))
        for value in range(30):
            frame_of(viewer.recv(timeout=20))
            viewer.send(ack(shown))
            # All slots can be had: nothing is held by who waits.
            shown = camera.send(picture(value), timeout=20)
        with contextlib.ExitStack() as loans:
            for _ in range(6):
                loans.enter_context(camera.loan(timeout=20))


def test_many_viewers_of_one_topic_see_each_frame(
    server: Server, camera: framegate.Publisher
) -> None:
    with contextlib.ExitStack() as stack:
        target = url(server, "cam?format=jpeg", "ws")
        viewers = [stack.enter_context(connect(target, max_size=None)) for _ in range(30)]
        for value in range(5):
            sequence = camera.send(picture(value))
            got = [frame_of(viewer.recv(timeout=20)) for viewer in viewers]
            assert {frame[1] for frame in got} == {sequence}
            assert len({frame[4] for frame in got}) == 1
            for viewer in viewers:
                viewer.send(ack(sequence))


def test_viewers_on_the_loop_are_woken_by_the_frame_alone(
    launch: Launch, runtime: Path, tmp_path: Path, files: framegate.Publisher
) -> None:
    """Not from the thread of the frames, and not each by itself: each of those is a system call."""
    viewers, frames, calls = 40, 20, tmp_path / "calls"
    words = ("--topics", "/topics", "--port", "0", "--no-access-log")
    server = launch(
        "topics.blocking_app:app",
        *words,
        extra={"FRAMEGATE_RUNTIME_DIR": str(runtime)},
        through=traced(calls),
    ).wait_ready()
    with contextlib.ExitStack() as stack:
        ask = b"GET /topics/files?view=mjpeg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        streams = []
        for _ in range(viewers):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            connection.sendall(ask)
            streams.append(Stream(connection))

        def show(value: int) -> None:
            data = jpeg(value)
            files.send(data, content_type="image/jpeg")
            for stream in streams:
                stream.until(b"\r\n\r\n")
                assert stream.exactly(len(data) + 2) == data + b"\r\n"

        # Where another thread's call came in between, `8 <unfinished ...>`: its end shows no bytes.
        wake = re.compile(r'"\\1(\\0){7}", 8[) ]')

        def wakes() -> int:
            return sum(bool(wake.search(line)) for line in calls.read_text().splitlines())

        show(0)
        # To open the topic and to begin took some.
        before = wakes()
        assert before > 0
        for value in range(1, frames + 1):
            show(value)
        assert wakes() - before < frames / 2
        for stream in streams:
            stream.file.close()
    server.stop()


@pytest.mark.parametrize("way", ["loop", "thread of the frames"])
def test_nobody_looks_at_frames_that_nobody_watches(
    launch: Launch, runtime: Path, tmp_path: Path, files: framegate.Publisher, way: str
) -> None:
    """Although they go on coming, and the newest one is asked for now and then."""
    calls = tmp_path / "calls"
    words = ("--topics", "/topics", "--port", "0", "--no-access-log")
    extra = {"FRAMEGATE_RUNTIME_DIR": str(runtime)}
    server = launch(
        "topics.blocking_app:app", *words, extra=extra, through=traced(calls)
    ).wait_ready()
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}/topics") as client:

        def looks() -> int:
            """How often a wake was taken while frames came, each with time for that."""
            before = calls.read_text().count("recvmmsg(")
            for value in range(20):
                files.send(jpeg(value), content_type="image/jpeg")
                assert client.get("/files?view=latest").status_code == 200
            return calls.read_text().count("recvmmsg(") - before

        files.send(jpeg(1), content_type="image/jpeg")
        if way == "loop":
            with client.stream("GET", "/files?view=mjpeg") as viewer:
                next(viewer.iter_raw())
                wait_until(lambda: looks() > 5)
        else:
            with connect(f"ws://127.0.0.1:{server.port}/topics/files", max_size=None) as peer:
                peer.recv(timeout=20)
                wait_until(lambda: looks() > 5)
        wait_until(lambda: looks() == 0)


def bearer(token: str) -> str:
    """The subprotocol by which a browser shows a token."""
    return "framegate.bearer." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


VIEWER, ROBOT = "viewer-viewer-viewer", "robot-robot-robot-robot"


@pytest.mark.parametrize(
    ("who", "mode", "status"),
    [
        ({"origin": "http://evil.example"}, "subscribe", 401),
        ({"origin": "null"}, "subscribe", 401),
        ({"name": "evil.example"}, "subscribe", 401),
        ({"additional_headers": {"X-Forwarded-For": "192.0.2.1"}}, "subscribe", 401),
        ({}, "both", 101),
        ({"subprotocols": ["framegate.v1", bearer("wrong-wrong-wrong-wrong")]}, "subscribe", 401),
        ({"subprotocols": ["framegate.v1", bearer(VIEWER)]}, "subscribe", 101),
        ({"subprotocols": ["framegate.v1", bearer(VIEWER)]}, "publish", 403),
        ({"subprotocols": ["framegate.v1", bearer(VIEWER)]}, "both", 403),
        ({"subprotocols": ["framegate.v1", bearer(ROBOT)]}, "subscribe", 403),
        ({"additional_headers": {"Authorization": f"Bearer {ROBOT}"}}, "publish", 101),
    ],
)
def test_websocket_may_do_what_its_client_may(
    serve_either: Serve, camera: framegate.Publisher, who: dict[str, Any], mode: str, status: int
) -> None:
    tokens = {
        "viewer": {"token": VIEWER, "read": ["cam"]},
        "robot": {"token": ROBOT, "publish": ["cam"]},
    }
    server = serve_either(app, topics="/topics", topics_tokens=tokens)
    options = dict(who)
    name = options.pop("name", "127.0.0.1")  # by which the client knows the server
    url = f"ws://{name}:{server.port}/topics/cam?mode={mode}&dtype=uint8&shape=48,64,3"
    options["sock"] = server.connect()
    if status == 101:
        with connect(url, **options) as websocket:
            # The subprotocol with the token is never the one that is chosen.
            assert websocket.subprotocol == ("framegate.v1" if "subprotocols" in who else None)
        return
    with pytest.raises(InvalidStatus) as refused:
        connect(url, **options)
    assert refused.value.response.status_code == status
