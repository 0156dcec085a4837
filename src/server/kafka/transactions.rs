//! Transactions: what is part of one, how it ends, and what there is to see of them.

use std::sync::Arc;

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::list_transactions_response::TransactionState as ListedTransaction;
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    DescribeProducersRequest, DescribeProducersResponse, DescribeTransactionsRequest, DescribeTransactionsResponse,
    EndTxnRequest, EndTxnResponse, InitProducerIdRequest, ListTransactionsRequest, ListTransactionsResponse,
    TxnOffsetCommitRequest, TxnOffsetCommitResponse, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};

use super::commits::Commits;
use super::errors;
use super::groups::{group_name, text};
use super::metadata::kafka_name;
use super::once::{once, once_each};
use super::positions::as_consumer;
use super::session::Session;
use crate::base::{PartitionId, TopicName, limits};
use crate::broker::{BeginTransactional, BrokerError, ClassicVoice, Commit, Producer};
use crate::catalog::{TransactionClient, TransactionEntry, TransactionPhase};
use crate::record::Marker;
use crate::server::budget::Peer;

/// The version from which on clients know that there is a code for a producer that was superseded.
const FENCED_SINCE: i16 = 2;

fn code(error: &BrokerError, version: i16, fenced_since: i16) -> i16 {
    match errors::transaction_code(error) {
        errors::PRODUCER_FENCED if version < fenced_since => errors::INVALID_PRODUCER_EPOCH,
        code => code,
    }
}

fn outcome(result: Result<(), BrokerError>, version: i16) -> i16 {
    result.map_or_else(|error| code(&error, version, FENCED_SINCE), |()| errors::NONE)
}

/// A partition that is there.
fn place(session: &Session, topic: &str, partition: i32) -> Result<(TopicName, PartitionId), i16> {
    let name = TopicName::new(topic).map_err(|_| errors::INVALID_TOPIC)?;
    let number = u32::try_from(partition).map_err(|_| errors::UNKNOWN_TOPIC_OR_PARTITION)?;
    session.broker().partition_ends(topic, number).map_err(|error| errors::code(&error))?;
    Ok((name, number))
}

/// Answers AddPartitionsToTxn: all of them become part of the transaction, or none.
pub async fn add_partitions(
    session: Arc<Session>,
    version: i16,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let who = Producer {
        id: &request.v3_and_below_transactional_id,
        producer: request.v3_and_below_producer_id.0,
        epoch: request.v3_and_below_producer_epoch,
    };
    let topics = &request.v3_and_below_topics;
    let mut places = Vec::new();
    let mut refused = false;
    let mut codes = Vec::new();
    for topic in topics {
        for partition in &topic.partitions {
            let place = place(&session, &topic.name, *partition);
            refused |= place.is_err();
            codes.push(place.map(|place| places.push(place)).err());
        }
    }
    let code = match refused {
        true => errors::OPERATION_NOT_ATTEMPTED,
        false => outcome(session.broker().add_partitions(who, &places).await, version),
    };
    let mut codes = codes.into_iter().map(|own| own.unwrap_or(code));
    let result = |topic: &AddPartitionsToTxnTopic| {
        let partitions = topic.partitions.iter().map(|partition| {
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*partition)
                .with_partition_error_code(codes.next().unwrap_or(errors::UNKNOWN_SERVER_ERROR))
        });
        let partitions = partitions.collect();
        AddPartitionsToTxnTopicResult::default().with_name(topic.name.clone()).with_results_by_partition(partitions)
    };
    let results = topics.iter().map(result).collect();
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results)
}

/// Answers AddOffsetsToTxn: a group becomes part of the transaction.
pub async fn add_offsets(
    session: Arc<Session>,
    version: i16,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let who =
        Producer { id: &request.transactional_id, producer: request.producer_id.0, epoch: request.producer_epoch };
    let code = match group_name(&request.group_id) {
        Ok(group) => outcome(session.broker().add_group(who, &group).await, version),
        Err(code) => code,
    };
    AddOffsetsToTxnResponse::default().with_error_code(code)
}

/// Answers TxnOffsetCommit: positions that hold once the transaction is committed.
pub async fn commit_offsets(
    session: Arc<Session>,
    version: i16,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let named = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| {
            let metadata = partition.committed_metadata.as_deref();
            let offset = (partition.committed_offset, partition.committed_leader_epoch);
            (topic.name.as_str(), partition.partition_index, offset, metadata)
        })
    });
    let (named, commits) = Commits::of(session.broker(), named);
    let mut codes = named.codes(&stage(&session, version, &request, commits).await);
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(codes.next().unwrap_or(errors::UNKNOWN_SERVER_ERROR))
        });
        TxnOffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect())
}

async fn stage(
    session: &Session,
    version: i16,
    request: &TxnOffsetCommitRequest,
    commits: Vec<Commit>,
) -> Result<Vec<Result<(), BrokerError>>, i16> {
    let group = group_name(&request.group_id)?;
    // Older versions do not say which member it is.
    if version >= 3 && (request.generation_id >= 0 || !request.member_id.is_empty()) {
        let voice = ClassicVoice {
            member: &request.member_id,
            instance: request.group_instance_id.as_deref(),
            generation: request.generation_id,
        };
        match as_consumer(session, &group, &voice) {
            Some(epoch) => {
                let may = session.broker().check_consumer(&group, voice.member, epoch);
                may.map_err(|error| match errors::stale_code(&error) {
                    // Producers know only the older protocol's word for it.
                    errors::STALE_MEMBER_EPOCH => errors::ILLEGAL_GENERATION,
                    code => code,
                })?;
            }
            None => session.broker().may_commit_classic(&group, voice).map_err(errors::group_code)?,
        }
    }
    let who =
        Producer { id: &request.transactional_id, producer: request.producer_id.0, epoch: request.producer_epoch };
    // Clients have no other word for a producer that was superseded here.
    let staged = session.broker().stage_positions(who, &group, commits).await;
    staged.map_err(|error| code(&error, version, i16::MAX))
}

/// Answers EndTxn. What is said to have ended is decided and on the disk.
pub async fn end(session: Arc<Session>, version: i16, request: EndTxnRequest) -> EndTxnResponse {
    let who =
        Producer { id: &request.transactional_id, producer: request.producer_id.0, epoch: request.producer_epoch };
    let marker = if request.committed { Marker::Commit } else { Marker::Abort };
    let code = outcome(session.broker().end_transaction(who, marker).await, version);
    EndTxnResponse::default().with_error_code(code)
}

/// Answers InitProducerId of a producer with a transactional id: its producer id and epoch.
///
/// # Errors
/// The code.
pub async fn begin(
    session: &Session,
    version: i16,
    request: &InitProducerIdRequest,
    client: &str,
) -> Result<(i64, i16), i16> {
    /// The version from which on there is a code for a producer that was superseded.
    const FENCED_SINCE: i16 = 4;
    let resume = match (request.producer_id.0, request.producer_epoch) {
        (-1, -1) => None,
        (producer, epoch) if producer >= 0 && epoch >= 0 => Some((producer, epoch)),
        _ => return Err(errors::INVALID_REQUEST),
    };
    // Ids are shared out as connections and budgets are: of an IPv6 address by its network.
    let address = match Peer::at(session.peer.ip()) {
        Peer::Address(address) => address.to_string(),
        Peer::Server => String::new(),
    };
    let client = TransactionClient { address, name: client.chars().take(limits::TRANSACTION_CLIENT_CHARS).collect() };
    let wanted = BeginTransactional {
        id: request.transactional_id.as_ref().map_or("", |id| id.as_str()),
        timeout_ms: u64::try_from(request.transaction_timeout_ms).unwrap_or(0),
        resume,
        client: &client,
    };
    let begun = session.broker().begin_transactional(wanted).await;
    begun.map_err(|error| code(&error, version, FENCED_SINCE))
}

/// Kafka's word for how far a transaction has come.
fn state_name(phase: TransactionPhase) -> &'static str {
    match phase {
        TransactionPhase::Empty => "Empty",
        TransactionPhase::Ongoing => "Ongoing",
        TransactionPhase::PrepareCommit => "PrepareCommit",
        TransactionPhase::PrepareAbort => "PrepareAbort",
        TransactionPhase::Committed => "CompleteCommit",
        TransactionPhase::Aborted => "CompleteAbort",
    }
}

/// The words that a filter may name; some of them for states that there are not here.
const STATE_NAMES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

/// Answers DescribeTransactions.
pub async fn describe(
    session: Arc<Session>,
    _version: i16,
    mut request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    once(&mut request.transactional_ids, |id| id.clone());
    let states = request.transactional_ids.into_iter().map(|id| {
        let answer = TransactionState::default().with_transactional_id(id.clone());
        match session.broker().transaction(&id) {
            None => answer.with_error_code(errors::TRANSACTIONAL_ID_NOT_FOUND),
            Some(look) => answer
                .with_transaction_state(text(state_name(look.phase)))
                .with_transaction_timeout_ms(i32::try_from(look.timeout_ms).unwrap_or(i32::MAX))
                .with_transaction_start_time_ms(if look.partitions.is_empty() { -1 } else { look.started_ms })
                .with_producer_id(look.producer.into())
                .with_producer_epoch(look.epoch)
                .with_topics(by_topic(look.partitions)),
        }
    });
    DescribeTransactionsResponse::default().with_transaction_states(states.collect())
}

