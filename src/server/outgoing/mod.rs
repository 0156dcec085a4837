//! Calls to other people's HTTP endpoints: only where the policy says, never following a redirect, bounded in time, in
//! what is read of an answer, and in number for each endpoint.
//!
//! Knows nothing of records. Whoever calls decides whether and when to try again.

mod connector;
mod error;
mod metrics;
mod policy;
#[cfg(test)]
mod tests;
mod watched;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prometheus_client::registry::Registry;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::base::{TimestampMs, TopicName};
use crate::catalog::Callback;
use connector::Connector;
pub use error::{CallError, CallFailure};
use metrics::CallMetrics;
pub use policy::Policy;
use watched::{Watching, was_stale};

/// Bytes of an answer that are read at most; a connection with more to say is closed.
const READ_BYTES: usize = 64 * 1024;
/// Bytes of an answer that are kept, for people to see.
const KEPT_BYTES: usize = 1024;
/// Bytes of an answer's head.
const HEAD_BYTES: usize = 64 * 1024;
/// How long the rest of an answer is waited for once its status is known.
const REST: Duration = Duration::from_secs(2);
/// Connections that are kept open for the next call, for each endpoint, and how long.
const IDLE: usize = 8;
const IDLE_TIME: Duration = Duration::from_secs(30);
/// The longest wait that a `retry-after` can ask for.
const LONGEST_RETRY: Duration = Duration::from_secs(24 * 3600);
/// Addresses of a host that may have all their calls under way, so that one which is slow holds up no other.
const ADDRESSES: usize = 4;
/// Characters of an address.
const URL_CHARS: usize = 2048;

/// What an operator says about calls.
#[derive(Debug, Clone)]
pub struct OutgoingConfig {
    /// Where they may go.
    pub policy: Policy,
    /// Time for a connection.
    pub connect_timeout: Duration,
    /// Time for a whole call, if the caller doesn't say less.
    pub timeout: Duration,
    /// Calls at a time to one address. A host may have [`ADDRESSES`] times as many, and half of all.
    pub per_endpoint: usize,
    /// Calls at a time.
    pub total: usize,
    /// Certificates (PEM) that are believed beside those of the system.
    pub authorities: Option<Vec<u8>>,
}

/// A call: always a POST.
#[derive(Debug, Clone)]
pub struct Call {
    /// Where to.
    pub url: Url,
    /// Its headers.
    pub headers: HeaderMap,
    /// What is sent.
    pub body: Bytes,
    /// Time for all of it.
    pub timeout: Duration,
}

/// The address of an endpoint, in its form; whether it may be called is seen when it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url(Uri);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// How long the endpoint asks to be left alone.
    pub retry_after: Option<RetryAfter>,
    /// The beginning of what it says.
    pub excerpt: String,
}

/// `Retry-After`, in both its forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// For so long.
    In(Duration),
    /// Until this second of the Unix epoch.
    At(i64),
}

impl RetryAfter {
    /// For how long from now on, a day at the most.
    pub fn from(self, now_ms: TimestampMs) -> Duration {
        let wait = match self {
            Self::In(wait) => wait,
            Self::At(second) => {
                Duration::from_millis(u64::try_from(second.saturating_mul(1000).saturating_sub(now_ms)).unwrap_or(0))
            }
        };
        wait.min(LONGEST_RETRY)
    }
}

