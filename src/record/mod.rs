//! Floor 1: Apache Kafka's RecordBatch v2, the one format on disk and on both wires. Pure: bytes in, values out.
//!
//! Knows nothing of files, sockets or time. Source of the format: the Kafka protocol guide, "Record Batch".

mod bounds;
mod builder;
mod check;
mod chunks;
mod compress;
mod control;
mod error;
mod header;
mod headers;
pub mod json;
mod partitioner;
mod records;
mod repack;
mod snappy;
mod thin;
mod varint;
mod walk;

pub use bounds::{Bounds, opened_bytes};
pub use builder::{BatchBuilder, BatchOptions, set_producer};
pub use check::{
    Checked, CheckedRecords, Look, check_compressed, check_produced, check_stored, verify_batch, walk_records,
};
pub use compress::Compression;
pub use control::{Marker, marker_batch, read_marker};
pub use error::BatchError;
pub use header::{BatchHeader, patch_assigned, set_append_time, set_max_timestamp};
pub use headers::{Header, HeaderIter, Headers};
pub use partitioner::partition_for_key;
pub use records::{Batches, Record, RecordIter, read_records};
pub use repack::repack;
pub use thin::{KeyedRecord, Thinned, each_key, empty_batch, gap_batches, thin};

#[cfg(test)]
mod tests;
