#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tidelog::fuzz::record_compressed(data);
});
