#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| framegate_http::fuzz::picture_size(data));
