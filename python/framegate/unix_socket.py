"""A Unix socket with its file: made with the right owner and mode, removed only if it is ours.

What may be done to a file that is there already:

| there is            | and                                    | then                        |
|---------------------|----------------------------------------|-----------------------------|
| no socket           |                                        | error; never removed        |
| a socket            | somebody accepts a connection          | error, names the process    |
| a socket            | another server of ours is starting     | error, names the process    |
| a socket            | connections are refused                | its server is dead: removed |
| a socket            | we may not connect                     | error                       |

The third row needs the lock (`name_lock.py`): between bind and listen a living socket looks like a
dead one. It is held until the file is removed.

At the end the file is removed if it is the one that we made. Device and inode say so, and nobody
gets the inode again while we look (`system.hold_inode`).

A socket whose queue is full refuses connections on macOS, as if its server were dead: there the
lock alone knows better, so a server that is not ours loses its file.

Owner and mode are set between bind and listen, when nobody can connect yet.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import NoReturn

from framegate import system
from framegate.binds import UnixBind
from framegate.errors import ListenError, suggestion
from framegate.name_lock import AddressLockedError, FileLock, NameLock, lock_name
from framegate.socket_holder import holder_of_socket

__all__ = ["UnixSocket"]


class UnixSocket:
    """A bound Unix socket.

    Args:
        bind: Where.

    Attributes:
        socket: It does not listen yet.

    Raises:
        ListenError: It cannot be had.
    """

    def __init__(self, bind: UnixBind) -> None:
        self._path = "" if bind.is_abstract else os.path.abspath(bind.path)
        self._made: os.stat_result | None = None
        self._held: int | None = None
        self._lock: NameLock | FileLock | None = None
        self.socket: socket.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if bind.is_abstract:
                self._bind_name(bind)
            else:
                self._bind_file(bind)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the socket, and remove its file if it is still ours. May be called again."""
        if self._made is not None:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.lstat(self._path), self._made):
                    os.unlink(self._path)
            self._made = None
        if self._held is not None:
            os.close(self._held)
            self._held = None
        self.socket.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _bind_name(self, bind: UnixBind) -> None:
        if not system.ABSTRACT_SOCKETS:
            raise ListenError(
                f"{bind.path}: this system has no abstract sockets",
                fix="bind a path, such as unix:/tmp/app.sock",
            )
        try:
            self.socket.bind(b"\0" + os.fsencode(bind.path[1:]))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ListenError(
                    f"another process has the abstract socket {bind.path}",
                    fix="stop it, or choose another name",
                ) from None
            raise _explain(error, bind.path) from None

    def _bind_file(self, bind: UnixBind) -> None:
        owner = _owner(bind)
        directory = os.path.dirname(self._path)
        if not os.path.isdir(directory):
            raise ListenError(
                f"cannot create the Unix socket {bind.path}",
                cause=f"{directory} is no directory"
                if os.path.exists(directory)
                else f"there is no directory {directory}",
                fix=f"create the directory {directory}",
            )
        self._take_lock(directory, bind.path)
        _remove_stale(bind.path)
        try:
            self.socket.bind(bind.path)
            self._held = system.hold_inode(self._path)
            self._made = os.lstat(self._path) if self._held is None else os.fstat(self._held)
        except OSError as error:
            raise _explain(error, bind.path) from None
        try:
            if owner != (-1, -1):
                os.chown(bind.path, *owner)
            if bind.mode is not None:
                os.chmod(bind.path, bind.mode)
        except OSError as error:
            what = "mode" if owner == (-1, -1) else "owner"
            raise ListenError(
                f"cannot set the {what} of the Unix socket {bind.path}",
                cause=error.strerror or str(error),
                fix="only root may give a file away; a group has to be one of your own",
            ) from None

    def _take_lock(self, directory: str, path: str) -> None:
        # By the directory itself and not by its name, of which there may be several.
        with contextlib.suppress(OSError):
            where = os.stat(directory)
            name = f"unix:{where.st_dev}:{where.st_ino}:{os.path.basename(self._path)}"
            try:
                self._lock = lock_name(name)
            except AddressLockedError as holder:
                _refuse(path, str(holder))


def _remove_stale(path: str) -> None:
    """Remove the socket file of a server that is gone; refuse anything else that is there."""
    try:
        # lstat: a link is not ours to follow, and what bind() would stumble over.
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _explain(error, path) from None
    if not stat.S_ISSOCK(mode):
        raise ListenError(
            f"{path} exists and is no socket", fix="remove it, or choose another path"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                raise ListenError(
                    f"cannot remove the old Unix socket {path}",
                    cause=error.strerror or str(error),
                    fix="remove it as its owner, or choose another path",
                ) from None
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            _refuse(path, "its queue of connections is full")
        except OSError as error:
            if error.errno == errno.EPROTOTYPE:
                _refuse(path, "it is a socket of another kind")
            raise ListenError(
                f"cannot tell whether a server listens on the Unix socket {path}",
                cause=error.strerror or str(error),
                fix="remove it if its server is gone, or choose another path",
            ) from None
        _refuse(path, holder_of_socket(probe))


def _refuse(path: str, holder: str) -> NoReturn:
    raise ListenError(
        f"another server listens on the Unix socket {path}",
        cause=holder,
        fix="stop it, or choose another path",
    )


def _explain(error: OSError, path: str) -> ListenError:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        fix = "choose a directory that this user may write to"
    else:
        fix = "choose another path"
    return ListenError(
        f"cannot create the Unix socket {path}", cause=error.strerror or str(error), fix=fix
    )


def _owner(bind: UnixBind) -> tuple[int, int]:
    """Return the numbers of user and group; -1 where nothing is to change."""
    if bind.user is None and bind.group is None:
        return -1, -1
    import grp
    import pwd

    user = group = -1
    if bind.user is not None:
        try:
            user = int(bind.user) if bind.user.isdecimal() else pwd.getpwnam(bind.user).pw_uid
        except KeyError:
            names = [entry.pw_name for entry in pwd.getpwall()]
            raise _unknown("user", bind.user, bind.path, names) from None
    if bind.group is not None:
        try:
            group = int(bind.group) if bind.group.isdecimal() else grp.getgrnam(bind.group).gr_gid
        except KeyError:
            names = [entry.gr_name for entry in grp.getgrall()]
            raise _unknown("group", bind.group, bind.path, names) from None
    return user, group


def _unknown(kind: str, name: str, path: str, names: list[str]) -> ListenError:
    return ListenError(
        f'there is no {kind} "{name}" for the Unix socket {path}',
        fix=suggestion(name, names).removeprefix("; ") or f"create it, or give another {kind}",
    )
