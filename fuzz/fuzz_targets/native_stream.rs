#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidelog::fuzz::native_stream(data));
