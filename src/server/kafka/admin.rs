//! Administration: settings, partitions, deleting records, disk space.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::incremental_alter_configs_request::AlterableConfig as Change;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as IncrementalResponse;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, CreatePartitionsRequest, CreatePartitionsResponse, DeleteRecordsRequest,
    DeleteRecordsResponse, DescribeConfigsRequest, DescribeConfigsResponse, DescribeLogDirsRequest,
    DescribeLogDirsResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::configs::{self, Config};
use super::groups::text;
use super::metadata::kafka_name;
use super::once::once;
use super::session::Session;
use super::topics::{Refused, is_here};
use super::{brokers, errors};
use crate::base::{TopicName, limits};
use crate::broker::{BrokerError, TopicDescription};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// The longest time in which the records that are to be deleted may be synced.
const MOST_PATIENCE: Duration = Duration::from_secs(60);

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

fn refused(error: &BrokerError) -> Refused {
    (errors::topic_code(error), error.to_string())
}

async fn described(session: &Session, name: &str) -> Result<TopicDescription, Refused> {
    let name = TopicName::new(name).map_err(|error| (errors::INVALID_TOPIC, error.to_string()))?;
    session.broker().describe_topic(&name).await.map_err(|error| refused(&error))
}

/// Answers DescribeConfigs, of topics and of the server.
pub async fn describe_configs(
    session: Arc<Session>,
    _version: i16,
    mut request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    once(&mut request.resources, |resource| (resource.resource_type, resource.resource_name.clone()));
    let mut results = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        results.push(match configs_of(&session, &resource).await {
            Ok(configs) => {
                // As in Kafka, an empty list asks for all of them.
                let keys = resource.configuration_keys.as_deref().filter(|keys| !keys.is_empty());
                let wanted = |config: &Config| keys.is_none_or(|keys| keys.iter().any(|key| **key == *config.name));
                let configs = configs.into_iter().filter(wanted);
                let configs = configs
                    .map(|config| config_result(config, request.include_synonyms, request.include_documentation));
                result.with_error_message(None).with_configs(configs.collect())
            }
            Err((code, message)) => result.with_error_code(code).with_error_message(Some(text(message))),
        });
    }
    DescribeConfigsResponse::default().with_results(results)
}

fn config_result(config: Config, synonyms: bool, documentation: bool) -> DescribeConfigsResourceResult {
    let value = Some(text(config.value));
    let synonym = DescribeConfigsSynonym::default()
        .with_name(StrBytes::from_static_str(config.name))
        .with_value(value.clone())
        .with_source(config.source);
    DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(config.name))
        .with_value(value)
        .with_read_only(config.read_only)
        .with_config_source(config.source)
        .with_synonyms(if synonyms { vec![synonym] } else { Vec::new() })
        .with_config_type(config.kind)
        .with_documentation(documentation.then(|| StrBytes::from_static_str(config.meaning)))
}

async fn configs_of(session: &Session, resource: &DescribeConfigsResource) -> Result<Vec<Config>, Refused> {
    match resource.resource_type {
        TOPIC => Ok(configs::of_topic(&described(session, &resource.resource_name).await?)),
        BROKER => {
            let name = &*resource.resource_name;
            let node = session.node();
            if !name.is_empty() && name != node.to_string() {
                return Err((errors::INVALID_REQUEST, format!("there is no broker '{name}', only {node}")));
            }
            Ok(brokers::of_server(session))
        }
        other => Err((errors::INVALID_REQUEST, format!("resource type {other} has no settings here"))),
    }
}

/// Settings to be changed: those set, and those unset.
type Changes = (Vec<(String, String)>, Vec<String>);

/// Refuses changes of anything but a topic's settings.
fn of_a_topic(kind: i8) -> Result<(), Refused> {
    if kind == TOPIC {
        return Ok(());
    }
    let what = "only the settings of topics can be changed here; those of the server are in its configuration";
    Err((errors::INVALID_REQUEST, what.to_owned()))
}

async fn apply(session: &Session, kind: i8, name: &str, changes: Changes, validate_only: bool) -> Result<(), Refused> {
    of_a_topic(kind)?;
    let name = TopicName::new(name).map_err(|error| (errors::INVALID_TOPIC, error.to_string()))?;
    let (set, unset) = changes;
    let outcome = match validate_only {
        true => session.broker().validate_alter(&name, &set, &unset),
        false => session.broker().alter_topic(&name, None, &set, &unset).await.map(drop),
    };
    outcome.map_err(|error| refused(&error))
}

