"""Who may import whom: ARCHITECTURE.md's arrows, checked on the sources themselves."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "framegate"

# Modules of the package that each module may import. A module that is not listed may import
# anything below `cli`.
PARENT_PROCESS = {
    "access_format",
    "binds",
    "channel",
    "ciphers",
    "config",
    "config_kinds",
    "cores",
    "env_file",
    "errors",
    "limits_area",
    "listener",
    "log_config",
    "logging",
    "name_lock",
    "recycling",
    "runtime_segment",
    "socket_holder",
    "static_mounts",
    "steady_stream",
    "supervisor",
    "system",
    "system_linux",
    "system_macos",
    "systemd",
    "threading_model",
    "topic_access",
    "topic_patterns",
    "topic_rules",
    "unix_socket",
    "wakeups",
    "worker_process",
    "uvicorn_options",
}
NATIVE = {
    "_http": {
        "worker",
        "loop",
        "server",
        "app",
        "build",
        "body_ingest",
        "client",
        "frame_stream",  # pictures, where another server sends them
        "recording",
        "remote",
        "runtime_segment",
        "topic_top",  # draws and makes pictures with it
        "tracing",  # called by it alone
        "__init__",
    },
    "_shm": {"shm", "bridge", "calls", "remote", "build", "__init__"},
}


def imports_of(path: Path) -> set[str]:
    """Names of framegate's own modules that the file imports, at its top or later."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(), str(path))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0] == "framegate"
        ):
            parts = node.module.split(".")
            found.update([parts[1]] if len(parts) > 1 else [alias.name for alias in node.names])
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.update([node.module] if node.module else [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "framegate" and len(parts) > 1:
                    found.add(parts[1])
    return found


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_only_the_named_modules_import_a_native_module() -> None:
    for path in modules():
        for native, allowed in NATIVE.items():
            if native in imports_of(path):
                assert name_of(path) in allowed, f"{path} imports framegate.{native}"


def test_the_parent_process_imports_neither_the_app_nor_a_native_module() -> None:
    reached, queue = set(), ["supervisor"]
    while queue:
        module = queue.pop()
        path = PACKAGE / f"{module}.py"
        if module in reached or not path.exists():
            continue
        reached.add(module)
        queue += imports_of(path)
    assert reached <= PARENT_PROCESS, reached - PARENT_PROCESS


def test_errors_and_config_are_leaves() -> None:
    assert imports_of(PACKAGE / "errors.py") == set()
    assert imports_of(PACKAGE / "config.py") <= {
        "access_format",
        "binds",
        "ciphers",
        "config_kinds",
        "env_file",
        "errors",
        "system",
        "systemd",
        "uvicorn_options",
    }
    assert imports_of(PACKAGE / "config_kinds.py") <= {
        "access_format",
        "binds",
        "ciphers",
        "errors",
        "static_mounts",
        "topic_access",
        "topic_rules",
    }
    for name in (
        "access_format",
        "binds",
        "ciphers",
        "env_file",
        "static_mounts",
        "systemd",
        "topic_access",
        "topic_patterns",
        "topic_rules",
        "uvicorn_options",
    ):  # what config itself needs
        assert imports_of(PACKAGE / f"{name}.py") <= {"errors", "system", "topic_patterns"}


def test_what_systems_differ_in_knows_nothing_else() -> None:
    assert imports_of(PACKAGE / "system.py") == {"system_linux", "system_macos"}
    for name in ("system_linux", "system_macos"):
        assert imports_of(PACKAGE / f"{name}.py") == set()
    for path in modules():
        if path.name != "system.py":
            assert not imports_of(path) & {"system_linux", "system_macos"}, path


def test_no_module_is_called_platform() -> None:
    assert not [path for path in ROOT.glob("python/**/platform*") if path.suffix in {".py", ""}]


@pytest.mark.parametrize(
    ("crate", "banned"),
    [
        ("http", {"pyo3", "framegate-shm", "framegate-routes", "framegate-client"}),
        ("routes", {"pyo3", "tokio", "hyper", "framegate-http", "framegate-shm"}),
        ("client", {"pyo3", "framegate-shm"}),
        ("shm", {"pyo3", "tokio", "hyper", "framegate-http"}),
    ],
)
def test_leaf_crates_know_neither_python_nor_each_other(crate: str, banned: set[str]) -> None:
    manifest = tomllib.loads((ROOT / "rust" / crate / "Cargo.toml").read_text())
    assert not banned & set(manifest.get("dependencies", {}))


@pytest.mark.parametrize("crate", ["http", "routes"])
def test_crates_that_read_what_strangers_send_forbid_unsafe_code(crate: str) -> None:
    assert "#![forbid(unsafe_code)]" in (ROOT / "rust" / crate / "src/lib.rs").read_text()


def test_only_the_binding_knows_python_in_cpp() -> None:
    for path in [*(ROOT / "cpp/src").glob("*"), *(ROOT / "cpp/include").rglob("*.h*")]:
        text = path.read_text()
        assert "Python.h" not in text and "nanobind" not in text, path


def test_the_slot_algorithm_makes_no_system_call() -> None:
    """slots.cpp runs over plain heap memory; what sleeps or maps is in wake.cpp, segment.cpp,
    liveness.cpp.
    """
    for name in ("slots.cpp", "slots.hpp", "mailbox.cpp", "mailbox.hpp"):
        text = (ROOT / "cpp/src" / name).read_text()
        assert not re.search(r"#include <(sys/|unistd|fcntl|linux/)", text), name


def test_the_library_uses_no_libstdcpp_object() -> None:
    banned = re.compile(
        r"#include <(string|vector|iostream|memory|map|unordered_map|functional|stdexcept)>"
    )
    for path in (ROOT / "cpp/src").glob("*"):
        assert not banned.search(path.read_text()), path
