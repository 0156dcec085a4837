//! Places for connections: so many of a door, so many of an address, and who gives way when all are taken.
//!
//! A connection that has made no request yet is *fresh*. When no place is free, the connection that has been fresh for
//! longest gives its place to the new one: a peer that sends its first request at once always gets in, however many silent
//! ones there are. Connections that have made a request keep their places.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::budget::Peer;
use super::config::ServerConfig;

/// Places of a door that only peers of this machine get: whoever administers the server from there finds one, also when
/// other addresses hold all the rest. A dozen commands and health checks run at a time.
const LOCAL_PLACES: usize = 32;

/// Places beside the HTTP door's own for `/health`, `/ready` and `/metrics`. Orchestrators, load balancers and scrapers ask
/// every few seconds, and each of them is gone within milliseconds.
pub const HEALTH_PLACES: usize = 64;
/// Places of the listener of administration.
pub const ADMIN_PLACES: usize = 64;

/// The places of one door.
#[derive(Debug)]
pub struct Places {
    most: usize,
    most_of_address: usize,
    state: Mutex<State>,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Places taken. A connection that gives way has no place any more.
    taken: usize,
    addresses: HashMap<Peer, usize>,
    /// Connections without a request, in the order in which they came.
    fresh: BTreeMap<u64, (Peer, Arc<Notify>)>,
    /// Connections that have not ended, with or without a place.
    open: usize,
    next: u64,
}

/// A connection's place; dropped, it is free.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    number: u64,
    peer: Peer,
    give_way: Arc<Notify>,
    used: AtomicBool,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The door has no more.
    #[error("this door has {0} connections, which is the most")]
    Door(usize),
    /// The address has as many as one may have.
    #[error("this address has {0} connections, which is the most for one address")]
    Address(usize),
}

/// The places of all doors.
#[derive(Debug)]
pub struct Doors {
    /// Native clients.
    pub native: Arc<Places>,
    /// Kafka clients.
    pub kafka: Arc<Places>,
    /// HTTP clients.
    pub http: Arc<Places>,
    /// Beside those of HTTP: for `/health`, `/ready` and `/metrics` when the others are taken.
    pub health: Arc<Places>,
    /// The listener of administration.
    pub admin: Arc<Places>,
}

impl Doors {
    /// The places that the configuration wants, or in the same proportion fewer if `files` are not enough for them.
    pub fn new(config: &ServerConfig, files: usize) -> Self {
        let wanted = config.max_connections + config.kafka_max_connections + config.http_max_connections;
        let room = files - (HEALTH_PLACES + ADMIN_PLACES).min(files / 4);
        let scaled = |most: usize| if wanted <= room { most } else { (most * room / wanted.max(1)).max(1) };
        let places = |most: usize| Places::new(scaled(most), config.max_connections_per_address);
        Self {
            native: places(config.max_connections),
            kafka: places(config.kafka_max_connections),
            http: places(config.http_max_connections),
            health: Places::new(HEALTH_PLACES, HEALTH_PLACES),
            admin: Places::new(ADMIN_PLACES, ADMIN_PLACES),
        }
    }

    /// Returns when all connections of all doors have ended.
    pub async fn emptied(&self) {
        for places in [&self.native, &self.kafka, &self.http, &self.health, &self.admin] {
            places.emptied().await;
        }
    }
}

impl Places {
    /// The most.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Places for `most` connections, `most_of_address` of them for one address.
    pub fn new(most: usize, most_of_address: usize) -> Arc<Self> {
        Arc::new(Self { most, most_of_address, state: Mutex::default(), emptied: Notify::new() })
    }

    /// A place for a new connection. A fresh one may be made to give way for it.
    ///
    /// # Errors
    /// All places are taken by connections that are used.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Place, Full> {
        let peer = Peer::at(address);
        let local = address.to_canonical().is_loopback();
        let most = if local { self.most } else { self.most - LOCAL_PLACES.min(self.most / 8) };
        let mut state = self.lock();
        if state.addresses.get(&peer).copied().unwrap_or(0) >= self.most_of_address {
            let oldest = state.fresh.iter().find(|(_, (of, _))| *of == peer).map(|(number, _)| *number);
            state.give_way(oldest.ok_or(Full::Address(self.most_of_address))?);
        } else if state.taken >= most {
            let oldest = state.fresh.keys().next().copied();
            state.give_way(oldest.ok_or(Full::Door(most))?);
        }
        let number = state.next;
        state.next += 1;
        let give_way = Arc::new(Notify::new());
        state.taken += 1;
        state.open += 1;
        *state.addresses.entry(peer).or_default() += 1;
        state.fresh.insert(number, (peer, give_way.clone()));
        drop(state);
        Ok(Place { places: self.clone(), number, peer, give_way, used: AtomicBool::new(false) })
    }

    /// Returns when all connections have ended.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.lock().open == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// The numbers are changed together and without a call that could panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn give_way(&mut self, number: u64) {
        if let Some((peer, notify)) = self.fresh.remove(&number) {
            notify.notify_one();
            self.leave(peer);
        }
    }

    fn leave(&mut self, peer: Peer) {
        self.taken -= 1;
        if let Some(count) = self.addresses.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&peer);
            }
        }
    }
}

impl Place {
    /// Notes that the connection has made a request. `false` if it had to give way just before.
    pub fn used(&self) -> bool {
        if !self.used.load(Ordering::Relaxed) {
            let kept = self.places.lock().fresh.remove(&self.number).is_some();
            self.used.store(kept, Ordering::Relaxed);
        }
        self.used.load(Ordering::Relaxed)
    }

    /// Returns when the place was given to another connection.
    pub async fn given_away(&self) {
        self.give_way.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        state.open -= 1;
        if state.fresh.remove(&self.number).is_some() || self.used.load(Ordering::Relaxed) {
            state.leave(self.peer);
        }
        let empty = state.open == 0;
        drop(state);
        if empty {
            self.places.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    fn is_given_away(place: &Place) -> bool {
        futures_util::FutureExt::now_or_never(place.given_away()).is_some()
    }

    #[test]
    fn the_connection_that_is_silent_for_longest_gives_way() {
        let places = Places::new(3, 3);
        let used = places.admit(at(1)).unwrap();
        assert!(used.used());
        let silent = [places.admit(at(1)).unwrap(), places.admit(at(2)).unwrap()];
        let new = places.admit(at(3)).unwrap();
        assert!(is_given_away(&silent[0]) && !is_given_away(&silent[1]) && !is_given_away(&used));
        assert!(!silent[0].used(), "too late");
        assert!(new.used());
        assert!(silent[1].used());
        assert_eq!(places.admit(at(4)).unwrap_err(), Full::Door(3));
        drop(silent);
        assert!(places.admit(at(4)).is_ok());
    }

    #[test]
    fn an_address_has_a_limit_of_its_own_and_pushes_out_only_its_own() {
        let places = Places::new(100, 2);
        let other = places.admit(at(9)).unwrap();
        let [first, second] = [places.admit(at(1)).unwrap(), places.admit(at(1)).unwrap()];
        let third = places.admit(at(1)).unwrap();
        assert!(is_given_away(&first) && !is_given_away(&other));
        assert!(second.used() && third.used());
        assert_eq!(places.admit(at(1)).unwrap_err(), Full::Address(2));
        assert!(places.admit(at(2)).is_ok());
    }

    #[test]
    fn this_machine_finds_a_place_when_others_have_taken_theirs() {
        let places = Places::new(80, 80);
        let taken: Vec<_> = (0..70).map(|number| places.admit(at(number)).inspect(|place| _ = place.used())).collect();
        assert!(taken.iter().all(Result::is_ok));
        assert_eq!(places.admit(at(99)).unwrap_err(), Full::Door(70));
        assert!(places.admit([127, 0, 0, 1].into()).is_ok());
    }

    #[tokio::test]
    async fn a_door_is_empty_when_also_those_that_gave_way_have_ended() {
        let places = Places::new(1, 1);
        let old = places.admit(at(1)).unwrap();
        drop(places.admit(at(1)).unwrap());
        assert!(futures_util::FutureExt::now_or_never(places.emptied()).is_none());
        drop(old);
        places.emptied().await;
    }
}
