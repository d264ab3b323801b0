"""Servers in the clear and with TLS, for clients that people use."""

from __future__ import annotations

from tls.conftest import authority, serve_tls, task_mode

__all__ = ["authority", "serve_tls", "task_mode"]
