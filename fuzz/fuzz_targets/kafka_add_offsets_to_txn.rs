#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidelog::fuzz::kafka("kafka_add_offsets_to_txn", data));
