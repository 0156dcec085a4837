//! Why something is not done for a producer that writes in transactions.

use crate::base::{ErrorKind, ProducerEpoch, ProducerId, limits};

use super::super::BrokerError;

/// A refusal by the rules of transactions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// Nobody has the transactional id, or somebody with another producer id.
    #[error("the transactional id '{id}' is not that of this producer")]
    Unknown {
        /// The id.
        id: String,
    },
    /// Another producer has taken over the transactional id, or the transaction was open for too long.
    #[error("the producer of transactional id '{id}' was superseded; epoch {epoch} is active")]
    Fenced {
        /// The id.
        id: String,
        /// The epoch that counts.
        epoch: ProducerEpoch,
    },
    /// A batch of a producer that was superseded.
    #[error("producer {producer} epoch {epoch} was superseded; epoch {current} is active")]
    Superseded {
        /// The producer id.
        producer: ProducerId,
        /// The batch's epoch.
        epoch: ProducerEpoch,
        /// The epoch that counts.
        current: ProducerEpoch,
    },
    /// The transaction before is still being ended.
    #[error("the transaction before is being ended: try again")]
    Ending,
    /// This cannot be done in the state that the transaction is in.
    #[error("transactional id '{id}': {what}")]
    State {
        /// The id.
        id: String,
        /// What is in the way.
        what: String,
    },
    /// A time-out that is not allowed.
    #[error(
        "transactional id '{id}' asks for a transaction time-out of {timeout_ms} ms; allowed are 1 to {most_ms} ms \
         (transaction_max_timeout)"
    )]
    Timeout {
        /// The id.
        id: String,
        /// The time-out.
        timeout_ms: u64,
        /// The longest that is allowed.
        most_ms: u64,
    },
    /// There is no such id.
    #[error("there is no transactional id '{id}'")]
    NoId {
        /// The id.
        id: String,
    },
    /// An id that is not allowed.
    #[error("a transactional id of {bytes} bytes; allowed are 1 to {}", limits::TRANSACTIONAL_ID_BYTES)]
    Id {
        /// Its length.
        bytes: usize,
    },
    /// More ids than there may be, and every one has an open transaction.
    #[error("no room for transactional id '{id}': {what}, which is the most, all have an open transaction")]
    TooManyIds {
        /// The id.
        id: String,
        /// Which limit is reached.
        what: String,
    },
    /// More partitions, groups or positions than a transaction may have.
    #[error(
        "a transaction with more than {} partitions, {} groups or {} bytes of positions",
        limits::TRANSACTION_PARTITIONS,
        limits::TRANSACTION_GROUPS,
        limits::TRANSACTION_POSITION_BYTES
    )]
    TooLarge,
    /// Open transactions hold all that they may.
    #[error("open transactions hold {} MiB of partitions and positions, which is the most", limits::TRANSACTIONS_BYTES >> 20)]
    TooMuchHeld,
}

impl From<TransactionError> for BrokerError {
    fn from(error: TransactionError) -> Self {
        let kind = match &error {
            TransactionError::Fenced { .. } | TransactionError::Superseded { .. } => ErrorKind::FencedProducer,
            TransactionError::Ending => ErrorKind::Busy,
            TransactionError::TooManyIds { .. } | TransactionError::TooMuchHeld => ErrorKind::Overloaded,
            TransactionError::TooLarge => ErrorKind::TooLarge,
            TransactionError::NoId { .. } => ErrorKind::NotFound,
            _ => ErrorKind::InvalidRequest,
        };
        Self::caused(kind, error.to_string(), error)
    }
}
