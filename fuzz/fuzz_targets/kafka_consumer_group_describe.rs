#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidelog::fuzz::kafka("kafka_consumer_group_describe", data));
