//! Who is to have which partition: as evenly as interests allow, and with as few moves as that takes. Pure.
//!
//! Every partition goes to somebody who wants its topic. No single move makes it more even: whoever has a partition has
//! at most one more than any other who might have it. What a member was to have it keeps, unless it has too many.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::base::{PartitionId, TopicId};

/// Topics that are looked at for one move.
const LOOKED_AT: usize = 64;

/// A partition.
pub(crate) type At = (TopicId, PartitionId);

/// A topic that somebody wants.
pub(crate) struct Wanted {
    pub(crate) id: TopicId,
    pub(crate) partitions: u32,
    /// The members that want it, by number.
    pub(crate) by: Rc<BTreeSet<usize>>,
}

struct Shares {
    /// What each member is to have, by topic (its place in the list).
    of: Vec<BTreeMap<usize, BTreeSet<PartitionId>>>,
    loads: Vec<usize>,
    /// Members by their load, the least first.
    order: BTreeSet<(usize, usize)>,
    most: usize,
}

impl Shares {
    fn add(&mut self, member: usize, topic: usize, partition: PartitionId) {
        self.of[member].entry(topic).or_default().insert(partition);
        self.weigh(member, self.loads[member] + 1);
    }

    fn remove(&mut self, member: usize, topic: usize, partition: PartitionId) {
        if let Some(partitions) = self.of[member].get_mut(&topic) {
            partitions.remove(&partition);
            if partitions.is_empty() {
                self.of[member].remove(&topic);
            }
        }
        self.weigh(member, self.loads[member] - 1);
    }

    fn weigh(&mut self, member: usize, load: usize) {
        self.order.remove(&(self.loads[member], member));
        self.loads[member] = load;
        self.order.insert((load, member));
    }

    /// Who has the least of those who want it, if he may have more.
    fn least(&self, wanted: &Wanted) -> Option<usize> {
        let (load, member) = match wanted.by.len() {
            0 => return None,
            few if few * 4 < self.loads.len() => wanted.by.iter().map(|member| (self.loads[*member], *member)).min()?,
            _ => *self.order.iter().find(|(_, member)| wanted.by.contains(member))?,
        };
        (load < self.most).then_some(member)
    }
}

/// Shares the topics' partitions out among `members` members, at most `most` to each. `before` says who was to have a
/// partition last time, `held` who has it at present.
pub(crate) fn share_out(
    members: usize,
    most: usize,
    topics: &[Wanted],
    before: impl Fn(At) -> Option<usize>,
    held: impl Fn(At) -> Option<usize>,
) -> BTreeMap<At, usize> {
    let mut shares = Shares {
        of: vec![BTreeMap::new(); members],
        loads: vec![0; members],
        order: (0..members).map(|member| (0, member)).collect(),
        most,
    };
    let mut free = Vec::new();
    for (topic, wanted) in topics.iter().enumerate() {
        for partition in 0..wanted.partitions {
            let at = (wanted.id, partition);
            let keeper = before(at).filter(|member| wanted.by.contains(member) && shares.loads[*member] < most);
            match keeper {
                Some(member) => shares.add(member, topic, partition),
                None => free.push((topic, partition)),
            }
        }
    }
    for (topic, partition) in free {
        // Who has it needs no handing over, if that is as even.
        let wanted = &topics[topic];
        let Some(least) = shares.least(wanted) else { continue };
        let holder = held((wanted.id, partition)).filter(|member| wanted.by.contains(member));
        let holder = holder.filter(|member| shares.loads[*member] == shares.loads[least]);
        shares.add(holder.unwrap_or(least), topic, partition);
    }
    while let Some((from, to, topic, partition)) = a_move(&shares, topics, &held) {
        shares.remove(from, topic, partition);
        shares.add(to, topic, partition);
    }
    let mut out = BTreeMap::new();
    for (member, share) in shares.of.into_iter().enumerate() {
        for (topic, partitions) in share {
            out.extend(partitions.into_iter().map(|partition| ((topics[topic].id, partition), member)));
        }
    }
    out
}

/// A move that makes it more even: from whom, to whom, and what.
fn a_move(
    shares: &Shares,
    topics: &[Wanted],
    held: &impl Fn(At) -> Option<usize>,
) -> Option<(usize, usize, usize, PartitionId)> {
    let (least, _) = *shares.order.first()?;
    for &(load, from) in shares.order.iter().rev() {
        if load < least + 2 {
            return None;
        }
        // Of the topic that it has most of, so that each topic is spread too; with very many topics, of some of them.
        let able = shares.of[from].iter().filter_map(|(&topic, partitions)| {
            let to = shares.least(&topics[topic]).filter(|to| shares.loads[*to] + 2 <= load)?;
            Some((to, topic, partitions))
        });
        let Some((to, topic, partitions)) =
            able.take(LOOKED_AT).min_by_key(|(_, _, partitions)| std::cmp::Reverse(partitions.len()))
        else {
            continue;
        };
        // What it does not have yet is cheaper to give than what it works on.
        let cost = |partition: &&PartitionId| match held((topics[topic].id, **partition)) {
            Some(holder) if holder == to => 0,
            Some(holder) if holder == from => 2,
            _ => 1,
        };
        let partition = *partitions.iter().rev().min_by_key(cost)?;
        return Some((from, to, topic, partition));
    }
    None
}
