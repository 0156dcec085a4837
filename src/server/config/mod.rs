//! What an operator may set: the values, their defaults, and the one check that explains contradictions.
//!
//! Every value is described once, in [`FIELDS`]; flags, environment, file and `--print-config` follow from there.

mod field;
mod fields;
mod load;
mod print;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

pub use field::Field;
pub use fields::FIELDS;
pub use load::{CONFIG_VARIABLE, Inputs, Loaded, Origin};

use crate::base::{Bytes, Millis, limits};
use crate::broker::{BrokerConfig, WebhookSecrets};
use crate::catalog::TopicSettings;
use crate::disk::{self, Disk};
use crate::server::budget::Budget;
use crate::server::outgoing::{OutgoingConfig, Policy};

/// The word for a listener on its usual port of loopback, or on a free one where the native listener takes one.
const AUTO: &str = "auto";
/// The word for no listener.
const OFF: &str = "off";
/// The Kafka listener's usual port.
const KAFKA_PORT: u16 = 9092;
/// The word for the address that a client has connected to.
const REACHED: &str = "reached";
/// The HTTP listener's usual port.
const HTTP_PORT: u16 = 7180;
/// The word for the certificates of the system alone.
const SYSTEM: &str = "system";
const NONE: &str = "none";

/// Everything `tidelog serve` can be told. The meaning, unit and bounds of each value are in [`FIELDS`].
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Host and port of the native listener; port 0 takes a free one.
    pub listen: String,
    /// Host and port of the Kafka listener; `auto`, or `off`.
    pub kafka_listen: String,
    /// Host and port at which Kafka clients reach this server, or `reached`.
    pub advertised: String,
    /// The number by which Kafka clients know this server.
    pub kafka_node_id: u32,
    /// Whether Kafka clients may ask for any replication factor, which is 1.
    pub kafka_grant_replication: bool,
    /// How long a member of a group that Kafka's newer protocol shares out is one without a heartbeat.
    pub kafka_consumer_session: Millis,
    /// The shortest session that a member of a classic group may ask for.
    pub kafka_min_session: Millis,
    /// The longest one.
    pub kafka_max_session: Millis,
    /// Host and port of the HTTP listener; `auto`, or `off`.
    pub http_listen: String,
    /// Names by which browsers and proxies may call it, with commas.
    pub http_names: String,
    /// Host and port of a second listener of the native protocol with places of its own, or `off`.
    pub admin_listen: String,
    /// HTTP connections at a time.
    pub http_max_connections: usize,
    /// Bytes of the body of an HTTP request.
    pub http_max_body_bytes: Bytes,
    /// Time for the head of an HTTP request, and between two of them.
    pub http_header_timeout: Millis,
    /// Time for the body of an HTTP request.
    pub http_body_timeout: Millis,
    /// Allows a non-loopback address without authentication.
    pub allow_unauthenticated: bool,
    /// What is logged, as a level or as directives of `tracing`.
    pub log_level: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// Whether the first produce to an unknown topic creates it.
    pub auto_create_topics: bool,
    /// Partitions of a topic whose creator does not say.
    pub default_partitions: u32,
    /// How often topics with `durability=interval` are synced.
    pub sync_interval: Millis,
    /// How long a durable request that has ended is remembered.
    pub request_retention: Millis,
    /// How long a group that nobody uses is remembered.
    pub group_retention: Millis,
    /// Partitions of all topics.
    pub max_partitions: usize,
    /// Durable requests that may be open.
    pub max_open_requests: usize,
    /// Receipts that may be waited for or being sent.
    pub max_receipts: usize,
    /// Groups.
    pub max_groups: usize,
    /// Positions of all groups.
    pub max_group_positions: usize,
    /// Bytes of the metadata of all positions.
    pub max_group_metadata: Bytes,
    /// Bytes of what all groups and their members declare.
    pub max_group_declarations: Bytes,
    /// How long the POST of a callback is tried.
    pub callback_give_up_after: Millis,
    /// How long a wall clock that has leapt is doubted.
    pub clock_quarantine: Millis,
    /// How often old segments are looked for.
    pub retention_check: Millis,
    /// How often compaction looks for what may be compacted.
    pub compaction_check: Millis,
    /// Bytes of sealed segments that are read again in a second, to find damage; 0 for none.
    pub scrub_rate: Bytes,
    /// How long after the begin of one round over all sealed segments the next one begins.
    pub scrub_interval: Millis,
    /// Threads that write and sync.
    pub commit_threads: usize,
    /// Segment files kept open.
    pub max_open_files: usize,
    /// Free bytes below which appends are refused.
    pub storage_low_water: Bytes,
    /// Bytes kept for what makes room.
    pub storage_reserve: Bytes,
    /// How long an operation of the disk may take before it counts as hung.
    pub disk_patience: Millis,
    /// The longest time-out that a transactional producer may ask for.
    pub transaction_max_timeout: Millis,
    /// How long a transactional id without use is remembered.
    pub transactional_id_expiration: Millis,
    /// Native connections at a time.
    pub max_connections: usize,
    /// Kafka connections at a time.
    pub kafka_max_connections: usize,
    /// Connections of one address at a time, on each door.
    pub max_connections_per_address: usize,
    /// Requests in flight on one connection.
    pub max_requests_in_flight: usize,
    /// Bytes in flight on one connection, each way.
    pub max_connection_bytes: Bytes,
    /// Bytes in flight on all connections together; half of them each way.
    pub max_total_bytes: Bytes,
    /// Subscriptions on one connection.
    pub max_subscriptions: usize,
    /// Time to say hello.
    pub handshake_timeout: Millis,
    /// Time without a byte from the client.
    pub idle_timeout: Millis,
    /// Time in which a client that has data to read takes none of it.
    pub write_timeout: Millis,
    /// Time for what is in flight at a stop.
    pub shutdown_timeout: Millis,
    /// Where calls to other people's HTTP endpoints may go, as [`Policy`] reads it.
    pub outgoing_allow: String,
    /// A file of certificates that outgoing calls believe beside the system's, or `system`.
    pub outgoing_ca_file: String,
    /// A file with the secret that callbacks are signed with, or `none`.
    pub outgoing_secret_file: String,
    /// Time for the connection of an outgoing call.
    pub outgoing_connect_timeout: Millis,
    /// Time for a whole outgoing call.
    pub outgoing_timeout: Millis,
    /// The first pause after an outgoing call that failed; it doubles with every further one.
    pub outgoing_pause: Millis,
    /// Outgoing calls at a time.
    pub outgoing_calls: usize,
    /// Outgoing calls at a time to one endpoint.
    pub outgoing_calls_per_endpoint: usize,
    /// Settings of topics that do not set them.
    pub topic_defaults: TopicSettings,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("'{other}' is not a log format; it is text or json")),
        }
    }
}

