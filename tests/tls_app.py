"""`tls.apps:app` for server processes, which find it by its directory."""

from __future__ import annotations

from tls.apps import app

__all__ = ["app"]
