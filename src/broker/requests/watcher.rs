//! Reads the topic of replies, which decides requests; writes what follows: the next step's request, the callback, the
//! time-out. Each of these is announced in the journal before it is tried, so that after a crash it is looked for, and
//! written only if it is not there.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;

use crate::base::{ErrorKind, Offset, RequestId, TopicId, TopicName};
use crate::catalog::{Callback, RequestEntry, Writing};
use crate::record::Headers;

use super::super::broker::{blocking, lock};
use super::super::opened::{Most, Opened, Stop};
use super::super::partition::Partition;
use super::super::task;
use super::super::{AckLevel, Broker, BrokerError, FetchRequest, Fetched};
use super::machine::{Decided, Word};
use super::records::{self, REPLIES};

/// Bytes of replies read at a time.
const READ_BYTES: usize = 1024 * 1024;
/// Records under way at a time.
const AT_ONCE: usize = 64;
/// The longest sleep; how often requests that ended long ago are looked for.
const SLEEP: Duration = Duration::from_secs(60);
/// The wait after something did not work.
const PAUSE: Duration = Duration::from_secs(1);
/// How soon it is looked again at what is late by a doubted clock.
const DOUBT: Duration = Duration::from_millis(100);
/// Records that are looked at again each time, before it is kept that they need not be.
const LOOKED_AT: Offset = 1000;

