//! Who a request comes from, for the tables that all clients share: none may fill one for all others.
//!
//! A connection's task runs in the scope of its client ([`Client::scope`]), and so do the tasks and the blocking work that it
//! starts. So every door that makes something is covered without handing the client through. Outside of a scope it is the server
//! itself that acts, which has no share to keep to.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::net::IpAddr;

tokio::task_local! {
    static CURRENT: Client;
}

/// A client, as far as it can be told from others: by its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Client {
    /// The server's own doing.
    Server,
    /// An IPv4 address, or the /64 of an IPv6 address: who has one address of those has them all.
    Address(IpAddr),
}

impl Client {
    /// The client with this address.
    pub fn of(peer: IpAddr) -> Self {
        Self::Address(match peer.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                IpAddr::V6(network.into())
            }
            v4 => v4,
        })
    }

    /// The client in whose scope this runs.
    pub fn current() -> Self {
        CURRENT.try_with(|client| *client).unwrap_or(Self::Server)
    }

    /// Runs work for this client.
    pub async fn scope<R>(self, work: impl Future<Output = R>) -> R {
        CURRENT.scope(self, work).await
    }

    /// Runs blocking work for this client.
    pub fn scope_blocking<R>(self, work: impl FnOnce() -> R) -> R {
        CURRENT.sync_scope(self, work)
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => f.write_str("the server"),
            Self::Address(IpAddr::V6(network)) => write!(f, "{network}/64"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// Who has made what is in a table. In memory alone: what was there before a start is nobody's.
#[derive(Debug)]
pub(crate) struct Shares<K> {
    makers: HashMap<K, Client>,
    counts: HashMap<Client, usize>,
}

impl<K> Default for Shares<K> {
    fn default() -> Self {
        Self { makers: HashMap::new(), counts: HashMap::new() }
    }
}

impl<K: Hash + Eq> Shares<K> {
    /// Notes that a client has made something.
    pub(crate) fn add(&mut self, key: K, client: Client) {
        if client == Client::Server {
            return;
        }
        if let Some(before) = self.makers.insert(key, client) {
            self.less(before);
        }
        *self.counts.entry(client).or_default() += 1;
    }

    /// It is there no more.
    pub(crate) fn remove(&mut self, key: &K) {
        if let Some(client) = self.makers.remove(key) {
            self.less(client);
        }
    }

    fn less(&mut self, client: Client) {
        if let Some(count) = self.counts.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&client);
            }
        }
    }

    /// How many of those that are there a client has made.
    pub(crate) fn count(&self, client: Client) -> usize {
        self.counts.get(&client).copied().unwrap_or(0)
    }

    /// Who has made it.
    pub(crate) fn maker(&self, key: &K) -> Option<Client> {
        self.makers.get(key).copied()
    }

    /// Everything that is there and somebody has made.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, Client)> {
        self.makers.iter().map(|(key, client)| (key, *client))
    }

    /// The client that has made most, and how many.
    pub(crate) fn largest(&self) -> Option<(Client, usize)> {
        self.counts.iter().map(|(client, count)| (*client, *count)).max_by_key(|(client, count)| (*count, *client))
    }

    /// The clients that have made most, and how many each, most first.
    pub(crate) fn top(&self, clients: usize) -> Vec<(Client, usize)> {
        let mut all: Vec<_> = self.counts.iter().map(|(client, count)| (*count, *client)).collect();
        all.sort_unstable_by(|one, other| other.cmp(one));
        all.truncate(clients);
        all.into_iter().map(|(count, client)| (client, count)).collect()
    }
}

/// What one client may have of a table with so many places.
pub(crate) fn share_of(places: usize) -> usize {
    (places / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_an_address_or_a_network_that_one_host_can_have_to_itself() {
        let of = |text: &str| Client::of(text.parse().unwrap());
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("2001:db8::1").to_string(), "2001:db8::/64");
    }

    #[tokio::test]
    async fn work_is_of_the_client_in_whose_scope_it_runs() {
        let client = Client::of([10, 0, 0, 1].into());
        assert_eq!(Client::current(), Client::Server);
        let seen = client.scope(async { (Client::current(), crate::broker::broker::blocking(Client::current).await) });
        assert_eq!(seen.await, (client, client));
    }

    #[test]
    fn shares_count_what_is_there() {
        let (one, two) = (Client::of([10, 0, 0, 1].into()), Client::of([10, 0, 0, 2].into()));
        let mut shares = Shares::default();
        for (key, client) in [("a", one), ("b", one), ("c", two), ("d", Client::Server)] {
            shares.add(key, client);
        }
        assert_eq!((shares.count(one), shares.count(two), shares.largest()), (2, 1, Some((one, 2))));
        assert_eq!(shares.top(1), [(one, 2)]);
        assert_eq!(shares.top(9), [(one, 2), (two, 1)]);
        shares.add("b", two);
        shares.remove(&"c");
        shares.remove(&"c");
        assert_eq!((shares.count(one), shares.count(two), shares.maker(&"b")), (1, 1, Some(two)));
    }
}
