//! Receipts and dead letters: between the wire and the broker.

use std::sync::Arc;
use std::time::Duration;

use super::mapping::{Refusal, topic_name};
use super::members::group_name;
use super::session::{Answer, Session};
use crate::base::{ErrorKind, TopicId};
use crate::broker::{
    Broker, DeadLetterWay, Processed, RECEIPT_STATES, ReceiptFilter, RecordAt, Redrive, receipt_state,
};
use crate::catalog::{ReceiptEntry, ReceiptPlace};
use crate::protocol as wire;
use crate::server::outgoing::Url;
use crate::server::receipts::outcome_name;

/// The longest wait for a receipt; whoever wants to wait longer asks again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Receipts of one answer.
const LISTED: usize = 1000;
/// What a list may hold: an answer must fit a frame.
const LIST_BYTES: usize = 512 * 1024;
/// Dead letters of one request.
const REDRIVEN: u32 = 10_000;

/// What became of records in a group.
pub async fn processed(session: Arc<Session>, request: wire::Processed) -> Result<Answer<wire::ProcessedOk>, Refusal> {
    let group = group_name(&request.group)?;
    let records: Result<Vec<_>, Refusal> = request.records.iter().map(record_at).collect();
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
            Processed::Deleted => wire::ReceiptOutcome::Deleted,
            Processed::Skipped => wire::ReceiptOutcome::Skipped,
        },
    });
    Ok(wire::ProcessedOk { done: done.collect() }.into())
}

fn record_at(of: &wire::RecordAt) -> Result<RecordAt, Refusal> {
    Ok(RecordAt { topic: topic_name(&of.topic)?, partition: of.partition, offset: of.offset })
}

/// Asks that what becomes of records in a group is POSTed.
pub async fn ask(session: Arc<Session>, request: wire::AskReceipts) -> Result<Answer<wire::AskReceiptsOk>, Refusal> {
    let group = group_name(&request.group)?;
    let url: Url = request.url.parse().map_err(|error: String| Refusal::new(ErrorKind::InvalidRequest, error))?;
    session.shared.calls.judge(&url).map_err(|error| Refusal::new(ErrorKind::InvalidRequest, error))?;
    let records: Result<Vec<_>, Refusal> = request.records.iter().map(record_at).collect();
    let timeout = Duration::from_millis(request.timeout_ms);
    session.shared.broker.ask_receipts(&group, &url.to_string(), &records?, timeout).await?;
    Ok(wire::AskReceiptsOk {}.into())
}

/// Receipts that are to be POSTed.
pub async fn list(session: Arc<Session>, request: wire::ListReceipts) -> Result<Answer<wire::ListReceiptsOk>, Refusal> {
    if let Some(state) = request.state.as_ref().filter(|state| !RECEIPT_STATES.contains(&state.as_str())) {
        let message = format!("'{state}' is no state of a receipt; there are {}", RECEIPT_STATES.join(", "));
        return Err(Refusal::new(ErrorKind::InvalidRequest, message));
    }
    let place = |at: wire::ReceiptAt| {
        let wrong = || Refusal::new(ErrorKind::InvalidRequest, format!("'{}' is no topic id", at.topic_id));
        let topic = TopicId::parse(&at.topic_id).ok_or_else(wrong)?;
        Ok::<_, Refusal>(ReceiptPlace {
            topic,
            partition: at.partition,
            offset: at.offset,
            group: group_name(&at.group)?,
        })
    };
    let filter = ReceiptFilter {
        state: request.state,
        group: request.group.as_deref().map(group_name).transpose()?,
        after: request.after.map(place).transpose()?,
        limit: LISTED,
    };
    let _turn = session.long_answers.acquire().await;
    Ok(session.computed(move |broker| listed(broker, &filter)).await?.into())
}

fn listed(broker: &Broker, filter: &ReceiptFilter) -> wire::ListReceiptsOk {
    let (entries, more) = broker.list_receipts(filter);
    let mut bytes = 0;
    let fits = |(entry, trouble): &&(ReceiptEntry, Option<String>)| {
        let reason = trouble.as_ref().map_or(0, String::len);
        bytes += entry.topic.as_str().len() + 2 * entry.place.group.as_str().len() + entry.url.len() + reason + 256;
        bytes <= LIST_BYTES
    };
    let receipts: Vec<_> = entries.iter().take_while(fits).map(receipt).collect();
    let last = entries.get(receipts.len().saturating_sub(1)).filter(|_| more || receipts.len() < entries.len());
    let next = last.map(|(ReceiptEntry { place, .. }, _)| wire::ReceiptAt {
        topic_id: place.topic.to_string(),
        partition: place.partition,
        offset: place.offset,
        group: place.group.to_string(),
    });
    wire::ListReceiptsOk { receipts, next }
}

