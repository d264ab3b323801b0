"""The ways to hand bytes to another process of the machine, behind two methods for each side.

A transport is made in the reading process with `role="read"`, which says by `address` how the
writing process makes its end. `send()` copies the data in and wakes the reader; `receive()` blocks
until it holds the bytes (without a copy where the transport can) and `release()` gives them back.
`cycle()` does both ends in one process without any layer of ours between the calls.

Each is in its defaults, by the fastest calls that its documentation has.
"""

import contextlib
import ctypes
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing import connection, resource_tracker, shared_memory
from typing import Any

SLOTS = 8
FULL_STREAM_BYTES = 1 << 20


def unique() -> str:
    """A name that no other run has."""
    return f"bench-{os.getpid()}-{time.monotonic_ns()}"


class Transport:
    """What every transport has; subclasses say how."""

    inherits: tuple[int, ...] = ()
    """Descriptors that the writing process gets."""
    is_blocking = True
    """Whether `receive()` sleeps; otherwise it takes a whole core."""

    def __init__(self, role: str, size: int, address: Any) -> None:
        self.size = size
        self.address = address

    def send(self, data: bytes) -> None:
        """Publish a copy of the data."""
        raise NotImplementedError

    def receive(self) -> Any:
        """Block until there is data; something that holds it."""
        raise NotImplementedError

    def view(self, held: Any) -> Any:
        """The bytes of it."""
        return held

    def release(self, held: Any) -> None:
        """Give it back."""

    def connected(self) -> None:
        """Called in the reading process once the writing process is there."""

    def close(self) -> None:
        """The end."""

    @classmethod
    def cycle(cls, kind: str, size: int, source: bytes) -> Callable[[int], None]:
        """A function that does `send`, or send and receive and release, so many times."""
        raise NotImplementedError


class Framegate(Transport):
    """framegate, policy latest, which is the default."""

    spin = 0.0

    def __init__(self, role: str, size: int, address: Any) -> None:
        import framegate

        super().__init__(role, size, address or unique())
        name = self.address
        if role == "read":
            self.topic = framegate.shm.Topic.create(name, slot_bytes=size)
            self.subscriber = self.topic.subscriber("latest", spin=self.spin)
            self.receive = self.subscriber.take
        else:
            self.publisher = framegate.Publisher(name)
            self.send = self.publisher.send

    def view(self, held: Any) -> Any:
        return memoryview(held)

    def release(self, held: Any) -> None:
        held.release()

    @classmethod
    def cycle(cls, kind: str, size: int, source: bytes) -> Callable[[int], None]:
        import framegate

        topic = framegate.shm.Topic.create(unique(), slot_bytes=size)
        publisher = topic.publisher()
        send = publisher.send
        if kind == "send":

            def run(times: int) -> None:
                for _ in range(times):
                    send(source)

            return run
        subscriber = topic.subscriber("latest")
        take = subscriber.take
        if kind == "empty":

            def run(times: int) -> None:
                for _ in range(times):
                    take(timeout=0)

            return run
        if kind == "cycle":

            def run(times: int) -> None:
                for _ in range(times):
                    send(source)
                    take().release()

            return run

        def run(times: int) -> None:
            for _ in range(times):
                send(source)
                frame = take()
                view = memoryview(frame)
                del view, frame

        return run


class FramegateSpin(Framegate):
    """The same, and the subscriber looks for a millisecond before it sleeps."""

    spin = 0.001


