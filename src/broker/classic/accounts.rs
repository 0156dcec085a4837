//! Bytes of what the members of all classic groups say and are assigned, by client.

use std::collections::HashMap;

use crate::base::limits;

use super::super::clients::{Client, share_of};

/// The sums.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    all: usize,
    of: HashMap<Client, usize>,
}

/// What there is no room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoRoom {
    /// Whose members, in words.
    pub(super) who: String,
    pub(super) held: usize,
    pub(super) limit: usize,
}

impl Accounts {
    /// Whether a client may have so many bytes more.
    pub(super) fn admit(&self, client: Client, more: usize) -> Result<(), NoRoom> {
        let (limit, share) = (limits::CLASSIC_BYTES, share_of(limits::CLASSIC_BYTES));
        let own = self.of.get(&client).copied().unwrap_or(0);
        if more > 0 && client != Client::Server && own + more > share {
            return Err(NoRoom { who: format!("the members of {client}"), held: own, limit: share });
        }
        if more > 0 && self.all + more > limit {
            return Err(NoRoom { who: "the members of all groups".to_owned(), held: self.all, limit });
        }
        Ok(())
    }

    /// The members of a group have so many bytes by client, and had so many before.
    pub(super) fn change(&mut self, before: &HashMap<Client, usize>, now: &HashMap<Client, usize>) {
        for (client, bytes) in before {
            self.all -= bytes;
            if let Some(of) = self.of.get_mut(client) {
                *of -= bytes;
            }
        }
        for (client, bytes) in now {
            self.all += bytes;
            *self.of.entry(*client).or_default() += bytes;
        }
        for client in before.keys().filter(|client| !now.contains_key(client)) {
            if self.of.get(client) == Some(&0) {
                self.of.remove(client);
            }
        }
    }

    /// The clients that have most, most first.
    pub(super) fn top(&self, clients: usize) -> Vec<(Client, usize)> {
        let mut all: Vec<_> = self.of.iter().map(|(client, bytes)| (*bytes, *client)).collect();
        all.sort_unstable_by(|one, other| other.cmp(one));
        all.truncate(clients);
        all.into_iter().map(|(bytes, client)| (client, bytes)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_has_half_and_nothing_of_those_who_have_gone_is_left() {
        let (one, two) = (Client::of([10, 0, 0, 1].into()), Client::of([10, 0, 0, 2].into()));
        let half = limits::CLASSIC_BYTES / 2;
        let mut accounts = Accounts::default();
        let full = HashMap::from([(one, half)]);
        accounts.change(&HashMap::new(), &full);
        let refused = accounts.admit(one, 1).unwrap_err();
        assert_eq!((refused.who.as_str(), refused.held, refused.limit), ("the members of 10.0.0.1", half, half));
        assert!(accounts.admit(one, 0).is_ok() && accounts.admit(two, half).is_ok());
        accounts.change(&HashMap::new(), &HashMap::from([(two, half)]));
        assert_eq!(accounts.admit(Client::of([10, 0, 0, 3].into()), 1).unwrap_err().limit, limits::CLASSIC_BYTES);
        assert_eq!(accounts.top(1).len(), 1);
        accounts.change(&full, &HashMap::new());
        accounts.change(&HashMap::from([(two, half)]), &HashMap::from([(two, 0)]));
        assert_eq!((accounts.all, accounts.of.contains_key(&one)), (0, false));
        assert!(accounts.admit(one, half).is_ok());
    }
}
