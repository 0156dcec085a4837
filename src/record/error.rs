//! Why a batch is refused.

/// What is wrong with a batch or a record in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("a batch of {need} bytes of which {have} are there")]
    Truncated {
        /// Bytes it should have.
        need: usize,
        /// Bytes there are.
        have: usize,
    },
    /// Not RecordBatch v2.
    #[error("batch format {magic}; only format 2 (RecordBatch v2) is taken")]
    Magic {
        /// The magic byte found.
        magic: u8,
    },
    /// A header field has an impossible value.
    #[error("batch header field {field} is {value}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        value: i64,
    },
    /// The checksum does not fit the content.
    #[error("batch checksum {computed:08x} where {stored:08x} is stored")]
    Checksum {
        /// In the header.
        stored: u32,
        /// Of the content.
        computed: u32,
    },
    /// Larger than allowed.
    #[error("batch of {size} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Bytes it has.
        size: usize,
        /// Bytes it may have.
        limit: usize,
    },
    /// More than one batch where one is expected.
    #[error("{extra} bytes behind the batch")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// A control batch, which only the server writes.
    #[error("control batches are not taken from producers")]
    Control,
    /// A delete horizon, which only compaction sets.
    #[error("batches with a delete horizon are not taken from producers")]
    Horizon,
    /// A record without a key where one is needed.
    #[error("record {index} of the batch has no key; a compacted topic takes only records with a key")]
    NoKey {
        /// Its place in the batch, from 0.
        index: u32,
    },
    /// A record is not well formed.
    #[error("record {index} of the batch: {what}")]
    Record {
        /// Its place in the batch, from 0.
        index: u32,
        /// What is wrong.
        what: &'static str,
    },
    /// A timestamp is further from the server's clock than the topic allows.
    #[error("record timestamp {time} is {by} ms {side} the server's clock, more than the topic's limit of {limit} ms")]
    Timestamp {
        /// The timestamp.
        time: i64,
        /// How far off it is.
        by: i64,
        /// In which direction.
        side: &'static str,
        /// How far it may be.
        limit: i64,
    },
    /// The records cannot be decompressed.
    #[error("{codec} records cannot be decompressed: {what}")]
    Decompress {
        /// The codec.
        codec: &'static str,
        /// What is wrong.
        what: String,
    },
    /// More records than allowed.
    #[error("a batch of {count} records is larger than the limit of {limit} records")]
    TooMany {
        /// Records it has.
        count: u32,
        /// Records it may have.
        limit: u32,
    },
    /// A record is larger than allowed, or has more headers.
    #[error("record {index} of the batch has {size} {what}, more than the limit of {limit}")]
    RecordTooLarge {
        /// Its place in the batch, from 0.
        index: u32,
        /// What it has too much of.
        what: &'static str,
        /// How much it has.
        size: usize,
        /// How much it may have.
        limit: usize,
    },
    /// The records up to one of them have so many headers that they would take more memory than allowed.
    #[error(
        "{headers} headers in {bytes} bytes of records take {weight} bytes of memory, more than the limit of {limit}"
    )]
    TooHeavy {
        /// Headers so far.
        headers: usize,
        /// Bytes of records so far.
        bytes: usize,
        /// What they take.
        weight: usize,
        /// What they may take.
        limit: usize,
    },
    /// The records decompress to more than allowed.
    #[error("{size} bytes of compressed records decompress to more than the limit of {limit} bytes")]
    Bomb {
        /// Bytes they have compressed.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

impl BatchError {
    /// The record that it is about, by its place in the batch from 0, if it is about one.
    pub fn record(&self) -> Option<u32> {
        match self {
            Self::NoKey { index } | Self::Record { index, .. } | Self::RecordTooLarge { index, .. } => Some(*index),
            _ => None,
        }
    }

    /// It is well formed, but larger than a limit: fewer or smaller records would be taken.
    pub fn is_too_large(&self) -> bool {
        matches!(
            self,
            Self::TooLarge { .. }
                | Self::TooMany { .. }
                | Self::RecordTooLarge { .. }
                | Self::TooHeavy { .. }
                | Self::Bomb { .. }
        )
    }
}
