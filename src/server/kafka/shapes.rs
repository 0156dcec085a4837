//! The shapes of the requests that are answered, from Kafka's message schemas.

use super::shape::{Field, I8, I16, I32, I64, Kind, TEXT, UUID, always, from, within};
use Kind::{Blob, List, Many, Maybe};

pub const METADATA: &[Field] =
    &[always(List(&[from(10, UUID), always(TEXT)])), from(4, I8), within(8, 10, I8), from(8, I8)];

pub const LIST_OFFSETS: &[Field] = &[
    always(I32),
    from(2, I8),
    always(List(&[always(TEXT), always(List(&[always(I32), from(4, I32), always(I64)]))])),
    from(10, I32),
];

pub const CREATE_TOPICS: &[Field] = &[
    always(List(&[
        always(TEXT),
        always(I32),
        always(I16),
        always(List(&[always(I32), always(Many(&I32))])),
        always(List(&[always(TEXT), always(TEXT)])),
    ])),
    always(I32),
    always(I8),
];

pub const DELETE_TOPICS: &[Field] =
    &[from(6, List(&[always(TEXT), always(UUID)])), within(1, 5, Many(&TEXT)), always(I32)];

pub const INIT_PRODUCER_ID: &[Field] = &[always(TEXT), always(I32), from(3, I64), from(3, I16)];

pub const DESCRIBE_CLUSTER: &[Field] = &[always(I8), from(1, I8)];

pub const FIND_COORDINATOR: &[Field] = &[within(0, 3, TEXT), from(1, I8), from(4, Many(&TEXT))];

pub const JOIN_GROUP: &[Field] = &[
    always(TEXT),
    always(I32),
    from(1, I32),
    always(TEXT),
    from(5, TEXT),
    always(TEXT),
    always(List(&[always(TEXT), always(Blob)])),
    from(8, TEXT),
];

pub const SYNC_GROUP: &[Field] = &[
    always(TEXT),
    always(I32),
    always(TEXT),
    from(3, TEXT),
    from(5, TEXT),
    from(5, TEXT),
    always(List(&[always(TEXT), always(Blob)])),
];

pub const HEARTBEAT: &[Field] = &[always(TEXT), always(I32), always(TEXT), from(3, TEXT)];

pub const LEAVE_GROUP: &[Field] =
    &[always(TEXT), within(0, 2, TEXT), from(3, List(&[always(TEXT), always(TEXT), from(5, TEXT)]))];

pub const CONSUMER_GROUP_HEARTBEAT: &[Field] = &[
    always(TEXT),
    always(TEXT),
    always(I32),
    always(TEXT),
    always(TEXT),
    always(I32),
    always(Many(&TEXT)),
    from(1, TEXT),
    always(TEXT),
    always(List(&[always(UUID), always(Many(&I32))])),
];

pub const CONSUMER_GROUP_DESCRIBE: &[Field] = &[always(Many(&TEXT)), always(I8)];

pub const OFFSET_COMMIT: &[Field] = &[
    always(TEXT),
    always(I32),
    always(TEXT),
    from(7, TEXT),
    within(2, 4, I64),
    always(List(&[always(TEXT), always(List(&[always(I32), always(I64), from(6, I32), always(TEXT)]))])),
];

pub const OFFSET_FETCH: &[Field] = &[
    within(0, 7, TEXT),
    within(0, 7, List(&[always(TEXT), always(Many(&I32))])),
    from(8, List(&[always(TEXT), from(9, TEXT), from(9, I32), always(List(&[always(TEXT), always(Many(&I32))]))])),
    from(7, I8),
];

pub const DESCRIBE_GROUPS: &[Field] = &[always(Many(&TEXT)), from(3, I8)];

pub const LIST_GROUPS: &[Field] = &[from(4, Many(&TEXT)), from(5, Many(&TEXT))];

pub const DELETE_GROUPS: &[Field] = &[always(Many(&TEXT))];

