//! Kafka's error codes, and the one mapping of the broker's errors to them. Which of them clients try again with is
//! Kafka's own rule, so that what may pass by itself (a full disk, a partition under repair) has a code that is retried.

use std::error::Error;

use crate::base::{ErrorKind, Seldom};
use crate::broker::{BrokerError, ClassicError, MemberError, TransactionError};
use crate::log::LogError;
use crate::record::BatchError;

pub const NONE: i16 = 0;
pub const UNKNOWN_SERVER_ERROR: i16 = -1;
pub const OFFSET_OUT_OF_RANGE: i16 = 1;
pub const CORRUPT_MESSAGE: i16 = 2;
pub const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
pub const LEADER_NOT_AVAILABLE: i16 = 5;
pub const REQUEST_TIMED_OUT: i16 = 7;
pub const MESSAGE_TOO_LARGE: i16 = 10;
pub const OFFSET_METADATA_TOO_LARGE: i16 = 12;
pub const COORDINATOR_NOT_AVAILABLE: i16 = 15;
pub const INVALID_TOPIC: i16 = 17;
pub const INVALID_REQUIRED_ACKS: i16 = 21;
pub const ILLEGAL_GENERATION: i16 = 22;
pub const INCONSISTENT_GROUP_PROTOCOL: i16 = 23;
pub const INVALID_GROUP_ID: i16 = 24;
pub const UNKNOWN_MEMBER_ID: i16 = 25;
pub const INVALID_SESSION_TIMEOUT: i16 = 26;
pub const REBALANCE_IN_PROGRESS: i16 = 27;
pub const INVALID_TIMESTAMP: i16 = 32;
pub const UNSUPPORTED_VERSION: i16 = 35;
pub const TOPIC_ALREADY_EXISTS: i16 = 36;
pub const INVALID_PARTITIONS: i16 = 37;
pub const INVALID_REPLICATION_FACTOR: i16 = 38;
pub const INVALID_REPLICA_ASSIGNMENT: i16 = 39;
pub const INVALID_CONFIG: i16 = 40;
pub const INVALID_REQUEST: i16 = 42;
pub const POLICY_VIOLATION: i16 = 44;
pub const UNSUPPORTED_FOR_MESSAGE_FORMAT: i16 = 43;
pub const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
pub const INVALID_PRODUCER_EPOCH: i16 = 47;
pub const INVALID_TXN_STATE: i16 = 48;
pub const INVALID_PRODUCER_ID_MAPPING: i16 = 49;
pub const INVALID_TRANSACTION_TIMEOUT: i16 = 50;
pub const CONCURRENT_TRANSACTIONS: i16 = 51;
pub const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
pub const OPERATION_NOT_ATTEMPTED: i16 = 55;
pub const KAFKA_STORAGE_ERROR: i16 = 56;
pub const LOG_DIR_NOT_FOUND: i16 = 57;
pub const NON_EMPTY_GROUP: i16 = 68;
pub const GROUP_ID_NOT_FOUND: i16 = 69;
pub const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
pub const INVALID_FETCH_SESSION_EPOCH: i16 = 71;
pub const UNKNOWN_LEADER_EPOCH: i16 = 75;
pub const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
pub const OFFSET_NOT_AVAILABLE: i16 = 78;
pub const MEMBER_ID_REQUIRED: i16 = 79;
pub const GROUP_MAX_SIZE_REACHED: i16 = 81;
pub const FENCED_INSTANCE_ID: i16 = 82;
pub const ELECTION_NOT_NEEDED: i16 = 84;
pub const NO_REASSIGNMENT_IN_PROGRESS: i16 = 85;
pub const GROUP_SUBSCRIBED_TO_TOPIC: i16 = 86;
pub const INVALID_RECORD: i16 = 87;
pub const UNSTABLE_OFFSET_COMMIT: i16 = 88;
pub const PRODUCER_FENCED: i16 = 90;
pub const UNKNOWN_TOPIC_ID: i16 = 100;
pub const TRANSACTIONAL_ID_NOT_FOUND: i16 = 105;
pub const FENCED_MEMBER_EPOCH: i16 = 110;
pub const UNRELEASED_INSTANCE_ID: i16 = 111;
pub const UNSUPPORTED_ASSIGNOR: i16 = 112;
pub const STALE_MEMBER_EPOCH: i16 = 113;
pub const MISMATCHED_ENDPOINT_TYPE: i16 = 114;
pub const UNSUPPORTED_ENDPOINT_TYPE: i16 = 115;
pub const TRANSACTION_ABORTABLE: i16 = 120;
pub const INVALID_REGULAR_EXPRESSION: i16 = 128;

