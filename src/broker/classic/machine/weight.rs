//! What members say and are assigned, in bytes.

use std::collections::HashMap;

use super::super::super::clients::Client;
use super::Machine;

impl Machine {
    /// Grows whenever [`Machine::bytes_of`] may have changed.
    pub(crate) fn weighed(&self) -> u64 {
        self.weighed
    }

    /// Bytes of what the members of each client say and were assigned.
    pub(crate) fn bytes_of(&self) -> HashMap<Client, usize> {
        let mut bytes = HashMap::new();
        for member in self.members.values() {
            *bytes.entry(member.from).or_default() += member.weight + member.assignment.len();
        }
        bytes
    }

    /// Bytes of what a member says of itself, 0 if there is none.
    pub(crate) fn said_bytes(&self, member: &str, instance: Option<&str>) -> usize {
        let holder = || self.holder(instance?).and_then(|id| self.members.get(&id));
        self.members.get(member).or_else(holder).map_or(0, |member| member.weight)
    }
}
