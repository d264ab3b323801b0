//! Compiles the C++ library straight into this crate, so `cargo test` needs nothing but a C++ compiler.
use std::path::PathBuf;

fn main() {
    // Read at run time, not by `env!`: a target directory shared by two checkouts would keep the path of the dead one.
    let cpp = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"))
        .join("../../cpp");
    println!("cargo::rerun-if-changed={}", cpp.join("src").display());
    println!("cargo::rerun-if-changed={}", cpp.join("include").display());
    println!(
        "cargo::rerun-if-changed={}",
        cpp.join("third_party").display()
    );
    let mut sources: Vec<_> = std::fs::read_dir(cpp.join("src"))
        .expect("cpp/src")
        .map(|entry| entry.expect("cpp/src").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cpp"))
        .collect();
    sources.sort();
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .include(cpp.join("include"))
        .include(cpp.join("src"))
        .files(&sources)
        .flag_if_supported("-fvisibility=hidden")
        .flag_if_supported("-fno-exceptions")
        .flag_if_supported("-fno-rtti")
        .cpp_link_stdlib(None) // the library uses no libstdc++ symbol: nothing to link
        .compile("framegate_shm");
}
