//! The table of all values: meaning, unit, bounds, and the slot of [`ServerConfig`](super::ServerConfig) they live in.

use super::field::{Field, Slot, field};
use crate::base::limits;

const ANY: u64 = u64::MAX;
const DAY_MS: u64 = 86_400_000;

/// Every field, in the order in which `--print-config` shows them.
pub static FIELDS: &[Field] = &[
    field("data_dir", "where the logs and all other data lie; one server at a time", "path", 0, ANY, |c| {
        Slot::Path(&mut c.data_dir)
    }),
    field("listen", "address of the native protocol; port 0 takes a free port", "HOST:PORT", 0, ANY, |c| {
        Slot::Text(&mut c.listen)
    }),
    field(
        "kafka_listen",
        "address of the Kafka listener; auto is 127.0.0.1:9092, or a free port where listen has port 0; off for none",
        "HOST:PORT",
        0,
        ANY,
        |c| Slot::Text(&mut c.kafka_listen),
    ),
    field(
        "advertised",
        "where Kafka clients are told to find this server; reached is the address that each of them has connected to",
        "HOST:PORT",
        0,
        ANY,
        |c| Slot::Text(&mut c.advertised),
    ),
    field(
        "kafka_node_id",
        "the number by which Kafka clients know this server (node.id, broker.id); examples and test suites ask for 0",
        "number",
        0,
        i32::MAX as u64,
        |c| Slot::Number(&mut c.kafka_node_id),
    ),
    field(
        "kafka_grant_replication",
        "Kafka clients may ask for any replication factor and for replicas on any brokers, and get one replica, on this server; for \
         programs that are written for three brokers. Else that is refused",
        "true or false",
        0,
        1,
        |c| Slot::Switch(&mut c.kafka_grant_replication),
    ),
    field(
        "kafka_consumer_session",
        "how long a consumer of a Kafka group whose partitions the server shares out (group.protocol=consumer) is a \
         member without a heartbeat; it is told to send nine in that time",
        "duration",
        100,
        3_600_000,
        |c| Slot::Millis(&mut c.kafka_consumer_session),
    ),
    field(
        "kafka_min_session",
        "the shortest session that a member of a classic Kafka group may ask for (session.timeout.ms); Kafka's \
         group.min.session.timeout.ms",
        "duration",
        10,
        DAY_MS,
        |c| Slot::Millis(&mut c.kafka_min_session),
    ),
    field("kafka_max_session", "the longest; Kafka's group.max.session.timeout.ms", "duration", 10, DAY_MS, |c| {
        Slot::Millis(&mut c.kafka_max_session)
    }),
    field(
        "http_listen",
        "address of the HTTP listener; auto is 127.0.0.1:7180, or a free port where listen has port 0; off for none",
        "HOST:PORT",
        0,
        ANY,
        |c| Slot::Text(&mut c.http_listen),
    ),
    field(
        "http_names",
        "host names, with commas, by which proxies and web pages may call the HTTP listener on loopback; others than \
         localhost and addresses are refused",
        "list",
        0,
        ANY,
        |c| Slot::Text(&mut c.http_names),
    ),
    field(
        "admin_listen",
        "address of a second listener of the native protocol with 64 places of its own, so that commands reach a server \
         whose other doors are full (tidelog --server HOST:PORT); off for none",
        "HOST:PORT",
        0,
        ANY,
        |c| Slot::Text(&mut c.admin_listen),
    ),
    field(
        "http_max_connections",
        "HTTP connections at a time; beyond, one without a request gives way, else only /health, /ready and /metrics are \
         answered",
        "connections",
        1,
        1_000_000,
        |c| Slot::Count(&mut c.http_max_connections),
    ),
    field("http_max_body_bytes", "the largest body of an HTTP request", "size", 1024, 64 * 1024 * 1024, |c| {
        Slot::Bytes(&mut c.http_max_body_bytes)
    }),
    field(
        "http_header_timeout",
        "time for the head of an HTTP request, and for a connection without one",
        "duration",
        10,
        DAY_MS,
        |c| Slot::Millis(&mut c.http_header_timeout),
    ),
    field("http_body_timeout", "time for the body of an HTTP request", "duration", 10, DAY_MS, |c| {
        Slot::Millis(&mut c.http_body_timeout)
    }),
    field(
        "allow_unauthenticated",
        "listen on addresses that other machines can reach although no authentication is configured",
        "true or false",
        0,
        1,
        |c| Slot::Switch(&mut c.allow_unauthenticated),
    ),
    field(
        "log_level",
        "what is logged to stderr: error, warn, info, debug, trace, or directives such as info,tidelog::log=debug",
        "level",
        0,
        ANY,
        |c| Slot::Text(&mut c.log_level),
    ),
    field("log_format", "form of log lines", "text or json", 0, ANY, |c| Slot::Format(&mut c.log_format)),
    field("auto_create_topics", "the first produce to an unknown topic creates it", "true or false", 0, 1, |c| {
        Slot::Switch(&mut c.auto_create_topics)
    }),
    field(
        "default_partitions",
        "partitions of a topic whose creator does not say",
        "partitions",
        1,
        limits::PARTITIONS_PER_TOPIC as u64,
        |c| Slot::Number(&mut c.default_partitions),
    ),
    field("sync_interval", "how often topics with durability=interval are synced", "duration", 1, DAY_MS, |c| {
        Slot::Millis(&mut c.sync_interval)
    }),
    field(
        "request_retention",
        "how long a durable request that has ended is remembered",
        "duration",
        60_000,
        6 * DAY_MS,
        |c| Slot::Millis(&mut c.request_retention),
    ),
    field(
        "group_retention",
        "how long a group without members that commits nothing is remembered",
        "duration",
        1_000,
        3_650 * DAY_MS,
        |c| Slot::Millis(&mut c.group_retention),
    ),
    field(
        "max_partitions",
        "partitions of all topics together; beyond, topics are neither created nor given more",
        "partitions",
        1,
        10_000_000,
        |c| Slot::Count(&mut c.max_partitions),
    ),
    field(
        "max_open_requests",
        "durable requests that are open; one address may have half of them",
        "requests",
        2,
        10_000_000,
        |c| Slot::Count(&mut c.max_open_requests),
    ),
    field(
        "max_receipts",
        "receipts that are waited for or being sent; one address may ask for half of them",
        "receipts",
        2,
        10_000_000,
        |c| Slot::Count(&mut c.max_receipts),
    ),
    field(
        "max_groups",
        "groups; one address may make half of them; beyond, those that nobody uses go first, then new ones are refused",
        "groups",
        2,
        10_000_000,
        |c| Slot::Count(&mut c.max_groups),
    ),
    field(
        "max_group_positions",
        "positions of all groups together, one for each group and partition; one address may commit half of them",
        "positions",
        2,
        100_000_000,
        |c| Slot::Count(&mut c.max_group_positions),
    ),
    field(
        "max_group_metadata",
        "bytes that clients keep with the positions of all groups together; one address may keep half of them",
        "size",
        8 * 1024,
        ANY,
        |c| Slot::Bytes(&mut c.max_group_metadata),
    ),
    field(
        "max_group_declarations",
        "bytes of the rules, topics and filters of all groups and of what their members say; one address may have half of them",
        "size",
        8 * 1024,
        ANY,
        |c| Slot::Bytes(&mut c.max_group_declarations),
    ),
    field(
        "callback_give_up_after",
        "how long the POST of a callback is tried before it becomes a dead letter",
        "duration",
        0,
        6 * DAY_MS,
        |c| Slot::Millis(&mut c.callback_give_up_after),
    ),
    field(
        "clock_quarantine",
        "how long a wall clock that has leapt must keep steady to be believed without `tidelog clock confirm`; 0 believes at once",
        "duration",
        0,
        30 * DAY_MS,
        |c| Slot::Millis(&mut c.clock_quarantine),
    ),
    field("retention_check", "how often segments past their retention are looked for", "duration", 10, DAY_MS, |c| {
        Slot::Millis(&mut c.retention_check)
    }),
    field("compaction_check", "how often topics with cleanup=compact are looked at", "duration", 10, DAY_MS, |c| {
        Slot::Millis(&mut c.compaction_check)
    }),
    field(
        "scrub_rate",
        "how much of the sealed segments is read again in a second, to find damage; 0 for none",
        "bytes",
        0,
        1 << 40,
        |c| Slot::Bytes(&mut c.scrub_rate),
    ),
    field(
        "scrub_interval",
        "how long after the begin of one round over all sealed segments the next one begins",
        "duration",
        60_000,
        366 * DAY_MS,
        |c| Slot::Millis(&mut c.scrub_interval),
    ),
    field("commit_threads", "threads that write and sync the logs", "threads", 1, 256, |c| {
        Slot::Count(&mut c.commit_threads)
    }),
    field("max_open_files", "segment files kept open at a time", "files", 16, 1_000_000, |c| {
        Slot::Count(&mut c.max_open_files)
    }),
    field(
        "storage_low_water",
        "free bytes on the disk below which appends and new topics are refused, so that deletion, retention, settings, \
         commits and acks still have room; the default leaves nearly all of a small disk to appends",
        "size",
        0,
        ANY,
        |c| Slot::Bytes(&mut c.storage_low_water),
    ),
    field(
        "storage_reserve",
        "size of a file that takes up room, and gives it to the journal and to checkpoints when the disk is full",
        "size",
        0,
        1024 * 1024 * 1024,
        |c| Slot::Bytes(&mut c.storage_reserve),
    ),
    field(
        "disk_patience",
        "how long an operation of the disk may take before the server says that the disk hangs",
        "duration",
        10,
        DAY_MS,
        |c| Slot::Millis(&mut c.disk_patience),
    ),
    field(
        "transaction_max_timeout",
        "the longest time that a transactional producer may ask for (transaction.timeout.ms), and that an open transaction \
         holds up readers of what is committed; raise it for stream processors that ask for an hour",
        "duration",
        1_000,
        7 * DAY_MS,
        |c| Slot::Millis(&mut c.transaction_max_timeout),
    ),
    field(
        "transactional_id_expiration",
        "how long a transactional id without use is remembered; a producer that comes back later begins anew",
        "duration",
        1_000,
        365 * DAY_MS,
        |c| Slot::Millis(&mut c.transactional_id_expiration),
    ),
    field(
        "max_connections",
        "native connections at a time; beyond, one without a hello gives way, else the new one is refused",
        "connections",
        1,
        1_000_000,
        |c| Slot::Count(&mut c.max_connections),
    ),
    field(
        "kafka_max_connections",
        "Kafka connections at a time; beyond, one without a request gives way, else the new one is refused",
        "connections",
        1,
        1_000_000,
        |c| Slot::Count(&mut c.kafka_max_connections),
    ),
    field(
        "max_connections_per_address",
        "connections of one address (IPv6: of one /64) at a time, on each door; many clients share an address behind NAT \
         or a proxy, and a node with a hundred services of ten connections each needs 1,000",
        "connections",
        1,
        1_000_000,
        |c| Slot::Count(&mut c.max_connections_per_address),
    ),
    field(
        "max_requests_in_flight",
        "requests of one connection in flight before the server stops reading from it",
        "requests",
        1,
        65_536,
        |c| Slot::Count(&mut c.max_requests_in_flight),
    ),
    field(
        "max_connection_bytes",
        "bytes of one connection in flight, each way, before the server stops reading from it or for it",
        "size",
        64 * 1024,
        ANY,
        |c| Slot::Bytes(&mut c.max_connection_bytes),
    ),
    field(
        "max_total_bytes",
        "bytes of all connections in flight, half of them each way: the most memory that requests and answers take. Besides, \
         a connection has buffers of 16 KiB (HTTP: 128 KiB while it works), and members of classic groups have 128 MiB",
        "size",
        4 * 1024 * 1024,
        ANY,
        |c| Slot::Bytes(&mut c.max_total_bytes),
    ),
    field("max_subscriptions", "subscriptions of one connection", "subscriptions", 1, 65_536, |c| {
        Slot::Count(&mut c.max_subscriptions)
    }),
    field(
        "handshake_timeout",
        "time in which a new connection must say hello, or send the first bytes of its first request (Kafka, HTTP)",
        "duration",
        10,
        DAY_MS,
        |c| Slot::Millis(&mut c.handshake_timeout),
    ),
    field("idle_timeout", "time after which a connection that sends nothing is closed", "duration", 10, DAY_MS, |c| {
        Slot::Millis(&mut c.idle_timeout)
    }),
    field(
        "write_timeout",
        "time after which a connection that takes nothing of what is sent to it is closed",
        "duration",
        10,
        DAY_MS,
        |c| Slot::Millis(&mut c.write_timeout),
    ),
    field(
        "shutdown_timeout",
        "time that requests in flight get at a stop, and a goodbye 5 s more; peers with half a request get a second. Keep \
         it below the time after which your service manager kills (30 s on Kubernetes)",
        "duration",
        0,
        DAY_MS,
        |c| Slot::Millis(&mut c.shutdown_timeout),
    ),
    field(
        "outgoing_allow",
        "where webhooks may go, with commas: public (every public address), host names, *.example.com, or networks such \
         as 10.0.0.0/8; loopback, private and link-local addresses, and http://, only by their network; none for nowhere",
        "list",
        0,
        ANY,
        |c| Slot::Text(&mut c.outgoing_allow),
    ),
    field(
        "outgoing_ca_file",
        "certificates (PEM) that webhooks believe beside those of the system, or the word system",
        "path",
        0,
        ANY,
        |c| Slot::Text(&mut c.outgoing_ca_file),
    ),
    field(
        "outgoing_secret_file",
        "a file with what signs webhooks: a secret (whsec_ and base64) or, a line each, the new and the old one; or the word none",
        "path",
        0,
        ANY,
        |c| Slot::Text(&mut c.outgoing_secret_file),
    ),
    field("outgoing_connect_timeout", "time for the connection of a webhook", "duration", 10, DAY_MS, |c| {
        Slot::Millis(&mut c.outgoing_connect_timeout)
    }),
    field("outgoing_timeout", "time until the response headers of a webhook", "duration", 10, DAY_MS, |c| {
        Slot::Millis(&mut c.outgoing_timeout)
    }),
    field("outgoing_pause", "first pause after a webhook that failed; doubles each time", "duration", 1, DAY_MS, |c| {
        Slot::Millis(&mut c.outgoing_pause)
    }),
    field("outgoing_calls", "webhooks under way at a time", "calls", 1, 65_536, |c| Slot::Count(&mut c.outgoing_calls)),
    field(
        "outgoing_calls_per_endpoint",
        "webhooks under way at a time to one host and port",
        "calls",
        1,
        65_536,
        |c| Slot::Count(&mut c.outgoing_calls_per_endpoint),
    ),
];
