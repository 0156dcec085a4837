//! Partitions in stretches: of each topic the first to one member, the next to the next. Pure.

use std::collections::BTreeMap;

use super::share_out::{At, Wanted};

/// Shares the topics' partitions out in stretches, at most `most` partitions to each member. `places` says of each member
/// where it comes in the order.
pub(super) fn range_out(places: &[usize], most: usize, topics: &[Wanted]) -> BTreeMap<At, usize> {
    let mut out = BTreeMap::new();
    let mut loads = vec![0; places.len()];
    for topic in topics {
        let mut members: Vec<usize> = topic.by.iter().copied().collect();
        members.sort_by_key(|member| places[*member]);
        let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
        if count == 0 {
            continue;
        }
        let (each, more) = (topic.partitions / count, topic.partitions % count);
        let mut next = 0;
        for (at, member) in (0..count).zip(members) {
            let stretch = each + u32::from(at < more);
            for partition in next..next + stretch {
                if loads[member] < most {
                    loads[member] += 1;
                    out.insert((topic.id, partition), member);
                }
            }
            next += stretch;
        }
    }
    out
}