impl Reply {
    /// Whether the endpoint has taken what was sent.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl std::str::FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(80).collect();
        if text.len() > URL_CHARS {
            return Err(format!("the URL '{shown}...' has {} characters; the limit is {URL_CHARS}", text.len()));
        }
        let uri: Uri = text.parse().map_err(|error| format!("'{shown}' is not a URL: {error}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(format!("'{shown}' is not a URL that begins with https:// or http://"));
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err(format!("the URL '{shown}' names no host"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(format!("the URL of {} has a user in it; use a header", uri.host().unwrap_or_default()));
        }
        Ok(Self(uri))
    }
}

impl Url {
    /// Host and port.
    pub fn endpoint(&self) -> &str {
        self.0.authority().map_or("", |authority| authority.as_str())
    }

    /// Host, port and path: what is away or slow apart from others.
    pub fn address(&self) -> String {
        self.endpoint().to_ascii_lowercase() + self.0.path()
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

type HttpClient = Client<Watching<HttpsConnector<Connector>>, Full<Bytes>>;

/// What makes the calls.
struct Clients {
    /// Keeps connections for the next call.
    pooled: HttpClient,
    /// Makes a connection for each call.
    fresh: HttpClient,
}

/// Makes calls.
pub struct Outgoing {
    config: OutgoingConfig,
    authorities: Vec<CertificateDer<'static>>,
    /// Made at the first call: reading the system's certificates takes a while.
    clients: OnceLock<Result<Clients, CallError>>,
    total: Arc<Semaphore>,
    endpoints: Mutex<HashMap<String, Arc<Semaphore>>>,
    metrics: CallMetrics,
}

impl Outgoing {
    /// Ready to call.
    ///
    /// # Errors
    /// The configured certificates are none.
    pub fn new(config: OutgoingConfig) -> Result<Self, String> {
        let mut authorities = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(config.authorities.as_deref().unwrap_or_default()) {
            authorities.push(certificate.map_err(|error| format!("not a certificate in PEM: {error}"))?);
        }
        if config.authorities.is_some() && authorities.is_empty() {
            return Err("there is no certificate in it".to_owned());
        }
        let total = Arc::new(Semaphore::new(config.total));
        Ok(Self {
            config,
            authorities,
            clients: OnceLock::new(),
            total,
            endpoints: Mutex::default(),
            metrics: CallMetrics::default(),
        })
    }

    /// Time for a whole call, if the caller doesn't say less.
    pub fn timeout(&self) -> Duration {
        self.config.timeout
    }

    /// Whether a call to this URL would be made, as far as that can be said without looking up a name.
    ///
    /// # Errors
    /// Why not, and what would have to be configured.
    pub fn judge(&self, url: &Url) -> Result<(), String> {
        let host = url.0.host().unwrap_or_default();
        self.config
            .policy
            .judge(host.trim_start_matches('[').trim_end_matches(']'), url.0.scheme_str() != Some("https"))
    }

    /// A callback address: a topic, or a URL that may be called.
    ///
    /// # Errors
    /// In one line, what it is not.
    pub fn callback(&self, text: &str) -> Result<Callback, String> {
        let wrong = |error: String| format!("callback: {error}");
        if text.contains("://") {
            let url: Url = text.parse().map_err(wrong)?;
            self.judge(&url).map_err(wrong)?;
            return Ok(Callback::Url(url.to_string()));
        }
        TopicName::new(text).map(Callback::Topic).map_err(|error| wrong(error.to_string()))
    }

    /// POSTs, and gives the answer whatever its status is. A redirect is an answer like any other.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn call(&self, call: Call) -> Result<Reply, CallError> {
        let (began, under_way) = (Instant::now(), self.metrics.begin());
        let result = self.make(call).await;
        drop(under_way);
        self.metrics.ended(&result, began.elapsed());
        result
    }

    /// Adds what is counted of calls to a registry.
    pub fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }

    async fn make(&self, call: Call) -> Result<Reply, CallError> {
        let allowed = call.timeout.min(self.config.timeout);
        let deadline = Instant::now() + allowed;
        let (endpoint, address) = (call.url.endpoint().to_ascii_lowercase(), call.url.address());
        let late = |what: &str| format!("{endpoint}: {what} within {} ms", allowed.as_millis());
        let busy = |_| CallError::busy(late("no turn among the calls that are under way"));
        let _turn = timeout_at(deadline, self.turn(&address, &endpoint)).await.map_err(busy)?;
        let clients = self.clients.get_or_init(|| self.build()).as_ref().map_err(CallError::clone)?;
        let length = HeaderValue::from(call.body.len());
        let mut request = Request::new(Full::new(call.body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = call.url.0;
        *request.headers_mut() = call.headers;
        let agent = HeaderValue::from_static(concat!("tidelog/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().entry(header::USER_AGENT).or_insert(agent);
        // Of an empty body it would not be said, and some ask for it.
        request.headers_mut().insert(header::CONTENT_LENGTH, length);
        let mut answered = timeout_at(deadline, clients.pooled.request(request.clone())).await;
        if let Ok(Err(error)) = &answered
            && was_stale(error)
        {
            answered = timeout_at(deadline, clients.fresh.request(request)).await;
        }
        let response = answered
            .map_err(|_| CallError::timed_out(late("no answer")))?
            .map_err(|error| CallError::of_client(&error))?;
        let (head, body) = response.into_parts();
        // The status is what counts. The rest is read so that the connection can be used again, and for people.
        let excerpt = rest(body, deadline.min(Instant::now() + REST)).await;
        let retry_after = retry_after(&head.headers);
        Ok(Reply { status: head.status.as_u16(), retry_after, excerpt })
    }

    /// Waits for a turn: of this address, of its host, and among all.
    async fn turn(&self, address: &str, host: &str) -> [Option<OwnedSemaphorePermit>; 3] {
        let own = self.config.per_endpoint;
        let hosts = own.saturating_mul(ADDRESSES).min((self.config.total / 2).max(own));
        // A host is no address: it has no path.
        let turns = [(address, own), (host, hosts)].map(|(name, most)| self.turns(name, most));
        let [address, host] = turns;
        [
            address.acquire_owned().await.ok(),
            host.acquire_owned().await.ok(),
            self.total.clone().acquire_owned().await.ok(),
        ]
    }

    fn turns(&self, name: &str, most: usize) -> Arc<Semaphore> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = endpoints.get(name) {
            return Arc::clone(turns);
        }
        // Those that nobody uses are not kept.
        endpoints.retain(|_, turns| Arc::strong_count(turns) > 1);
        let turns = Arc::new(Semaphore::new(most));
        endpoints.insert(name.to_owned(), Arc::clone(&turns));
        turns
    }

    fn build(&self) -> Result<Clients, CallError> {
        let mut roots = rustls::RootCertStore::empty();
        let (found, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let (own, _) = roots.add_parsable_certificates(self.authorities.iter().cloned());
        if found + own == 0 {
            tracing::warn!("the system has no certificates: no https:// endpoint will be believed");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| CallError::unreachable(format!("TLS cannot be set up: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = Connector::new(self.config.policy.clone(), self.config.connect_timeout);
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(connector);
        let connector = Watching(connector);
        let client = |idle: usize| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIME)
                .pool_max_idle_per_host(idle)
                .http1_max_buf_size(HEAD_BYTES)
                .build(connector.clone())
        };
        Ok(Clients { pooled: client(IDLE), fresh: client(0) })
    }
}

/// Reads the rest of an answer, as far as it is worth it; its beginning is what is returned.
async fn rest(mut body: Incoming, deadline: Instant) -> String {
    let mut kept = Vec::new();
    let mut read = 0;
    while read < READ_BYTES
        && let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await
    {
        let Some(data) = frame.data_ref() else { continue };
        read += data.len();
        kept.extend_from_slice(&data[..data.len().min(KEPT_BYTES - kept.len())]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Seconds, or a date, which is compared with the date that the endpoint itself says it is, if it does: then no clock of ours has
/// to agree.
fn retry_after(headers: &HeaderMap) -> Option<RetryAfter> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(str::trim);
    let asked = text(header::RETRY_AFTER)?;
    if let Ok(seconds) = asked.parse() {
        return Some(RetryAfter::In(Duration::from_secs(seconds)));
    }
    let date = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|date| date.timestamp().as_second());
    let until = date(asked)?;
    Some(match text(header::DATE).and_then(date) {
        Some(now) => RetryAfter::In(Duration::from_secs(u64::try_from(until - now).unwrap_or(0))),
        None => RetryAfter::At(until),
    })
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").field("config", &self.config).finish_non_exhaustive()
    }
}