class Iceoryx2(Transport):
    """iceoryx2: publish and subscribe, and its event service to wake."""

    def __init__(self, role: str, size: int, address: Any) -> None:
        import iceoryx2

        super().__init__(role, size, address or unique())
        self.is_reader = role == "read"
        node, payload, service = self._service(iceoryx2, self.address, size)
        event = (
            node.service_builder(iceoryx2.ServiceName.new(f"{self.address}-wake"))
            .event()
            .open_or_create()
        )
        self.keep = (node, service, event, payload)
        if self.is_reader:
            self.subscriber = service.subscriber_builder().create()
            self.listener = event.listener_builder().create()
        else:
            self.publisher = service.publisher_builder().create()
            self.notifier = event.notifier_builder().create()

    @staticmethod
    def _service(iceoryx2: Any, name: str, size: int) -> tuple[Any, Any, Any]:
        iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
        node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
        fields = [("data", ctypes.c_uint8 * size)]
        payload = type("Payload", (ctypes.Structure,), {"_fields_": fields})
        service = (
            node.service_builder(iceoryx2.ServiceName.new(name))
            .publish_subscribe(payload)
            .open_or_create()
        )
        return node, payload, service

    def send(self, data: bytes) -> None:
        sample = self.publisher.loan_uninit()
        ctypes.memmove(sample.payload_ptr, data, self.size)
        sample.assume_init().send()
        self.notifier.notify()

    def receive(self) -> Any:
        while True:
            if (sample := self.subscriber.receive()) is not None:
                return sample
            self.listener.blocking_wait()

    def view(self, held: Any) -> Any:
        return memoryview(held.payload().contents).cast("B")

    def release(self, held: Any) -> None:
        held.delete()

    @classmethod
    def cycle(cls, kind: str, size: int, source: bytes) -> Callable[[int], None]:
        import iceoryx2

        node, _, service = cls._service(iceoryx2, unique(), size)
        publisher = service.publisher_builder().create()
        loan, move = publisher.loan_uninit, ctypes.memmove
        if kind == "send":

            def run(times: int, keep: Any = (node, service)) -> None:
                for _ in range(times):
                    sample = loan()
                    move(sample.payload_ptr, source, size)
                    sample.assume_init().send()

            return run
        subscriber = service.subscriber_builder().create()
        receive = subscriber.receive
        if kind == "empty":

            def run(times: int, keep: Any = (node, service)) -> None:
                for _ in range(times):
                    receive()

            return run
        if kind == "cycle":

            def run(times: int, keep: Any = (node, service)) -> None:
                for _ in range(times):
                    sample = loan()
                    move(sample.payload_ptr, source, size)
                    sample.assume_init().send()
                    receive().delete()

            return run

        def run(times: int, keep: Any = (node, service)) -> None:
            for _ in range(times):
                sample = loan()
                move(sample.payload_ptr, source, size)
                sample.assume_init().send()
                taken = receive()
                view = memoryview(taken.payload().contents)
                del view
                taken.delete()

        return run


class Iceoryx2Spin(Iceoryx2):
    """The same, and the subscriber never sleeps; the publisher wakes nobody."""

    is_blocking = False

    def send(self, data: bytes) -> None:
        sample = self.publisher.loan_uninit()
        ctypes.memmove(sample.payload_ptr, data, self.size)
        sample.assume_init().send()

    def receive(self) -> Any:
        receive = self.subscriber.receive
        while (sample := receive()) is None:
            pass
        return sample


