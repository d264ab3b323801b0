//! The program finds the library of the Python that it was built for, also where the module was told that it is loaded by one.

fn main() {
    let config = pyo3_build_config::get();
    if let Some(directory) = &config.lib_dir {
        println!("cargo::rustc-link-search=native={directory}");
        println!("cargo::rustc-link-arg-bins=-Wl,-rpath,{directory}");
    }
    if let Some(name) = &config.lib_name {
        println!("cargo::rustc-link-lib={name}");
    }
}
