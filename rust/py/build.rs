//! The version comes from the root pyproject.toml, the one place where it is written; profile and commit are recorded
//! for `framegate.build_info()`.
use std::process::Command;

fn output(program: &str, arguments: &[&str]) -> String {
    Command::new(program)
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success())
        .map_or_else(
            || "unknown".to_owned(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
}

fn main() {
    let root = format!(
        "{}/../..",
        std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo")
    );
    let pyproject = format!("{root}/pyproject.toml");
    println!("cargo::rerun-if-changed={pyproject}");
    let text = std::fs::read_to_string(&pyproject).expect("root pyproject.toml");
    let line = text
        .lines()
        .find(|line| line.starts_with("version = \""))
        .expect("version line");
    println!(
        "cargo::rustc-env=FRAMEGATE_VERSION={}",
        line.split('"').nth(1).expect("quoted version")
    );
    // cargo's own names: "debug" for the dev profile, "release" for release.
    let profile = std::env::var("PROFILE").expect("set by cargo");
    println!("cargo::rustc-env=FRAMEGATE_PROFILE={profile}");
    // RUSTFLAGS by the unit separator; cmake/build_http.py says it.
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    println!(
        "cargo::rustc-env=FRAMEGATE_PGO={}",
        flags.contains("-Cprofile-use=")
    );
    println!(
        "cargo::rustc-env=FRAMEGATE_RUSTC={}",
        output("rustc", &["--version"])
    );
    println!(
        "cargo::rustc-env=FRAMEGATE_COMMIT={}",
        output("git", &["-C", &root, "rev-parse", "--short=12", "HEAD"])
    );
    // A development build keeps the commit at which this crate was last compiled: none is compiled for a commit alone. What
    // is not there would always count as changed.
    let moves = output(
        "git",
        &["-C", &root, "rev-parse", "--git-path", "logs/HEAD"],
    );
    let moves = std::path::Path::new(&root).join(moves);
    if profile == "release" && moves.exists() {
        println!("cargo::rerun-if-changed={}", moves.display());
    }
}
