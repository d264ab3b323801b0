//! Links the static library of the Python package in which this crate lies.
use std::path::PathBuf;

fn main() {
    let crate_directory = std::env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo");
    let library = PathBuf::from(crate_directory).join("../../lib");
    println!("cargo::rustc-link-search=native={}", library.display());
    println!("cargo::rustc-link-lib=static=framegate_shm");
    println!(
        "cargo::rerun-if-changed={}",
        library.join("libframegate_shm.a").display()
    );
}