class Shmx(Transport):
    """shmx, whose reader can only poll."""

    is_blocking = False

    def __init__(self, role: str, size: int, address: Any) -> None:
        import shmx

        super().__init__(role, size, address or unique())
        self.last = 0
        if role == "read":
            self.client = shmx.Client()
        else:
            self.server = self._server(shmx, self.address, size)

    @staticmethod
    def _server(shmx: Any, name: str, size: int) -> Any:
        server = shmx.Server()
        stream = shmx.create_stream_spec(1, "data", shmx.DT_U8, 1, 1)
        if not server.create(name, frame_bytes_cap=size + 4096, streams=[stream]):
            sys.exit("shmx: the server could not be created")
        return server

    def connected(self) -> None:
        if not self.client.open(self.address):
            sys.exit("shmx: the client could not open the region")

    def send(self, data: bytes) -> None:
        frame = self.server.begin_frame()
        self.server.append_stream(frame, 1, data, self.size)
        self.server.publish_frame(frame, 0.0)

    def receive(self) -> Any:
        latest = self.client.get_latest_frame
        while True:
            frame = latest()
            if frame is not None:
                sequence = frame["__metadata__"]["frame_id"]
                if sequence != self.last:
                    self.last = sequence
                    return frame["data"]["data"]

    def close(self) -> None:
        if hasattr(self, "client"):
            self.client.close()
        else:
            self.server.destroy()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"/dev/shm/{self.address}")

    @classmethod
    def cycle(cls, kind: str, size: int, source: bytes) -> Callable[[int], None]:
        import shmx

        name = unique()
        server = cls._server(shmx, name, size)
        client = shmx.Client()
        if not client.open(name):
            sys.exit("shmx: the client could not open the region")
        os.unlink(f"/dev/shm/{name}")
        begin, append = server.begin_frame, server.append_stream
        publish, latest = server.publish_frame, client.get_latest_frame
        if kind == "send":

            def run(times: int) -> None:
                for _ in range(times):
                    frame = begin()
                    append(frame, 1, source, size)
                    publish(frame, 0.0)

            return run
        if kind == "empty":

            def run(times: int) -> None:
                for _ in range(times):
                    latest()

            return run

        # The frame is a dict of memoryviews: there is nothing to release, and always a view.
        def run(times: int) -> None:
            for _ in range(times):
                frame = begin()
                append(frame, 1, source, size)
                publish(frame, 0.0)
                latest()

        return run


class Zmq(Transport):
    """pyzmq, PUSH to PULL over ipc, with copies."""

    without_copies = False

    def __init__(self, role: str, size: int, address: Any) -> None:
        import zmq

        super().__init__(role, size, address or f"ipc://{os.environ['BENCH_FOLDER']}/zmq")
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.PULL if role == "read" else zmq.PUSH)
        self.socket.linger = 0
        self.copy = not self.without_copies
        if role == "read":
            self.socket.bind(self.address)
        else:
            self.socket.connect(self.address)

    def send(self, data: bytes) -> None:
        self.socket.send(data, copy=self.copy)

    def receive(self) -> Any:
        return self.socket.recv(copy=self.copy)

    def view(self, held: Any) -> Any:
        return held if self.copy else held.buffer

    def close(self) -> None:
        self.context.destroy(linger=0)

    @classmethod
    def cycle(cls, kind: str, size: int, source: bytes) -> Callable[[int], None]:
        reader = cls("read", size, None)
        writer = cls("write", size, reader.address)
        send, receive = writer.socket.send, reader.socket.recv

        def run(times: int, keep: Any = (reader, writer)) -> None:
            for _ in range(times):
                send(source)
                receive()

        return run


class ZmqNoCopy(Zmq):
    """The same with copy=False on both sides."""

    without_copies = True


class UnixSocket(Transport):
    """A stream socket: sendall and recv_into of one buffer."""

    def __init__(self, role: str, size: int, address: Any) -> None:
        super().__init__(role, size, address)
        if role == "read":
            self.socket, other = socket.socketpair()
            os.set_inheritable(other.fileno(), True)
            self.other = other
            self.inherits = (other.fileno(),)
            self.address = other.fileno()
        else:
            self.socket = socket.socket(fileno=address)
        self.buffer = memoryview(bytearray(size))

    def connected(self) -> None:
        self.other.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> Any:
        got = 0
        while got < self.size:
            count = self.socket.recv_into(self.buffer[got:])
            if count == 0:
                raise EOFError
            got += count
        return self.buffer

    @classmethod
    def cycle(cls, kind: str, size: int, source: bytes) -> Callable[[int], None]:
        one, other = socket.socketpair()
        buffer = bytearray(size)
        send, receive = one.sendall, other.recv_into

        def run(times: int, keep: Any = (one, other)) -> None:
            for _ in range(times):
                send(source)
                receive(buffer)

        return run


