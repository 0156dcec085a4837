//! What a request wants to be committed, and what is answered for each partition that it names.

use super::{errors, said};
use crate::base::TopicName;
use crate::broker::{Broker, BrokerError, Commit};

/// A partition as a request names it: topic, number, offset with its leader epoch (negative for none), metadata.
pub type Named<'a> = (&'a str, i32, (i64, i32), Option<&'a str>);

/// The commits of a request that can be, and for each partition that is named, in order, its place among them, or the code
/// for why it cannot.
pub struct Commits {
    places: Vec<Result<usize, i16>>,
}

impl Commits {
    /// Takes the request apart.
    pub fn of<'a>(broker: &Broker, named: impl Iterator<Item = Named<'a>>) -> (Self, Vec<Commit>) {
        let mut commits = Vec::new();
        let place = |named| {
            to_commit(broker, named).map(|commit| {
                commits.push(commit);
                commits.len() - 1
            })
        };
        (Self { places: named.map(place).collect() }, commits)
    }

    /// The code for each partition that was named, by what became of the commits, or of the request as a whole.
    pub fn codes(&self, outcomes: &Result<Vec<Result<(), BrokerError>>, i16>) -> std::vec::IntoIter<i16> {
        let code = |place: &Result<usize, i16>| match (place, outcomes) {
            (_, Err(code)) | (Err(code), Ok(_)) => *code,
            (Ok(at), Ok(outcomes)) => match outcomes.get(*at) {
                Some(Ok(())) => errors::NONE,
                Some(Err(error)) => errors::position_code(error),
                None => errors::UNKNOWN_SERVER_ERROR,
            },
        };
        self.places.iter().map(code).collect::<Vec<_>>().into_iter()
    }
}

fn to_commit(broker: &Broker, (topic, partition, (offset, epoch), metadata): Named<'_>) -> Result<Commit, i16> {
    let topic = TopicName::new(topic).map_err(|_| errors::INVALID_TOPIC)?;
    let partition = u32::try_from(partition).map_err(|_| errors::UNKNOWN_TOPIC_OR_PARTITION)?;
    let (offset, metadata) = said::keep(broker, (&topic, partition), offset, metadata.unwrap_or_default());
    let leader_epoch = u32::try_from(epoch).ok();
    Ok(Commit { topic, partition, offset, metadata, leader_epoch })
}
