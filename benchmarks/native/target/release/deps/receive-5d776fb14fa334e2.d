/work/wt/wsproof/benchmarks/native/target/release/deps/receive-5d776fb14fa334e2.d: src/bin/receive.rs

/work/wt/wsproof/benchmarks/native/target/release/deps/libreceive-5d776fb14fa334e2.rmeta: src/bin/receive.rs

src/bin/receive.rs:
