"""Bugs that were measured in other servers, and the tests that framegate has none of them.

A name without a file is a case of this suite, which runs over every transport it has a meaning for.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conformance import application  # registers the cases
from conformance.lifespans import LIFESPANS
from conformance.registry import CASES

ROOT = Path(__file__).parents[2]

assert application.app

BUGS: dict[str, tuple[str, ...]] = {
    "ports in `client` and `server` are str": ("client", "server"),
    "HTTP/1.0 is '1'": ("http-version-1.0",),
    "a target with scheme and host is put into `path` whole": ("absolute-form",),
    "cookies of HTTP/2 come apart": ("cookies",),
    "a path that is not UTF-8": ("path-not-utf8",),
    "the port of a Unix socket is '0'": (
        "tests/asgi/test_scope.py::test_a_unix_socket_has_a_path_as_server_and_no_client",
    ),
    "`state` is shared by reference": ("state",),
    "a start without `headers` is 500": ("start-without-headers",),
    "CR LF in a header drops the connection, or is taken out": ("header-crlf", "header-crlf-last"),
    "more than content-length is written to a kept connection": (
        "length-exceeded",
        "length-exceeded-streamed",
    ),
    "less than content-length leaves the client waiting": (
        "length-missed",
        "length-missed-streamed",
        "length-missed-empty",
    ),
    "`transfer-encoding` of the application is honoured": ("transfer-encoding",),
    "the head is not flushed": ("body-flushes", "body-streams-out"),
    "chunks to a client of HTTP/1.0": ("http-1.0-not-chunked",),
    "HEAD loses the length, or gains chunked": ("head-length", "head-length-added"),
    "100 Continue though the application does not read": ("expect-unread",),
    "`receive()` after the response hangs": ("receive-after-end",),
    "a client that left is not told of": (
        "client-leaves-before",
        "client-leaves-in-response",
        "client-leaves-in-body",
    ),
    "`send()` to a client that left says nothing": ("send-after-disconnect", "send-unblocked"),
    "Content-Length beside Transfer-Encoding is served": ("length-and-chunked",),
    "bare LF is served": ("bare-lf",),
    "folded headers are served": ("folded",),
    "HTTP/1.1 without Host is served": ("host-missing",),
    "two `receive()` hang, or a cancelled one loses bytes": (
        "receive-twice-at-once",
        "receive-cancelled",
    ),
    "an answer in mid-upload is lost in a reset": ("body-unread-large",),
    "pipelined answers in the wrong order": ("pipelining",),
    "context variables leak between requests": ("context-isolated",),
    "context variables of the lifespan are lost": ("context-lifespan",),
    "`startup.failed` exits with 0": ("fails",),
    "SIGTERM exits with -15": ("completes",),
    "a lifespan that raises": ("raises",),
    "`shutdown.failed` is ignored": ("fails_late",),
    # Connections.
    "a client that closes its side gets no answer": (
        "rust/http/tests/half_close.rs::half_closed_client_gets_its_answer",
    ),
    "requests behind `Connection: close` are answered": (
        "connection-close",
        "rust/http/tests/keep_alive.rs::connection_close_of_the_client_ends_it_after_the_response",
    ),
    "an old timer ends a connection that is alive": (
        "rust/http/tests/idle_timeout.rs::each_request_starts_the_time_anew",
        "rust/http/tests/idle_timeout.rs::busy_connection_is_not_idle",
    ),
    "a connection may be idle for ever after its first request": (
        "rust/http/tests/idle_timeout.rs::idle_connection_is_closed",
    ),
    "idle time shorter than that of proxies": (
        "rust/http/tests/idle_timeout.rs::default_idle_time_is_longer_than_that_of_common_proxies",
    ),
    "slow heads have no limit": (
        "rust/http/tests/header_timeout.rs::dripping_head_is_408",
        "tests/attacks/test_slow_clients.py::test_heads_that_never_end",
    ),
    "slow bodies and slow readers have no limit": (
        "tests/attacks/test_slow_clients.py::test_bodies_that_stop",
        "tests/attacks/test_slow_clients.py::test_responses_that_nobody_reads",
    ),
    "memory grows with resets and probes": (
        "tests/http/test_soak.py::test_thousands_of_bad_clients_leave_nothing_behind",
    ),
    "an application that never calls `receive()` does not learn of a client that left": (
        "tests/asgi/test_disconnect.py::test_send_raises_while_it_waits_for_room",
    ),
    "a client that left fills the log": (
        "tests/asgi/test_disconnect.py::test_a_propagated_disconnect_is_no_error",
        "tests/asgi/test_disconnect.py::test_a_disconnect_in_a_task_group_is_no_error",
    ),
    # Requests and responses.
    "heads have no limit": (
        "rust/http/tests/strictness.rs::head_over_its_bytes_is_431",
        "rust/http/tests/strictness.rs::header_count_over_its_limit_is_431",
    ),
    "bodies cannot be limited, or only declared ones": (
        "rust/http/tests/limits.rs::declared_body_over_the_limit_is_413_before_a_byte_is_read",
        "rust/http/tests/limits.rs::chunked_body_over_the_limit_is_413_on_the_way",
        "rust/http/tests/http2.rs::body_over_the_limit_is_413",
    ),
    "204, 304 and 1xx with a body": (
        "tests/asgi/test_send.py::test_statuses_without_a_body",
        "rust/http/tests/head_and_no_body.rs::"
        "statuses_without_body_have_none_whatever_the_handler_gives",
    ),
    "an empty piece ends the response, or does not flush the head": (
        "tests/asgi/test_send.py::test_an_empty_chunk_flushes_the_head",
    ),
    "`raw_path` is changed, `root_path` is not put before `path`": (
        "tests/asgi/test_scope.py::test_paths",
        "tests/asgi/test_scope.py::test_root_path_is_put_before_the_path_and_not_before_raw_path",
    ),
    "no early hints, no trailers over HTTP/1.1": (
        "rust/http/tests/early_hints.rs::hint_arrives_while_the_handler_still_works",
        "tests/asgi/test_extensions.py::test_trailers_follow_the_body",
    ),
    # HTTP/2.
    "a header list of 16 MiB": ("rust/http/tests/http2.rs::header_list_over_the_limit_is_431",),
    "a reset stream is no disconnect": (
        "stream-reset",
        "tests/http/test_http2.py::test_reset_is_a_disconnect",
    ),
    "rapid reset, CONTINUATION, SETTINGS and PING floods, MadeYouReset": (
        "tests/http/test_http2.py::test_flood_is_ended_and_others_are_served",
        "tests/http/test_http2.py::test_resets_of_requests_that_are_served_are_counted",
    ),
    # Stopping.
    "a stop waits for ever, or for a first request": (
        "rust/http/tests/drain.rs::idle_and_fresh_connections_are_closed_at_once",
        "rust/http/tests/drain.rs::busy_connection_is_cut_at_the_deadline",
        "tests/supervisor/test_supervisor.py::test_deadline_cuts_what_is_still_busy",
    ),
    "a second signal does nothing": (
        "tests/supervisor/test_supervisor.py::test_second_signal_cuts_but_lifespan_shutdown_runs",
    ),
    "SIGKILL of the supervisor leaves workers that serve on": (
        "tests/supervisor/test_supervisor.py::test_leaves_no_orphan",
        "tests/supervisor/test_supervisor.py::test_leaves_no_orphan_that_is_busy",
        "tests/supervisor/test_supervisor.py::test_leaves_no_orphan_that_still_imports",
    ),
    "an application that cannot start is started for ever": (
        "tests/supervisor/test_supervisor.py::"
        "test_startup_failure_stops_everything_with_3_and_is_said_once",
        "tests/supervisor/test_supervisor.py::test_endless_crashes_exhaust_the_budget",
    ),
    "a startup that takes too long is served all the same": (
        "tests/supervisor/test_supervisor.py::test_startup_that_hangs_ends_with_3",
    ),
    "a lifespan that raises in its startup is silent": (
        "tests/lifespan/test_rows.py::test_error_in_a_startup_hook_is_shown_and_served_in_auto",
    ),
    "connections go to a few of the workers": (
        "tests/supervisor/test_supervisor.py::test_connections_are_spread_over_the_workers",
    ),
    "connections are lost with a worker": (
        "tests/supervisor/test_supervisor.py::"
        "test_connections_to_a_dead_worker_are_served_by_its_successor",
    ),
    # TLS.
    "certificates are read once": (
        "tests/tls/test_reload.py::test_changed_files_are_read",
        "tests/tls/test_reload.py::test_sighup_under_load",
    ),
    "client certificates are unknown to the application": (
        "tls-extension",
        "tests/tls/test_scope.py::test_client_certificate",
    ),
    "handshakes have no limit": (
        "tests/tls/test_limits.py::test_slow_handshake_is_cut",
        "tests/tls/test_limits.py::test_half_open_handshakes_while_others_are_served",
    ),
    # Addresses.
    "one address only": ("tests/binds/test_served.py::test_one_worker_serves_every_address",),
    "workers do not serve a Unix socket": (
        "tests/binds/test_served.py::test_every_worker_serves_every_address_and_so_do_successors",
    ),
    "no mode or owner for a Unix socket": (
        "tests/binds/test_unix_socket.py::test_mode_is_set_whatever_the_umask",
        "tests/binds/test_unix_socket.py::test_owner_is_set",
    ),
    "a stale socket file stops the start, or that of a living server is taken": (
        "tests/binds/test_unix_socket.py::test_of_a_dead_server_is_replaced",
        "tests/binds/test_unix_socket.py::test_of_a_living_server_stays",
    ),
    "a busy port does not say who holds it": (
        "tests/binds/test_listeners.py::test_names_who_holds_it",
    ),
    "descriptor 0 is taken for none": ("tests/config/test_effects.py::test_fd",),
    "no socket activation": (
        "tests/binds/test_systemd.py::test_passed_sockets_are_served_without_being_asked_for",
        "tests/binds/test_systemd.py::test_systemds_own_launcher",
    ),
    "options that do nothing": (
        "tests/config/test_effects.py::test_every_setting_has_a_test_of_its_effect",
    ),
}


@pytest.mark.parametrize("bug", list(BUGS))
def test_a_bug_has_its_test(bug: str) -> None:
    for name in BUGS[bug]:
        file, _, function = name.partition("::")
        if function:
            assert re.search(rf"^ *(def|fn) {function}\b", (ROOT / file).read_text(), re.M), name
        else:
            assert file in CASES or file in LIFESPANS, name
