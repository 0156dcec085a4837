//! What a caller can do about a failure: few kinds, each of which prescribes something different.

use std::fmt;

/// The kind of a refusal or failure. Every layer's error maps to one of these, and every listener maps these to its
/// own protocol in one place. The `u16` codes are those of the native protocol and never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum ErrorKind {
    /// The request itself is wrong (a name, a value, a combination); the same request fails again.
    InvalidRequest = 1,
    /// The topic, partition or thing named does not exist.
    NotFound = 2,
    /// What was to be created exists.
    AlreadyExists = 3,
    /// The offset is below the log start or above the log end; the message states the range.
    OffsetOutOfRange = 4,
    /// A record, batch or frame is larger than the limit.
    TooLarge = 5,
    /// A batch that came in is not whole and well formed (checksum, counts, lengths).
    CorruptBatch = 6,
    /// Stored data is damaged; the message names file, position and offsets. Not repaired by retrying.
    Damaged = 7,
    /// No room on the disk. Retry when there is.
    StorageFull = 8,
    /// The partition takes no writes until it has been reopened and verified after a failed sync or write. Retry later.
    Poisoned = 9,
    /// A producer with the same id and a newer epoch exists.
    FencedProducer = 10,
    /// A producer's sequence number leaves a gap or lies too far back.
    OutOfOrderSequence = 11,
    /// The protocol version, message kind or feature is not supported here.
    Unsupported = 12,
    /// A stated limit (connections, bytes in flight, subscriptions) is reached. Retry later.
    Overloaded = 13,
    /// The server is stopping. Retry elsewhere or later.
    ShuttingDown = 14,
    /// Nothing happened within the time allowed.
    TimedOut = 15,
    /// The frame could not be understood; the connection closes.
    BadFrame = 16,
    /// Another process holds what is needed (the directory lock).
    Busy = 17,
    /// The connection broke or could not be made. Retry.
    Disconnected = 18,
    /// Reading or writing failed for another reason of the machine; the cause is in the message.
    Io = 19,
    /// A fault of Tidelog's own.
    Internal = 20,
    /// The member is not in the group (any more), speaks of an earlier time, or does not own what it speaks of. What it
    /// had may be others' by now; it has to join again.
    FencedMember = 21,
    /// A record is not of the sort that its topic takes: one without a key, where records are compacted by key.
    InvalidRecord = 22,
}

impl ErrorKind {
    /// Every kind, in the order of its code.
    pub const ALL: [ErrorKind; 22] = [
        Self::InvalidRequest,
        Self::NotFound,
        Self::AlreadyExists,
        Self::OffsetOutOfRange,
        Self::TooLarge,
        Self::CorruptBatch,
        Self::Damaged,
        Self::StorageFull,
        Self::Poisoned,
        Self::FencedProducer,
        Self::OutOfOrderSequence,
        Self::Unsupported,
        Self::Overloaded,
        Self::ShuttingDown,
        Self::TimedOut,
        Self::BadFrame,
        Self::Busy,
        Self::Disconnected,
        Self::Io,
        Self::Internal,
        Self::FencedMember,
        Self::InvalidRecord,
    ];

    /// The code on the native wire.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// The kind of a code, `None` for one that this version does not know.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Whether the same request may succeed later without anybody changing it.
    pub fn is_retriable(self) -> bool {
        matches!(
            self,
            Self::StorageFull
                | Self::Poisoned
                | Self::Overloaded
                | Self::ShuttingDown
                | Self::TimedOut
                | Self::Busy
                | Self::Disconnected
        )
    }

    /// The name in JSON output and metrics: snake case, stable.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::OffsetOutOfRange => "offset_out_of_range",
            Self::TooLarge => "too_large",
            Self::CorruptBatch => "corrupt_batch",
            Self::Damaged => "damaged",
            Self::StorageFull => "storage_full",
            Self::Poisoned => "poisoned",
            Self::FencedProducer => "fenced_producer",
            Self::OutOfOrderSequence => "out_of_order_sequence",
            Self::Unsupported => "unsupported",
            Self::Overloaded => "overloaded",
            Self::ShuttingDown => "shutting_down",
            Self::TimedOut => "timed_out",
            Self::BadFrame => "bad_frame",
            Self::Busy => "busy",
            Self::Disconnected => "disconnected",
            Self::Io => "io",
            Self::Internal => "internal",
            Self::FencedMember => "fenced_member",
            Self::InvalidRecord => "invalid_record",
        }
    }

    /// The kind of an operating-system error: a full disk or quota is told apart from every other fault.
    pub fn of_io(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::StorageFull,
            _ => Self::Io,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
