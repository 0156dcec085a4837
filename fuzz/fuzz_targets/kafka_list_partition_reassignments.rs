#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidelog::fuzz::kafka("kafka_list_partition_reassignments", data));
