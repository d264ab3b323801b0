/work/wt/wsproof/benchmarks/native/target/release/deps/atomic_waker-97ad8af065842f61.d: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/atomic-waker-1.1.2/src/lib.rs

/work/wt/wsproof/benchmarks/native/target/release/deps/libatomic_waker-97ad8af065842f61.rmeta: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/atomic-waker-1.1.2/src/lib.rs

/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/atomic-waker-1.1.2/src/lib.rs:
