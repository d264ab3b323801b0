//! `platform serve` as one program: Rust's `main`, the core linked in, and Python embedded.
//!
//! For profilers and debuggers, which then see one binary with its symbols and lines in place of an interpreter that loads a
//! module:
//!
//! ```text
//! $ cargo run -p framegate-server -- app.py --port 8000
//! $ perf record -g target/debug/framegate-server app.py --no-access-log
//! $ rust-gdb --args target/debug/framegate-server app:app
//! ```
//!
//! Python's half comes from the environment (`$VIRTUAL_ENV`, else `.venv`), where `uv sync` has put it; `framegate._http` is the one
//! that is linked in. All words behind the application are those of `platform serve`. Only what one worker does happens in
//! this process: with `--workers 2` the workers are ordinary processes of the environment's Python.

#![expect(
    unsafe_code,
    reason = "embedding: the interpreter is started by its C API"
)]

use std::{
    env,
    ffi::{CStr, CString, OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

// Brings `PyInit__http` along.
use _http as _;
use pyo3::ffi;

/// What is linked in, by the name under which Python imports it.
const MODULE: &CStr = c"framegate._http";

/// `python -m framegate` with that module. Python looks for the modules of a package in its directory alone, so somebody has to say
/// that this one is built in.
const PROGRAM: &str = "
import sys
from importlib.machinery import BuiltinImporter
from importlib.util import spec_from_loader

class LinkedIn:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == 'framegate._http':
            return spec_from_loader(name, BuiltinImporter, origin='built-in')

sys.meta_path.insert(0, LinkedIn)
from framegate.cli import main
sys.exit(main())
";

unsafe extern "C" {
    fn PyInit__http() -> *mut ffi::PyObject;
}

fn main() -> ExitCode {
    let mut words = env::args_os().skip(1);
    let Some(application) = words
        .next()
        .filter(|word| !word.as_bytes().starts_with(b"-"))
    else {
        eprintln!(
            "framegate-server: which application? framegate-server app.py --port 8000, or module:app; \
             what follows it is what follows in `platform serve`"
        );
        return ExitCode::from(2);
    };
    let mut arguments = vec![interpreter().into_os_string()];
    arguments.extend(["-c", PROGRAM, "serve"].map(OsString::from));
    arguments.extend(name_of(&application));
    arguments.extend(words);
    run(&arguments)
}

/// A file becomes a module and where to look for it: `dir/app.py:api` is `app:api --app-dir dir`.
fn name_of(application: &OsStr) -> Vec<OsString> {
    let bytes = application.as_bytes();
    let (file, attribute) = match bytes.iter().rposition(|&byte| byte == b':') {
        Some(colon) => (&bytes[..colon], &bytes[colon + 1..]),
        None => (bytes, &b"app"[..]),
    };
    let Some(stem) = file.strip_suffix(b".py") else {
        return vec![application.to_owned()];
    };
    let stem = Path::new(OsStr::from_bytes(stem));
    let mut name = stem.file_name().unwrap_or_default().to_owned();
    name.push(":");
    name.push(OsStr::from_bytes(attribute));
    let directory = match stem.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.as_os_str(),
        _ => OsStr::new("."),
    };
    vec![name, "--app-dir".into(), directory.to_owned()]
}

/// The Python of the environment: by this path the embedded one knows where packages are.
fn interpreter() -> PathBuf {
    let environment = env::var_os("VIRTUAL_ENV").unwrap_or_else(|| ".venv".into());
    Path::new(&environment).join("bin/python")
}

/// Does what the interpreter that stands first in the arguments would.
fn run(arguments: &[OsString]) -> ExitCode {
    let arguments: Vec<_> = arguments
        .iter()
        .map(|word| CString::new(word.as_bytes()).expect("an argument ends at a zero"))
        .collect();
    let mut pointers: Vec<_> = arguments
        .iter()
        .map(|word| word.as_ptr().cast_mut())
        .collect();
    let count = pointers.len().try_into().expect("few arguments");
    // SAFETY: the interpreter is not initialised yet, and the function has the signature that it wants.
    let added = unsafe { ffi::PyImport_AppendInittab(MODULE.as_ptr(), Some(PyInit__http)) };
    assert_eq!(added, 0, "no memory for one name");
    // SAFETY: as many strings as are counted, each ends with a zero; all of them outlive the call.
    let code = unsafe { ffi::Py_BytesMain(count, pointers.as_mut_ptr()) };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
