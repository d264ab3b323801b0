/work/wt/wsproof/benchmarks/native/target/release/deps/crypto_common-0c54eaf794d88dfe.d: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crypto-common-0.1.7/src/lib.rs

/work/wt/wsproof/benchmarks/native/target/release/deps/libcrypto_common-0c54eaf794d88dfe.rmeta: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crypto-common-0.1.7/src/lib.rs

/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crypto-common-0.1.7/src/lib.rs:
