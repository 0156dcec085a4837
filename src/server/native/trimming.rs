//! What of a topic is given up, and who would miss a topic: between the wire and the broker.

use std::sync::Arc;
use std::time::Duration;

use super::mapping::{self, Refusal};
use super::session::{Answer, Session};
use crate::base::ErrorKind;
use crate::broker::{DependentHow, DependentKind};
use crate::protocol as wire;

/// How long the sync of what is given up may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Gives up the records of a partition below an offset.
pub async fn delete_records(
    session: Arc<Session>,
    request: wire::DeleteRecords,
) -> Result<Answer<wire::DeleteRecordsOk>, Refusal> {
    let broker = &session.shared.broker;
    let (topic, partition) = (request.topic.as_str(), request.partition);
    if !broker.topic_settings(topic)?.cleanup.deletes() {
        // An offset says nothing of what is out of date there.
        let message = format!(
            "topic '{topic}' is compacted: it keeps the newest record of each key (cleanup=compact,delete allows both)"
        );
        return Err(Refusal::new(ErrorKind::InvalidRequest, message));
    }
    let log_start = broker.delete_records(topic, partition, request.below, PATIENCE).await?;
    tracing::info!(topic, partition, log_start, "records deleted");
    Ok(wire::DeleteRecordsOk { log_start }.into())
}

/// Who reads a topic or writes to it.
pub async fn dependents(
    session: Arc<Session>,
    request: wire::ListDependents,
) -> Result<Answer<wire::ListDependentsOk>, Refusal> {
    let topic = mapping::topic_name(&request.topic)?;
    let (found, more) = session.computed(move |broker| broker.dependents(&topic)).await?;
    let dependents = found.into_iter().map(|one| wire::Dependent {
        kind: match one.kind {
            DependentKind::Group => "group",
            DependentKind::Push => "push",
            DependentKind::Route => "route",
        }
        .to_owned(),
        name: one.name,
        how: match one.how {
            DependentHow::Reads => "reads",
            DependentHow::Writes => "writes",
            DependentHow::DeadLetters => "dead letters",
        }
        .to_owned(),
    });
    Ok(wire::ListDependentsOk { dependents: dependents.collect(), more }.into())
}
