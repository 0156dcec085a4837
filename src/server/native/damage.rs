//! Damage: between the wire and the broker.

use std::sync::Arc;

use super::mapping::{Refusal, topic_name};
use super::session::{Answer, Session};
use crate::log::KnownDamage;
use crate::protocol as wire;

/// Places of one answer.
const LISTED: usize = 1_000;

/// The damage that is known.
pub async fn list(session: Arc<Session>, request: wire::ListDamage) -> Result<Answer<wire::ListDamageOk>, Refusal> {
    let broker = Arc::clone(&session.shared.broker);
    if let Some(topic) = &request.topic {
        broker.metadata(&topic_name(topic)?, false).await?;
    }
    let (journal, found) = (broker.journal_damage(), broker.damage().await);
    let wanted = |topic: &str| request.topic.as_ref().is_none_or(|wanted| wanted == topic);
    let journal = journal.iter().filter(|_| request.topic.is_none()).map(|known| info(None, 0, known));
    let found = found.iter().filter(|damage| wanted(damage.topic.as_str()));
    let found = found.map(|damage| info(Some(damage.topic.to_string()), damage.partition, &damage.known));
    let mut damage: Vec<_> = journal.chain(found).collect();
    let total = damage.len() as u64;
    damage.truncate((request.limit as usize).min(LISTED));
    Ok(wire::ListDamageOk { damage, total }.into())
}

fn info(topic: Option<String>, partition: u32, known: &KnownDamage) -> wire::DamageInfo {
    let KnownDamage { damage, found_ms, acknowledged } = known;
    wire::DamageInfo {
        topic,
        partition,
        from: damage.from,
        to: damage.to,
        file: damage.file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        position: damage.position,
        what: damage.what.clone(),
        found_ms: *found_ms,
        acknowledged: *acknowledged,
    }
}

/// An operator has seen the damage.
pub async fn acknowledge(
    session: Arc<Session>,
    request: wire::AcknowledgeDamage,
) -> Result<Answer<wire::AcknowledgeDamageOk>, Refusal> {
    let acknowledged = session.shared.broker.acknowledge_damage(request.topic.as_deref()).await?;
    Ok(wire::AcknowledgeDamageOk { acknowledged: acknowledged as u64 }.into())
}
