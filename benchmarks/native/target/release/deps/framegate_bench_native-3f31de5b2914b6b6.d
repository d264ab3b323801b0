/work/wt/wsproof/benchmarks/native/target/release/deps/framegate_bench_native-3f31de5b2914b6b6.d: src/lib.rs src/arguments.rs src/wsframe.rs

/work/wt/wsproof/benchmarks/native/target/release/deps/libframegate_bench_native-3f31de5b2914b6b6.rmeta: src/lib.rs src/arguments.rs src/wsframe.rs

src/lib.rs:
src/arguments.rs:
src/wsframe.rs:
