//! How fast topics come to be by themselves: by being named. Who creates one on purpose is not held up.
//!
//! A topic takes a folder and several synced files for each partition, and stays. So one request that names thousands of topics,
//! or a client with a wrong pattern, must not make thousands of them: each client and the server as a whole have a token bucket.
//! A name that finds it empty is not created yet; clients ask again by themselves, and it is then created in its turn.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::base::{ErrorKind, TopicName, limits};

use super::broker::lock;
use super::clients::Client;
use super::{Broker, BrokerError};

/// Clients whose buckets are remembered while they are not full; beyond, a new client waits for one to be.
const CLIENTS: usize = 10_000;

/// The buckets.
#[derive(Debug, Default)]
pub(crate) struct Creations(Mutex<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    server: Option<Bucket>,
    clients: HashMap<Client, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Thousandths of a topic.
    tokens: u64,
    filled_ms: u64,
}

impl Bucket {
    fn full(burst: u64, now_ms: u64) -> Self {
        Self { tokens: burst * 1_000, filled_ms: now_ms }
    }

    /// Fills it for the time that has passed: one thousandth for each millisecond and topic a second.
    fn fill(&mut self, (burst, rate): (u64, u64), now_ms: u64) {
        let passed = now_ms.saturating_sub(self.filled_ms);
        self.tokens = self.tokens.saturating_add(passed.saturating_mul(rate)).min(burst * 1_000);
        self.filled_ms = self.filled_ms.max(now_ms);
    }

    fn has_one(self) -> bool {
        self.tokens >= 1_000
    }
}

const OF_CLIENT: (u64, u64) = (limits::AUTO_TOPICS_BURST, limits::AUTO_TOPICS_A_SECOND);
const OF_SERVER: (u64, u64) = (limits::AUTO_TOPICS_BURST_OF_ALL, limits::AUTO_TOPICS_A_SECOND_OF_ALL);

impl Buckets {
    /// Takes a token of both, or of none.
    fn take(&mut self, client: Client, now_ms: u64) -> Result<(), &'static str> {
        let server = self.server.get_or_insert_with(|| Bucket::full(OF_SERVER.0, now_ms));
        server.fill(OF_SERVER, now_ms);
        if !server.has_one() {
            return Err("all clients together");
        }
        if self.clients.len() >= CLIENTS && !self.clients.contains_key(&client) {
            self.clients.retain(|_, bucket| {
                bucket.fill(OF_CLIENT, now_ms);
                bucket.tokens < OF_CLIENT.0 * 1_000
            });
            if self.clients.len() >= CLIENTS {
                return Err("all clients together");
            }
        }
        let own = self.clients.entry(client).or_insert_with(|| Bucket::full(OF_CLIENT.0, now_ms));
        own.fill(OF_CLIENT, now_ms);
        if !own.has_one() {
            return Err("this client");
        }
        own.tokens -= 1_000;
        server.tokens -= 1_000;
        Ok(())
    }
}

impl Broker {
    /// Lets a topic be created because the present client has named it.
    ///
    /// # Errors
    /// Too many were, just now.
    pub(super) fn admit_named_topic(&self, name: &TopicName) -> Result<(), BrokerError> {
        let client = Client::current();
        if client == Client::Server {
            return Ok(());
        }
        lock(&self.creations.0).take(client, self.clock.monotonic_ms()).map_err(|who| {
            let (burst, rate) = if who == "this client" { OF_CLIENT } else { OF_SERVER };
            let message = format!(
                "topic '{name}' is not created yet: {who} may have {rate} topics a second created by naming them, {burst} at \
                 once; ask again, or create it"
            );
            BrokerError::new(ErrorKind::Overloaded, message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> Client {
        Client::of(std::net::Ipv4Addr::from(number).into())
    }

    #[test]
    fn a_client_has_a_burst_and_then_its_rate_while_others_go_on() {
        let mut buckets = Buckets::default();
        let mut made = |of, now| (0..1_000).take_while(|_| buckets.take(client(of), now).is_ok()).count() as u64;
        assert_eq!(made(1, 0), limits::AUTO_TOPICS_BURST);
        assert_eq!(made(1, 999), limits::AUTO_TOPICS_A_SECOND - 1);
        assert_eq!(made(1, 1_000), 1);
        assert_eq!(made(2, 1_000), limits::AUTO_TOPICS_BURST);
        assert_eq!(made(1, 1_000_000), limits::AUTO_TOPICS_BURST);
    }

    #[test]
    fn all_clients_together_have_a_rate_and_no_number_of_clients_costs_memory() {
        let mut buckets = Buckets::default();
        let made = (0..50_000).filter(|of| buckets.take(client(*of), 0).is_ok()).count() as u64;
        assert_eq!(made, limits::AUTO_TOPICS_BURST_OF_ALL);
        let mut now = 0;
        for of in 0..50_000 {
            now += 20;
            let _ = buckets.take(client(of), now);
            assert!(buckets.clients.len() <= CLIENTS);
        }
    }
}
