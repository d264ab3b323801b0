/work/wt/wsproof/benchmarks/native/target/release/deps/limit-cd046536276e9e07.d: src/bin/limit.rs

/work/wt/wsproof/benchmarks/native/target/release/deps/liblimit-cd046536276e9e07.rmeta: src/bin/limit.rs

src/bin/limit.rs:
