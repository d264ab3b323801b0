"""`_http.Selector` keeps the protocol of `selectors.BaseSelector`."""

from __future__ import annotations

import os
import selectors
import socket
import tempfile
import threading
from collections.abc import Iterator

import pytest

from framegate import _http

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def selector() -> Iterator[_http.Selector]:
    with _http.Selector() as selector:
        yield selector


def test_register_gives_the_key_that_the_standard_library_gives(
    selector: _http.Selector, pair: Pair
) -> None:
    key = selector.register(pair[0], READ, "data")
    assert key == selectors.SelectorKey(pair[0], pair[0].fileno(), READ, "data")
    assert selector.get_key(pair[0]) is key
    assert selector.get_key(pair[0].fileno()) is key


def test_ready_descriptors_are_reported_with_the_events_asked_for(
    selector: _http.Selector, pair: Pair
) -> None:
    selector.register(pair[0], READ | WRITE)
    ((key, events),) = selector.select(0)
    assert (key.fileobj, events) == (pair[0], WRITE)
    pair[1].send(b"x")
    ((key, events),) = selector.select(0)
    assert events == READ | WRITE


def test_readiness_is_level_triggered(selector: _http.Selector, pair: Pair) -> None:
    selector.register(pair[0], READ)
    pair[1].send(b"xy")
    for _ in range(3):
        assert [events for _, events in selector.select(5)] == [READ]
    pair[0].recv(1)
    assert [events for _, events in selector.select(5)] == [READ]
    pair[0].recv(1)
    assert selector.select(0.001) == []


def test_readiness_before_the_first_select_is_seen(selector: _http.Selector, pair: Pair) -> None:
    pair[1].send(b"x")
    selector.register(pair[0], READ)
    assert len(selector.select(None)) == 1


def test_hang_up_wakes_readers_and_writers(selector: _http.Selector, pair: Pair) -> None:
    selector.register(pair[0], READ | WRITE)
    pair[1].close()
    assert [events for _, events in selector.select(5)] == [READ | WRITE]


def test_several_hundred_ready_descriptors_are_all_reported(selector: _http.Selector) -> None:
    pairs = [socket.socketpair() for _ in range(200)]
    try:
        for left, right in pairs:
            selector.register(left, READ)
            right.send(b"x")
        ready = {key.fileobj for key, _ in selector.select(5)}
        assert ready == {left for left, _ in pairs}
    finally:
        for left, right in pairs:
            left.close()
            right.close()


def test_timeout_none_waits_for_a_descriptor(selector: _http.Selector, pair: Pair) -> None:
    selector.register(pair[0], READ)
    timer = threading.Timer(0.01, pair[1].send, (b"x",))
    timer.start()
    assert len(selector.select(None)) == 1
    timer.join()


@pytest.mark.parametrize("timeout", [0, -1, 0.001, float("nan"), -float("inf")])
def test_select_without_anything_ready_gives_an_empty_list(
    selector: _http.Selector, timeout: float
) -> None:
    assert selector.select(timeout) == []


def test_an_endless_timeout_is_no_error(selector: _http.Selector, pair: Pair) -> None:
    selector.register(pair[0], WRITE)
    assert len(selector.select(float("inf"))) == 1
    assert len(selector.select(1e300)) == 1


def test_modify_changes_events_and_data(selector: _http.Selector, pair: Pair) -> None:
    selector.register(pair[0], READ, "old")
    key = selector.modify(pair[0], WRITE, "new")
    assert (key.events, key.data) == (WRITE, "new")
    assert [(key.data, events) for key, events in selector.select(0)] == [("new", WRITE)]
    key = selector.modify(pair[0], WRITE, "newer")
    assert selector.get_key(pair[0]).data == key.data == "newer"


def test_unregister_stops_reports(selector: _http.Selector, pair: Pair) -> None:
    key = selector.register(pair[0], WRITE)
    assert selector.unregister(pair[0]) == key
    assert selector.select(0) == []


