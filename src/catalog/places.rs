//! How far a group has come in each partition, in little memory: a position takes 56 bytes. Only one with metadata or chunks takes
//! more. Most groups are idle and have a few positions without either.

use std::collections::BTreeMap;

use crate::base::{Offset, PartitionId, TimestampMs, TopicId};

use super::progress::{Chunk, Position};

/// Places up to which they are a sorted list; a tree beyond.
const FEW: usize = 64;

/// How far a group has come in a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Its position: for a queue group, the floor.
    pub position: Option<Position>,
    /// What a queue group has done above it, by chunk number.
    pub chunks: BTreeMap<u64, Chunk>,
}

/// A [`Position`] where it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptPosition<'a> {
    /// The next offset that is not done.
    pub offset: Offset,
    /// What the member that committed it wants to remember.
    pub metadata: &'a str,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub time_ms: TimestampMs,
    /// The leader epoch that was committed with it, if one was.
    pub leader_epoch: Option<u32>,
}

impl From<KeptPosition<'_>> for Position {
    fn from(kept: KeptPosition<'_>) -> Self {
        let KeptPosition { offset, metadata, time_ms, leader_epoch } = kept;
        Self { offset, metadata: metadata.to_owned(), time_ms, leader_epoch }
    }
}

/// A topic's incarnation and a partition, in 20 bytes and in their order: the id's words come first, the highest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At([u32; 5]);

impl At {
    fn new((topic, partition): (TopicId, PartitionId)) -> Self {
        let word = |shift: u32| (topic.0 >> shift) as u32;
        Self([word(96), word(64), word(32), word(0), partition])
    }

    fn place(self) -> (TopicId, PartitionId) {
        let [words @ .., partition] = self.0;
        (TopicId(words.into_iter().fold(0, |id, word| id << 32 | u128::from(word))), partition)
    }
}

/// [`Progress`] where it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    offset: Offset,
    time_ms: TimestampMs,
    leader_epoch: Option<u32>,
    /// `None` if there is a position, and nothing beside it.
    more: Option<Box<More>>,
}

/// What few places have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct More {
    placed: bool,
    metadata: Box<str>,
    chunks: BTreeMap<u64, Chunk>,
}

impl Kept {
    fn nothing() -> Self {
        Self { offset: 0, time_ms: 0, leader_epoch: None, more: Some(Box::default()) }
    }

    /// The position, if there is one.
    pub(super) fn position(&self) -> Option<KeptPosition<'_>> {
        let metadata = match &self.more {
            None => "",
            Some(more) if more.placed => &more.metadata,
            Some(_) => return None,
        };
        Some(KeptPosition { offset: self.offset, metadata, time_ms: self.time_ms, leader_epoch: self.leader_epoch })
    }

    /// Chunks by number.
    pub(super) fn chunks(&self) -> impl Iterator<Item = (&u64, &Chunk)> {
        self.more.iter().flat_map(|more| &more.chunks)
    }

    /// All of it, for whoever goes on from there.
    pub(super) fn progress(&self) -> Progress {
        let chunks = self.more.as_ref().map(|more| more.chunks.clone()).unwrap_or_default();
        Progress { position: self.position().map(Position::from), chunks }
    }

    fn set_position(&mut self, position: Option<Position>) {
        let placed = position.is_some();
        let Position { offset, metadata, time_ms, leader_epoch } =
            position.unwrap_or(Position { offset: 0, metadata: String::new(), time_ms: 0, leader_epoch: None });
        (self.offset, self.time_ms, self.leader_epoch) = (offset, time_ms, leader_epoch);
        if self.more.is_some() || !placed || !metadata.is_empty() {
            let more = self.more.get_or_insert_default();
            (more.placed, more.metadata) = (placed, metadata.into_boxed_str());
        }
        self.tidy();
    }

    fn set_chunk(&mut self, number: u64, chunk: Option<Chunk>) {
        let more = self.more.get_or_insert_with(|| Box::new(More { placed: true, ..More::default() }));
        match chunk {
            Some(chunk) => drop(more.chunks.insert(number, chunk)),
            None => drop(more.chunks.remove(&number)),
        }
        self.tidy();
    }

    fn tidy(&mut self) {
        if self.more.as_ref().is_some_and(|more| more.placed && more.metadata.is_empty() && more.chunks.is_empty()) {
            self.more = None;
        }
    }

    fn is_nothing(&self) -> bool {
        self.more.as_ref().is_some_and(|more| !more.placed && more.chunks.is_empty())
    }
}

/// Progress by topic and partition, in their order.
#[derive(Clone)]
pub(super) enum Places {
    Few(Vec<(At, Kept)>),
    #[expect(clippy::box_collection, reason = "few groups have so many, and all have room for it")]
    Many(Box<BTreeMap<At, Kept>>),
}

