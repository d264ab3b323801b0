"""Serve ASGI apps on a Rust core and hand frames to local processes over shared memory."""

__all__ = ["__version__"]

from importlib.metadata import version as _version

__version__ = _version("framegate")
