//! Shares of a budget: by door and by address. The key is one type, so that a principal can become a [`Peer`] as well.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::Budget;

/// Bits of an IPv6 address that stand for one peer: a site gets at least a /64, and may take any address in it.
const NETWORK_BITS: u32 = 64;

/// The door through which a connection came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gate {
    /// The native listener.
    Native,
    /// The Kafka listener.
    Kafka,
    /// The HTTP listener.
    Http,
    /// Calls that the server makes.
    Calls,
}

/// For whom bytes are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A client, by its address; of an IPv6 address, by its network.
    Address(IpAddr),
    /// The server's own work.
    Server,
}

/// A door and a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The door.
    pub gate: Gate,
    /// The peer.
    pub peer: Peer,
}

impl Peer {
    /// The peer at an address.
    pub fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) & (u128::MAX << (128 - NETWORK_BITS));
                IpAddr::V6(Ipv6Addr::from(network))
            }
            address => address,
        })
    }
}

impl Holder {
    /// A client behind a door.
    pub fn client(gate: Gate, address: IpAddr) -> Self {
        Self { gate, peer: Peer::at(address) }
    }

    /// The server's own calls.
    pub fn calls() -> Self {
        Self { gate: Gate::Calls, peer: Peer::Server }
    }
}

/// What a door may hold in grants that are not small, once it is used by more than one account: seven eighths, so that the
/// other doors find room for a large message while one door is full.
pub fn of_gate(total: usize) -> usize {
    Budget::largest(total) / 8 * 7
}

/// What an address may hold in grants that are not small, once it is used by more than one account. Three quarters: many
/// honest clients share an address (NAT, a proxy, one machine with all services), and eight of their batches of the
/// largest usual size (8 MiB) fit into 72 MiB of the usual 128.
pub fn of_address(total: usize) -> usize {
    Budget::largest(total) / 4 * 3
}

/// What a door or an address may hold with small grants included.
pub fn of_all(total: usize) -> usize {
    total / 8 * 7
}

/// Bytes held together.
#[derive(Debug, Default)]
pub struct Share {
    pub(super) held: AtomicUsize,
}

#[derive(Debug, Default)]
pub struct Shares {
    gates: HashMap<Gate, (Arc<Share>, usize)>,
    peers: HashMap<Peer, (Arc<Share>, usize)>,
}

impl Shares {
    /// Counts one more account.
    pub fn join(&mut self, holder: Holder) -> (Arc<Share>, Arc<Share>) {
        let gate = self.gates.entry(holder.gate).or_default();
        gate.1 += 1;
        let peer = self.peers.entry(holder.peer).or_default();
        peer.1 += 1;
        (gate.0.clone(), peer.0.clone())
    }

    /// Counts one less.
    pub fn leave(&mut self, holder: Holder) {
        if let Some((_, accounts)) = self.gates.get_mut(&holder.gate) {
            *accounts -= 1;
        }
        if let Some((_, accounts)) = self.peers.get_mut(&holder.peer) {
            *accounts -= 1;
            if *accounts == 0 {
                self.peers.remove(&holder.peer);
            }
        }
    }
}
