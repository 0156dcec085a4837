//! Who would miss a topic: groups and pushes that read it, routes that read it or write to it.

use std::collections::HashSet;

use crate::base::{GroupName, TopicName};
use crate::catalog::GroupKind;
use crate::route::{DestinationSpec, RouteSpec, Target};

use super::Broker;
use super::broker::lock;

/// Dependents that are named at most.
pub const DEPENDENTS: usize = 1_000;

/// What depends on a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DependentKind {
    /// A group.
    Group,
    /// A push subscription.
    Push,
    /// A route.
    Route,
}

/// How it depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DependentHow {
    /// It reads its records.
    Reads,
    /// It writes records to it.
    Writes,
    /// Its dead letters are there.
    DeadLetters,
}

/// Who would miss a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dependent {
    /// What it is.
    pub kind: DependentKind,
    /// Its name.
    pub name: String,
    /// How.
    pub how: DependentHow,
}

impl Broker {
    /// Who would miss a topic, by kind and name, and whether there are more than are named. Members of Kafka's classic groups say to
    /// nobody but their leader what they read: they are not among them. Blocks.
    pub fn dependents(&self, topic: &TopicName) -> (Vec<Dependent>, bool) {
        let pushes: HashSet<GroupName> = self.pushes().into_iter().map(|push| push.name).collect();
        let mut found = Vec::new();
        for entry in lock(&self.catalog).groups().filter(|entry| !entry.name.is_internal()) {
            if found.len() > DEPENDENTS {
                break;
            }
            let kind = if pushes.contains(&entry.name) { DependentKind::Push } else { DependentKind::Group };
            let mut add = |how| found.push(Dependent { kind, name: entry.name.to_string(), how });
            if entry.topics.iter().any(|pattern| pattern.matches(topic)) {
                add(DependentHow::Reads);
            }
            if let GroupKind::Queue(rules) = &entry.kind
                && super::queue::dead_letters(&entry.name, rules).is_ok_and(|dead| dead == *topic)
            {
                add(DependentHow::DeadLetters);
            }
        }
        for spec in self.route_specs() {
            let mut add = |how| found.push(Dependent { kind: DependentKind::Route, name: spec.name.to_string(), how });
            if spec.from.iter().any(|pattern| pattern.matches(topic)) {
                add(DependentHow::Reads);
            }
            if writes(&spec, topic) {
                add(DependentHow::Writes);
            }
            if spec.dead_letters() == *topic {
                add(DependentHow::DeadLetters);
            }
        }
        found.sort();
        let more = found.len() > DEPENDENTS;
        found.truncate(DEPENDENTS);
        (found, more)
    }
}

/// Whether a route names a topic as a destination. What its expressions say is not known before it is evaluated.
fn writes(spec: &RouteSpec, topic: &TopicName) -> bool {
    let is_it = |to: &DestinationSpec| matches!(&to.topic, Target::Fixed(name) if name == topic);
    spec.tap.as_ref() == Some(topic) || spec.to.iter().chain(&spec.otherwise).any(is_it)
}
