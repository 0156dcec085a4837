//! What a client may do with a thing, where it asks. As in Kafka without an authorizer: all that there is to do with its kind. Bits are
//! the numbers of Kafka's operations.

const READ: i32 = 1 << 3;
const WRITE: i32 = 1 << 4;
const CREATE: i32 = 1 << 5;
const DELETE: i32 = 1 << 6;
const ALTER: i32 = 1 << 7;
const DESCRIBE: i32 = 1 << 8;
const CLUSTER_ACTION: i32 = 1 << 9;
const DESCRIBE_CONFIGS: i32 = 1 << 10;
const ALTER_CONFIGS: i32 = 1 << 11;
const IDEMPOTENT_WRITE: i32 = 1 << 12;

/// What is said to who does not ask.
const NOT_ASKED: i32 = i32::MIN;

/// With a topic.
pub const TOPIC: i32 = READ | WRITE | CREATE | DELETE | ALTER | DESCRIBE | DESCRIBE_CONFIGS | ALTER_CONFIGS;
/// With the cluster.
pub const CLUSTER: i32 =
    CREATE | ALTER | DESCRIBE | CLUSTER_ACTION | DESCRIBE_CONFIGS | ALTER_CONFIGS | IDEMPOTENT_WRITE;
/// With a group.
pub const GROUP: i32 = READ | DELETE | DESCRIBE;

/// What is said.
pub fn told(asked: bool, operations: i32) -> i32 {
    if asked { operations } else { NOT_ASKED }
}
