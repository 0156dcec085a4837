//! Connecting: looks the name up, judges every address, and connects to one that was judged.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tower_service::Service;

use super::CallError;
use super::policy::Policy;

/// Look-ups at a time: each holds a thread of the runtime's blocking pool, which reads from the disk need too.
const LOOKUPS: usize = 4;

/// Makes connections that the policy allows.
#[derive(Clone)]
pub struct Connector {
    policy: Arc<Policy>,
    timeout: Duration,
    lookups: Arc<Semaphore>,
}

impl Connector {
    /// One that gives up after `timeout`.
    pub fn new(policy: Policy, timeout: Duration) -> Self {
        Self { policy: Arc::new(policy), timeout, lookups: Arc::new(Semaphore::new(LOOKUPS)) }
    }

    async fn connect(self, uri: Uri) -> Result<TcpStream, CallError> {
        let timeout = self.timeout;
        let connecting = self.connect_to_one(&uri);
        tokio::time::timeout(timeout, connecting).await.unwrap_or_else(|_| {
            let host = uri.host().unwrap_or_default();
            Err(CallError::unreachable(format!("no connection to {host} within {} ms", timeout.as_millis())))
        })
    }

    async fn connect_to_one(&self, uri: &Uri) -> Result<TcpStream, CallError> {
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let plain = uri.scheme_str() != Some("https");
        let port = uri.port_u16().unwrap_or(if plain { 80 } else { 443 });
        let mut refusal = None;
        let mut failure = None;
        for address in self.resolve(host, port).await? {
            if let Err(why) = self.policy.check(host, address.ip(), plain) {
                refusal.get_or_insert(why);
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => failure = Some(CallError::unreachable(format!("cannot connect to {address}: {error}"))),
            }
        }
        Err(match (failure, refusal) {
            (Some(failure), _) => failure,
            (None, Some(why)) => CallError::refused(why),
            (None, None) => CallError::unreachable(format!("{host} has no address")),
        })
    }

    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, CallError> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let _turn = self.lookups.acquire().await;
        let found = tokio::net::lookup_host((host, port)).await;
        let found = found.map_err(|error: io::Error| CallError::unreachable(format!("cannot look up {host}: {error}")));
        Ok(found?.collect())
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = CallError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, CallError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(uri).await.map(TokioIo::new) })
    }
}