impl Default for Places {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl PartialEq for Places {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Places {}

impl std::fmt::Debug for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Places {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(list) => list.is_empty(),
            Self::Many(tree) => tree.is_empty(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = ((TopicId, PartitionId), &Kept)> {
        let (few, many) = match self {
            Self::Few(list) => (list.as_slice(), None),
            Self::Many(tree) => (Default::default(), Some(tree.iter())),
        };
        let few = few.iter().map(|(at, kept)| (at, kept));
        few.chain(many.into_iter().flatten()).map(|(at, kept)| (at.place(), kept))
    }

    pub(super) fn get(&self, at: (TopicId, PartitionId)) -> Option<&Kept> {
        let at = At::new(at);
        match self {
            Self::Few(list) => list.binary_search_by_key(&at, |(at, _)| *at).ok().map(|found| &list[found].1),
            Self::Many(tree) => tree.get(&at),
        }
    }

    pub(super) fn set_position(&mut self, at: (TopicId, PartitionId), position: Option<Position>) {
        self.change(at, |kept| kept.set_position(position));
    }

    pub(super) fn set_chunk(&mut self, at: (TopicId, PartitionId), number: u64, chunk: Option<Chunk>) {
        self.change(at, |kept| kept.set_chunk(number, chunk));
    }

    /// Forgets all of a topic.
    pub(super) fn forget_topic(&mut self, id: TopicId) {
        let stays = |at: &At| at.place().0 != id;
        match self {
            Self::Few(list) => list.retain(|(at, _)| stays(at)),
            Self::Many(tree) => tree.retain(|at, _| stays(at)),
        }
        self.fit();
    }

    fn change(&mut self, at: (TopicId, PartitionId), change: impl FnOnce(&mut Kept)) {
        let at = At::new(at);
        match self {
            Self::Few(list) => match list.binary_search_by_key(&at, |(at, _)| *at) {
                Ok(found) => {
                    change(&mut list[found].1);
                    if list[found].1.is_nothing() {
                        list.remove(found);
                    }
                }
                Err(found) => {
                    let mut kept = Kept::nothing();
                    change(&mut kept);
                    if !kept.is_nothing() {
                        if list.len() == list.capacity() {
                            // Most lists grow to some length and stay there.
                            list.reserve_exact(1 + list.len() / 8);
                        }
                        list.insert(found, (at, kept));
                    }
                }
            },
            Self::Many(tree) => {
                let kept = tree.entry(at).or_insert_with(Kept::nothing);
                change(kept);
                if kept.is_nothing() {
                    tree.remove(&at);
                }
            }
        }
        self.fit();
    }

    /// Takes the form, and no more room than a list needs.
    fn fit(&mut self) {
        match self {
            Self::Few(list) if list.len() > FEW => {
                *self = Self::Many(Box::new(std::mem::take(list).into_iter().collect()));
            }
            Self::Many(tree) if tree.len() < FEW / 2 => {
                *self = Self::Few(std::mem::take(&mut **tree).into_iter().collect())
            }
            Self::Few(list) if list.capacity() > 2 * list.len() + 1 => list.shrink_to_fit(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By a seed, the places of one group against a plain map.
    #[test]
    fn places_hold_what_a_map_would_in_both_forms() {
        for seed in 0..8_u64 {
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut next = |below: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % below
            };
            let (mut places, mut model) = (Places::default(), BTreeMap::<(TopicId, PartitionId), Progress>::new());
            // Few places, then many, then few.
            for step in 0..1_200 {
                let grows = step < 600;
                let topic = TopicId(u128::from(next(3)) << 96 | u128::from(next(3)) << 32 | u128::from(next(2)));
                let at = (topic, next(if seed % 2 == 0 { 40 } else { 4 }) as PartitionId);
                let there = next(4) < if grows { 3 } else { 1 };
                if next(3) > 0 {
                    let metadata = if next(3) == 0 { "m".repeat(next(5) as usize) } else { String::new() };
                    let position = Position {
                        offset: next(9),
                        metadata,
                        time_ms: next(9) as i64 - 4,
                        leader_epoch: (next(2) == 0).then_some(3),
                    };
                    let position = there.then_some(position);
                    places.set_position(at, position.clone());
                    model.entry(at).or_default().position = position;
                } else {
                    let number = next(3);
                    let chunk = there.then(|| Chunk { done: vec![(number as u16, 1)], failed: Vec::new() });
                    places.set_chunk(at, number, chunk.clone());
                    let chunks = &mut model.entry(at).or_default().chunks;
                    match chunk {
                        Some(chunk) => drop(chunks.insert(number, chunk)),
                        None => drop(chunks.remove(&number)),
                    }
                }
                if step % 300 == 299 {
                    places.forget_topic(topic);
                    model.retain(|(of, _), _| *of != topic);
                }
                model.retain(|_, progress| *progress != Progress::default());
                assert_eq!(places.get(at).map(Kept::progress), model.get(&at).cloned(), "seed {seed}, step {step}");
                assert_eq!(places.is_empty(), model.is_empty());
                if step % 20 > 0 {
                    continue;
                }
                let held: Vec<_> = places.iter().map(|(at, kept)| (at, kept.progress())).collect();
                let expected: Vec<_> = model.iter().map(|(at, progress)| (*at, progress.clone())).collect();
                assert_eq!(held, expected, "seed {seed}, step {step}");
            }
        }
    }

    #[test]
    fn a_plain_position_takes_56_bytes() {
        assert_eq!(size_of::<(At, Kept)>(), 56);
        let mut places = Places::default();
        for partition in 0..8 {
            places.set_position(
                (TopicId(7), partition),
                Some(Position { offset: 1, metadata: String::new(), time_ms: 2, leader_epoch: None }),
            );
        }
        let Places::Few(list) = &places else { panic!("a few are a list") };
        assert!(list.capacity() <= 9 && list.iter().all(|(_, kept)| kept.more.is_none()));
    }
}
