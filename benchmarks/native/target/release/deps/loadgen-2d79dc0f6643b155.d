/work/wt/wsproof/benchmarks/native/target/release/deps/loadgen-2d79dc0f6643b155.d: src/bin/loadgen/main.rs src/bin/loadgen/histogram.rs src/bin/loadgen/http.rs src/bin/loadgen/pace.rs src/bin/loadgen/websocket.rs

/work/wt/wsproof/benchmarks/native/target/release/deps/libloadgen-2d79dc0f6643b155.rmeta: src/bin/loadgen/main.rs src/bin/loadgen/histogram.rs src/bin/loadgen/http.rs src/bin/loadgen/pace.rs src/bin/loadgen/websocket.rs

src/bin/loadgen/main.rs:
src/bin/loadgen/histogram.rs:
src/bin/loadgen/http.rs:
src/bin/loadgen/pace.rs:
src/bin/loadgen/websocket.rs:
