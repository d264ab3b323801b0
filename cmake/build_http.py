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

# What `maturin --zig` sets where rustc's host is the target. cargo mixes it into the names of build
# scripts and macros, and those into the names of whatever depends on them. A profile knows
# functions by these names, and a build through zig could not use one that was made without.
AS_THROUGH_ZIG = {
    "__CARGO_TEST_CHANNEL_OVERRIDE_DO_NOT_USE_THIS": "nightly",
    "CARGO_UNSTABLE_TARGET_APPLIES_TO_HOST": "true",
    "CARGO_TARGET_APPLIES_TO_HOST": "false",
}


def check_toolchain() -> None:
    """Say in one line what is missing; cargo's own message for an old compiler is a page long."""
    wanted = re.search(r'^rust-version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text(), re.M)
    assert wanted is not None, "Cargo.toml names no rust-version"
    if shutil.which("cargo") is None or shutil.which("rustc") is None:
        sys.exit(
            f"framegate: cargo not found; install Rust {wanted[1]} or newer (https://rustup.rs)"
        )
    found = rustc("--version").split()[1].split("-")[0]
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


def rustc(*words: str) -> str:
    """What rustc says of itself."""
    done = subprocess.run(["rustc", *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def host() -> str:
    """The target that rustc builds for when nobody says one."""
    return re.findall(r"^host: (.+)$", rustc("-vV"), re.M)[0]


def strip_debug(module: Path) -> None:
    """Leave the names of functions, which profilers show, and nothing else for debuggers."""
    tools = Path(rustc("--print", "sysroot"), "lib/rustlib", host(), "bin")
    # rustc's own knows every processor.
    subprocess.run([tools / "rust-objcopy", "--strip-debug", module], check=True)


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
    flags = found.get("RUSTFLAGS", "").split()
    # Profile-guided: `generate=DIRECTORY` makes a module that counts, `use=FILE` one that knows the
    # counts (`python -m framegate_bench train`). With --target the flags are not those of build
    # scripts.
    if pgo := os.environ.get("FRAMEGATE_PGO"):
        way, _, place = pgo.partition("=")
        if way not in {"generate", "use"} or not place:
            sys.exit(f"framegate: FRAMEGATE_PGO is {pgo!r}, not generate=DIRECTORY or use=FILE")
        flags.append(f"-Cprofile-{way}={place}")
        command[command.index("--target-dir") + 1] = f"{options.target_dir}/pgo-{way}"
    target = os.environ.get("FRAMEGATE_ZIG_TARGET", "")
    if pgo and not target:
        command += ["--target", host()]
        found |= AS_THROUGH_ZIG
    if target:  # x86_64-linux-gnu.2.28: .ci/zig-wheel, which names zig for C++, too
        architecture, _, glibc = target.partition("-linux-gnu.")
        command += ["--zig", "--target", f"{architecture}-unknown-linux-gnu"]
        command[command.index("off")] = "manylinux_" + glibc.replace(".", "_")
        for name in ("CC", "CXX"):  # maturin's own are for crates of that target only
            found.pop(name, None)
        flags.append("-Cstrip=none")  # zig would strip the names of functions, too: strip_debug()
        if architecture != platform.machine():  # its name: what maturin knows of it
            version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
            command[command.index(interpreter)] = version
            if pgo:
                sys.exit(f"framegate: a profile of this machine does not fit {architecture}")
    if flags:
        found["RUSTFLAGS"] = " ".join(flags)
    with tempfile.TemporaryDirectory() as scratch:
        if subprocess.run([*command, "--out", scratch], env=found).returncode != 0:
            sys.exit("framegate: the Rust module did not build; cargo's message is above")
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (n for n in archive.namelist() if n.endswith((".so", ".pyd")))
            extracted = Path(archive.extract(name, scratch))
        if target:
            strip_debug(extracted)
        module = extracted.read_bytes()
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
