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
pub const API_VERSIONS: i16 = 18;
pub const CREATE_TOPICS: i16 = 19;
pub const DELETE_TOPICS: i16 = 20;
pub const INIT_PRODUCER_ID: i16 = 22;
pub const DESCRIBE_CLUSTER: i16 = 60;

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
    by_hand(API_VERSIONS, "kafka_api_versions", (0, 4), 3),
    api(CREATE_TOPICS, "kafka_create_topics", (2, 7), 5, shapes::CREATE_TOPICS),
    api(DELETE_TOPICS, "kafka_delete_topics", (1, 6), 4, shapes::DELETE_TOPICS),
    api(INIT_PRODUCER_ID, "kafka_init_producer_id", (0, 5), 2, shapes::INIT_PRODUCER_ID),
    api(DESCRIBE_CLUSTER, "kafka_describe_cluster", (0, 1), 0, shapes::DESCRIBE_CLUSTER),
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