@pytest.mark.parametrize("events", [0, 4, READ | 8])
def test_invalid_events_are_value_errors(selector: _http.Selector, pair: Pair, events: int) -> None:
    with pytest.raises(ValueError, match="Invalid events"):
        selector.register(pair[0], events)


@pytest.mark.parametrize("fileobj", ["text", object(), -1])
def test_invalid_file_objects_are_value_errors(
    selector: _http.Selector, fileobj: socket.socket
) -> None:
    with pytest.raises(ValueError, match="Invalid file"):
        selector.register(fileobj, READ)


def test_registering_twice_is_a_key_error(selector: _http.Selector, pair: Pair) -> None:
    selector.register(pair[0], READ)
    with pytest.raises(KeyError, match="already registered"):
        selector.register(pair[0].fileno(), WRITE)
    assert selector.get_key(pair[0]).events == READ


def test_unknown_file_objects_are_key_errors(selector: _http.Selector, pair: Pair) -> None:
    for call in (selector.unregister, selector.get_key, lambda f: selector.modify(f, READ)):
        with pytest.raises(KeyError, match="not registered"):
            call(pair[0])


def test_regular_files_are_refused_as_epoll_does(selector: _http.Selector) -> None:
    with tempfile.TemporaryFile() as file:
        with pytest.raises(PermissionError) as caught:
            selector.register(file, READ)
        assert caught.value.errno == 1
        with pytest.raises(KeyError):
            selector.get_key(file)


def test_a_closed_descriptor_is_refused(selector: _http.Selector, pair: Pair) -> None:
    fd = os.dup(pair[0].fileno())
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        selector.register(fd, READ)
    assert caught.value.errno == 9


def test_a_descriptor_closed_behind_our_back_can_be_unregistered(
    selector: _http.Selector,
) -> None:
    selector.select(0)
    left, right = socket.socketpair()
    fd = left.fileno()
    selector.register(left, READ)
    left.close()
    assert selector.select(0) == []
    assert selector.unregister(left).fd == fd
    # The number is used again and must not collide with what was.
    again, other = socket.socketpair()
    assert again.fileno() == fd
    selector.register(again, WRITE)
    assert [key.fileobj for key, _ in selector.select(0)] == [again]
    for s in (right, again, other):
        s.close()


def test_modify_of_a_closed_descriptor_raises_and_forgets_it(selector: _http.Selector) -> None:
    left, right = socket.socketpair()
    fd = left.fileno()
    selector.register(left, READ)
    left.close()
    right.close()
    with pytest.raises(OSError, match=r"Bad file descriptor|No such file"):
        selector.modify(fd, READ | WRITE)
    with pytest.raises(KeyError):
        selector.get_key(fd)


def test_the_map_is_live_and_complete(selector: _http.Selector, pair: Pair) -> None:
    mapping = selector.get_map()
    assert mapping is not None
    assert len(mapping) == 0
    key = selector.register(pair[0], READ)
    assert len(mapping) == 1
    assert mapping[pair[0]] is mapping[key.fd] is key
    assert pair[0] in mapping
    assert pair[1] not in mapping
    assert mapping.get(pair[1]) is None
    assert mapping.get(pair[1], 7) == 7
    assert list(mapping) == mapping.keys() == [key.fd]
    assert mapping.values() == [key]
    assert mapping.items() == [(key.fd, key)]


def test_a_closed_selector_refuses_to_work(pair: Pair) -> None:
    selector = _http.Selector()
    selector.register(pair[0], READ)
    selector.close()
    selector.close()
    assert selector.get_map() is None
    with pytest.raises(RuntimeError, match="closed"):
        selector.get_key(pair[0])
    with pytest.raises(ValueError, match="closed"):
        selector.select(0)
    with pytest.raises(ValueError, match="closed"):
        selector.register(pair[0], READ)


def test_fileno_is_an_open_descriptor(selector: _http.Selector) -> None:
    assert os.readlink(f"/proc/self/fd/{selector.fileno()}") == "anon_inode:[eventpoll]"
