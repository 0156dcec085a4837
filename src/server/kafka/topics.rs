//! Creating and deleting topics.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    TopicName as KafkaName,
};
use kafka_protocol::protocol::StrBytes;

use super::metadata::{kafka_name, uuid};
use super::session::Session;
use super::{configs, errors};
use crate::base::{TopicId, TopicName};
use crate::broker::{NewTopic, TopicDescription};

/// A refusal: a code, and one line.
pub type Refused = (i16, String);

/// Answers CreateTopics.
pub async fn create(session: Arc<Session>, _version: i16, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut seen = HashSet::new();
    let twice: HashSet<KafkaName> = request
        .topics
        .iter()
        .filter(|topic| !seen.insert(topic.name.clone()))
        .map(|topic| topic.name.clone())
        .collect();
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let result = CreatableTopicResult::default().with_name(topic.name.clone());
        let outcome = if twice.contains(&topic.name) {
            Err((errors::INVALID_REQUEST, "the topic is in the request more than once".to_owned()))
        } else {
            create_one(&session, &topic, request.validate_only).await
        };
        results.push(match outcome {
            Ok(topic) => created(result, &topic, request.validate_only),
            Err((code, message)) => result
                .with_error_code(code)
                .with_error_message(Some(StrBytes::from_string(message)))
                .with_configs(Some(Vec::new())),
        });
    }
    CreateTopicsResponse::default().with_topics(results)
}

fn created(result: CreatableTopicResult, topic: &TopicDescription, validate_only: bool) -> CreatableTopicResult {
    let configs = configs::of_topic(topic).into_iter().map(|config| {
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(config.name))
            .with_value(Some(StrBytes::from_string(config.value)))
            .with_read_only(config.read_only)
            .with_config_source(config.source)
    });
    let id = if validate_only { TopicId(0) } else { topic.id };
    result
        .with_topic_id(uuid(id))
        .with_num_partitions(i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX))
        .with_replication_factor(1)
        .with_error_message(None)
        .with_configs(Some(configs.collect()))
}