class Pipe(Transport):
    """multiprocessing.Pipe: send_bytes and recv_bytes."""

    def __init__(self, role: str, size: int, address: Any) -> None:
        super().__init__(role, size, address)
        if role == "read":
            reading, writing = os.pipe()
            os.set_inheritable(writing, True)
            self.connection = connection.Connection(reading, writable=False)
            self.writing = writing
            self.inherits = (writing,)
            self.address = writing
        else:
            self.connection = connection.Connection(address, readable=False)
        self._bind()

    def _bind(self) -> None:
        self.send = self.connection.send_bytes
        self.receive = self.connection.recv_bytes

    def connected(self) -> None:
        os.close(self.writing)

    @classmethod
    def _calls(cls, reader: Any, writer: Any) -> tuple[Any, Any]:
        return writer.send_bytes, reader.recv_bytes

    @classmethod
    def cycle(cls, kind: str, size: int, source: bytes) -> Callable[[int], None]:
        reading, writing = os.pipe()
        reader = connection.Connection(reading, writable=False)
        writer = connection.Connection(writing, readable=False)
        send, receive = cls._calls(reader, writer)

        def run(times: int, keep: Any = (reader, writer)) -> None:
            for _ in range(times):
                send(source)
                receive()

        return run


class Pickled(Pipe):
    """send and recv of a bytes object: what multiprocessing.Queue does, without its thread."""

    def _bind(self) -> None:
        self.send = self.connection.send
        self.receive = self.connection.recv

    @classmethod
    def _calls(cls, reader: Any, writer: Any) -> tuple[Any, Any]:
        return writer.send, reader.recv


class SharedMemory(Transport):
    """multiprocessing.SharedMemory as a ring, its slot's number by a pipe, the reader copies out.

    A second pipe gives the slots back, as it must: nothing else protects what is being read.
    """

    def __init__(self, role: str, size: int, address: Any) -> None:
        super().__init__(role, size, address)
        self.slot = 0
        if role == "read":
            self.block = shared_memory.SharedMemory(create=True, size=SLOTS * size)
            numbers, self.other_numbers = os.pipe()
            self.other_back, back = os.pipe()
            self.inherits = (self.other_numbers, self.other_back)
            for fd in self.inherits:
                os.set_inheritable(fd, True)
            self.numbers = connection.Connection(numbers, writable=False)
            self.back = connection.Connection(back, readable=False)
            self.address = [self.block.name, *self.inherits]
            for _ in range(SLOTS):
                self.back.send_bytes(b"s")
        else:
            name, numbers, back = address
            self.block = shared_memory.SharedMemory(name)
            # It is the reader's to unlink; Python 3.13 has track=False for this.
            resource_tracker.unregister(f"/{self.block.name.lstrip('/')}", "shared_memory")
            self.numbers = connection.Connection(numbers, readable=False)
            self.back = connection.Connection(back, writable=False)
        buffer = self.block.buf
        self.slots = [buffer[at * size : (at + 1) * size] for at in range(SLOTS)]
        self.buffer = bytearray(size)

    def connected(self) -> None:
        for fd in self.inherits:
            os.close(fd)

    def send(self, data: bytes) -> None:
        self.back.recv_bytes()
        self.slots[self.slot][:] = data
        self.numbers.send_bytes(self.slot.to_bytes(1, "little"))
        self.slot = (self.slot + 1) % SLOTS

    def receive(self) -> Any:
        slot = self.numbers.recv_bytes()[0]
        self.buffer[:] = self.slots[slot]
        with contextlib.suppress(BrokenPipeError):  # the writer has just ended
            self.back.send_bytes(b"s")
        return self.buffer

    def close(self) -> None:
        is_reader = bool(self.inherits)
        self.slots.clear()
        self.block.close()
        if is_reader:
            self.block.unlink()


TRANSPORTS: dict[str, type[Transport]] = {
    "framegate": Framegate,
    "framegate-spin": FramegateSpin,
    "iceoryx2": Iceoryx2,
    "iceoryx2-spin": Iceoryx2Spin,
    "shmx": Shmx,
    "zmq": Zmq,
    "zmq-nocopy": ZmqNoCopy,
    "socket": UnixSocket,
    "pipe": Pipe,
    "pickled": Pickled,
    "shared-memory": SharedMemory,
}


def address_text(transport: Transport) -> str:
    """The address as an argument of the writing process."""
    return json.dumps(transport.address)