pub const OFFSET_DELETE: &[Field] = &[always(TEXT), always(List(&[always(TEXT), always(List(&[always(I32)]))]))];

pub const ADD_PARTITIONS_TO_TXN: &[Field] =
    &[always(TEXT), always(I64), always(I16), always(List(&[always(TEXT), always(Many(&I32))]))];

pub const ADD_OFFSETS_TO_TXN: &[Field] = &[always(TEXT), always(I64), always(I16), always(TEXT)];

pub const END_TXN: &[Field] = &[always(TEXT), always(I64), always(I16), always(I8)];

pub const TXN_OFFSET_COMMIT: &[Field] = &[
    always(TEXT),
    always(TEXT),
    always(I64),
    always(I16),
    from(3, I32),
    from(3, TEXT),
    from(3, TEXT),
    always(List(&[always(TEXT), always(List(&[always(I32), always(I64), from(2, I32), always(TEXT)]))])),
];

pub const WRITE_TXN_MARKERS: &[Field] = &[always(List(&[
    always(I64),
    always(I16),
    always(I8),
    always(List(&[always(TEXT), always(Many(&I32))])),
    always(I32),
]))];

pub const DESCRIBE_PRODUCERS: &[Field] = &[always(List(&[always(TEXT), always(Many(&I32))]))];

pub const DESCRIBE_TRANSACTIONS: &[Field] = &[always(Many(&TEXT))];

pub const LIST_TRANSACTIONS: &[Field] = &[always(Many(&TEXT)), always(Many(&I64)), from(1, I64)];

pub const DESCRIBE_CONFIGS: &[Field] =
    &[always(List(&[always(I8), always(TEXT), always(Many(&TEXT))])), always(I8), from(3, I8)];

pub const ALTER_CONFIGS: &[Field] =
    &[always(List(&[always(I8), always(TEXT), always(List(&[always(TEXT), always(TEXT)]))])), always(I8)];

pub const INCREMENTAL_ALTER_CONFIGS: &[Field] =
    &[always(List(&[always(I8), always(TEXT), always(List(&[always(TEXT), always(I8), always(TEXT)]))])), always(I8)];

pub const CREATE_PARTITIONS: &[Field] =
    &[always(List(&[always(TEXT), always(I32), always(List(&[always(Many(&I32))]))])), always(I32), always(I8)];

pub const DELETE_RECORDS: &[Field] =
    &[always(List(&[always(TEXT), always(List(&[always(I32), always(I64)]))])), always(I32)];

pub const OFFSET_FOR_LEADER_EPOCH: &[Field] =
    &[from(3, I32), always(List(&[always(TEXT), always(List(&[always(I32), from(2, I32), always(I32)]))]))];

pub const DESCRIBE_LOG_DIRS: &[Field] = &[always(List(&[always(TEXT), always(Many(&I32))]))];

pub const DESCRIBE_TOPIC_PARTITIONS: &[Field] =
    &[always(List(&[always(TEXT)])), always(I32), always(Maybe(&[always(TEXT), always(I32)]))];

pub const ELECT_LEADERS: &[Field] = &[from(1, I8), always(List(&[always(TEXT), always(Many(&I32))])), always(I32)];

pub const ALTER_REPLICA_LOG_DIRS: &[Field] =
    &[always(List(&[always(TEXT), always(List(&[always(TEXT), always(Many(&I32))]))]))];

pub const ALTER_PARTITION_REASSIGNMENTS: &[Field] =
    &[always(I32), from(1, I8), always(List(&[always(TEXT), always(List(&[always(I32), always(Many(&I32))]))]))];

pub const LIST_PARTITION_REASSIGNMENTS: &[Field] = &[always(I32), always(List(&[always(TEXT), always(Many(&I32))]))];

pub const DESCRIBE_QUORUM: &[Field] = &[always(List(&[always(TEXT), always(List(&[always(I32)]))]))];

pub const LIST_CONFIG_RESOURCES: &[Field] = &[from(1, Many(&I8))];
