//! What is kept of a round, and going on with it.

use super::*;
use crate::catalog::ClassicEntry;

/// The wall clock of these tests is ahead of the monotonic one by this.
const WALL: i64 = 1_700_000_000_000;

fn wall(now: Ms) -> i64 {
    WALL + i64::try_from(now).unwrap()
}

impl Group {
    /// The same group after a restart in which its clock began anew.
    fn restarted(&self, entry: ClassicEntry) -> Self {
        let later = wall(self.now) + 5_000;
        Self { machine: Machine::load(entry, 10, later), now: 10, tickets: 0, answers: BTreeMap::new() }
    }

    fn entry(&self) -> ClassicEntry {
        self.machine.entry(self.now, wall(self.now))
    }
}

/// A stable group of a member that fills a place and one that does not.
fn agreed() -> Group {
    let mut group = Group::new();
    let tickets = [group.join(place("one", ""), "a"), group.join(wish(""), "b")];
    group.pass(3 * INITIAL_DELAY_MS);
    let _ = tickets.map(|ticket| group.joined(ticket));
    assert!(!group.machine.take_changed(), "nobody has been told a share");
    group.sync("b", 1, &[]);
    assert!(!group.machine.take_changed());
    group.sync("a", 1, &[("a", "0"), ("b", "1")]);
    group.answers.clear();
    assert!(group.machine.take_changed() && !group.machine.take_changed());
    group
}

#[test]
fn members_go_on_after_a_restart_with_what_they_had() {
    let mut group = agreed().restarted(agreed().entry());
    assert_eq!((group.machine.state_name(), group.machine.generation), ("Stable", 1));
    assert_eq!(group.beat("b", 1), Ok(()));
    assert_eq!(group.beat("b", 2), Err(ClassicError::IllegalGeneration));
    let one = ClassicVoice { member: "a", instance: Some("one"), generation: 1 };
    assert_eq!(group.machine.beat(one, group.now), Ok(()));
    assert_eq!(group.machine.may_commit(one, group.now), Ok(()));
    let share = group.sync("b", 1, &[]);
    assert_eq!(&group.share(share)[..], b"1");
    // Who did not hear that it had its share asks again, and hears the same.
    let again = group.join(wish("b"), "unused");
    let joined = group.joined(again);
    assert_eq!((joined.generation, &*joined.leader, &*joined.protocol), (1, "a", "range"));
    // Whoever comes to the place goes on in it.
    let new = group.join(place("one", ""), "a2");
    assert_eq!((group.joined(new).generation, group.machine.state_name()), (1, "Stable"));
    assert!(group.machine.take_changed(), "its new id is to be kept");
    let share = group.sync("a2", 1, &[]);
    assert_eq!(&group.share(share)[..], b"0");
    // And a new member begins the next round.
    let new = group.join(wish(""), "c");
    let _rest = [group.join(place("one", "a2"), ""), group.join(wish("b"), "")];
    assert_eq!(group.joined(new).generation, 2);
}

#[test]
fn members_have_a_session_to_be_heard_of_after_a_restart() {
    let mut group = agreed().restarted(agreed().entry());
    assert!(group.pass(SESSION - 1).is_empty());
    assert_eq!(group.beat("b", 1), Ok(()));
    assert_eq!(group.pass(2), ["a"], "the other one has not come back");
    assert_eq!(group.machine.state_name(), "PreparingRebalance");
    group.pass(SESSION + ROUND);
    assert!(group.machine.is_over());
}

#[test]
fn what_is_kept_is_the_same_when_it_is_kept_again() {
    let group = agreed();
    let entry = group.entry();
    let again = group.restarted(entry.clone());
    let joined = |entry: &ClassicEntry| entry.members.iter().map(|member| member.joined_ms).collect::<Vec<_>>();
    assert_eq!(joined(&entry), [wall(1_000); 2]);
    // Ten seconds after the server's clock began it is five seconds later than it was.
    let later = again.machine.entry(10, wall(group.now) + 5_000);
    assert_eq!(later, entry);
    let bytes = |machine: &Machine| machine.bytes_of().values().sum::<usize>();
    assert_eq!(bytes(&again.machine) + "consumer".len() * 2, bytes(&group.machine));
}
