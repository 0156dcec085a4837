//! Floor 5: the server. Listeners are thin adapters over the broker; configuration, start and stop are here.
//!
//! Knows nothing of how records are stored, and nothing of the command line.

mod accept;
mod budget;
mod callbacks;
pub mod config;
mod connections;
mod delay;
mod files;
mod frames;
mod http;
mod kafka;
pub mod logging;
mod metrics;
mod native;
pub mod outgoing;
mod places;
pub mod process;
mod push;
mod reads;
mod receipts;
mod shared;
mod signals;
mod tasks;
#[cfg(test)]
mod tests;
mod webhooks;

#[cfg(any(fuzzing, test))]
pub(crate) use kafka::fuzz as kafka_fuzz;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::base::{Clock, ErrorKind, SystemClock};
use crate::broker::{Broker, BrokerError, Post};
use crate::catalog::ReceiptEntry;
use crate::disk::{Disk, RealDisk};
use accept::Door;
use budget::Budget;
use config::{ConfigError, ServerConfig};
use delay::RuntimeDelay;
use metrics::ServerMetrics;
use outgoing::Outgoing;
use places::Doors;
use process::ProcessMetrics;
use shared::Shared;

/// Connections that are told at a time that there is no room for them.
const REFUSALS: usize = 64;

/// Why a server does not start or ends.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be opened.
    #[error("cannot open the data directory {path}: {source}")]
    Broker {
        /// The directory.
        path: String,
        /// What is wrong with it.
        source: BrokerError,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source} (--{flag} says where)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Something of the process itself.
    #[error("{what}: {source}")]
    Process {
        /// What was tried.
        what: &'static str,
        /// Why it did not work.
        source: io::Error,
    },
    /// A part of the server ended that must not.
    #[error("the {0} ended although nobody stopped it")]
    Ended(&'static str),
}

impl ServerError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(_) => ErrorKind::InvalidRequest,
            Self::Broker { source, .. } => source.kind(),
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => ErrorKind::Busy,
            Self::Listen { source, .. } | Self::Process { source, .. } => ErrorKind::of_io(source),
            Self::Ended(_) => ErrorKind::Internal,
        }
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    addresses: Vec<SocketAddr>,
    kafka_addresses: Vec<SocketAddr>,
    http_addresses: Vec<SocketAddr>,
    listeners: Vec<JoinHandle<()>>,
    pushes: JoinHandle<()>,
}

impl Server {
    /// Opens the data directory on the real disk, recovers what is in it, and listens. Clients are served when it
    /// returns.
    ///
    /// # Errors
    /// [`ServerError`]; nothing is left running then.
    pub async fn start(config: ServerConfig) -> Result<Self, ServerError> {
        Self::start_on(config, Arc::new(RealDisk), Arc::new(SystemClock::new())).await
    }

    /// As [`Server::start`], on a disk and a clock of the caller's.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_on(
        config: ServerConfig,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ServerError> {
        config.check()?;
        let doors = Doors::new(&config, files::allow(&config));
        let certificates = |error| ConfigError(format!("outgoing_ca_file = \"{}\": {error}", config.outgoing_ca_file));
        let calls = Arc::new(Outgoing::new(config.outgoing(disk.as_ref())?).map_err(certificates)?);
        let secrets = config.outgoing_secrets(disk.as_ref())?;
        // Before the recovery, which may take long: an address in use is said at once.
        let sockets = bind(config.listen_addresses()?, "listen").await?;
        let kafka_sockets = bind(config.kafka_addresses()?, "kafka-listen").await?;
        let http_sockets = bind(config.http_addresses()?, "http-listen").await?;
        let admin_sockets = bind(config.admin_addresses()?, "admin-listen").await?;
        let (started_at_ms, started_monotonic_ms) = (clock.wall_ms(), clock.monotonic_ms());
        let broker = open_broker(&config, disk, clock).await?;
        broker.start_routes();
        let metrics = Arc::new(ServerMetrics::default());
        broker.metrics().register(|registry| {
            metrics.register(registry);
            calls.register(registry);
        });
        metrics.set_limits(&config, &doors);
        let (stop, stopping) = watch::channel(false);
        let half = config.max_total_bytes.as_usize() / 2;
        let shared = Arc::new(Shared {
            clock: Arc::clone(broker.clock()),
            broker,
            started_at_ms,
            started_monotonic_ms,
            metrics,
            delay: RuntimeDelay::new(started_monotonic_ms),
            process: ProcessMetrics::new(started_at_ms),
            calls,
            secrets,
            incoming: Budget::new(half),
            outgoing: Budget::new(half),
            doors,
            connections: Arc::default(),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            stopping,
            config,
        });
        delay::watch(&shared).map_err(|source| ServerError::Process {
            what: "cannot start the thread that watches the runtime",
            source,
        })?;
        tasks::spawn_lasting("runtime delay", delay::run(Arc::clone(&shared)));
        let mut listeners = Vec::new();
        let addresses = open_doors("native listener", sockets, native::DOOR, &shared, &mut listeners)?;
        let kafka_addresses = open_doors("Kafka listener", kafka_sockets, kafka::DOOR, &shared, &mut listeners)?;
        let http_addresses = open_doors("HTTP listener", http_sockets, http::DOOR, &shared, &mut listeners)?;
        open_doors("administration listener", admin_sockets, native::ADMIN_DOOR, &shared, &mut listeners)?;
        let callbacks = webhooks::courier::run::<Post>(Arc::clone(&shared));
        tasks::spawn_lasting("callbacks", callbacks);
        let receipts = webhooks::courier::run::<ReceiptEntry>(Arc::clone(&shared));
        tasks::spawn_lasting("receipts", receipts);
        let pushes = push::run(Arc::clone(&shared));
        let pushes = tasks::spawn_lasting("pushes", pushes);
        Ok(Self { shared, stop, addresses, kafka_addresses, http_addresses, listeners, pushes })
    }

    /// The addresses of the native listener, with the ports that were taken.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The addresses of the Kafka listener, with the ports that were taken.
    pub fn kafka_addresses(&self) -> &[SocketAddr] {
        &self.kafka_addresses
    }

    /// The addresses of the HTTP listener, with the ports that were taken.
    pub fn http_addresses(&self) -> &[SocketAddr] {
        &self.http_addresses
    }

    /// Returns if a listener ends by itself, which it never should.
    async fn listener_ended(&mut self) {
        let (_, ended, _) = futures_util::future::select_all(&mut self.listeners).await;
        self.listeners.remove(ended);
    }

    /// Stops: accepts nobody, lets what is in flight end within the shutdown timeout, says goodbye to clients, and
    /// brings the broker to rest. When it returns, all that was acknowledged is on disk and the directory is free.
    pub async fn stop(self) {
        let config = &self.shared.config;
        tracing::info!(timeout = %config.shutdown_timeout, "stopping");
        self.stop.send_replace(true);
        for listener in self.listeners {
            let _ = listener.await;
        }
        let patience = config.shutdown_timeout.as_duration() + STOP_MARGIN;
        let ended = async {
            self.shared.doors.emptied().await;
            // Calls under way may still be answered.
            let _ended = self.pushes.await;
        };
        match tokio::time::timeout(patience, ended).await {
            Ok(()) => tracing::debug!("all connections have ended"),
            Err(_) => tracing::warn!(
                connections = self.shared.metrics.all_connections(),
                "connections did not end in time; their requests are cut off"
            ),
        }
        self.shared.broker.shutdown().await;
        tracing::info!("stopped");
    }
}

/// What connections get for their goodbye beyond the shutdown timeout.
const STOP_MARGIN: std::time::Duration = std::time::Duration::from_secs(5);

async fn bind(addresses: Vec<SocketAddr>, flag: &'static str) -> Result<Vec<TcpListener>, ServerError> {
    let mut sockets = Vec::new();
    for address in addresses {
        let socket = TcpListener::bind(address).await;
        sockets.push(socket.map_err(|source| ServerError::Listen { address, flag, source })?);
    }
    Ok(sockets)
}

/// Lets connections in; the addresses, with the ports that were taken.
fn open_doors(
    name: &'static str,
    sockets: Vec<TcpListener>,
    door: Door,
    shared: &Arc<Shared>,
    listeners: &mut Vec<JoinHandle<()>>,
) -> Result<Vec<SocketAddr>, ServerError> {
    let mut addresses = Vec::new();
    for socket in sockets {
        let address = socket
            .local_addr()
            .map_err(|source| ServerError::Process { what: "cannot ask for the listening address", source })?;
        tracing::info!(%address, "{name} ready");
        addresses.push(address);
        listeners.push(tasks::spawn(name, accept::accept(socket, shared.clone(), door)));
    }
    Ok(addresses)
}

async fn open_broker(
    config: &ServerConfig,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Broker>, ServerError> {
    let path = config.data_dir.display().to_string();
    let broker_config = config.broker();
    let opened = tokio::task::spawn_blocking(move || Broker::open(broker_config, disk, clock)).await;
    let broker = opened
        .map_err(|panic| ServerError::Process { what: "recovery ended abnormally", source: io::Error::other(panic) })?
        .map_err(|source| ServerError::Broker { path: path.clone(), source })?;
    let startup = broker.startup();
    for note in &startup.notes {
        tracing::info!(note, "found at the start");
    }
    for damage in broker.damage().await {
        let (topic, partition) = (damage.topic, damage.partition);
        let (what, acknowledged) = (damage.known.damage, damage.known.acknowledged);
        if acknowledged {
            tracing::warn!(%topic, partition, "known and acknowledged: {what}");
        } else {
            tracing::error!(%topic, partition, "acknowledged records are damaged: {what}");
        }
    }
    for known in broker.journal_damage() {
        tracing::error!("the journal is damaged: {}; stop the server and run 'tidelog repair'", known.damage);
    }
    tracing::info!(
        data_dir = path,
        topics = startup.topics,
        partitions = startup.partitions,
        took_ms = u64::try_from(startup.took.as_millis()).unwrap_or(u64::MAX),
        view_rebuilt = startup.view_rebuilt,
        "data directory open"
    );
    Ok(broker)
}

/// Runs a server until SIGTERM or SIGINT, and says on stdout when it is ready. A second signal ends the process at
/// once, with status 1, and so does a stop that takes longer than [`stop_bound`].
///
/// # Errors
/// It does not start, or a part of it ended by itself.
pub async fn run(config: ServerConfig) -> Result<(), ServerError> {
    let bound = stop_bound(&config);
    signals::outlive_terminal().map_err(|source| ServerError::Process { what: "cannot listen for SIGHUP", source })?;
    let mut server = Server::start(config).await?;
    let mut stopping = signals::listen(bound, Arc::clone(server.shared.broker.health()))
        .map_err(|source| ServerError::Process { what: "cannot listen for signals", source })?;
    announce("native", &server.addresses);
    announce("Kafka", &server.kafka_addresses);
    announce("HTTP", &server.http_addresses);
    let outcome = tokio::select! {
        _ = stopping.wait_for(|stopping| *stopping) => Ok(()),
        () = server.listener_ended() => Err(ServerError::Ended("listener")),
    };
    if tokio::time::timeout(bound, server.stop()).await.is_err() {
        tracing::error!("the server does not come to rest; what was acknowledged is on the disk");
        // Not by returning: the end of the runtime and of the broker would wait for threads that are at the disk.
        std::process::exit(1);
    }
    outcome
}

/// The longest that a stop takes: the shutdown timeout for requests in flight, a moment for their goodbyes, and the time in
/// which a disk that works syncs what was written and writes checkpoints.
pub fn stop_bound(config: &ServerConfig) -> std::time::Duration {
    config.shutdown_timeout.as_duration() + STOP_MARGIN + CLOSE_PATIENCE
}

/// What the broker gets to come to rest.
const CLOSE_PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// One line a listener, for whoever waits for the server. A closed stdout is no reason not to serve.
fn announce(listener: &str, addresses: &[SocketAddr]) {
    let mut out = io::stdout().lock();
    for address in addresses {
        let _ = writeln!(out, "tidelog: {listener} listener ready on {address}");
    }
    let _ = out.flush();
}
