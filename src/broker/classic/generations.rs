//! Generations of groups that are empty at present: the next round goes on from there, as in Kafka, so that nobody who was a member
//! before finds its generation in use again. In memory only; a group that is deleted or expires is forgotten with its generation.

use std::collections::HashMap;
use std::sync::Mutex;

use super::super::broker::lock;
use crate::base::GroupName;

/// What is known, by group.
#[derive(Default)]
pub(crate) struct Generations(Mutex<HashMap<GroupName, i32>>);

impl Generations {
    /// The generation in which a group became empty, which is no more needed then; 0 for one that never had members.
    pub(super) fn take(&self, group: &GroupName) -> i32 {
        lock(&self.0).remove(group).unwrap_or(0)
    }

    /// Notes in which generation a group became empty.
    pub(super) fn keep(&self, group: &GroupName, generation: i32) {
        if generation > 0 {
            lock(&self.0).insert(group.clone(), generation);
        }
    }

    /// Forgets a group that is gone.
    pub(crate) fn forget(&self, group: &GroupName) {
        lock(&self.0).remove(group);
    }
}
