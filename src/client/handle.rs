//! The client: where the server is, how long to wait, and the one connection behind it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::base::PartitionId;
use crate::protocol::{AskReceipts, ReceiptOutcome, RecordAt};

use super::link::{Again, Link};
use super::processed::Hubs;
use super::{
    Admin, ClientError, ConsumerBuilder, GroupConsumerBuilder, Outcome, ProducerBuilder, Pull, QueueConsumerBuilder,
    RequestBuilder, RequestInfo, ResponderBuilder,
};

/// Receipts that one request asks for.
const RECEIPTS_AT_ONCE: usize = 1000;

/// What a client was told when it was built.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) server: String,
    pub(crate) name: String,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
}

/// A client of one server. Clones share one connection, which is made again when it breaks; dropping the last one, with
/// its producers and consumers, closes it.
#[derive(Debug, Clone)]
pub struct Client {
    link: Arc<Link>,
}

/// Builds a [`Client`].
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    config: Config,
}

impl Client {
    /// Connects to `addr` (`host:port`) with the default settings.
    ///
    /// # Errors
    /// As [`ClientBuilder::build`].
    pub async fn connect(addr: impl Into<String>) -> Result<Self, ClientError> {
        Self::builder().server(addr).build().await
    }

    /// Settings other than the defaults.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            config: Config {
                server: "127.0.0.1:7171".to_owned(),
                name: "tidelog-rust".to_owned(),
                connect_timeout: Duration::from_secs(10),
                request_timeout: Duration::from_secs(30),
            },
        }
    }

    /// Topics, offsets and facts about the server.
    pub fn admin(&self) -> Admin {
        Admin::new(self.link.clone())
    }

    /// A producer to be built.
    pub fn producer(&self) -> ProducerBuilder {
        ProducerBuilder::new(self.link.clone())
    }

    /// A consumer to be built.
    pub fn consumer(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(self.link.clone())
    }

    /// One partition to be read by pull.
    pub fn pull(&self, topic: impl Into<String>, partition: PartitionId) -> Pull {
        Pull::new(self.link.clone(), topic.into(), partition)
    }

    /// A member of a queue group to be.
    pub fn queue(&self, group: impl Into<String>) -> QueueConsumerBuilder {
        QueueConsumerBuilder::new(self.link.clone(), group.into())
    }

    /// A request to whoever responds on a topic; await it for the outcome.
    pub fn request(&self, topic: impl Into<String>, body: impl Into<Bytes>, timeout: Duration) -> RequestBuilder {
        RequestBuilder::new(self.link.clone(), topic.into(), body.into(), timeout)
    }

    /// Waits for the outcome of a durable request, also one of another run of this program, over restarts of the server;
    /// `None` if it is still open after that time.
    ///
    /// # Errors
    /// There is none of this id, or the server cannot be reached.
    pub async fn await_reply(&self, id: &str, wait: Duration) -> Result<Option<Outcome>, ClientError> {
        super::request::await_reply(&self.link, id, wait).await
    }

    /// A durable request, and its outcome if it has one.
    ///
    /// # Errors
    /// As [`Client::await_reply`].
    pub async fn request_status(&self, id: &str) -> Result<(RequestInfo, Option<Outcome>), ClientError> {
        super::request::status(&self.link, id).await
    }

    /// A responder on a topic to be.
    pub fn responder(&self, topic: impl Into<String>) -> ResponderBuilder {
        ResponderBuilder::new(self.link.clone(), topic.into())
    }

    /// A member of a stream group: it owns some of the partitions, and gets their records in order.
    pub fn group_consumer(&self, group: impl Into<String>) -> GroupConsumerBuilder {
        GroupConsumerBuilder::new(self.link.clone(), group.into())
    }

    /// Waits until it is known what became of a record in a group, as [`Receipt::processed_by`](super::Receipt::processed_by)
    /// does.
    ///
    /// # Errors
    /// The server refuses: there is no such topic or partition.
    pub async fn processed(&self, group: impl AsRef<str>, record: RecordAt) -> Result<ReceiptOutcome, ClientError> {
        Hubs::outcome(&self.link, group.as_ref(), record).await
    }

    /// Asks that what becomes of records in a group is POSTed to a URL, a receipt for each record; after `timeout` a receipt
    /// says that nothing has. When this returns, the server keeps that through a restart. The same again is the same. Of no
    /// records, the server only says whether group, URL and time make sense.
    ///
    /// # Errors
    /// The server refuses: there is no such topic or record, the URL makes no sense, too many receipts wait. Those before the
    /// one that it refuses may have been asked for.
    pub async fn ask_receipts(
        &self,
        group: impl Into<String>,
        url: impl Into<String>,
        records: impl IntoIterator<Item = RecordAt>,
        timeout: Duration,
    ) -> Result<(), ClientError> {
        let (group, url) = (group.into(), url.into());
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let mut records = records.into_iter().peekable();
        loop {
            let some = records.by_ref().take(RECEIPTS_AT_ONCE).collect();
            let request = AskReceipts { group: group.clone(), url: url.clone(), records: some, timeout_ms };
            self.link.ask(&request, Again::Yes).await?;
            if records.peek().is_none() {
                return Ok(());
            }
        }
    }

    /// The address it was built for.
    pub fn server(&self) -> &str {
        &self.link.config().server
    }
}

impl ClientBuilder {
    /// Where the server is: `host:port`. Default `127.0.0.1:7171`.
    pub fn server(mut self, addr: impl Into<String>) -> Self {
        self.config.server = addr.into();
        self
    }

    /// Who this is, for the server's log.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = name.into();
        self
    }

    /// How long connecting and the handshake may take. Default 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout = timeout;
        self
    }

    /// How long an answer may take, other than to a batch (see [`ProducerBuilder::delivery_timeout`]); also how long a
    /// silent server is believed to be alive. Default 30 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.config.request_timeout = timeout;
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// The server cannot be reached, is no Tidelog server, or refuses.
    pub async fn build(self) -> Result<Client, ClientError> {
        let link = Arc::new(Link::new(self.config));
        link.connection().await?;
        Ok(Client { link })
    }
}
