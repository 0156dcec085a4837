//! What commands print as JSON, beside records.

use serde::Serialize;
pub use tidelog::record::json::{RecordLine, Shown, Text};

/// An acknowledged record, one line of `produce --json`.
#[derive(Serialize)]
pub struct ReceiptLine<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: u32,
    /// Its offset; null with `--ack none`, where nobody tells.
    pub offset: Option<u64>,
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
}
