//! The server that is measured: one that runs, or one of our own.

use std::time::Duration;

use tidelog::client::{Ack, Client, NewTopic};

use super::Options;
use super::process::{CpuMeter, resident_mib};
use crate::cli::failure::Failure;
use crate::cli::own_server::{ServerProcess, Workspace};

/// A server, and the folder that it and the bare limits work in. Both go with it, if they are ours.
pub struct Session {
    /// `host:port`.
    pub address: String,
    server: Option<ServerProcess>,
    /// Dropped after the server.
    pub workspace: Workspace,
}

/// The CPU of both sides.
pub struct Meters {
    server: Option<CpuMeter>,
    client: CpuMeter,
}

/// What a run has used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Resident memory of the server, in MiB.
    pub server_rss_mib: Option<f64>,
    /// Cores that the server used.
    pub server_cpu: Option<f64>,
    /// Cores that this process used.
    pub client_cpu: Option<f64>,
}

/// Counters of the server's log.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogCounters {
    /// Bytes of batches appended.
    pub bytes_in: f64,
    /// Records appended.
    pub records_in: f64,
    /// Syncs made.
    pub syncs: f64,
}

impl LogCounters {
    /// What was added since an earlier look.
    pub fn since(self, before: Self) -> Self {
        Self {
            bytes_in: self.bytes_in - before.bytes_in,
            records_in: self.records_in - before.records_in,
            syncs: self.syncs - before.syncs,
        }
    }
}

impl Session {
    /// Connects to the server that was named, or starts one with these further flags.
    pub async fn open(options: &Options, flags: &[String]) -> Result<Self, Failure> {
        let workspace = Workspace::new("bench", false)?;
        let (address, server) = match &options.server {
            Some(address) => (address.clone(), None),
            None => {
                let server = ServerProcess::start_with(&workspace.data_dir(), "127.0.0.1:0", flags).await?;
                (server.address.to_string(), Some(server))
            }
        };
        Ok(Self { address, server, workspace })
    }

    /// The same with the address of a Kafka listener: that of the server whose two addresses were given, or of one that is
    /// started.
    #[cfg(feature = "librdkafka")]
    pub async fn with_kafka(addresses: Option<(&str, &str)>) -> Result<(Self, String), Failure> {
        let workspace = Workspace::new("bench", false)?;
        if let Some((address, kafka)) = addresses {
            return Ok((Self { address: address.to_owned(), server: None, workspace }, kafka.to_owned()));
        }
        let any = "127.0.0.1:0";
        let (server, kafka) = ServerProcess::start_doors(&workspace.data_dir(), any, any, &[]).await?;
        let kafka = kafka.ok_or_else(|| Failure::Failed("the server has no Kafka listener".to_owned()))?;
        Ok((Self { address: server.address.to_string(), server: Some(server), workspace }, kafka.to_string()))
    }

    /// A connection of its own.
    pub async fn client(&self) -> Result<Client, Failure> {
        Ok(Client::builder().server(self.address.as_str()).name("tidelog-bench").build().await?)
    }

    /// So many connections.
    pub async fn clients(&self, count: u32) -> Result<Vec<Client>, Failure> {
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(self.client().await?);
        }
        Ok(clients)
    }

    /// A new topic with a name of its own.
    pub async fn topic(&self, client: &Client, partitions: u32, ack: Ack) -> Result<String, Failure> {
        let name = format!("bench.{:08x}", fastrand::u32(..));
        // Its readers wait for the same as its producers.
        let durability = if ack == Ack::Durable { "sync" } else { "interval" };
        let topic = NewTopic::new(&name).partitions(partitions).set("durability", durability);
        client.admin().create_topic(topic).await?;
        Ok(name)
    }

    /// The server's process, if it is ours.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(ServerProcess::pid)
    }

    /// Kills the server, if it is ours, and starts it again on the same data; how long until it was ready.
    pub async fn crash(&mut self) -> Result<Duration, Failure> {
        if let Some(server) = self.server.take() {
            server.kill();
        }
        let server = ServerProcess::start(&self.workspace.data_dir(), "127.0.0.1:0").await?;
        let ready_after = server.ready_after;
        self.address = server.address.to_string();
        self.server = Some(server);
        Ok(ready_after)
    }

    /// Begins to count CPU.
    pub fn meters(&self) -> Meters {
        Meters { server: self.pid().map(CpuMeter::start), client: CpuMeter::start(std::process::id()) }
    }

    /// What was used since then.
    pub fn usage(&self, meters: &Meters) -> Usage {
        Usage {
            server_rss_mib: self.pid().and_then(resident_mib),
            server_cpu: meters.server.as_ref().and_then(CpuMeter::cores),
            client_cpu: meters.client.cores(),
        }
    }

    /// One of the server's numbers, 0 if it has none of this name.
    pub async fn gauge(&self, client: &Client, name: &str) -> Result<f64, Failure> {
        Ok(value_of(&client.admin().metrics().await?, name))
    }

    /// The counters from which bytes per sync follow.
    pub async fn counters(&self, client: &Client) -> Result<LogCounters, Failure> {
        let metrics = client.admin().metrics().await?;
        let value = |name: &str| value_of(&metrics, name);
        Ok(LogCounters {
            bytes_in: value("tidelog_appended_bytes_total"),
            records_in: value("tidelog_records_in_total"),
            syncs: value("tidelog_sync_seconds_count"),
        })
    }
}

/// A number out of the Prometheus text.
pub fn value_of(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
}
