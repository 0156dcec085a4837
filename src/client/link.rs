//! The way to the server: the connection there is, or the attempt to make one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::base::{Clock, ErrorKind, SystemClock, TimestampMs};
use crate::protocol::Request;

use super::ClientError;
use super::connection::Connection;
use super::handle::Config;
use super::processed::Hubs;

/// Pause after the first failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

type Attempt = watch::Receiver<Option<Result<Arc<Connection>, ClientError>>>;

/// Whether a request whose answer was lost may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// It changes nothing, or nothing more the second time.
    Yes,
    /// It could do twice what was wanted once.
    No,
}

/// What a client and all that was built from it share.
#[derive(Debug)]
pub(crate) struct Link {
    config: Config,
    clock: SystemClock,
    hubs: Hubs,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Down { failures: u32, since: Instant },
    Connecting(Attempt),
    Up(Arc<Connection>),
}

impl Link {
    pub(crate) fn new(config: Config) -> Self {
        let state = Mutex::new(State::Down { failures: 0, since: Instant::now() });
        Self { config, clock: SystemClock::new(), hubs: Hubs::default(), state }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn hubs(&self) -> &Hubs {
        &self.hubs
    }

    pub(crate) fn now_ms(&self) -> TimestampMs {
        self.clock.wall_ms()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection. Makes one if there is none, once for all who ask, and after a pause if the last attempts failed.
    ///
    /// # Errors
    /// The next attempt failed.
    pub(crate) async fn connection(self: &Arc<Self>) -> Result<Arc<Connection>, ClientError> {
        let mut attempt = 'attempt: {
            let mut state = self.lock();
            let (failures, since) = match &*state {
                State::Up(connection) if connection.is_alive() => return Ok(connection.clone()),
                State::Up(_) => (0, Instant::now()),
                State::Down { failures, since } => (*failures, *since),
                State::Connecting(attempt) => break 'attempt attempt.clone(),
            };
            let (sender, attempt) = watch::channel(None);
            *state = State::Connecting(attempt.clone());
            tokio::spawn(self.clone().attempt(failures, since, sender));
            attempt
        };
        let outcome = attempt.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or_else(|| Err(ClientError::new(ErrorKind::Disconnected, "the client is shutting down")))
    }

    async fn attempt(
        self: Arc<Self>,
        failures: u32,
        since: Instant,
        outcome: watch::Sender<Option<Result<Arc<Connection>, ClientError>>>,
    ) {
        if failures > 0 {
            tokio::time::sleep_until(since + pause(failures)).await;
        }
        let opened = Connection::open(&self.config).await;
        *self.lock() = match &opened {
            Ok(connection) => State::Up(connection.clone()),
            Err(_) => State::Down { failures: failures.saturating_add(1), since: Instant::now() },
        };
        outcome.send_replace(Some(opened));
    }

    /// Asks, on a new connection if need be, and waits for the answer.
    ///
    /// # Errors
    /// The server's refusal, or that it could not be reached in time.
    pub(crate) async fn ask<R: Request>(
        self: &Arc<Self>,
        request: &R,
        again: Again,
    ) -> Result<R::Response, ClientError> {
        let timeout = self.config.request_timeout;
        let asked = async {
            let first = self.connection().await?;
            match first.ask(request, timeout).await {
                // The connection broke under it; a second one that breaks too is the caller's business.
                Err(error) if error.kind() == ErrorKind::Disconnected && again == Again::Yes => {
                    self.connection().await?.ask(request, timeout).await
                }
                answer => answer,
            }
        };
        tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| {
            let message = format!("{} does not answer within {timeout:?}", self.config.server);
            Err(ClientError::new(ErrorKind::TimedOut, message))
        })
    }
}

/// How long to wait after so many failures in a row (at least one), with some chance in it, so that many clients do not
/// come back at once.
pub(crate) fn pause(failures: u32) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    longest.mul_f64(0.5 + fastrand::f64() / 2.0)
}
