//! What is told of the server as of a Kafka broker: its settings under Kafka's names, and facts that tools look for. None of them can
//! be changed over the wire: the server's configuration says what holds, so that it is the same after a restart.

use super::configs::{self, BOOLEAN, Config, INT, LIST, LONG, STRING};
use super::session::Session;
use crate::base::limits;

/// The release of Kafka whose requests are answered, for tools that look for it here and show a broker of version 1.0 without it.
const RELEASE: &str = "3.9";
/// What stands for no limit.
const NEVER: &str = "9223372036854775807";

/// The server's settings that have a name in Kafka.
pub fn of_server(session: &Session) -> Vec<Config> {
    let config = &session.shared.config;
    let defaults = &config.topic_defaults;
    let or = |value: Option<u64>, none: &str| value.map_or_else(|| none.to_owned(), |value| value.to_string());
    let text = |text: &str| text.to_owned();
    let node = session.node().to_string();
    let (host, port) = session.advertised();
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let beats = config.kafka_consumer_session.0 / super::consumers::BEATS;
    let values = [
        ("node.id", node.clone(), INT),
        ("broker.id", node, INT),
        ("advertised.listeners", format!("PLAINTEXT://{host}:{port}"), STRING),
        ("listeners", format!("PLAINTEXT://{}", session.reached), STRING),
        ("log.dirs", config.data_dir.display().to_string(), STRING),
        ("inter.broker.protocol.version", text(RELEASE), STRING),
        ("num.partitions", config.default_partitions.to_string(), INT),
        ("default.replication.factor", text("1"), INT),
        ("min.insync.replicas", text("1"), INT),
        ("unclean.leader.election.enable", text("false"), BOOLEAN),
        ("auto.create.topics.enable", config.auto_create_topics.to_string(), BOOLEAN),
        ("delete.topic.enable", text("true"), BOOLEAN),
        ("message.max.bytes", defaults.max_message_bytes.0.to_string(), INT),
        ("compression.type", defaults.get("compression").unwrap_or_default(), STRING),
        ("log.message.timestamp.type", configs::outward("message.timestamp.type", defaults), STRING),
        ("log.message.timestamp.before.max.ms", or(defaults.timestamp_before_max.map(|time| time.0), NEVER), LONG),
        ("log.message.timestamp.after.max.ms", or(defaults.timestamp_after_max.map(|time| time.0), NEVER), LONG),
        ("log.retention.ms", or(defaults.retention_time.map(|time| time.0), "-1"), LONG),
        ("log.retention.bytes", or(defaults.retention_bytes.map(|bytes| bytes.0), "-1"), LONG),
        ("log.retention.check.interval.ms", config.retention_check.0.to_string(), LONG),
        ("log.segment.bytes", defaults.segment_bytes.0.to_string(), INT),
        ("log.roll.ms", or(defaults.segment_time.map(|time| time.0), "-1"), LONG),
        ("log.cleanup.policy", defaults.get("cleanup").unwrap_or_default(), LIST),
        ("log.cleaner.enable", text("true"), BOOLEAN),
        // What is acknowledged was synced before, so no number of messages has to pass first.
        ("log.flush.interval.messages", text(NEVER), LONG),
        ("group.min.session.timeout.ms", config.kafka_min_session.0.to_string(), INT),
        ("group.max.session.timeout.ms", config.kafka_max_session.0.to_string(), INT),
        ("group.consumer.session.timeout.ms", config.kafka_consumer_session.0.to_string(), INT),
        ("group.consumer.heartbeat.interval.ms", beats.to_string(), INT),
        ("offset.metadata.max.bytes", limits::POSITION_METADATA_BYTES.to_string(), INT),
        ("offsets.retention.minutes", config.group_retention.0.div_ceil(60_000).to_string(), INT),
        ("transaction.max.timeout.ms", config.transaction_max_timeout.0.to_string(), INT),
        ("transactional.id.expiration.ms", config.transactional_id_expiration.0.to_string(), INT),
        ("max.connections", config.kafka_max_connections.to_string(), INT),
        ("max.connections.per.ip", config.max_connections_per_address.to_string(), INT),
        ("connections.max.idle.ms", config.idle_timeout.0.to_string(), LONG),
    ];
    let fact = |(name, value, kind): (&'static str, String, i8)| Config {
        name,
        value,
        source: configs::FROM_SERVER,
        kind,
        read_only: true,
        meaning: "set in the server's configuration",
    };
    values.into_iter().map(fact).collect()
}
