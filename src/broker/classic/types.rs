//! What goes into a classic group and comes out of it.

use bytes::Bytes;

use super::super::clients::Client;

/// Milliseconds of the monotonic clock.
pub(crate) type Ms = u64;
/// Names a request that waits for its answer.
pub(crate) type Ticket = u64;

/// What a protocol takes in memory beside its name and words.
const PER_PROTOCOL: usize = 64;

/// Why a member is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassicError {
    /// There is no such member (any more): it is to join anew.
    UnknownMember,
    /// It speaks of another generation.
    IllegalGeneration,
    /// A new round has begun: it is to join again.
    Rebalancing,
    /// It has no protocol in common with the others.
    InconsistentProtocol,
    /// Another one has taken its place.
    Fenced,
    /// It is to join again with the id that it is told.
    IdRequired,
    /// There are as many members as can be, or as many bytes of theirs.
    Full,
    /// It says more of itself than a member may.
    TooLarge,
    /// The members of all groups, or those of its client, say as much as the server keeps; it is to try again later.
    NoRoom,
    /// What the round has come to could not be kept on the disk; it is to try again later.
    NotKept,
}

/// A wish to be, or to stay, a member.
#[derive(Debug, Clone)]
pub struct ClassicJoin {
    /// The id it was told, empty if none.
    pub member: String,
    /// The name of the place that it fills, if it does.
    pub instance: Option<String>,
    /// Who it is, for people.
    pub client: String,
    /// Where it is, for people.
    pub host: String,
    /// For whom its bytes count.
    pub from: Client,
    /// How long it is a member without a heartbeat.
    pub session_ms: u64,
    /// How long it may take to join again.
    pub rebalance_ms: u64,
    /// What kind of group it takes this for.
    pub protocol_type: String,
    /// The protocols it can speak, best first, with what it has to say in each.
    pub protocols: Vec<(String, Bytes)>,
    /// It understands that it is told an id first.
    pub takes_id_first: bool,
    /// It understands that a leader may have nothing to assign.
    pub may_skip: bool,
}

impl ClassicJoin {
    /// Bytes of what it says of itself.
    pub(crate) fn weight(&self) -> usize {
        let instance = self.instance.as_ref().map_or(0, String::len);
        said_bytes(&self.protocols) + instance + self.client.len() + self.host.len() + self.protocol_type.len()
    }
}

/// Bytes of what is said in each protocol.
pub(super) fn said_bytes(protocols: &[(String, Bytes)]) -> usize {
    protocols.iter().map(|(name, said)| name.len() + said.len() + PER_PROTOCOL).sum()
}

/// What a member is told at the end of a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicJoined {
    /// Its id.
    pub member: String,
    /// The generation.
    pub generation: i32,
    /// What kind of group it is.
    pub protocol_type: String,
    /// The protocol that all can speak.
    pub protocol: String,
    /// Who assigns.
    pub leader: String,
    /// The leader has nothing to assign.
    pub skip: bool,
    /// For the leader: everybody, with their instances and what they say of themselves.
    pub members: Vec<(String, Option<String>, Bytes)>,
}

/// An assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicShare {
    /// What kind of group it is.
    pub protocol_type: String,
    /// The protocol.
    pub protocol: String,
    /// What was assigned.
    pub assignment: Bytes,
}

/// An answer to a request that has waited; with the id that the member has or is to have, if it is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Joined(Result<ClassicJoined, (ClassicError, String)>),
    Synced(Result<ClassicShare, ClassicError>),
}

/// Who speaks.
#[derive(Debug, Clone, Copy)]
pub struct ClassicVoice<'a> {
    /// Its id.
    pub member: &'a str,
    /// The name of its place.
    pub instance: Option<&'a str>,
    /// The generation it believes in.
    pub generation: i32,
}
