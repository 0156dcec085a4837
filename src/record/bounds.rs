//! What a batch may weigh: at the door, where a producer's batch is accepted, and in front of every reader.

use crate::base::limits;

/// The limits that a batch is held to while its records are walked.
///
/// [`Bounds::reading`] is laxer in every field than [`Bounds::accepting`] and [`Bounds::own`], so whatever was accepted is
/// read. Readers have limits of their own for what earlier versions accepted, and for what got onto the disk otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of the batch as it is sent and stored.
    pub(crate) batch: usize,
    /// Bytes of its records, decompressed.
    pub(crate) opened: usize,
    /// Bytes of one record, decompressed.
    pub(crate) record: usize,
    /// Headers of one record.
    pub(crate) headers: usize,
    /// Bytes of the headers of one record, names, values and lengths.
    pub(crate) header_bytes: usize,
    /// Bytes of the records, decompressed, and [`limits::HEADER_WEIGHT`] for each header.
    pub(crate) weight: usize,
}

impl Bounds {
    /// What a topic with this `max_message_bytes` takes from producers.
    pub const fn accepting(max_message_bytes: usize) -> Self {
        let opened = opened_bytes(max_message_bytes);
        Self {
            batch: max_message_bytes,
            opened,
            record: limits::RECORD_BYTES,
            headers: limits::RECORD_HEADERS,
            header_bytes: limits::RECORD_HEADER_BYTES,
            weight: opened,
        }
    }

    /// The same, with records of at most so many bytes when decompressed: a look that is sure to be short.
    pub fn opened_to(self, bytes: usize) -> Self {
        Self { opened: self.opened.min(bytes), weight: self.weight.min(bytes), ..self }
    }

    /// What the server itself may write there: a record that was accepted, with headers of the server's own.
    pub const fn own(max_message_bytes: usize) -> Self {
        let accepting = Self::accepting(max_message_bytes);
        Self {
            headers: accepting.headers + limits::OWN_HEADERS,
            header_bytes: accepting.header_bytes + limits::OWN_HEADER_BYTES,
            weight: accepting.weight + limits::MAX_BATCH_BYTES,
            ..accepting
        }
    }

    /// What is read at most, with up to so many bytes of decompressed records.
    pub const fn reading(max_decompressed: usize) -> Self {
        Self {
            batch: limits::MAX_BATCH_BYTES,
            opened: max_decompressed,
            record: max_decompressed,
            headers: limits::RECORD_HEADERS + limits::OWN_HEADERS,
            header_bytes: max_decompressed,
            weight: limits::READ_WEIGHT,
        }
    }
}

/// Bytes that the records of a batch may have, decompressed, where batches of up to `max_message_bytes` are taken. Always at
/// least `max_message_bytes` itself, so a batch that would be accepted uncompressed is accepted with any codec.
///
/// Honest producers bound their batches before or after the codec. Those that bound them before (librdkafka, this crate's
/// client) never come near. Those that bound them after (Kafka's Java client fills `batch.size` with compressed bytes) send
/// JSON at 10:1 and repetitive logs at 20:1 to 50:1; a batch of 1 MiB at 50:1 fits a topic of 1 MiB or more.
pub const fn opened_bytes(max_message_bytes: usize) -> usize {
    let dense = max_message_bytes.saturating_mul(limits::OPENED_TIMES.0);
    let dense = if dense < limits::OPENED_BYTES { dense } else { limits::OPENED_BYTES };
    let always = max_message_bytes.saturating_mul(limits::OPENED_TIMES.1);
    if dense > always { dense } else { always }
}

const _: () = {
    let largest = Bounds::own(limits::MAX_BATCH_BYTES);
    let reading = Bounds::reading(limits::MAX_DECOMPRESSED_BYTES);
    assert!(largest.opened <= reading.opened && largest.record <= reading.record);
    assert!(largest.headers <= reading.headers && largest.header_bytes <= reading.header_bytes);
    assert!(largest.weight <= reading.weight);
};