/// Nobody wants the receipts of a group any more.
pub async fn cancel(
    session: Arc<Session>,
    request: wire::CancelReceipts,
) -> Result<Answer<wire::CancelReceiptsOk>, Refusal> {
    let group = group_name(&request.group)?;
    let cancelled = session.shared.broker.cancel_receipts(&group, request.url.as_deref()).await?;
    Ok(wire::CancelReceiptsOk { cancelled }.into())
}

fn receipt((entry, trouble): &(ReceiptEntry, Option<String>)) -> wire::ReceiptInfo {
    let ReceiptPlace { partition, offset, group, .. } = &entry.place;
    wire::ReceiptInfo {
        record: wire::RecordAt { topic: entry.topic.to_string(), partition: *partition, offset: *offset },
        group: group.to_string(),
        url: entry.url.clone(),
        state: receipt_state(entry).to_owned(),
        asked_ms: entry.asked_ms,
        until_ms: entry.until_ms,
        outcome: entry.news.as_ref().map(|news| outcome_name(news.processed).to_owned()),
        trouble: trouble.clone(),
    }
}

/// Sends dead letters back.
pub async fn redrive(session: Arc<Session>, request: wire::Redrive) -> Result<Answer<wire::RedriveOk>, Refusal> {
    let wire::Redrive { topic, filter, max, dry_run, from } = request;
    let way = wire::DeadLetterWay::Topic;
    let all = wire::SettleDeadLetters { topic, way, at: None, value: None, filter, max, dry_run, from };
    let back = settled(&session, all).await?;
    Ok(wire::RedriveOk { records: back.records, stranded: back.stranded, next: back.next }.into())
}

/// Sends dead letters back, or discards them.
pub async fn settle(
    session: Arc<Session>,
    request: wire::SettleDeadLetters,
) -> Result<Answer<wire::SettleDeadLettersOk>, Refusal> {
    Ok(settled(&session, request).await?.into())
}

async fn settled(session: &Session, of: wire::SettleDeadLetters) -> Result<wire::SettleDeadLettersOk, Refusal> {
    if !(1..=REDRIVEN).contains(&of.max) {
        let message = format!("{} dead letters at once; allowed are 1 to {REDRIVEN}", of.max);
        return Err(Refusal::new(ErrorKind::InvalidRequest, message));
    }
    let redrive = Redrive {
        topic: topic_name(&of.topic)?,
        filter: of.filter.filter(|_| of.at.is_none()),
        max: of.max as usize,
        dry_run: of.dry_run,
        from: of.at.or(of.from).map(|from| (from.partition, from.offset)),
        way: match of.way {
            wire::DeadLetterWay::Topic => DeadLetterWay::Topic,
            wire::DeadLetterWay::Group => DeadLetterWay::Group,
            wire::DeadLetterWay::Discard => DeadLetterWay::Discard,
        },
        only: of.at.is_some(),
        value: of.value.map(Into::into),
    };
    let done = session.shared.broker.redrive(&redrive).await?;
    let at = |(partition, offset)| wire::DeadLetterAt { partition, offset };
    let records = done.records.into_iter().map(at).collect();
    Ok(wire::SettleDeadLettersOk { records, stranded: done.stranded, why: done.why, next: done.next.map(at) })
}

/// The topics with dead letters.
pub async fn dead_letters(
    session: Arc<Session>,
    _: wire::ListDeadLetters,
) -> Result<Answer<wire::ListDeadLettersOk>, Refusal> {
    let _turn = session.long_answers.acquire().await;
    // It waits for the journal's lock, which is held during a sync.
    let broker = Arc::clone(&session.shared.broker);
    let listed = tokio::task::spawn_blocking(move || {
        let topics = broker.dead_letter_topics().into_iter().map(|of| wire::DeadLetterTopic {
            topic: of.topic.to_string(),
            groups: of.groups.iter().map(ToString::to_string).collect(),
            records: of.records,
            redriven: of.redriven,
        });
        wire::ListDeadLettersOk { topics: topics.collect() }
    });
    let failed = |error| Refusal::new(ErrorKind::Internal, format!("dead letters cannot be listed: {error}"));
    Ok(listed.await.map_err(failed)?.into())
}
