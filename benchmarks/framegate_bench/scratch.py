"""A private folder on tmpfs for the rings and topics of one program."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch() -> Iterator[Path]:
    """The folder, which is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f"framegate-bench-{os.getpid()}-", dir="/dev/shm"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
