"""What `--reload` looks at: the application's own files, and nothing else.

Watched is the package of the application, or the directory of a module that is in none. Each
directory is watched by itself, not as a tree: a tree would include virtual environments, version
control and caches, which is what makes a computer busy with watching. A new directory makes the
list anew.
"""

from __future__ import annotations

import fnmatch
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from typing import Any, Final

from framegate.config import Config
from framegate.errors import ConfigError

__all__ = ["CODE", "PAGES", "Watch", "roots"]

CODE: Final = ("*.py",)
"""What starts the worker anew."""

PAGES: Final = (
    *("*.html", "*.htm", "*.jinja", "*.jinja2", "*.j2", "*.css", "*.js", "*.mjs"),
    *("*.svg", "*.png", "*.jpg", "*.webp", "*.md"),
)
"""What only makes pages in a browser load again: frameworks read it when it is asked for."""

EXCLUDED: Final = (".*", "*.py[cod]", "*.sw[opx]", "*~", "__pycache__", "node_modules")
ENVIRONMENT_MARKS: Final = ("pyvenv.cfg", "conda-meta")

DIRECTORIES_MAX: Final = 4096
"""Each costs the kernel about a kilobyte. More is no application but somebody's home directory."""

GROUP_SECONDS: Final = 2.0
"""Changes that never pause are acted upon after so long."""


def roots(config: Config) -> list[str]:
    """Return the directories to look at, with those below them."""
    if config.reload_dirs:
        for item in config.reload_dirs:
            if not os.path.isdir(item):
                origin = config.origins["reload_dirs"]
                raise ConfigError(f"{origin}: {item} is no directory")
        return [os.path.abspath(item) for item in config.reload_dirs]
    directory = os.path.abspath(config.app_dir)
    top = str(config.app).partition(":")[0].partition(".")[0]
    try:
        spec = PathFinder.find_spec(top, [directory, *sys.path])
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.submodule_search_locations:
        return [os.path.abspath(item) for item in spec.submodule_search_locations]
    if spec is not None and spec.origin:
        return [os.path.dirname(os.path.abspath(spec.origin))]
    return [directory]


class Watch:
    """The files below some directories.

    Args:
        directories: Where to look.
        patterns: Names, or paths from one of the directories, that are of interest.
        excludes: Names or paths that are not, files and directories alike.
        quiet_seconds: Changes are told once nothing has changed for so long.
        files: Single files of interest, wherever they are and whatever they are called.

    Raises:
        ConfigError: watchfiles is not installed, or there is too much to watch.
    """

    def __init__(
        self,
        directories: Sequence[str],
        patterns: Sequence[str],
        excludes: Sequence[str],
        quiet_seconds: float,
        files: Sequence[str] = (),
    ) -> None:
        try:
            import watchfiles
        except ModuleNotFoundError:
            raise ConfigError("reload needs watchfiles: pip install 'framegate[reload]'") from None
        self._watchfiles: Any = watchfiles
        self._roots = list(directories)
        self._patterns = tuple(patterns)
        self._excludes = (*EXCLUDED, *excludes)
        self._quiet_ms = max(1, round(quiet_seconds * 1000))
        self._files = {os.path.abspath(file) for file in files}
        # Where nothing else than these files is of interest.
        self._beside: set[str] = set()
        self._stop = threading.Event()
        self.directories: list[str] = self._find_directories()

    def stop(self) -> None:
        """Let `changes` end, from any thread."""
        self._stop.set()

    def changes(self) -> Iterator[list[str]]:
        """Yield the files that changed, until it is stopped."""
        while not self._stop.is_set():
            for changed in self._watchfiles.watch(
                *self.directories,
                recursive=False,
                watch_filter=None,
                debounce=int(GROUP_SECONDS * 1000),
                step=self._quiet_ms,
                stop_event=self._stop,
                raise_interrupt=False,
                ignore_permission_denied=True,
            ):
                paths = {self.as_named(path) for _, path in changed}
                found = sorted(path for path in paths if self.concerns(path))
                now = self._find_directories()
                is_new = now != self.directories
                if is_new:
                    # What was put into a new directory before it was watched.
                    for directory in set(now) - set(self.directories):
                        found += [
                            entry.path
                            for entry in os.scandir(directory)
                            if entry.is_file() and self.concerns(entry.path)
                        ]
                    self.directories = now
                if found:
                    yield found
                if is_new:
                    break

    def as_named(self, path: str) -> str:
        """Return a path as it was asked for: macOS tells where it really is (/private/tmp)."""
        directory, name = os.path.split(path)
        if directory not in self.directories:
            for item in self.directories:
                if os.path.realpath(item) == directory:
                    return os.path.join(item, name)
        return path

    def concerns(self, path: str) -> bool:
        """Whether a change of this file is of interest."""
        if path in self._files:
            return True
        if os.path.dirname(path) in self._beside:
            return False
        return self._matches(path, self._patterns) and not self._is_excluded(path)

    def _matches(self, path: str, patterns: Sequence[str]) -> bool:
        names = [os.path.basename(path)]
        names += [path[len(root) + 1 :] for root in self._roots if path.startswith(root + os.sep)]
        return any(fnmatch.fnmatch(name, pattern) for name in names for pattern in patterns)

    def _is_excluded(self, path: str) -> bool:
        return self._matches(path, self._excludes)

    def _find_directories(self) -> list[str]:
        found: list[str] = []
        for root in self._roots:
            for directory, names, files in os.walk(root):
                if directory != root and any(m in files or m in names for m in ENVIRONMENT_MARKS):
                    names.clear()
                    continue
                found.append(directory)
                names[:] = [
                    name for name in names if not self._is_excluded(os.path.join(directory, name))
                ]
                if len(found) > DIRECTORIES_MAX:
                    raise ConfigError(
                        f"reload would watch more than {DIRECTORIES_MAX} directories below {root}; "
                        "name those of the application with --reload-dir"
                    )
        self._beside = {os.path.dirname(file) for file in self._files} - set(found)
        return sorted({*found, *self._beside})