impl LogFormat {
    /// The word that [`FromStr`] reads.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Why a configuration is refused: one line that names the value and where it came from.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(super) String);

impl Default for ServerConfig {
    fn default() -> Self {
        let broker = BrokerConfig::default();
        Self {
            data_dir: PathBuf::from("./tidelog-data"),
            listen: "127.0.0.1:7171".to_owned(),
            kafka_listen: AUTO.to_owned(),
            advertised: REACHED.to_owned(),
            kafka_node_id: 0,
            kafka_grant_replication: false,
            kafka_consumer_session: Millis(45_000),
            kafka_min_session: Millis(6_000),
            kafka_max_session: Millis(1_800_000),
            http_listen: AUTO.to_owned(),
            http_names: "none".to_owned(),
            admin_listen: OFF.to_owned(),
            http_max_connections: 4096,
            http_max_body_bytes: Bytes(8 * 1024 * 1024),
            http_header_timeout: Millis(30_000),
            http_body_timeout: Millis(60_000),
            allow_unauthenticated: false,
            log_level: "info".to_owned(),
            log_format: LogFormat::Text,
            auto_create_topics: true,
            default_partitions: 1,
            sync_interval: broker.sync_interval,
            request_retention: broker.request_retention,
            group_retention: broker.group_retention,
            max_partitions: broker.max_partitions,
            max_open_requests: broker.max_open_requests,
            max_receipts: broker.max_receipts,
            max_groups: broker.max_groups,
            max_group_positions: broker.max_group_positions,
            max_group_metadata: broker.max_group_metadata,
            max_group_declarations: broker.max_group_declarations,
            callback_give_up_after: Millis(24 * 3_600_000),
            clock_quarantine: broker.clock_quarantine,
            retention_check: broker.retention_check,
            compaction_check: broker.compaction_check,
            scrub_rate: broker.scrub_rate,
            scrub_interval: broker.scrub_interval,
            commit_threads: broker.commit_threads,
            max_open_files: broker.max_open_files,
            storage_low_water: broker.storage_low_water,
            storage_reserve: broker.storage_reserve,
            disk_patience: broker.disk_patience,
            transaction_max_timeout: broker.transaction_max_timeout,
            transactional_id_expiration: broker.transactional_id_expiration,
            max_connections: 10_000,
            kafka_max_connections: 10_000,
            max_connections_per_address: 5_000,
            max_requests_in_flight: 1024,
            max_connection_bytes: Bytes(32 * 1024 * 1024),
            max_total_bytes: Bytes(256 * 1024 * 1024),
            max_subscriptions: 1024,
            handshake_timeout: Millis(10_000),
            idle_timeout: Millis(600_000),
            write_timeout: Millis(60_000),
            shutdown_timeout: Millis(10_000),
            outgoing_allow: "public".to_owned(),
            outgoing_ca_file: SYSTEM.to_owned(),
            outgoing_secret_file: NONE.to_owned(),
            outgoing_connect_timeout: Millis(5_000),
            outgoing_timeout: Millis(30_000),
            outgoing_pause: Millis(1_000),
            outgoing_calls: 1024,
            outgoing_calls_per_endpoint: 32,
            topic_defaults: TopicSettings::default(),
        }
    }
}

impl ServerConfig {
    /// Refuses values that contradict each other or the promises. Bounds of single values were checked when set.
    ///
    /// # Errors
    /// [`ConfigError`] names both sides of the contradiction.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (name, text, addresses) in [
            ("listen", &self.listen, self.listen_addresses()?),
            ("kafka_listen", &self.kafka_listen, self.kafka_addresses()?),
            ("http_listen", &self.http_listen, self.http_addresses()?),
            ("admin_listen", &self.admin_listen, self.admin_addresses()?),
        ] {
            if let Some(open) = addresses.iter().find(|address| !is_loopback(address.ip()))
                && !self.allow_unauthenticated
            {
                return Err(ConfigError(format!(
                    "{name} = \"{text}\" is {open}, which other machines can reach, and no authentication is configured; \
                     listen on 127.0.0.1, or say --allow-unauthenticated"
                )));
            }
        }
        self.advertised_address()?;
        if self.max_connection_bytes > self.max_total_bytes {
            return Err(ConfigError(format!(
                "max_connection_bytes ({}) is larger than max_total_bytes ({})",
                self.max_connection_bytes, self.max_total_bytes
            )));
        }
        self.topic_defaults.check().map_err(|error| ConfigError(format!("topic_defaults: {error}")))?;
        let batch = self.topic_defaults.max_message_bytes.as_usize();
        if batch > self.max_batch_bytes() {
            return Err(ConfigError(format!(
                "topic_defaults.max_message_bytes ({}) does not fit: with max_total_bytes = {} one frame may carry {}",
                self.topic_defaults.max_message_bytes,
                self.max_total_bytes,
                Bytes(self.max_batch_bytes() as u64)
            )));
        }
        let body = self.http_max_body_bytes.as_usize().saturating_mul(limits::HTTP_BODY_TIMES);
        if self.http_listen != OFF && body > self.max_connection_bytes.as_usize() {
            return Err(ConfigError(format!(
                "http_max_body_bytes ({}) takes {} times its size, which is more than max_connection_bytes ({})",
                self.http_max_body_bytes,
                limits::HTTP_BODY_TIMES,
                self.max_connection_bytes
            )));
        }
        if self.kafka_min_session > self.kafka_max_session {
            return Err(ConfigError(format!(
                "kafka_min_session ({}) is longer than kafka_max_session ({}): no member could join",
                self.kafka_min_session, self.kafka_max_session
            )));
        }
        self.outgoing_policy()?;
        if self.outgoing_connect_timeout > self.outgoing_timeout {
            return Err(ConfigError(format!(
                "outgoing_connect_timeout ({}) is longer than outgoing_timeout ({}), which would end the call first",
                self.outgoing_connect_timeout, self.outgoing_timeout
            )));
        }
        if self.handshake_timeout > self.idle_timeout {
            return Err(ConfigError(format!(
                "handshake_timeout ({}) is longer than idle_timeout ({}), which would end the connection first",
                self.handshake_timeout, self.idle_timeout
            )));
        }
        Ok(())
    }

    /// The addresses to listen on: all that the host resolves to.
    ///
    /// # Errors
    /// [`ConfigError`] if it is not `HOST:PORT` or does not resolve.
    pub fn listen_addresses(&self) -> Result<Vec<SocketAddr>, ConfigError> {
        resolve("listen", &self.listen, "127.0.0.1:7171")
    }

    /// The addresses of the HTTP listener; none if there is to be none.
    ///
    /// # Errors
    /// As [`ServerConfig::listen_addresses`].
    pub fn http_addresses(&self) -> Result<Vec<SocketAddr>, ConfigError> {
        match self.http_listen.as_str() {
            OFF => Ok(Vec::new()),
            AUTO => self.usual(HTTP_PORT),
            text => resolve("http_listen", text, "127.0.0.1:7180, auto or off"),
        }
    }

    /// The addresses of the listener of administration; none if there is to be none.
    ///
    /// # Errors
    /// As [`ServerConfig::listen_addresses`].
    pub fn admin_addresses(&self) -> Result<Vec<SocketAddr>, ConfigError> {
        match self.admin_listen.as_str() {
            OFF => Ok(Vec::new()),
            text => resolve("admin_listen", text, "127.0.0.1:7172 or off"),
        }
    }

    /// The addresses of the Kafka listener; none if there is to be none.
    ///
    /// # Errors
    /// As [`ServerConfig::listen_addresses`].
    pub fn kafka_addresses(&self) -> Result<Vec<SocketAddr>, ConfigError> {
        match self.kafka_listen.as_str() {
            OFF => Ok(Vec::new()),
            AUTO => self.usual(KAFKA_PORT),
            text => resolve("kafka_listen", text, "127.0.0.1:9092, auto or off"),
        }
    }

    /// What Kafka clients are told to connect to: host and port, or `None` for what each of them has connected to.
    ///
    /// # Errors
    /// [`ConfigError`] if it is neither.
    pub fn advertised_address(&self) -> Result<Option<(String, u16)>, ConfigError> {
        if self.advertised == REACHED {
            return Ok(None);
        }
        let parts = self.advertised.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        match parts.filter(|(host, port)| !host.is_empty() && *port != 0) {
            Some((host, port)) => Ok(Some((host.trim_matches(['[', ']']).to_owned(), port))),
            None => Err(ConfigError(format!(
                "advertised = \"{}\" is not an address like queue.example.com:9092, nor the word reached",
                self.advertised
            ))),
        }
    }

    /// A usual port of loopback, or a free one where the native listener takes one.
    fn usual(&self, port: u16) -> Result<Vec<SocketAddr>, ConfigError> {
        let free = self.listen_addresses()?.iter().any(|address| address.port() == 0);
        Ok(vec![SocketAddr::from(([127, 0, 0, 1], if free { 0 } else { port }))])
    }

    /// The largest frame that is taken in: a frame must fit the incoming half of `max_total_bytes`, without the part of
    /// it that is kept for small requests.
    pub fn max_frame_bytes(&self) -> usize {
        limits::FRAME_BYTES.min(Budget::largest(self.max_total_bytes.as_usize() / 2))
    }

    /// The largest batch that such a frame can carry.
    pub fn max_batch_bytes(&self) -> usize {
        self.max_frame_bytes() - limits::FRAME_HEADER_BYTES - limits::FRAME_BODY_BYTES
    }

    fn outgoing_policy(&self) -> Result<Policy, ConfigError> {
        self.outgoing_allow.parse().map_err(|error| ConfigError(format!("outgoing_allow: {error}")))
    }

    /// What signs webhooks, if something does: the secret in the file, or two while the first takes over from the second.
    ///
    /// # Errors
    /// [`ConfigError`]: the file cannot be read, or it has no secret or more than two.
    pub fn outgoing_secrets(&self, disk: &dyn Disk) -> Result<WebhookSecrets, ConfigError> {
        let file = self.outgoing_secret_file.as_str();
        if file == NONE {
            return Ok(WebhookSecrets::default());
        }
        let wrong = |error: String| ConfigError(format!("outgoing_secret_file = \"{file}\": {error}"));
        let bytes = disk::read_file(disk, file.as_ref()).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        WebhookSecrets::parse(&String::from_utf8_lossy(&bytes)).map_err(|error| wrong(error.to_string()))
    }

    /// What holds for outgoing calls.
    ///
    /// # Errors
    /// [`ConfigError`]: the list is none, or the file of certificates cannot be read.
    pub fn outgoing(&self, disk: &dyn Disk) -> Result<OutgoingConfig, ConfigError> {
        let authorities = match self.outgoing_ca_file.as_str() {
            SYSTEM => None,
            file => Some(
                disk::read_file(disk, file.as_ref())
                    .map_err(|error| ConfigError(format!("outgoing_ca_file = \"{file}\" cannot be read: {error}")))?,
            ),
        };
        Ok(OutgoingConfig {
            policy: self.outgoing_policy()?,
            connect_timeout: self.outgoing_connect_timeout.as_duration(),
            timeout: self.outgoing_timeout.as_duration(),
            per_endpoint: self.outgoing_calls_per_endpoint,
            total: self.outgoing_calls,
            authorities,
        })
    }

    /// The broker's share.
    pub fn broker(&self) -> BrokerConfig {
        BrokerConfig {
            data_dir: self.data_dir.clone(),
            auto_create_topics: self.auto_create_topics,
            default_partitions: self.default_partitions,
            topic_defaults: self.topic_defaults.clone(),
            sync_interval: self.sync_interval,
            clock_quarantine: self.clock_quarantine,
            request_retention: self.request_retention,
            group_retention: self.group_retention,
            max_partitions: self.max_partitions,
            max_open_requests: self.max_open_requests,
            max_receipts: self.max_receipts,
            max_groups: self.max_groups,
            max_group_positions: self.max_group_positions,
            max_group_metadata: self.max_group_metadata,
            max_group_declarations: self.max_group_declarations,
            retention_check: self.retention_check,
            compaction_check: self.compaction_check,
            scrub_rate: self.scrub_rate,
            scrub_interval: self.scrub_interval,
            commit_threads: self.commit_threads,
            max_open_files: self.max_open_files,
            storage_low_water: self.storage_low_water,
            storage_reserve: self.storage_reserve,
            disk_patience: self.disk_patience,
            transaction_max_timeout: self.transaction_max_timeout,
            transactional_id_expiration: self.transactional_id_expiration,
        }
    }
}

fn resolve(name: &str, text: &str, like: &str) -> Result<Vec<SocketAddr>, ConfigError> {
    let addresses = text
        .to_socket_addrs()
        .map_err(|error| ConfigError(format!("{name} = \"{text}\" is not an address like {like}: {error}")))?;
    let mut addresses: Vec<SocketAddr> = addresses.collect();
    addresses.sort();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(ConfigError(format!("{name} = \"{text}\" resolves to no address")));
    }
    Ok(addresses)
}

/// Loopback, also when an IPv4 address is written as an IPv6 one.
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
