//! What groups of every kind share: who has a group at present ([`holds`]), and the positions that it has committed
//! ([`positions`]), which wait in [`pending`] for the keeper to make them durable. What a group is defined as, and who may change that,
//! is in [`definition`]; how many groups there may be, and when one goes, in [`table`].

mod definition;
mod holds;
mod pending;
mod positions;
mod table;
#[cfg(test)]
mod tests;

pub use definition::{AlterGroup, NewGroup, RulesChange};
pub(crate) use definition::{Said, distinct, refuse_other};
use holds::Holds;
pub use holds::{GroupHold, GroupProtocol};
pub(crate) use pending::Pending;
pub use positions::{Commit, Committer, GroupPosition, Terms};
pub(crate) use table::Table;

/// What all groups share.
#[derive(Default)]
pub(crate) struct Groups {
    holds: std::sync::Arc<Holds>,
    pub(crate) pending: Pending,
    pub(crate) table: Table,
}