/// Answers AlterConfigs: what is not named goes back to its default.
pub async fn alter_configs(session: Arc<Session>, _version: i16, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    let named = counted(request.resources.iter().map(|of| (of.resource_type, of.resource_name.clone())));
    for resource in request.resources {
        let times = named[&(resource.resource_type, resource.resource_name.clone())];
        let changes = async {
            once_each(times, resource.configs.iter().map(|config| &config.name))?;
            of_a_topic(resource.resource_type)?;
            let mut set = Vec::new();
            for config in &resource.configs {
                set.extend(configs::to_setting(&config.name, config.value.as_deref().unwrap_or_default())?);
            }
            let topic = described(&session, &resource.resource_name).await?;
            let own = topic.settings.iter().filter(|setting| !setting.is_default);
            Ok::<Changes, Refused>((set, own.map(|setting| setting.name.to_owned()).collect()))
        };
        let outcome = match changes.await {
            Ok(changes) => {
                let (kind, name) = (resource.resource_type, &resource.resource_name);
                apply(&session, kind, name, changes, request.validate_only).await
            }
            Err(refused) => Err(refused),
        };
        let (code, message) = told(outcome);
        responses.push(
            AlterConfigsResourceResponse::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name)
                .with_error_code(code)
                .with_error_message(message),
        );
    }
    AlterConfigsResponse::default().with_responses(responses)
}

/// How often each is there.
fn counted<T: Ord>(all: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for one in all {
        *counts.entry(one).or_default() += 1;
    }
    counts
}

/// As Kafka does: what is named twice in one request, with two values perhaps, is not changed.
fn once_each<'a>(times: usize, settings: impl Iterator<Item = &'a StrBytes>) -> Result<(), Refused> {
    if times > 1 {
        return Err((errors::INVALID_REQUEST, format!("the resource is named {times} times")));
    }
    match counted(settings).into_iter().find(|(_, times)| *times > 1) {
        Some((name, times)) => Err((errors::INVALID_REQUEST, format!("setting '{}' is named {times} times", &**name))),
        None => Ok(()),
    }
}

fn told(outcome: Result<(), Refused>) -> (i16, Option<StrBytes>) {
    match outcome {
        Ok(()) => (errors::NONE, None),
        Err((code, message)) => (code, Some(text(message))),
    }
}

/// Answers IncrementalAlterConfigs.
pub async fn incremental_alter_configs(
    session: Arc<Session>,
    _version: i16,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    let named = counted(request.resources.iter().map(|of| (of.resource_type, of.resource_name.clone())));
    for resource in request.resources {
        let (kind, name) = (resource.resource_type, &resource.resource_name);
        let wanted = match once_each(named[&(kind, name.clone())], resource.configs.iter().map(|config| &config.name)) {
            Ok(()) => changes(&session, kind, name, &resource.configs).await,
            Err(refused) => Err(refused),
        };
        let outcome = match wanted {
            Ok(changes) => apply(&session, kind, name, changes, request.validate_only).await,
            Err(refused) => Err(refused),
        };
        let (code, message) = told(outcome);
        responses.push(
            IncrementalResponse::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name)
                .with_error_code(code)
                .with_error_message(message),
        );
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

async fn changes(session: &Session, kind: i8, topic: &str, configs: &[Change]) -> Result<Changes, Refused> {
    of_a_topic(kind)?;
    let (mut set, mut unset): Changes = Default::default();
    let mut lists: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for config in configs {
        let (name, value) = (&*config.name, config.value.as_deref().unwrap_or_default());
        match config.config_operation {
            SET => set.extend(configs::to_setting(name, value)?),
            DELETE => unset.extend(configs::to_unset(name)?),
            operation @ (APPEND | SUBTRACT) => {
                if !configs::is_list(name) {
                    let what = format!("'{name}' is no list to which can be added or from which can be taken");
                    return Err((errors::INVALID_CONFIG, what));
                }
                if !lists.contains_key(name) {
                    let all = configs::of_topic(&described(session, topic).await?);
                    let now = all.into_iter().find(|known| known.name == name).map(|known| known.value);
                    let parts = now.unwrap_or_default().split(',').map(|part| part.trim().to_owned()).collect();
                    lists.insert(name.to_owned(), parts);
                }
                let Some(list) = lists.get_mut(name) else { continue };
                for part in value.split(',').map(str::trim) {
                    list.retain(|known| known != part);
                    if operation == APPEND {
                        list.push(part.to_owned());
                    }
                }
            }
            other => return Err((errors::INVALID_REQUEST, format!("there is no operation {other} on a setting"))),
        }
    }
    for (name, list) in lists {
        set.extend(configs::to_setting(&name, &list.join(","))?);
    }
    Ok((set, unset))
}

/// Answers CreatePartitions.
pub async fn create_partitions(
    session: Arc<Session>,
    _version: i16,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let (code, message) = told(grow(&session, &topic, request.validate_only).await);
        results.push(
            CreatePartitionsTopicResult::default()
                .with_name(topic.name)
                .with_error_code(code)
                .with_error_message(message),
        );
    }
    CreatePartitionsResponse::default().with_results(results)
}