async fn create_one(
    session: &Session,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<TopicDescription, Refused> {
    let name = TopicName::new(&topic.name).map_err(|error| (errors::INVALID_TOPIC, error.to_string()))?;
    let partitions = partitions(session, topic)?;
    let mut settings = Vec::new();
    for config in &topic.configs {
        let Some(value) = &config.value else {
            return Err((errors::INVALID_CONFIG, format!("setting '{}' has no value", &*config.name)));
        };
        settings.extend(configs::to_setting(&config.name, value)?);
    }
    let new = NewTopic { name, partitions, settings, if_not_exists: false };
    let outcome = match validate_only {
        true => session.broker().validate_topic(new),
        false => session.broker().create_topic(new).await,
    };
    outcome.map_err(|error| (errors::topic_code(&error), error.to_string()))
}

/// Whether a partition may be where its replicas are to be: on this server alone, or on any brokers if that is granted.
pub fn is_here(session: &Session, replicas: &[BrokerId]) -> bool {
    match session.shared.config.kafka_grant_replication {
        true => !replicas.is_empty() && replicas.iter().all(|replica| replica.0 >= 0),
        false => matches!(replicas, [replica] if replica.0 == session.node()),
    }
}

/// How many partitions are asked for, by number or by where each of them is to be; `None` for the default.
fn partitions(session: &Session, topic: &CreatableTopic) -> Result<Option<u32>, Refused> {
    if !topic.assignments.is_empty() {
        if topic.num_partitions != -1 || topic.replication_factor != -1 {
            let what = "both an assignment and a number of partitions or replicas".to_owned();
            return Err((errors::INVALID_REQUEST, what));
        }
        let mut numbers: Vec<i32> = topic.assignments.iter().map(|part| part.partition_index).collect();
        numbers.sort_unstable();
        let here = topic.assignments.iter().all(|part| is_here(session, &part.broker_ids));
        if !here || !numbers.iter().zip(0..).all(|(number, index)| *number == index) {
            let what = format!("partitions are numbered from 0, each on broker {} alone", session.node());
            return Err((errors::INVALID_REPLICA_ASSIGNMENT, what));
        }
        return Ok(Some(u32::try_from(numbers.len()).unwrap_or(u32::MAX)));
    }
    match topic.replication_factor {
        1 | -1 => {}
        2.. if session.shared.config.kafka_grant_replication => {}
        factor => {
            let what =
                format!("replication factor {factor}; there is one server, so it is 1 (see kafka_grant_replication)");
            return Err((errors::INVALID_REPLICATION_FACTOR, what));
        }
    }
    match topic.num_partitions {
        -1 => Ok(None),
        number => match u32::try_from(number) {
            Ok(number @ 1..=crate::base::limits::PARTITIONS_PER_TOPIC) => Ok(Some(number)),
            _ => {
                let most = crate::base::limits::PARTITIONS_PER_TOPIC;
                Err((errors::INVALID_PARTITIONS, format!("{number} partitions; a topic has 1 to {most}")))
            }
        },
    }
}

/// Answers DeleteTopics: by name, or (from version 6 on) by id.
pub async fn delete(session: Arc<Session>, version: i16, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let wanted: Vec<DeleteTopicState> = if version >= 6 {
        request.topics
    } else {
        request.topic_names.into_iter().map(|name| DeleteTopicState::default().with_name(Some(name))).collect()
    };
    let mut results = Vec::with_capacity(wanted.len());
    // As Kafka does: what is named twice, or by two names of which one may be wrong, is not deleted.
    let id_of = |topic: &DeleteTopicState| {
        let by_name = topic.name.as_ref().and_then(|name| session.broker().handle(name.as_str()).ok());
        by_name.map_or(topic.topic_id, |handle| uuid(handle.id()))
    };
    let mut named: HashMap<uuid::Uuid, usize> = HashMap::new();
    for topic in &wanted {
        *named.entry(id_of(topic)).or_default() += 1;
    }
    for topic in wanted {
        let id = id_of(&topic);
        let twice = !id.is_nil() && named.get(&id).is_some_and(|times| *times > 1);
        let both = topic.name.is_some() && !topic.topic_id.is_nil();
        if twice || both {
            let what = if both { "the topic is named and its id is given" } else { "the topic is named twice" };
            let (name, id) = (topic.name.clone(), topic.topic_id);
            let result = DeletableTopicResult::default().with_name(name).with_topic_id(id);
            let message = Some(StrBytes::from_static_str(what));
            results.push(result.with_error_code(errors::INVALID_REQUEST).with_error_message(message));
            continue;
        }
        results.push(delete_one(&session, topic).await);
    }
    DeleteTopicsResponse::default().with_responses(results)
}

async fn delete_one(session: &Session, topic: DeleteTopicState) -> DeletableTopicResult {
    let id = TopicId(topic.topic_id.as_u128());
    let mut result = DeletableTopicResult::default().with_name(topic.name.clone()).with_topic_id(topic.topic_id);
    let name = match &topic.name {
        Some(name) => TopicName::new(name).map_err(|error| (errors::INVALID_TOPIC, error.to_string())),
        None if id.0 == 0 => {
            Err((errors::INVALID_REQUEST, "neither a name nor an id of the topic is given".to_owned()))
        }
        None => session
            .broker()
            .topic_named(id)
            .ok_or_else(|| (errors::UNKNOWN_TOPIC_ID, format!("there is no topic with the id {id}"))),
    };
    let outcome = match name {
        Ok(name) => {
            result.name = Some(kafka_name(name.as_str()));
            if let Ok(known) = session.broker().metadata(&name, false).await {
                result.topic_id = uuid(known.id);
            }
            session.broker().delete_topic(&name).await.map_err(|error| (errors::code(&error), error.to_string()))
        }
        Err(refused) => Err(refused),
    };
    match outcome {
        Ok(()) => result,
        Err((code, message)) => result.with_error_code(code).with_error_message(Some(StrBytes::from_string(message))),
    }
}
