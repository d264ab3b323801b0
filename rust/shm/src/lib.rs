//! Safe Rust over the C ABI (`cpp/include/framegate/shm.h`) of the shared-memory frame transport.
