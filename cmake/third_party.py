"""Writes THIRD-PARTY-LICENSES: whose code is in the wheel, and under which words.

    python cmake/third_party.py

Crates are those that `framegate-py` is linked from on Linux (`cargo metadata`, without what only
builds or tests); of each, the files in its source that speak of licences, those of the C libraries
that it brings along too. The file is committed and goes into every wheel; run this after a change
of Cargo.lock. tests/project/test_licences.py finds a file that is behind.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "THIRD-PARTY-LICENSES"
PLATFORMS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu")

NAME = re.compile(r"(licen[cs]e|copying|copyright|notice|patents|unlicense|readme\.ijg)", re.I)
# Source files may be called so, too.
SOURCE = re.compile(r"\.(rs|c|h|cc|cpp|py|pl|sh|go|json|toml|yml|ya?ml|cmake|in|bazel)$", re.I)
# Parts of sources that are not compiled.
ASIDE = {
    "tests",
    "test",
    "fuzz",
    "fuzzing",
    "examples",
    "contrib",
    "doc",
    "docs",
    "build",
    "target",
}
ASIDE |= {"benches", "programs", "java", "swig", "gradle", "tools", "release", "cmakescripts"}

# Words of licences that some crates name without having a file of them.
MIT = """\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial
portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES
OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""

# https://spdx.org/licenses/BSD-3-Clause.html
BSD = """\
Redistribution and use in source and binary forms, with or without modification, are permitted
provided that the following conditions are met:

1. Redistributions of source code must retain the above copyright notice, this list of conditions
   and the following disclaimer.
2. Redistributions in binary form must reproduce the above copyright notice, this list of conditions
   and the following disclaimer in the documentation and/or other materials provided with the
   distribution.
3. Neither the name of the copyright holder nor the names of its contributors may be used to endorse
   or promote products derived from this software without specific prior written permission.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS OR
IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND
FITNESS FOR A PARTICULAR PURPOSE ARE DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR
CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL
DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE,
DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER
IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF
THE USE OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
"""


def linked(platform: str) -> dict[str, Any]:
    """Packages of others that the module is linked from, by their identity."""
    command = ["cargo", "metadata", "--format-version=1", "--locked"]
    command.append(f"--filter-platform={platform}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    metadata = json.loads(done.stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    queue = [key for key, package in packages.items() if package["name"] == "framegate-py"]
    seen: set[str] = set()
    while queue:
        key = queue.pop()
        if key in seen:
            continue
        seen.add(key)
        for dependency in nodes[key]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                queue.append(dependency["pkg"])
    return {key: packages[key] for key in seen if packages[key]["source"] is not None}


def texts_below(directory: Path) -> list[tuple[str, str]]:
    """Files that speak of licences: their names and texts."""
    found = []
    for path in sorted(directory.rglob("*")):
        inside = path.relative_to(directory)
        if ASIDE & {part.lower() for part in inside.parts[:-1]} or not path.is_file():
            continue
        named = NAME.match(path.name) or (inside.parts[0].upper() == "LICENSES")
        if named and not SOURCE.search(path.name) and path.stat().st_size < 200_000:
            text = path.read_text(errors="replace").replace("\r\n", "\n").strip("\n")
            found.append((str(inside), "\n".join(line.rstrip() for line in text.splitlines())))
    return found


def texts_of(package: dict[str, Any]) -> list[tuple[str, str]]:
    found = texts_below(Path(package["manifest_path"]).parent)
    if package["name"] == "zstd-sys":
        # Under BSD or the GPL, as one likes: these are the words of the GPL.
        found = [(label, text) for label, text in found if label != "zstd/COPYING"]
    if any("/" not in label for label, _ in found):
        return found
    authors = ", ".join(package["authors"]) or f"the authors of {package['name']}"
    for licence, words in (("MIT", MIT), ("BSD-3-Clause", BSD)):
        if licence in (package["license"] or ""):
            return [(licence, f"Copyright (c) {authors}\n\n{words}".strip("\n")), *found]
    sys.exit(f"{package['name']} has no file of its licence, {package['license']}: write it here")


def document() -> str:
    packages: dict[str, Any] = {}
    for platform in PLATFORMS:
        packages.update(linked(platform))
    entries = [
        (
            package["name"],
            package["version"],
            package["license"] or "see its text",
            texts_of(package),
        )
        for package in packages.values()
    ]
    xxhash = ROOT / "cpp" / "third_party" / "xxhash"
    entries.append(("xxHash (C)", "in cpp/third_party", "BSD-2-Clause", texts_below(xxhash)))
    nanobind = distribution("nanobind")
    there = [file for file in nanobind.files or [] if NAME.match(file.name)]
    texts = [(file.name, str(file.read_text()).strip("\n")) for file in there]
    texts.append(("tsl::robin_map, within it: MIT", robin_map()))
    entries.append(("nanobind (C++)", "of the build", "BSD-3-Clause", texts))

    entries.sort(key=lambda entry: (entry[0].lower(), entry[1]))
    numbers: dict[str, int] = {}
    lines = [
        "Code of others in framegate's wheels, and the words that it comes with.",
        "Written by cmake/third_party.py. framegate itself is under the MIT licence (LICENSE).",
        "",
    ]
    for name, version, licence, found in entries:
        lines.append(f"{name} {version} ({licence})")
        for label, text in found:
            number = numbers.setdefault(text, len(numbers) + 1)
            lines.append(f"    {label}: text {number}")
    for text, number in numbers.items():
        lines += ["", "=" * 96, f"text {number}", "=" * 96, text]
    return "\n".join(lines) + "\n"


def robin_map() -> str:
    """The notice in the header of nanobind's hash table."""
    files = distribution("nanobind").files or []
    header = next(file for file in files if file.name == "robin_map.h")
    notice = str(header.read_text()).partition("*/")[0]
    return "\n".join(line.strip(" /*") for line in notice.splitlines()).strip("\n")


def names_in_lock() -> set[tuple[str, str]]:
    """Crates of the lock that come from elsewhere, by name and version."""
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    return {(one["name"], one["version"]) for one in lock["package"] if "source" in one}


if __name__ == "__main__":
    TARGET.write_text(document())
