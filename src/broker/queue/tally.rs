//! What a queue group's filter said of records, so that a mistyped field is seen.

use std::sync::{Arc, Mutex};

use crate::base::{ErrorKind, GroupName};

use super::super::broker::{blocking, lock};
use super::super::filtered::Asked;
use super::super::{Broker, BrokerError};

/// What a filter said of records since the group has it, or since the server started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterCounts {
    /// Records that it was asked about; of some of them more than once.
    pub asked: u64,
    /// Those that it wants.
    pub wanted: u64,
    /// Those that it had no answer for, and that were passed over because of that.
    pub unanswered: u64,
    /// Why, of the last of these.
    pub reason: Option<String>,
}

/// Where a group's dispatchers count.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<FilterCounts>);

impl Tally {
    pub(super) fn add(&self, asked: &Asked) {
        let mut counts = lock(&self.0);
        counts.asked += asked.wanted.len() as u64;
        counts.wanted += asked.wanted.iter().filter(|wanted| **wanted).count() as u64;
        counts.unanswered += asked.unanswered;
        if asked.reason.is_some() {
            counts.reason.clone_from(&asked.reason);
        }
    }

    /// It begins anew: the group has another filter.
    pub(super) fn clear(&self) {
        *lock(&self.0) = FilterCounts::default();
    }
}

impl Broker {
    /// What the filter of a queue group said of records.
    ///
    /// # Errors
    /// There is no such group, or it is a stream group: its members are told each themselves.
    pub async fn filter_counts(self: &Arc<Self>, name: &GroupName) -> Result<FilterCounts, BrokerError> {
        let (broker, name) = (Arc::clone(self), name.clone());
        blocking(move || {
            if broker.stream_entry(&name).is_some() {
                let message =
                    format!("group '{name}' is a stream group: each member is told what its filter had no answer for");
                return Err(BrokerError::new(ErrorKind::InvalidRequest, message));
            }
            Ok(lock(&broker.queue_group(&name)?.tally.0).clone())
        })
        .await
    }
}