/// The code of what the broker refused or failed at. Logs what is the server's own trouble.
pub fn code(error: &BrokerError) -> i16 {
    if let Some(batch) = error.source().and_then(|source| source.downcast_ref::<BatchError>()) {
        return batch_code(batch);
    }
    if let Some(refusal) = refusal(error) {
        return refusal_code(refusal);
    }
    if let Some(LogError::OpenTransaction { .. }) = error.source().and_then(|source| source.downcast_ref::<LogError>())
    {
        return INVALID_TXN_STATE;
    }
    match error.kind() {
        ErrorKind::InvalidRequest | ErrorKind::BadFrame => INVALID_REQUEST,
        ErrorKind::NotFound => UNKNOWN_TOPIC_OR_PARTITION,
        ErrorKind::AlreadyExists => TOPIC_ALREADY_EXISTS,
        ErrorKind::OffsetOutOfRange => OFFSET_OUT_OF_RANGE,
        ErrorKind::TooLarge => MESSAGE_TOO_LARGE,
        ErrorKind::CorruptBatch => CORRUPT_MESSAGE,
        ErrorKind::InvalidRecord => INVALID_RECORD,
        ErrorKind::FencedProducer => INVALID_PRODUCER_EPOCH,
        ErrorKind::FencedMember => UNKNOWN_MEMBER_ID,
        ErrorKind::OutOfOrderSequence => OUT_OF_ORDER_SEQUENCE_NUMBER,
        ErrorKind::Unsupported => UNSUPPORTED_VERSION,
        ErrorKind::ShuttingDown => LEADER_NOT_AVAILABLE,
        ErrorKind::Overloaded | ErrorKind::TimedOut | ErrorKind::Busy | ErrorKind::Disconnected => REQUEST_TIMED_OUT,
        ErrorKind::Damaged | ErrorKind::StorageFull | ErrorKind::Poisoned | ErrorKind::Io => {
            static TOLD: Seldom = Seldom::new();
            if let Some(left_out) = TOLD.turn() {
                tracing::warn!(%error, left_out, "requests fail");
            }
            KAFKA_STORAGE_ERROR
        }
        ErrorKind::Internal => {
            tracing::error!(%error, "request failed");
            UNKNOWN_SERVER_ERROR
        }
    }
}

/// Whether a write is refused because its transaction does not have the partition, or is not there: one that the producer can abort.
pub fn is_abortable(error: &BrokerError) -> bool {
    matches!(refusal(error), Some(TransactionError::State { .. }))
}

fn refusal(error: &BrokerError) -> Option<&TransactionError> {
    error.source().and_then(|source| source.downcast_ref())
}

fn refusal_code(refusal: &TransactionError) -> i16 {
    match refusal {
        TransactionError::Unknown { .. } => INVALID_PRODUCER_ID_MAPPING,
        TransactionError::Fenced { .. } => PRODUCER_FENCED,
        TransactionError::Superseded { .. } => INVALID_PRODUCER_EPOCH,
        TransactionError::Ending => CONCURRENT_TRANSACTIONS,
        TransactionError::State { .. } => INVALID_TXN_STATE,
        TransactionError::Timeout { .. } => INVALID_TRANSACTION_TIMEOUT,
        TransactionError::Id { .. } | TransactionError::TooLarge => INVALID_REQUEST,
        TransactionError::NoId { .. } => TRANSACTIONAL_ID_NOT_FOUND,
        // Clients try again for ever where the coordinator is not available. This ends only when transactions do, so the
        // producer is to fail and say why.
        TransactionError::TooManyIds { .. } => POLICY_VIOLATION,
        TransactionError::TooMuchHeld => COORDINATOR_NOT_AVAILABLE,
    }
}

/// The code of what is not done for a producer that writes in transactions. It tries again after trouble of the server's.
pub fn transaction_code(error: &BrokerError) -> i16 {
    match (refusal(error), error.kind()) {
        (Some(refusal), _) => refusal_code(refusal),
        (None, ErrorKind::NotFound | ErrorKind::InvalidRequest) => code(error),
        (None, _) => {
            tracing::warn!(%error, "a transaction's request failed");
            COORDINATOR_NOT_AVAILABLE
        }
    }
}