/// Watches until the broker is gone or stops.
pub(super) async fn run(broker: Weak<Broker>) {
    // What was announced before the start may or may not have been written.
    let mut look_first = true;
    loop {
        let Some(live) = broker.upgrade().filter(|broker| !broker.requests.is_stopped()) else { return };
        let Ok(topic) = live.topic(REPLIES) else { return };
        let Ok(mut stable) = topic.partition(0).map(|partition| partition.watch()) else { return };
        let id = topic.entry.id;
        drop(topic);
        let seen = *stable.borrow_and_update();
        if seen.closed {
            return;
        }
        let mut wait = SLEEP;
        look_first |= live.requests.look.swap(false, Ordering::AcqRel);
        match step(&live, id, look_first).await {
            Ok(all_written) => {
                look_first = !all_written;
                let next = lock(&live.requests.machine).next_deadline();
                if let Some(next) = next {
                    let left = u64::try_from(next.saturating_sub(live.clock.now_ms())).unwrap_or(0);
                    // One that is late already is late only by a wall clock that is doubted.
                    wait = wait.min(if left == 0 { DOUBT } else { Duration::from_millis(left) });
                }
                if look_first {
                    wait = wait.min(PAUSE);
                }
            }
            Err(error) => {
                if live.requests.is_stopped() {
                    return;
                }
                tracing::warn!(%error, "replies cannot be taken in; trying again");
                (look_first, wait) = (true, PAUSE);
            }
        }
        let requests = Arc::clone(&live.requests);
        drop(live);
        tokio::select! {
            changed = stable.changed() => if changed.is_err() { return },
            () = requests.wake.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Does all there is to do; whether everything that was to be written is written.
async fn step(broker: &Arc<Broker>, replies: TopicId, look_first: bool) -> Result<bool, BrokerError> {
    let mut all_written = true;
    if look_first {
        let old = lock(&broker.requests.machine).writings();
        // An announcement that could not be kept the last time is kept now, or nothing is written.
        broker.requests.kept(broker).await?;
        all_written &= write_all(broker, replies, old, true).await;
    }
    refuse_steps(broker).await?;
    loop {
        while let Some(decided) = take_in(broker, replies).await? {
            if !decided.is_empty() {
                // From here on it is looked for, should it not be known whether it was written.
                broker.requests.kept(broker).await?;
                let entries = {
                    let machine = lock(&broker.requests.machine);
                    let entries = decided.iter().filter_map(|id| machine.entry(id)).cloned();
                    entries.filter(|entry| entry.writing.is_some()).collect()
                };
                all_written &= write_all(broker, replies, entries, false).await;
            }
            refuse_steps(broker).await?;
        }
        if !time_out(broker).await? {
            break;
        }
    }
    let before = broker.clock.final_ms().saturating_sub(broker.config.request_retention.0 as i64);
    let forgotten = lock(&broker.requests.machine).forget(before, broker.config.max_open_requests);
    if !forgotten.is_empty() {
        broker.requests.keep(broker, &forgotten, replies);
    }
    if broker.requests.holds_in_vain() {
        // Replies need not wait for that.
        let broker = Arc::clone(broker);
        task::spawn("watcher of replies", async move {
            if let Err(error) = broker.requests.kept(&broker).await {
                tracing::debug!(%error, "what was written is held for longer");
            }
        });
    }
    Ok(all_written)
}

/// Reads on in the topic of replies: the requests of which something is to be written now, `None` at its end.
async fn take_in(broker: &Arc<Broker>, replies: TopicId) -> Result<Option<Vec<RequestId>>, BrokerError> {
    let from = broker.requests.read.load(Ordering::Acquire);
    let fetched = match fetch(broker, REPLIES, 0, from).await {
        Err(error) if error.kind() == ErrorKind::OffsetOutOfRange => {
            let (start, end) = error.range().unwrap_or((0, 0));
            tracing::warn!(from, start, end, "replies are not where they were read last");
            broker.requests.read.store(from.clamp(start, end), Ordering::Release);
            if from.clamp(start, end) == from { return Err(error) } else { return Ok(Some(Vec::new())) }
        }
        other => other?,
    };
    if fetched.next_offset <= from {
        return Ok(None);
    }
    // Sets: one portion may decide a request twice (the reply to a step, then the cancellation), and each id is acted on once.
    let (mut changed, mut writing) = (BTreeSet::new(), BTreeSet::new());
    let mut opened = Some(Opened::new(fetched.bytes, from));
    let mut records = Vec::new().into_iter();
    loop {
        let record = match (records.next(), opened.take()) {
            (Some(record), rest) => {
                opened = rest;
                record
            }
            (None, Some(rest)) => {
                let (rest, (taken, stop)) = broker.take_opened((REPLIES, 0), rest, Most::PORTION).await?;
                (records, opened) = (taken.into_iter(), (stop == Stop::Full).then_some(rest));
                continue;
            }
            (None, None) => break,
        };
        let record = match record {
            Ok(record) => record,
            Err(unreadable) => {
                broker.pass_over("replies", REPLIES, 0, &unreadable).await;
                continue;
            }
        };
        let Some(id) = records::id_of(&record) else { continue };
        let (step, word, at) = (records::step_of(&record), records::word_of(&record), record.offset);
        let foreseen = lock(&broker.requests.machine).foresee(&id, step, &word);
        // Looked up before the decision: whoever keeps the request meanwhile must not keep an outcome without its callback.
        let to = match &foreseen {
            Decided::Nothing => {
                broker.metrics.replies_late.inc();
                continue;
            }
            Decided::Next(topic) => match place(broker, topic, &id).await {
                Ok(place) => Some(place),
                Err(error) => {
                    let text = format!("topic '{topic}' cannot be written to: {error}");
                    lock(&broker.requests.undeliverable).push((id.clone(), step + 1, text));
                    None
                }
            },
            // One that is not there now may be later; its first partition is as good as any.
            Decided::Over(Some(Callback::Topic(topic))) => {
                Some(place(broker, topic, &id).await.unwrap_or(((topic.clone(), 0), 0)))
            }
            // `DeadLetter` names an outcome that was decided before.
            Decided::Over(Some(Callback::Url(_) | Callback::DeadLetter { .. }) | None) => None,
        };
        let mut machine = lock(&broker.requests.machine);
        let decided = machine.decide(&id, step, word, at, broker.clock.now_ms());
        if decided != foreseen {
            continue; // The request was taken back while its topic was looked up.
        }
        let is_post = matches!(decided, Decided::Over(Some(Callback::Url(_))));
        if let Some((to, end)) = to {
            machine.announce(&id, Some(to), end, at);
            writing.insert(id.clone());
        } else if is_post {
            machine.announce(&id, None, 0, at);
        }
        drop(machine);
        if is_post {
            broker.requests.posts.notify_one();
        }
        if let Decided::Over(_) = decided {
            broker.metrics.requests_finished.inc();
            broker.requests.tell(&id);
        }
        changed.insert(id);
    }
    let changed: Vec<_> = changed.into_iter().collect();
    broker.requests.took_in(broker, &changed, replies, fetched.next_offset);
    Ok(Some(writing.into_iter().collect()))
}

/// Answers for topics to which the next step's request could not be written. What cannot be said now is said later.
async fn refuse_steps(broker: &Broker) -> Result<(), BrokerError> {
    loop {
        let Some((id, step, text)) = lock(&broker.requests.undeliverable).last().cloned() else { return Ok(()) };
        let word = Word::Error { code: "undeliverable".to_owned(), text };
        broker.say(&id, step, &word, &Headers::new(), None).await?;
        lock(&broker.requests.undeliverable).pop();
    }
}

/// Where a record about a request goes, and from where on it will be found there if it is written from now on.
pub(super) async fn place(
    broker: &Arc<Broker>,
    topic: &TopicName,
    id: &RequestId,
) -> Result<((TopicName, u32), Offset), BrokerError> {
    let number = broker.partition_for(topic, id).await?;
    // The synced end never goes back.
    let end = broker.topic(topic.as_str())?.partition(number)?.log()?.with(|log| log.synced_end());
    Ok(((topic.clone(), number), end))
}

/// Writes what is to be written of these; whether all of it was.
async fn write_all(broker: &Arc<Broker>, replies: TopicId, entries: Vec<RequestEntry>, look_first: bool) -> bool {
    let outcomes = stream::iter(entries).map(|entry| async move {
        let Some(writing) = entry.writing.clone() else { return true };
        let Some(to) = writing.to.clone() else { return true };
        match write(broker, replies, &entry, &writing, &to, look_first).await {
            Ok(()) => {
                if lock(&broker.requests.machine).written(&entry.id, writing.source) {
                    broker.requests.keep(broker, std::slice::from_ref(&entry.id), replies);
                }
                true
            }
            Err(error) => {
                tracing::warn!(request = %entry.id, topic = %to.0, %error, "cannot be written; trying again");
                false
            }
        }
    });
    let outcomes: Vec<bool> = outcomes.buffered(AT_ONCE).collect().await;
    outcomes.into_iter().all(|written| written)
}

async fn write(
    broker: &Arc<Broker>,
    replies: TopicId,
    entry: &RequestEntry,
    writing: &Writing,
    (topic, number): &(TopicName, u32),
    look_first: bool,
) -> Result<(), BrokerError> {
    if look_first
        && let Ok(open) = broker.topic(topic.as_str())
        && is_there(broker, replies, entry, writing, open.partition(*number)?).await?
    {
        return Ok(());
    }
    let source = match broker.reply_at(writing.source).await {
        Err(error) if matches!(error.kind(), ErrorKind::OffsetOutOfRange | ErrorKind::NotFound) => {
            tracing::warn!(request = %entry.id, %error, "the reply is gone, and with it what was to be made from it");
            return Ok(());
        }
        other => other?,
    };
    let now = broker.clock.stamp_ms();
    let record = match &entry.outcome {
        Some(_) => records::callback(entry, &source, now),
        None => records::request(entry, &source.headers, source.value.clone(), now),
    };
    // Made if it is not there and that is allowed.
    broker.metadata(topic, true).await?;
    // What is written is kept from being deleted or compacted until it is kept that it was written.
    broker.requests.hold_one(&entry.id, writing.source, broker.topic(topic.as_str())?.partition(*number)?)?;
    broker.produce(topic.as_str(), *number, records::batch(&record), AckLevel::Durable).await.map(drop)
}

/// Whether what is to be written of a request is in the partition, and durable. If it is not, it need not be looked for there
/// again, and what lies there need not be held for it: it may be long until it can be written.
async fn is_there(
    broker: &Arc<Broker>,
    replies: TopicId,
    entry: &RequestEntry,
    writing: &Writing,
    partition: &Arc<Partition>,
) -> Result<bool, BrokerError> {
    let (looked_for, from, place) = (entry.clone(), writing.from, Arc::clone(partition));
    let (found, end) = blocking(move || {
        let mut found = false;
        let end = place.search(from, |record| {
            if records::id_of(record).as_ref() == Some(&looked_for.id) {
                let is_callback = records::text_of(record, records::OUTCOME).is_some();
                let of_step = !is_callback && records::step_of(record) == looked_for.step;
                found = if looked_for.outcome.is_some() { is_callback } else { of_step };
            }
            found
        })?;
        Ok::<_, BrokerError>((found, end))
    })
    .await?;
    if !found && end > from + LOOKED_AT {
        lock(&broker.requests.machine).look_from(&entry.id, writing.source, end);
        broker.requests.keep(broker, std::slice::from_ref(&entry.id), replies);
        broker.queues.keeper.kept().await?;
        broker.requests.hold_from(&entry.id, writing.source, (partition, end))?;
    }
    Ok(found)
}

/// Says of requests whose time is over that it is; whether there were any.
async fn time_out(broker: &Arc<Broker>) -> Result<bool, BrokerError> {
    let late = lock(&broker.requests.machine)
        .take_late(broker.clock.now_ms(), |asked, deadline| broker.clock.is_over(asked, deadline));
    let say = |id| async move { broker.say(&id, 0, &Word::TimedOut, &Headers::new(), None).await };
    let said = stream::iter(late.clone()).map(say);
    let said: Vec<_> = said.buffered(AT_ONCE).collect().await;
    if let Some(Err(error)) = said.into_iter().find(Result::is_err) {
        lock(&broker.requests.machine).not_late(&late);
        return Err(error);
    }
    Ok(!late.is_empty())
}

async fn fetch(broker: &Broker, topic: &str, partition: u32, offset: Offset) -> Result<Fetched, BrokerError> {
    let request = FetchRequest {
        topic,
        partition,
        offset,
        max_bytes: READ_BYTES,
        min_bytes: 0,
        max_wait: Duration::ZERO,
        skip_damaged: true,
    };
    broker.fetch(request).await
}
