//! What a request names again. An answer says of each thing what there is of it, so a request of a few megabytes that named
//! one thing a hundred thousand times would cost a hundred thousand answers. No client library names anything twice.

use std::collections::HashSet;
use std::hash::Hash;

/// Leaves each thing where it is named first, so that it is answered once.
pub fn once<T, K: Hash + Eq>(named: &mut Vec<T>, key: impl Fn(&T) -> K) {
    let mut seen = HashSet::with_capacity(named.len());
    named.retain(|one| seen.insert(key(one)));
}

/// The same for partitions: topics of a request with the numbers that it names of each.
pub fn once_each<T, P, K: Hash + Eq + Clone>(
    topics: &mut [T],
    key: impl Fn(&T) -> K,
    partitions: impl Fn(&mut T) -> &mut Vec<P>,
    number: impl Fn(&P) -> i32,
) {
    let mut seen = HashSet::new();
    for topic in topics {
        let key = key(topic);
        partitions(topic).retain(|partition| seen.insert((key.clone(), number(partition))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_again_is_left_out_where_it_is_named_again() {
        let mut named = vec!["b", "a", "b", "c", "a"];
        once(&mut named, |name| *name);
        assert_eq!(named, ["b", "a", "c"]);
        let mut topics = vec![("t", vec![1, 2, 1]), ("u", vec![1]), ("t", vec![2, 3])];
        once_each(&mut topics, |topic| topic.0, |topic| &mut topic.1, |number| *number);
        assert_eq!(topics, [("t", vec![1, 2]), ("u", vec![1]), ("t", vec![3])]);
    }
}
