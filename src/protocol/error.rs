//! What can be wrong with a frame.

/// Why a frame is refused. After any of these the connection closes: where one frame is broken, nobody knows where the
/// next begins.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field is below that of a header.
    #[error("frame length {length} is below the shortest of {least}")]
    TooShort {
        /// What it says.
        length: u32,
        /// The least it can say.
        least: u32,
    },
    /// The length field is above the limit.
    #[error("frame of {length} bytes is larger than the limit of {limit} bytes")]
    TooLong {
        /// Bytes of the frame, its length field included.
        length: u64,
        /// The limit.
        limit: u64,
    },
    /// The body is above the limit, or longer than its frame.
    #[error("frame body of {length} bytes; at most {limit} fit")]
    Body {
        /// What it says.
        length: u32,
        /// The limit.
        limit: u32,
    },
    /// The checksum does not fit.
    #[error("frame checksum {computed:08x} where {stored:08x} is stated")]
    Checksum {
        /// In the frame.
        stored: u32,
        /// Of its content.
        computed: u32,
    },
    /// The body is not the message that the kind names.
    #[error("body of message kind {kind} cannot be read: {what}")]
    Message {
        /// The kind.
        kind: u16,
        /// What is wrong.
        what: String,
    },
}
