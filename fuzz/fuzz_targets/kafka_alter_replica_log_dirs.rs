#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidelog::fuzz::kafka("kafka_alter_replica_log_dirs", data));
