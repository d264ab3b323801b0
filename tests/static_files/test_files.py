"""Which files are served at which path, in which form, and what is not."""

from __future__ import annotations

import gzip
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from framegate.config import Config
from framegate.errors import ConfigError
from framegate.worker import NativeToolkit
from privileges import needs_root
from server_thread import Server
from static_files.conftest import CHANGED_NS, Site, StartSite, application

HOME = "<!doctype html><title>home</title>"


def mounted(static: Any, **more: Any) -> Config:
    """Settings in any form that they are taken in."""
    return Config(static=static, **more)


def test_files_and_the_application_side_by_side(site: Site) -> None:
    site.write("a/b c.js", "let a")
    reply = site.get("/static/a/b%20c.js?version=1")
    assert (reply.status, reply.body) == (200, b"let a")
    assert reply.headers["content-type"] == "text/javascript; charset=utf-8"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["server"] == "framegate"
    for path in ("/", "/stat", "/statics/a", "/%73tatic/a", "/other/static/a"):
        assert site.get(path).headers["x-from"] == "app", path
    missing = site.get("/static/none.js")
    assert (missing.status, missing.headers.get("x-from")) == (404, None)


def test_the_longest_prefix_counts(start_site: StartSite, tmp_path: Path) -> None:
    directories = {}
    for prefix in ("/s", "/s/deep", "/sdeep"):
        directories[prefix] = tmp_path / prefix.replace("/", "_")
        directories[prefix].mkdir()
        (directories[prefix] / "name.txt").write_text(prefix)
    site = start_site(static=directories)
    for prefix in directories:
        assert site.get(f"{prefix}/name.txt").body == prefix.encode()


def test_index(site: Site) -> None:
    site.write("index.html", HOME)
    site.write("sub/index.html", HOME)
    site.write("bare/a.txt", "a")
    site.write("odd/index.html/a.txt", "a")
    for path in ("/static/", "/static/index.html", "/static/sub/", "/static/sub/index.html"):
        reply = site.get(path)
        assert (reply.status, reply.body) == (200, HOME.encode()), path
        assert reply.headers["content-type"] == "text/html; charset=utf-8"
    for path, place in (
        ("/static", "/static/"),
        ("/static/sub", "/static/sub/"),
        ("/static/sub?a=1&b", "/static/sub/?a=1&b"),
        ("/static/%73ub", "/static/%73ub/"),
    ):
        reply = site.get(path)
        assert (reply.status, reply.headers["location"]) == (301, place)
    # No directory is listed, and a file is no directory.
    for path in (
        "/static/bare",
        "/static/bare/",
        "/static/odd",
        "/static/odd/",
        "/static/bare/a.txt/",
    ):
        assert site.get(path).status == 404, path


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/static/../secret", 404),
        ("/static/..%2fsecret", 404),
        ("/static/%2e%2e/secret", 404),
        ("/static/.%2e/secret", 404),
        ("/static/sub/../../secret", 404),
        ("/static/..\\secret", 404),
        ("/static/..%5csecret", 404),
        ("/static/%252e%252e/secret", 404),
        ("/static//etc/passwd", 404),
        ("/static/%2fetc/passwd", 404),
        ("/static/./a.txt", 404),
        ("/static//a.txt", 404),
        ("/static/sub//a.txt", 404),
        ("/static/.hidden", 404),
        ("/static/%2ehidden", 404),
        ("/static/.git/config", 404),
        ("/static/a.txt%00.js", 400),
        ("/static/%", 400),
        ("/static/%zz", 400),
        ("/static/%2", 400),
        ("/static/" + "a" * 300, 404),
        ("/static/" + "a/" * 3000, 404),
        ("/static/link-out", 404),
        ("/static/link-absolute", 404),
        ("/static/link-nowhere", 404),
        ("/static/link-loop", 404),
        ("/static/parent/secret", 404),
        ("/static/link-inside", 200),
        ("/static/a.txt", 200),
        ("/static/%61.txt", 200),
    ],
)
def test_nothing_else_is_served(site: Site, path: str, status: int) -> None:
    outside = site.directory.parent
    (outside / "secret").write_text("secret")
    for name in ("a.txt", "sub/a.txt", ".hidden", ".git/config"):
        site.write(name, "a")
    for name, target in {
        "link-out": "../secret",
        "link-absolute": str(outside / "secret"),
        "link-nowhere": "nowhere",
        "link-loop": "link-loop",
        "link-inside": "sub/a.txt",
        "parent": "..",
    }.items():
        (site.directory / name).symlink_to(target)
    # http.client lets backslashes and dots through; raw, to be sure.
    with site.server.connect() as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n".encode())
        received = b""
        while data := connection.recv(65536):
            received += data
    assert int(received.split()[1]) == status, received
    assert b"secret" not in received


