/work/wt/wsproof/benchmarks/native/target/release/deps/pin_project_lite-5b4fc331bff210b8.d: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/pin-project-lite-0.2.17/src/lib.rs

/work/wt/wsproof/benchmarks/native/target/release/deps/libpin_project_lite-5b4fc331bff210b8.rmeta: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/pin-project-lite-0.2.17/src/lib.rs

/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/pin-project-lite-0.2.17/src/lib.rs:
