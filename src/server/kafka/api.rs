//! What is answered: keys, versions, shapes. Everything else about a key follows from this table.

use std::sync::LazyLock;

use bytes::{BufMut, Bytes};

use super::shape::Field;
use super::shapes;
use super::wire::Writer;

/// A kind of request.
#[derive(Debug, Clone, Copy)]
pub struct Api {
    /// Its number.
    pub key: i16,
    /// Its name, for people.
    pub name: &'static str,
    /// The first version that is answered.
    pub min: i16,
    /// The last version that is answered.
    pub max: i16,
    /// The first flexible version; none if that is above the last one.
    pub flexible: i16,
    /// Its fields; `None` for what is walked by hand.
    pub shape: Option<&'static [Field]>,
}

pub const PRODUCE: i16 = 0;
pub const FETCH: i16 = 1;
pub const LIST_OFFSETS: i16 = 2;
pub const METADATA: i16 = 3;
pub const OFFSET_COMMIT: i16 = 8;
pub const OFFSET_FETCH: i16 = 9;
pub const FIND_COORDINATOR: i16 = 10;
pub const JOIN_GROUP: i16 = 11;
pub const HEARTBEAT: i16 = 12;
pub const LEAVE_GROUP: i16 = 13;
pub const SYNC_GROUP: i16 = 14;
pub const DESCRIBE_GROUPS: i16 = 15;
pub const LIST_GROUPS: i16 = 16;
pub const API_VERSIONS: i16 = 18;
pub const CREATE_TOPICS: i16 = 19;
pub const DELETE_TOPICS: i16 = 20;
pub const DELETE_RECORDS: i16 = 21;
pub const INIT_PRODUCER_ID: i16 = 22;
pub const OFFSET_FOR_LEADER_EPOCH: i16 = 23;
pub const ADD_PARTITIONS_TO_TXN: i16 = 24;
pub const ADD_OFFSETS_TO_TXN: i16 = 25;
pub const END_TXN: i16 = 26;
pub const TXN_OFFSET_COMMIT: i16 = 28;
pub const WRITE_TXN_MARKERS: i16 = 27;
pub const DESCRIBE_CONFIGS: i16 = 32;
pub const ALTER_CONFIGS: i16 = 33;
pub const ALTER_REPLICA_LOG_DIRS: i16 = 34;
pub const DESCRIBE_LOG_DIRS: i16 = 35;
pub const CREATE_PARTITIONS: i16 = 37;
pub const DELETE_GROUPS: i16 = 42;
pub const ELECT_LEADERS: i16 = 43;
pub const INCREMENTAL_ALTER_CONFIGS: i16 = 44;
pub const ALTER_PARTITION_REASSIGNMENTS: i16 = 45;
pub const LIST_PARTITION_REASSIGNMENTS: i16 = 46;
pub const OFFSET_DELETE: i16 = 47;
pub const DESCRIBE_QUORUM: i16 = 55;
pub const DESCRIBE_CLUSTER: i16 = 60;
pub const DESCRIBE_PRODUCERS: i16 = 61;
pub const DESCRIBE_TRANSACTIONS: i16 = 65;
pub const LIST_TRANSACTIONS: i16 = 66;
pub const CONSUMER_GROUP_HEARTBEAT: i16 = 68;
pub const CONSUMER_GROUP_DESCRIBE: i16 = 69;
pub const LIST_CONFIG_RESOURCES: i16 = 74;
pub const DESCRIBE_TOPIC_PARTITIONS: i16 = 75;

/// Not flexible in any version.
const NEVER: i16 = i16::MAX;

const fn api(key: i16, name: &'static str, versions: (i16, i16), flexible: i16, shape: &'static [Field]) -> Api {
    Api { key, name, min: versions.0, max: versions.1, flexible, shape: Some(shape) }
}

const fn by_hand(key: i16, name: &'static str, versions: (i16, i16), flexible: i16) -> Api {
    Api { key, name, min: versions.0, max: versions.1, flexible, shape: None }
}

/// Every kind of request that is answered.
pub static APIS: &[Api] = &[
    by_hand(PRODUCE, "kafka_produce", (3, 11), 9),
    by_hand(FETCH, "kafka_fetch", (4, 17), 12),
    api(LIST_OFFSETS, "kafka_list_offsets", (1, 9), 6, shapes::LIST_OFFSETS),
    api(METADATA, "kafka_metadata", (0, 12), 9, shapes::METADATA),
    api(OFFSET_COMMIT, "kafka_offset_commit", (2, 9), 8, shapes::OFFSET_COMMIT),
    api(OFFSET_FETCH, "kafka_offset_fetch", (1, 9), 6, shapes::OFFSET_FETCH),
    api(FIND_COORDINATOR, "kafka_find_coordinator", (0, 5), 3, shapes::FIND_COORDINATOR),
    api(JOIN_GROUP, "kafka_join_group", (0, 9), 6, shapes::JOIN_GROUP),
    api(HEARTBEAT, "kafka_heartbeat", (0, 4), 4, shapes::HEARTBEAT),
    api(LEAVE_GROUP, "kafka_leave_group", (0, 5), 4, shapes::LEAVE_GROUP),
    api(SYNC_GROUP, "kafka_sync_group", (0, 5), 4, shapes::SYNC_GROUP),
    api(DESCRIBE_GROUPS, "kafka_describe_groups", (0, 6), 5, shapes::DESCRIBE_GROUPS),
    api(LIST_GROUPS, "kafka_list_groups", (0, 5), 3, shapes::LIST_GROUPS),
    by_hand(API_VERSIONS, "kafka_api_versions", (0, 4), 3),
    api(CREATE_TOPICS, "kafka_create_topics", (2, 7), 5, shapes::CREATE_TOPICS),
    api(DELETE_TOPICS, "kafka_delete_topics", (1, 6), 4, shapes::DELETE_TOPICS),
    api(DELETE_RECORDS, "kafka_delete_records", (0, 2), 2, shapes::DELETE_RECORDS),
    api(INIT_PRODUCER_ID, "kafka_init_producer_id", (0, 5), 2, shapes::INIT_PRODUCER_ID),
    api(OFFSET_FOR_LEADER_EPOCH, "kafka_offset_for_leader_epoch", (2, 4), 4, shapes::OFFSET_FOR_LEADER_EPOCH),
    api(ADD_PARTITIONS_TO_TXN, "kafka_add_partitions_to_txn", (0, 3), 3, shapes::ADD_PARTITIONS_TO_TXN),
    api(ADD_OFFSETS_TO_TXN, "kafka_add_offsets_to_txn", (0, 4), 3, shapes::ADD_OFFSETS_TO_TXN),
    api(END_TXN, "kafka_end_txn", (0, 4), 3, shapes::END_TXN),
    api(TXN_OFFSET_COMMIT, "kafka_txn_offset_commit", (0, 4), 3, shapes::TXN_OFFSET_COMMIT),
    api(WRITE_TXN_MARKERS, "kafka_write_txn_markers", (1, 1), 1, shapes::WRITE_TXN_MARKERS),
    api(DESCRIBE_CONFIGS, "kafka_describe_configs", (1, 4), 4, shapes::DESCRIBE_CONFIGS),
    api(ALTER_CONFIGS, "kafka_alter_configs", (0, 2), 2, shapes::ALTER_CONFIGS),
    api(ALTER_REPLICA_LOG_DIRS, "kafka_alter_replica_log_dirs", (1, 2), 2, shapes::ALTER_REPLICA_LOG_DIRS),
    api(DESCRIBE_LOG_DIRS, "kafka_describe_log_dirs", (1, 4), 2, shapes::DESCRIBE_LOG_DIRS),
    api(CREATE_PARTITIONS, "kafka_create_partitions", (0, 3), 2, shapes::CREATE_PARTITIONS),
    api(DELETE_GROUPS, "kafka_delete_groups", (0, 2), 2, shapes::DELETE_GROUPS),
    api(ELECT_LEADERS, "kafka_elect_leaders", (0, 2), 2, shapes::ELECT_LEADERS),
    api(INCREMENTAL_ALTER_CONFIGS, "kafka_incremental_alter_configs", (0, 1), 1, shapes::INCREMENTAL_ALTER_CONFIGS),
    api(
        ALTER_PARTITION_REASSIGNMENTS,
        "kafka_alter_partition_reassignments",
        (0, 1),
        0,
        shapes::ALTER_PARTITION_REASSIGNMENTS,
    ),
    api(
        LIST_PARTITION_REASSIGNMENTS,
        "kafka_list_partition_reassignments",
        (0, 0),
        0,
        shapes::LIST_PARTITION_REASSIGNMENTS,
    ),
    api(OFFSET_DELETE, "kafka_offset_delete", (0, 0), NEVER, shapes::OFFSET_DELETE),
    api(DESCRIBE_QUORUM, "kafka_describe_quorum", (0, 2), 0, shapes::DESCRIBE_QUORUM),
    api(DESCRIBE_CLUSTER, "kafka_describe_cluster", (0, 1), 0, shapes::DESCRIBE_CLUSTER),
    api(DESCRIBE_PRODUCERS, "kafka_describe_producers", (0, 0), 0, shapes::DESCRIBE_PRODUCERS),
    api(DESCRIBE_TRANSACTIONS, "kafka_describe_transactions", (0, 0), 0, shapes::DESCRIBE_TRANSACTIONS),
    api(LIST_TRANSACTIONS, "kafka_list_transactions", (0, 1), 0, shapes::LIST_TRANSACTIONS),
    api(CONSUMER_GROUP_HEARTBEAT, "kafka_consumer_group_heartbeat", (0, 1), 0, shapes::CONSUMER_GROUP_HEARTBEAT),
    api(CONSUMER_GROUP_DESCRIBE, "kafka_consumer_group_describe", (0, 1), 0, shapes::CONSUMER_GROUP_DESCRIBE),
    api(LIST_CONFIG_RESOURCES, "kafka_list_config_resources", (0, 1), 0, shapes::LIST_CONFIG_RESOURCES),
    api(DESCRIBE_TOPIC_PARTITIONS, "kafka_describe_topic_partitions", (0, 0), 0, shapes::DESCRIBE_TOPIC_PARTITIONS),
];

impl Api {
    /// The kind with this number, if it is answered.
    pub fn of(key: i16) -> Option<&'static Self> {
        APIS.iter().find(|api| api.key == key)
    }

    /// Whether this version is answered.
    pub fn has(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// Whether this version is a flexible one.
    pub fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible
    }

    /// The first version that clients are told of. Produce is said to begin at 0, as Kafka itself says: clients of some
    /// years take a higher number as a broker without compression, and none of them sends the old versions.
    fn advertised_min(&self) -> i16 {
        if self.key == PRODUCE { 0 } else { self.min }
    }
}

/// The body of the answer to ApiVersions.
pub fn versions_body(version: i16, error: i16) -> Bytes {
    static BODIES: LazyLock<Vec<Bytes>> = LazyLock::new(|| (0..=4).map(|version| encode(version, 0)).collect());
    match usize::try_from(version).ok().and_then(|version| BODIES.get(version)) {
        Some(body) if error == 0 => body.clone(),
        _ => encode(version, error),
    }
}

fn encode(version: i16, error: i16) -> Bytes {
    let mut writer = Writer::new(version >= 3);
    writer.out.put_i16(error);
    writer.count(Some(APIS.len()));
    for api in APIS {
        for number in [api.key, api.advertised_min(), api.max] {
            writer.out.put_i16(number);
        }
        writer.tags();
    }
    if version >= 1 {
        // Nobody is throttled.
        writer.out.put_i32(0);
    }
    writer.tags();
    writer.out.freeze()
}
