//! The table of all values: meaning, unit, bounds, and the slot of [`ServerConfig`] they live in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::LazyLock;

use super::{LogFormat, ServerConfig};
use crate::base::{Bytes, Millis, limits};

/// One value an operator may set. Its key in the file is `name`, its flag `--name` with dashes.
#[derive(Debug)]
pub struct Field {
    /// Key in the file.
    pub name: &'static str,
    /// What it does, in one line.
    pub meaning: &'static str,
    /// Its unit or form, as a person writes it.
    pub unit: &'static str,
    /// Smallest value, for numbers.
    pub minimum: u64,
    /// Largest value, for numbers.
    pub maximum: u64,
    slot: for<'a> fn(&'a mut ServerConfig) -> Slot<'a>,
}

/// The place of a value and with it its type.
enum Slot<'a> {
    Text(&'a mut String),
    Path(&'a mut PathBuf),
    Switch(&'a mut bool),
    Format(&'a mut LogFormat),
    Partitions(&'a mut u32),
    Count(&'a mut usize),
    Bytes(&'a mut Bytes),
    Millis(&'a mut Millis),
}

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
        "kafka_consumer_session",
        "how long a consumer of a Kafka group whose partitions the server shares out (group.protocol=consumer) is a \
         member without a heartbeat; it is told to send nine in that time",
        "duration",
        100,
        3_600_000,
        |c| Slot::Millis(&mut c.kafka_consumer_session),
    ),
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
        |c| Slot::Partitions(&mut c.default_partitions),
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
        "a file with the secret (whsec_ and base64) that callbacks are signed with, or the word none",
        "path",
        0,
        ANY,
        |c| Slot::Text(&mut c.outgoing_secret_file),
    ),
    field("outgoing_connect_timeout", "time for the connection of a webhook", "duration", 10, DAY_MS, |c| {
        Slot::Millis(&mut c.outgoing_connect_timeout)
    }),
    field("outgoing_timeout", "time for a webhook from its begin to the answer's head", "duration", 10, DAY_MS, |c| {
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

const fn field(
    name: &'static str,
    meaning: &'static str,
    unit: &'static str,
    minimum: u64,
    maximum: u64,
    slot: for<'a> fn(&'a mut ServerConfig) -> Slot<'a>,
) -> Field {
    Field { name, meaning, unit, minimum, maximum, slot }
}

impl Field {
    /// The field of a key.
    pub fn find(name: &str) -> Option<&'static Self> {
        FIELDS.iter().find(|field| field.name == name)
    }

    /// The flag, without its dashes in front.
    pub fn flag(&self) -> &'static str {
        static FLAGS: LazyLock<BTreeMap<&'static str, String>> =
            LazyLock::new(|| FIELDS.iter().map(|field| (field.name, field.name.replace('_', "-"))).collect());
        FLAGS.get(self.name).map_or(self.name, String::as_str)
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        match self.name {
            "log_level" => "TIDELOG_LOG".to_owned(),
            name => format!("TIDELOG_{}", name.to_ascii_uppercase()),
        }
    }

    /// Whether it is on or off.
    pub fn is_switch(&self) -> bool {
        matches!((self.slot)(&mut ServerConfig::default()), Slot::Switch(_))
    }

    /// Reads `text` into its place.
    ///
    /// # Errors
    /// What is wrong with the value, with the bounds.
    pub fn set(&self, config: &mut ServerConfig, text: &str) -> Result<(), String> {
        match (self.slot)(config) {
            Slot::Text(slot) if text.is_empty() => Err(format!("{} is empty; it was {slot}", self.name)),
            Slot::Text(slot) => {
                text.clone_into(slot);
                Ok(())
            }
            Slot::Path(_) if text.is_empty() => Err(format!("{} is empty", self.name)),
            Slot::Path(slot) => {
                *slot = PathBuf::from(text);
                Ok(())
            }
            Slot::Switch(slot) => {
                *slot = match text {
                    "true" | "1" | "yes" | "on" => true,
                    "false" | "0" | "no" | "off" => false,
                    other => return Err(format!("{} is '{other}'; it is true or false", self.name)),
                };
                Ok(())
            }
            Slot::Format(slot) => {
                *slot = text.parse().map_err(|error| format!("{}: {error}", self.name))?;
                Ok(())
            }
            Slot::Partitions(slot) => self.number(text, |n: &u32| u64::from(*n)).map(|value| *slot = value),
            Slot::Count(slot) => self.number(text, |n: &usize| *n as u64).map(|value| *slot = value),
            Slot::Bytes(slot) => self.number(text, |n: &Bytes| n.0).map(|value| *slot = value),
            Slot::Millis(slot) => self.number(text, |n: &Millis| n.0).map(|value| *slot = value),
        }
    }

    fn number<T: FromStr>(&self, text: &str, size: fn(&T) -> u64) -> Result<T, String>
    where
        T::Err: std::fmt::Display,
    {
        let value: T = text.parse().map_err(|error| format!("{} = {text}: {error}", self.name))?;
        if size(&value) < self.minimum {
            return Err(format!("{} is {text}; the least is {}", self.name, self.bound(self.minimum)));
        }
        if size(&value) > self.maximum {
            return Err(format!("{} is {text}; the most is {}", self.name, self.bound(self.maximum)));
        }
        Ok(value)
    }

    /// A bound in the field's own unit.
    pub(super) fn bound(&self, bound: u64) -> String {
        match (self.slot)(&mut ServerConfig::default()) {
            Slot::Bytes(_) => Bytes(bound).to_string(),
            Slot::Millis(_) => Millis(bound).to_string(),
            _ => bound.to_string(),
        }
    }

    /// Whether the bounds mean anything.
    pub(super) fn is_number(&self) -> bool {
        matches!(
            (self.slot)(&mut ServerConfig::default()),
            Slot::Partitions(_) | Slot::Count(_) | Slot::Bytes(_) | Slot::Millis(_)
        )
    }

    /// The value as [`Field::set`] reads it.
    pub fn show(&self, config: &ServerConfig) -> String {
        match (self.slot)(&mut config.clone()) {
            Slot::Text(slot) => slot.clone(),
            Slot::Path(slot) => slot.display().to_string(),
            Slot::Switch(slot) => slot.to_string(),
            Slot::Format(slot) => slot.name().to_owned(),
            Slot::Partitions(slot) => slot.to_string(),
            Slot::Count(slot) => slot.to_string(),
            Slot::Bytes(slot) => slot.to_string(),
            Slot::Millis(slot) => slot.to_string(),
        }
    }

    /// The value as TOML.
    pub(super) fn toml(&self, config: &ServerConfig) -> String {
        let text = self.show(config);
        match (self.slot)(&mut config.clone()) {
            Slot::Switch(_) | Slot::Partitions(_) | Slot::Count(_) => text,
            _ => toml::Value::String(text).to_string(),
        }
    }
}
