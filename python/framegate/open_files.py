"""The limit of open files: each connection is one.

Shells and systemd start programs with a soft limit of 1024, because select(2) cannot see
descriptors above it, and a hard limit far above for programs that know better (systemd's
daemon(7), "file descriptor limits"); macOS has 256. asyncio and tokio use epoll or kqueue: so the
processes that framegate owns take what they may have. Workers and what they start inherit it.
"""

from __future__ import annotations

import contextlib
import resource

from framegate import system

__all__ = ["raise_open_files_limit"]


def raise_open_files_limit() -> int:
    """Raise the soft limit to the hard one; return what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = system.open_files_max()
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # a sandbox forbids it: then it stays
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return soft
