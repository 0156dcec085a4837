//! A batch from its last record to its end.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::base::ErrorKind;
use crate::client::ClientError;
use crate::record::set_producer;

use super::queue::OpenBatch;
use super::receipt::Completion;
use super::sequence::Stamp;

/// What is known of a batch that is not acknowledged.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    /// It never left.
    NotSent,
    /// The server, or the lack of one, refused it: it is not stored.
    Refused(ClientError),
    /// It left and no answer came.
    Unknown(ClientError),
}

/// A finished batch.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) bytes: Bytes,
    pub(crate) count: u32,
    pub(crate) completion: Arc<Completion>,
    /// What its bytes say.
    written: Option<Stamp>,
    /// What it was sent with first, and is sent with until it is known that it was not stored.
    pub(crate) stamp: Option<Stamp>,
    /// How often it got a new stamp.
    pub(crate) restamped: u32,
    pub(crate) memory: usize,
    pub(crate) deadline: Instant,
    pub(crate) fate: Fate,
}

impl Batch {
    /// Builds it: compression and checksum happen here.
    pub(crate) fn build(open: OpenBatch) -> Self {
        let count = open.builder.record_count();
        Self {
            bytes: open.builder.build().freeze(),
            count,
            completion: open.completion,
            written: open.stamp,
            stamp: None,
            restamped: 0,
            memory: open.memory,
            deadline: open.deadline,
            fate: Fate::NotSent,
        }
    }

    /// Makes its bytes say this stamp.
    pub(crate) fn write_stamp(&mut self, stamp: Stamp) {
        if self.written != Some(stamp) {
            let mut bytes =
                std::mem::take(&mut self.bytes).try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
            set_producer(&mut bytes, stamp.id, stamp.epoch, stamp.sequence);
            self.bytes = bytes.freeze();
            self.written = Some(stamp);
        }
        self.stamp = Some(stamp);
    }

    /// The error for a batch whose time is up; `trouble` is what went wrong with those before it.
    pub(crate) fn timed_out(&self, topic: &str, partition: u32, trouble: Option<&ClientError>) -> ClientError {
        let what = format!("{} records for {topic}/{partition} were not acknowledged in time", self.count);
        match &self.fate {
            Fate::NotSent => match trouble {
                Some(error) => {
                    let message = format!("{what}; they were not sent: {error}");
                    ClientError::caused(ErrorKind::TimedOut, message, error.clone())
                }
                None => ClientError::new(ErrorKind::TimedOut, format!("{what}; they were not sent")),
            },
            Fate::Refused(error) => {
                // A gap in the numbers is what became of those before it, and says nothing of why.
                let is_gap = error.kind() == ErrorKind::OutOfOrderSequence;
                let error = trouble.filter(|_| is_gap).unwrap_or(error);
                ClientError::caused(ErrorKind::TimedOut, format!("{what}; they are not stored: {error}"), error.clone())
            }
            Fate::Unknown(error) => ClientError::caused(
                ErrorKind::TimedOut,
                format!("{what}; whether they are stored is unknown: {error}"),
                error.clone(),
            )
            .with_maybe_stored(true),
        }
    }
}