fn by_topic(mut partitions: Vec<(TopicName, PartitionId)>) -> Vec<TopicData> {
    partitions.sort();
    let mut topics: Vec<TopicData> = Vec::new();
    for (topic, partition) in partitions {
        let partition = i32::try_from(partition).unwrap_or(i32::MAX);
        match topics.last_mut().filter(|last| last.topic.as_str() == topic.as_str()) {
            Some(last) => last.partitions.push(partition),
            None => {
                let topic = kafka_name(topic.as_str());
                topics.push(TopicData::default().with_topic(topic).with_partitions(vec![partition]));
            }
        }
    }
    topics
}

/// Answers ListTransactions.
pub async fn list(session: Arc<Session>, version: i16, request: ListTransactionsRequest) -> ListTransactionsResponse {
    let unknown = request.state_filters.iter().filter(|state| !STATE_NAMES.contains(&state.as_str()));
    let unknown = unknown.cloned().collect();
    let states: Vec<String> = request.state_filters.iter().map(ToString::to_string).collect();
    let producers: Vec<i64> = request.producer_id_filters.iter().map(|producer| producer.0).collect();
    let least_ms = if version < 1 { None } else { u64::try_from(request.duration_filter).ok() };
    let wanted = move |look: &TransactionEntry, age_ms: Option<u64>| {
        let in_state = states.is_empty() || states.iter().any(|wanted| wanted == state_name(look.phase));
        let of_producer = producers.is_empty() || producers.contains(&look.producer);
        let open = look.phase == TransactionPhase::Ongoing;
        let long = least_ms.is_none_or(|least_ms| open && age_ms.is_some_and(|age_ms| age_ms > least_ms));
        in_state && of_producer && long
    };
    let listed = session.broker().transactions(wanted).await.into_iter().map(|look| {
        ListedTransaction::default()
            .with_transactional_id(text(look.id).into())
            .with_producer_id(look.producer.into())
            .with_transaction_state(text(state_name(look.phase)))
    });
    let listed = listed.collect();
    ListTransactionsResponse::default().with_unknown_state_filters(unknown).with_transaction_states(listed)
}

/// Answers WriteTxnMarkers, with which Kafka's tools abort what a producer has open in a partition. Markers of commit are
/// refused: only the server decides that a transaction counts.
pub async fn write_markers(
    session: Arc<Session>,
    _version: i16,
    request: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    let mut results = Vec::with_capacity(request.markers.len());
    for marker in request.markers {
        let producer = (marker.producer_id.0, marker.producer_epoch);
        let mut topics = Vec::with_capacity(marker.topics.len());
        for topic in marker.topics {
            let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
            for index in topic.partition_indexes {
                let code = match (marker.transaction_result, place(&session, &topic.name, index)) {
                    (true, _) => errors::INVALID_TXN_STATE,
                    (false, Err(code)) => code,
                    (false, Ok((name, number))) => {
                        let aborted = session.broker().abort_producer(producer, (name.as_str(), number)).await;
                        aborted.map_or_else(|error| errors::transaction_code(&error), |()| errors::NONE)
                    }
                };
                let result = WritableTxnMarkerPartitionResult::default().with_partition_index(index);
                partitions.push(result.with_error_code(code));
            }
            topics.push(WritableTxnMarkerTopicResult::default().with_name(topic.name).with_partitions(partitions));
        }
        results.push(WritableTxnMarkerResult::default().with_producer_id(marker.producer_id).with_topics(topics));
    }
    WriteTxnMarkersResponse::default().with_markers(results)
}

/// Answers DescribeProducers.
pub async fn describe_producers(
    session: Arc<Session>,
    _version: i16,
    mut request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    once_each(&mut request.topics, |topic| topic.name.clone(), |topic| &mut topic.partition_indexes, |number| *number);
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|partition| {
            let answer = PartitionResponse::default().with_partition_index(*partition);
            let known = place(&session, &topic.name, *partition).and_then(|(name, number)| {
                session.broker().producers(name.as_str(), number).map_err(|error| errors::code(&error))
            });
            match known {
                Err(code) => answer.with_error_code(code),
                Ok(producers) => answer.with_active_producers(producers.into_iter().map(to_state).collect()),
            }
        });
        let partitions = partitions.collect();
        TopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}

fn to_state(look: crate::broker::ProducerLook) -> ProducerState {
    ProducerState::default()
        .with_producer_id(look.producer.into())
        .with_producer_epoch(look.epoch.into())
        .with_last_sequence(look.last_sequence)
        .with_last_timestamp(look.last_ms)
        .with_coordinator_epoch(0)
        .with_current_txn_start_offset(look.open_from.map_or(-1, |first| first as i64))
}
