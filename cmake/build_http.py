"""Let maturin build the Rust module and put the one extension file that it makes into --out.

CMake calls this from the custom target `_http`. The file is rewritten only when its bytes changed,
so an unchanged Rust tree costs no reinstallation of the module.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def check_toolchain() -> None:
    """Say in one line what is missing; cargo's own message for an old compiler is a page long."""
    wanted = re.search(r'^rust-version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text(), re.M)
    assert wanted is not None, "Cargo.toml names no rust-version"
    if shutil.which("cargo") is None or shutil.which("rustc") is None:
        sys.exit(
            f"framegate: cargo not found; install Rust {wanted[1]} or newer (https://rustup.rs)"
        )
    text = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout
    found = text.split()[1].split("-")[0]
    if tuple(map(int, found.split("."))) < tuple(map(int, wanted[1].split("."))):
        sys.exit(f"framegate: rustc {found} is too old; install Rust {wanted[1]} or newer")


def environment() -> dict[str, str]:
    """What cargo gets: without the compilers that scikit-build-core names when nobody did.

    They are cargo's own choice, but crates with C in them would be built anew whenever `cargo test`
    and the build of the module take turns in one target directory.
    """
    found = dict(os.environ)
    for name in ("CC", "CXX"):
        usual = (sysconfig.get_config_var(name) or "").split()
        if usual and found.get(name) == usual[0]:
            del found[name]
    return found


def host() -> str:
    """The target that rustc builds for when nobody says one."""
    text = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"^host: (.+)$", text, re.M)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--target-dir", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    check_toolchain()
    # The base interpreter's path is stable; that of an isolated build's environment changes every
    # time.
    interpreter = getattr(sys, "_base_executable", sys.executable)
    command = ["maturin", "build", "--quiet", "--manifest-path", str(ROOT / "rust/py/Cargo.toml")]
    command += ["--profile", options.profile, "--target-dir", options.target_dir]
    command += ["--interpreter", interpreter]
    command += ["--compatibility", "off", "--compression-method", "stored"]
    found = environment()
    # Profile-guided: `generate=DIRECTORY` makes a module that counts, `use=FILE` one that knows the
    # counts (`python -m framegate_bench train`). With --target the flags are not those of build
    # scripts.
    if pgo := os.environ.get("FRAMEGATE_PGO"):
        way, _, place = pgo.partition("=")
        if way not in {"generate", "use"} or not place:
            sys.exit(f"framegate: FRAMEGATE_PGO is {pgo!r}, not generate=DIRECTORY or use=FILE")
        flags = [found.get("RUSTFLAGS", ""), f"-Cprofile-{way}={place}"]
        found["RUSTFLAGS"] = " ".join(flags).strip()
        command[command.index("--target-dir") + 1] = f"{options.target_dir}/pgo-{way}"
    target = os.environ.get("FRAMEGATE_ZIG_TARGET", "")
    if pgo and not target:
        command += ["--target", host()]
    if target:  # x86_64-linux-gnu.2.28: .ci/zig-wheel, which names zig for C++, too
        architecture, _, glibc = target.partition("-linux-gnu.")
        command += ["--zig", "--target", f"{architecture}-unknown-linux-gnu"]
        command[command.index("off")] = "manylinux_" + glibc.replace(".", "_")
        for name in ("CC", "CXX"):  # maturin's own are for crates of that target only
            found.pop(name, None)
        if architecture != platform.machine():  # its name: what maturin knows of it
            version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
            command[command.index(interpreter)] = version
    with tempfile.TemporaryDirectory() as scratch:
        if subprocess.run([*command, "--out", scratch], env=found).returncode != 0:
            sys.exit("framegate: the Rust module did not build; cargo's message is above")
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (n for n in archive.namelist() if n.endswith((".so", ".pyd")))
            module = archive.read(name)
    options.out.mkdir(parents=True, exist_ok=True)
    destination = options.out / Path(name).name
    for stale in options.out.glob("_http*"):
        if stale.name != destination.name:
            stale.unlink()
    if not destination.exists() or destination.read_bytes() != module:
        scratch_file = destination.with_suffix(".tmp")
        scratch_file.write_bytes(module)
        scratch_file.chmod(0o755)
        scratch_file.replace(destination)


if __name__ == "__main__":
    main()