/// The code of what is wrong with a topic that somebody wants to have.
pub fn topic_code(error: &BrokerError) -> i16 {
    match code(error) {
        INVALID_REQUEST | UNSUPPORTED_VERSION => INVALID_CONFIG,
        other => other,
    }
}

/// The code of what a group does not do for a member.
pub fn group_code(error: ClassicError) -> i16 {
    match error {
        ClassicError::UnknownMember => UNKNOWN_MEMBER_ID,
        ClassicError::IllegalGeneration => ILLEGAL_GENERATION,
        ClassicError::Rebalancing => REBALANCE_IN_PROGRESS,
        ClassicError::InconsistentProtocol => INCONSISTENT_GROUP_PROTOCOL,
        ClassicError::Fenced => FENCED_INSTANCE_ID,
        ClassicError::IdRequired => MEMBER_ID_REQUIRED,
        ClassicError::Full => GROUP_MAX_SIZE_REACHED,
        ClassicError::TooLarge => INVALID_REQUEST,
        ClassicError::NoRoom | ClassicError::NotKept => COORDINATOR_NOT_AVAILABLE,
    }
}

/// The code of what is not done for a member whose partitions the server shares out. It tries again after trouble of the
/// server's.
pub fn consumer_code(error: &BrokerError) -> i16 {
    match (error.source().and_then(|source| source.downcast_ref()), error.kind()) {
        (Some(MemberError::Unknown { .. }), _) => UNKNOWN_MEMBER_ID,
        (Some(MemberError::Epoch { .. }), _) => FENCED_MEMBER_EPOCH,
        (Some(MemberError::NotOwner { .. }), _) => STALE_MEMBER_EPOCH,
        (Some(MemberError::InstanceInUse { .. }), _) => UNRELEASED_INSTANCE_ID,
        (Some(MemberError::InstanceTaken { .. }), _) => FENCED_INSTANCE_ID,
        (Some(MemberError::Full), _) => GROUP_MAX_SIZE_REACHED,
        (None, ErrorKind::InvalidRequest) => INVALID_REQUEST,
        (None, _) => {
            tracing::warn!(%error, "a group's request failed");
            COORDINATOR_NOT_AVAILABLE
        }
    }
}

/// The same for who commits or asks for positions.
pub fn stale_code(error: &BrokerError) -> i16 {
    match consumer_code(error) {
        FENCED_MEMBER_EPOCH => STALE_MEMBER_EPOCH,
        code => code,
    }
}

/// The code of what cannot be done with a group as a whole.
pub fn whole_group_code(error: &BrokerError) -> i16 {
    match error.kind() {
        ErrorKind::NotFound => GROUP_ID_NOT_FOUND,
        ErrorKind::Busy => NON_EMPTY_GROUP,
        // It is of another kind, or has members of another protocol.
        ErrorKind::InvalidRequest => INCONSISTENT_GROUP_PROTOCOL,
        _ => code(error),
    }
}

/// The code of a position that is not committed.
pub fn position_code(error: &BrokerError) -> i16 {
    match error.kind() {
        ErrorKind::TooLarge => OFFSET_METADATA_TOO_LARGE,
        ErrorKind::FencedMember => stale_code(error),
        _ => code(error),
    }
}

/// The code of a batch that is not taken. What was damaged on its way is sent again, what is wrong is not.
pub fn batch_code(error: &BatchError) -> i16 {
    match error {
        BatchError::Magic { magic: 0 | 1 } => UNSUPPORTED_FOR_MESSAGE_FORMAT,
        // Kafka's Java client then splits the batch, and gives up only the record that is too large by itself.
        BatchError::TooLarge { .. }
        | BatchError::TooMany { .. }
        | BatchError::RecordTooLarge { .. }
        | BatchError::TooHeavy { .. }
        | BatchError::Bomb { .. } => MESSAGE_TOO_LARGE,
        BatchError::Timestamp { .. } => INVALID_TIMESTAMP,
        BatchError::Field { field: "codec", .. } => UNSUPPORTED_COMPRESSION_TYPE,
        BatchError::Magic { .. } | BatchError::Checksum { .. } => CORRUPT_MESSAGE,
        // Nothing cuts a batch on its way: it was sent like that.
        BatchError::Truncated { .. }
        | BatchError::Field { .. }
        | BatchError::Trailing { .. }
        | BatchError::Control
        | BatchError::Horizon
        | BatchError::NoKey { .. }
        | BatchError::Record { .. }
        | BatchError::Decompress { .. } => INVALID_RECORD,
    }
}
