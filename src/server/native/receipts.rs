//! Receipts and dead letters: between the wire and the broker.

use std::sync::Arc;
use std::time::Duration;

use super::mapping::{Refusal, topic_name};
use super::members::group_name;
use super::session::{Answer, Session};
use crate::base::ErrorKind;
use crate::broker::{Processed, RecordAt, Redrive};
use crate::protocol as wire;

/// The longest wait for a receipt; whoever wants to wait longer asks again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Dead letters of one request.
const REDRIVEN: u32 = 10_000;

/// What became of records in a group.
pub async fn processed(session: Arc<Session>, request: wire::Processed) -> Result<Answer<wire::ProcessedOk>, Refusal> {
    let group = group_name(&request.group)?;
    let record = |of: &wire::RecordAt| {
        Ok(RecordAt { topic: topic_name(&of.topic)?, partition: of.partition, offset: of.offset })
    };
    let records: Result<Vec<_>, Refusal> = request.records.iter().map(record).collect();
    let wait = Duration::from_millis(request.wait_ms.into()).min(LONGEST_WAIT);
    let records = records?;
    let done = tokio::select! {
        done = session.shared.broker.processed(&group, &records, wait) => done?,
        () = session.closing() => return Err(Refusal::new(ErrorKind::ShuttingDown, "the server is stopping")),
    };
    let done = done.into_iter().map(|(at, outcome)| wire::ProcessedRecord {
        record: wire::RecordAt { topic: at.topic.to_string(), partition: at.partition, offset: at.offset },
        outcome: match outcome {
            Processed::Acked => wire::ReceiptOutcome::Acked,
            Processed::DeadLettered => wire::ReceiptOutcome::DeadLettered,
            Processed::NotWanted => wire::ReceiptOutcome::NotWanted,
            Processed::Expired => wire::ReceiptOutcome::Expired,
        },
    });
    Ok(wire::ProcessedOk { done: done.collect() }.into())
}

/// Sends dead letters back.
pub async fn redrive(session: Arc<Session>, request: wire::Redrive) -> Result<Answer<wire::RedriveOk>, Refusal> {
    if !(1..=REDRIVEN).contains(&request.max) {
        let message = format!("{} dead letters at once; allowed are 1 to {REDRIVEN}", request.max);
        return Err(Refusal::new(ErrorKind::InvalidRequest, message));
    }
    let redrive = Redrive {
        topic: topic_name(&request.topic)?,
        filter: request.filter,
        max: request.max as usize,
        dry_run: request.dry_run,
        from: request.from.map(|from| (from.partition, from.offset)),
    };
    let back = session.shared.broker.redrive(&redrive).await?;
    let at = |(partition, offset)| wire::DeadLetterAt { partition, offset };
    let records = back.records.into_iter().map(at).collect();
    Ok(wire::RedriveOk { records, stranded: back.stranded, next: back.next.map(at) }.into())
}

/// The topics with dead letters.
pub async fn dead_letters(
    session: Arc<Session>,
    _: wire::ListDeadLetters,
) -> Result<Answer<wire::ListDeadLettersOk>, Refusal> {
    let topics = session.shared.broker.dead_letter_topics().into_iter().map(|of| wire::DeadLetterTopic {
        topic: of.topic.to_string(),
        groups: of.groups.iter().map(ToString::to_string).collect(),
        records: of.records,
        redriven: of.redriven,
    });
    Ok(wire::ListDeadLettersOk { topics: topics.collect() }.into())
}
