/work/wt/wsproof/benchmarks/native/target/release/deps/smallvec-cd036688d384d712.d: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/smallvec-1.16.5/src/lib.rs

/work/wt/wsproof/benchmarks/native/target/release/deps/libsmallvec-cd036688d384d712.rmeta: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/smallvec-1.16.5/src/lib.rs

/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/smallvec-1.16.5/src/lib.rs:
