//! The client: a server's address, and a connection to it that comes back when it breaks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::connection::Connection;
use super::{Admin, ClientError, ConsumerBuilder, ProducerBuilder};
use crate::protocol::Request;

/// A client of one server. Clones share a connection.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    options: ClientBuilder,
    current: Mutex<Option<Arc<Connection>>>,
}

/// Settings of a client.
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    server: String,
    name: String,
    connect_timeout: Duration,
    request_timeout: Duration,
}

impl ClientBuilder {
    /// The server's address, `127.0.0.1:7171` if not set.
    pub fn server(mut self, server: impl Into<String>) -> Self {
        self.server = server.into();
        self
    }

    /// A name for the server's logs.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How long connecting may take, 5 s if not set.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a request may take, 30 s if not set.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// The server cannot be reached, or speaks another version.
    pub async fn build(self) -> Result<Client, ClientError> {
        let client = Client { shared: Arc::new(Shared { options: self, current: Mutex::new(None) }) };
        client.connection().await?;
        Ok(client)
    }
}

impl Client {
    /// Connects to a server.
    ///
    /// # Errors
    /// As [`ClientBuilder::build`].
    pub async fn connect(server: impl Into<String>) -> Result<Self, ClientError> {
        Self::builder().server(server).build().await
    }

    /// A client with settings.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            server: "127.0.0.1:7171".to_owned(),
            name: "tidelog-rust".to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
        }
    }

    /// Topics, offsets, facts.
    pub fn admin(&self) -> Admin {
        Admin { client: self.clone() }
    }

    /// Sends records.
    pub fn producer(&self) -> ProducerBuilder {
        ProducerBuilder::new(self.clone())
    }

    /// Receives records.
    pub fn consumer(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(self.clone())
    }

    /// The connection, made anew if it has broken.
    pub(super) async fn connection(&self) -> Result<Arc<Connection>, ClientError> {
        let mut current = self.shared.current.lock().await;
        if let Some(connection) = current.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(Arc::clone(connection));
        }
        let options = &self.shared.options;
        let connection = Connection::open(&options.server, &options.name, options.connect_timeout).await?;
        *current = Some(Arc::clone(&connection));
        Ok(connection)
    }

    pub(super) async fn request<R: Request>(&self, request: &R) -> Result<R::Response, ClientError> {
        self.connection().await?.request(request, self.shared.options.request_timeout).await
    }
}
