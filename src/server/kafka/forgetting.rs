//! OffsetDelete (KIP-496): positions that a group is to forget. Of a group with members, those in topics that no member reads.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::errors;
use super::group_admin::CONSUMER;
use super::groups::group_name;
use super::session::Session;
use super::wire::{Reader, WireError};
use crate::base::{GroupName, TopicName, TopicRegex};

/// What the members of a group read.
enum Reads {
    /// It has no members.
    Nobody,
    /// Topics by name, and by expressions and patterns.
    Topics(Box<dyn Fn(&TopicName) -> bool + Send>),
    /// It has members that do not consume topics.
    Other,
}

fn reads(session: &Session, group: &GroupName) -> Reads {
    if let Some(look) = session.broker().classic_look(group).filter(|look| !look.members.is_empty()) {
        if look.protocol_type != CONSUMER {
            return Reads::Other;
        }
        let said: Result<Vec<_>, _> = look.members.iter().map(|member| subscription(&member.said)).collect();
        return match said {
            Ok(topics) => {
                let topics: BTreeSet<String> = topics.into_iter().flatten().collect();
                Reads::Topics(Box::new(move |topic| topics.contains(topic.as_str())))
            }
            // What cannot be understood may be any topic.
            Err(_) => Reads::Topics(Box::new(|_| true)),
        };
    }
    let Some(look) = session.broker().consumer_look(group) else { return Reads::Nobody };
    let regexes: Vec<_> =
        look.members.iter().filter_map(|member| member.regex.as_deref()).map(TopicRegex::new).collect();
    let patterns: Vec<_> = look.members.into_iter().flat_map(|member| member.topics).collect();
    Reads::Topics(Box::new(move |topic| {
        let met = |regex: &Result<TopicRegex, _>| regex.as_ref().map_or(true, |regex| regex.matches(topic));
        patterns.iter().any(|pattern| pattern.matches(topic)) || regexes.iter().any(met)
    }))
}

/// The topics of a consumer's subscription, which is what a member of a classic group says of itself.
fn subscription(said: &Bytes) -> Result<Vec<String>, WireError> {
    let mut reader = Reader::new(said, false);
    reader.i16()?;
    (0..reader.count()?).map(|_| Ok(reader.text()?.to_owned())).collect()
}

/// Answers OffsetDelete.
pub async fn delete(session: Arc<Session>, _version: i16, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let name = match group_name(&request.group_id) {
        Ok(name) => name,
        Err(code) => return OffsetDeleteResponse::default().with_error_code(code),
    };
    let reads = reads(&session, &name);
    if matches!(reads, Reads::Other) {
        return OffsetDeleteResponse::default().with_error_code(errors::NON_EMPTY_GROUP);
    }
    let mut of = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let known = TopicName::new(&topic.name).ok();
        let is_read = match (&reads, &known) {
            (Reads::Topics(reads), Some(topic)) => reads(topic),
            _ => false,
        };
        let partitions = topic.partitions.iter().map(|partition| {
            let place = known.clone().zip(u32::try_from(partition.partition_index).ok());
            let place =
                place.filter(|(topic, number)| session.broker().partition_ends(topic.as_str(), *number).is_ok());
            let code = match place {
                None => errors::UNKNOWN_TOPIC_OR_PARTITION,
                Some(_) if is_read => errors::GROUP_SUBSCRIBED_TO_TOPIC,
                Some(place) => {
                    of.push(place);
                    errors::NONE
                }
            };
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code)
        });
        let partitions = partitions.collect();
        topics.push(OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions));
    }
    let forgotten = match reads {
        Reads::Topics(_) => session.broker().forget_unread_positions(&name, of).await,
        _ => session.broker().forget_positions(&name, of).await,
    };
    match forgotten {
        Ok(()) => OffsetDeleteResponse::default().with_topics(topics),
        Err(error) => OffsetDeleteResponse::default().with_error_code(errors::whole_group_code(&error)),
    }
}