def test_only_regular_files_are_served(site: Site) -> None:
    os.mkfifo(site.directory / "pipe")
    os.mkfifo(site.directory / "index.html")
    (site.directory / "null").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as listener:
        old = os.getcwd()
        os.chdir(site.directory)
        try:
            listener.bind("socket")
        finally:
            os.chdir(old)
        for name in ("pipe", "null", "socket", "", "index.html"):
            assert site.get(f"/static/{name}").status == 404, name


NOBODY = 65534

AS_NOBODY = """
import http.client, os, sys
from framegate import Server

async def app(scope, receive, send):
    raise RuntimeError("every path is one of a file")

def ask(*names):
    with Server(app, port=0, static={"/static": sys.argv[1]}).start_in_thread() as server:
        for name in names:
            connection = http.client.HTTPConnection(server.urls[0].removeprefix("http://"))
            connection.request("GET", "/static/" + name)
            answer = connection.getresponse()
            print(name, answer.status, answer.read())

# What is imported late has to be imported now: the other user may not read it.
ask("open.txt", "closed.txt")
os.setgroups([])
os.setgid(NOBODY)
os.setuid(NOBODY)
ask("open.txt", "closed.txt", "shut/in.txt", "missing.txt")
"""


@needs_root
def test_file_that_may_not_be_read() -> None:
    # Root may read everything, so somebody asks whom the kernel refuses it.
    with tempfile.TemporaryDirectory() as own:
        site = Path(own)
        site.chmod(0o755)
        for name, mode in (("open.txt", 0o644), ("closed.txt", 0o600), ("shut/in.txt", 0o644)):
            (site / name).parent.mkdir(exist_ok=True)
            (site / name).write_text(name)
            (site / name).chmod(mode)
        (site / "shut").chmod(0o700)
        program = AS_NOBODY.replace("NOBODY", str(NOBODY))
        done = subprocess.run(
            [sys.executable, "-c", program, str(site)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    refused = "403 b'the file may not be read\\n'"
    found = [line for line in done.stdout.splitlines() if ".txt " in line[:12]]
    assert found == [
        "open.txt 200 b'open.txt'",
        "closed.txt 200 b'closed.txt'",
        "open.txt 200 b'open.txt'",
        f"closed.txt {refused}",
        f"shut/in.txt {refused}",
        "missing.txt 404 b'there is no such file\\n'",
    ], done.stderr
    assert "could not be opened: Permission denied" in done.stderr


def test_forms_of_a_file(site: Site) -> None:
    site.write("app.js", "plain")
    for name in ("zst", "br", "gz"):
        site.write(f"app.js.{name}", name)
    tags = set()
    for accepted, form, coding in (
        (None, "plain", None),
        ("", "plain", None),
        ("identity", "plain", None),
        ("deflate", "plain", None),
        ("gzip", "gz", "gzip"),
        ("gzip, deflate, br, zstd", "zst", "zstd"),
        ("gzip, deflate, br", "br", "br"),
        ("gzip;q=1, br;q=0.5, zstd;q=0", "gz", "gzip"),
        ("gzip;q=0", "plain", None),
        ("*", "gz", "gzip"),
        ("gzip;q=0.5, identity", "plain", None),
        ("identity;q=0, br", "br", "br"),
    ):
        fields = () if accepted is None else (("Accept-Encoding", accepted),)
        reply = site.get("/static/app.js", *fields)
        assert (reply.status, reply.body) == (200, form.encode()), accepted
        assert reply.headers.get("content-encoding") == coding
        assert reply.headers["content-type"] == "text/javascript; charset=utf-8"
        assert reply.headers["vary"] == "accept-encoding"
        tags.add((form, reply.headers["etag"]))
        # The tag is that of the form, and so are the ranges.
        again = site.get("/static/app.js", *fields, ("If-None-Match", reply.headers["etag"]))
        assert (again.status, again.headers["vary"]) == (304, "accept-encoding")
        part = site.get("/static/app.js", *fields, ("Range", "bytes=0-0"))
        assert (part.status, part.body) == (206, form[:1].encode())
        assert part.headers.get("content-encoding") == coding
    assert len(tags) == len({tag for _, tag in tags}) == 4


def test_no_form_is_acceptable(site: Site) -> None:
    site.write("a.js", "a")
    site.write("a.png", "a")
    for name in ("a.js", "a.png"):
        reply = site.get(f"/static/{name}", ("Accept-Encoding", "br, identity;q=0"))
        assert (reply.status, reply.headers["vary"]) == (406, "accept-encoding")


def test_neighbours_that_are_not_forms(start_site: StartSite) -> None:
    site = start_site()
    accept = ("Accept-Encoding", "gzip")
    # Older than the file; a directory; of a type that is compressed in itself; without the file.
    site.write("old.css", "new")
    site.write("old.css.gz", "old", changed_ns=CHANGED_NS - 10**9)
    site.write("dir.css", "file")
    site.write("dir.css.gz/a", "a")
    site.write("a.png", "picture")
    site.write("a.png.gz", "packed")
    site.write("alone.css.gz", gzip.compress(b"a"))
    assert site.get("/static/old.css", accept).body == b"new"
    assert site.get("/static/dir.css", accept).body == b"file"
    picture = site.get("/static/a.png", accept)
    assert (picture.body, picture.headers.get("vary")) == (b"picture", None)
    assert site.get("/static/alone.css", accept).status == 404
    # By its own name it is a file like others.
    alone = site.get("/static/alone.css.gz", accept)
    assert alone.headers["content-type"] == "application/gzip"
    assert "content-encoding" not in alone.headers


def test_cache_control(start_site: StartSite) -> None:
    site = start_site(
        static_cache_control="public, max-age=60",
        static_immutable=("*.????????.js", "/static/assets/*"),
        headers=(("x-a", "1"),),
    )
    for name, expected in (
        ("app.js", "public, max-age=60"),
        ("app.0123abcd.js", "public, max-age=31536000, immutable"),
        ("assets/deep/a.css", "public, max-age=31536000, immutable"),
        ("other/assets/a.css", "public, max-age=60"),
    ):
        site.write(name, "a")
        reply = site.get(f"/static/{name}")
        assert reply.headers["cache-control"] == expected, name
        assert reply.headers["x-a"] == "1"
        again = site.get(f"/static/{name}", ("If-None-Match", reply.headers["etag"]))
        assert (again.status, again.headers["cache-control"]) == (304, expected)
    assert "cache-control" not in site.get("/static/missing").headers


def test_changes_are_seen_at_once(site: Site) -> None:
    path = site.write("a.txt", "one")
    assert site.get("/static/a.txt").body == b"one"
    new = site.write("new", "two", changed_ns=CHANGED_NS + 1)
    new.rename(path)
    assert site.get("/static/a.txt").body == b"two"
    path.unlink()
    assert site.get("/static/a.txt").status == 404
    # Also when the whole directory is another one.
    site.directory.rename(site.directory.with_name("before"))
    assert site.get("/static/a.txt").status == 404
    site.write("a.txt", "three")
    assert site.get("/static/a.txt").body == b"three"


@pytest.mark.parametrize(
    "bad",
    [
        "static",
        "=a",
        "/=dist",
        "static=dist",
        "/a/../b=dist",
        "/a//b=dist",
        "/a?b=dist",
        "/a=",
        "/a%20=d",
    ],
)
def test_mounts_that_are_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match=r"prefix|directory"):
        mounted([bad])


def test_mounts_are_read_from_every_form() -> None:
    expected = (("/a", "x"), ("/b/c", "y=z"))
    for value in (
        "/a=x\n/b/c=y=z",
        ["/a=x", "/b/c/=y=z"],
        [("/a", "x"), ("/b/c", Path("y=z"))],
        {"/a": "x", "/b/c": "y=z"},
    ):
        assert mounted(value).static == expected
    with pytest.raises(ConfigError, match="twice"):
        mounted(["/a=x", "/a/=y"])


def test_mounts_of_a_file_are_relative_to_it(tmp_path: Path) -> None:
    file = tmp_path / "framegate.toml"
    for text in ('static = ["/a=dist"]', '[static]\n"/a" = "dist"'):
        file.write_text(text)
        assert Config.load(file=file, environment={}).static == (("/a", str(tmp_path / "dist")),)


def test_directory_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path, reason in ((tmp_path / "missing", "No such file"), (file, "Not a directory")):
        with pytest.raises(ConfigError, match=reason):
            NativeToolkit().prepare(mounted({"/a": path}))
        with pytest.raises(OSError, match=reason):
            config = mounted({"/a": path}, access_log=False, lifespan="off")
            Server(application, config, plain_tasks=False).start()