async fn grow(session: &Session, topic: &CreatePartitionsTopic, validate_only: bool) -> Result<(), Refused> {
    let now = described(session, &topic.name).await?;
    let there = now.partitions.len();
    let most = limits::PARTITIONS_PER_TOPIC;
    let wanted = u32::try_from(topic.count).ok().filter(|count| *count as usize > there && *count <= most);
    let Some(wanted) = wanted else {
        let what = format!("{} partitions; there are {there}, and there can be more, up to {most}", topic.count);
        return Err((errors::INVALID_PARTITIONS, what));
    };
    if let Some(assignments) = &topic.assignments {
        let here = assignments.iter().all(|assigned| is_here(session, &assigned.broker_ids));
        if !here || assignments.len() != wanted as usize - there {
            let what = format!("each new partition is on broker {} alone", session.node());
            return Err((errors::INVALID_REPLICA_ASSIGNMENT, what));
        }
    }
    if validate_only {
        return Ok(());
    }
    let altered = session.broker().alter_topic(&now.name, Some(wanted), &[], &[]).await;
    altered.map(drop).map_err(|error| refused(&error))
}

/// Answers DeleteRecords.
pub async fn delete_records(
    session: Arc<Session>,
    _version: i16,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let until =
        Instant::now() + Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)).min(MOST_PATIENCE);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let number = partition.partition_index;
            let outcome = delete_below(&session, &topic.name, number, partition.offset, until).await;
            let result = DeleteRecordsPartitionResult::default().with_partition_index(number);
            partitions.push(match outcome {
                Ok(log_start) => result.with_low_watermark(log_start),
                Err(code) => result.with_low_watermark(-1).with_error_code(code),
            });
        }
        topics.push(DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions));
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

async fn delete_below(session: &Session, topic: &str, partition: i32, offset: i64, until: Instant) -> Result<i64, i16> {
    TopicName::new(topic).map_err(|_| errors::INVALID_TOPIC)?;
    let partition = u32::try_from(partition).map_err(|_| errors::UNKNOWN_TOPIC_OR_PARTITION)?;
    let below = match offset {
        // All that there are.
        -1 => None,
        offset => Some(u64::try_from(offset).map_err(|_| errors::OFFSET_OUT_OF_RANGE)?),
    };
    let settings = session.broker().topic_settings(topic).map_err(|error| errors::code(&error))?;
    if !settings.cleanup.deletes() {
        // As in Kafka: of a topic that keeps the newest record of each key, an offset says nothing of what is out of date.
        return Err(errors::POLICY_VIOLATION);
    }
    let patience = until.saturating_duration_since(Instant::now());
    let deleted = session.broker().delete_records(topic, partition, below, patience).await;
    deleted.map(|log_start| log_start as i64).map_err(|error| errors::code(&error))
}

/// Answers DescribeLogDirs: there is one directory, and it has everything.
pub async fn describe_log_dirs(
    session: Arc<Session>,
    version: i16,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let all = || session.broker().list_topics().into_iter().map(|topic| (topic.name.to_string(), None)).collect();
    let wanted: Vec<(String, Option<Vec<i32>>)> = match request.topics {
        Some(mut topics) => {
            // One topic may be named in parts; each part is looked for in all of its partitions.
            once(&mut topics, |topic| topic.topic.clone());
            topics.into_iter().map(|topic| (topic.topic.to_string(), Some(topic.partitions))).collect()
        }
        None => all(),
    };
    let mut topics = Vec::with_capacity(wanted.len());
    for (name, numbers) in wanted {
        // One that is gone meanwhile is in no directory.
        let Ok(topic) = described(&session, &name).await else { continue };
        let partitions = topic.partitions.iter().filter_map(|partition| {
            let number = i32::try_from(partition.partition).ok()?;
            let wanted = numbers.as_ref().is_none_or(|numbers| numbers.contains(&number));
            wanted.then(|| {
                DescribeLogDirsPartition::default()
                    .with_partition_index(number)
                    .with_partition_size(i64::try_from(partition.bytes).unwrap_or(i64::MAX))
            })
        });
        topics.push(DescribeLogDirsTopic::default().with_name(kafka_name(&name)).with_partitions(partitions.collect()));
    }
    let mut dir = DescribeLogDirsResult::default()
        .with_log_dir(text(session.shared.config.data_dir.display().to_string()))
        .with_topics(topics);
    if version >= 4 {
        let free = session.broker().disk_free_bytes().and_then(|free| i64::try_from(free).ok());
        dir = dir.with_usable_bytes(free.unwrap_or(-1));
    }
    DescribeLogDirsResponse::default().with_results(vec![dir])
}
