//! What a route makes of one record.

use std::cell::OnceCell;
use std::fmt::Write;

use bytes::Bytes;

use crate::base::{TimestampMs, TopicName, limits};
use crate::expr::{EvalError, Input, Scope};
use crate::record::{Headers, Record};

use super::compile::{Destination, Route, Topic};
use super::index::Matched;
use super::{CORRELATION, ERROR, HOPS, OUTPUT, PART, ROUTE, RULE, SOURCE};

/// Room for a partition, an offset and what stands between.
const PLACE_DIGITS: usize = 24;

/// What sent a record somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The destination of this number.
    To(usize),
    /// No condition held.
    Otherwise,
    /// The copy of everything.
    Tap,
    /// It could not be routed.
    DeadLetter,
}

/// A record that goes somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What sent it.
    pub rule: Rule,
    /// Where.
    pub topic: TopicName,
    /// Whether the topic was computed, and so counts among those that the route may make.
    pub computed: bool,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Headers,
    /// Its timestamp: that of the record that it was made of.
    pub timestamp: TimestampMs,
}

impl Output {
    /// The bytes of it, about.
    pub fn weight(&self) -> usize {
        let field = |field: &Option<Bytes>| field.as_ref().map_or(0, Bytes::len);
        field(&self.key) + field(&self.value) + self.header_bytes() + 16
    }

    /// The bytes of its headers, about.
    pub fn header_bytes(&self) -> usize {
        self.headers.weight()
    }
}

/// Why a record is a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The destination's name, or the step's.
    pub rule: String,
    /// One line.
    pub message: String,
}

/// What becomes of a record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routed {
    /// What goes where, in an order that is always the same.
    pub outputs: Vec<Output>,
    /// Parts, or whole records, that no condition wanted while there is no `otherwise`.
    pub unwanted: usize,
    /// It is a dead letter.
    pub failure: Option<Failure>,
}

impl Failure {
    /// A failure of the destination or step of this name.
    pub fn new(rule: impl Into<String>, message: impl Into<String>) -> Self {
        Self { rule: rule.into(), message: message.into() }
    }
}

pub(super) fn fail(rule: &str, message: impl Into<String>) -> Failure {
    Failure { rule: rule.to_owned(), message: message.into() }
}

impl Route {
    /// What becomes of a record.
    pub fn route(&self, input: &Input<'_>) -> Routed {
        let mut routed = Routed::default();
        let source = Source::new(self, input);
        let made = source.hops().and_then(|()| self.outputs(&source, &mut routed));
        match made {
            Ok(()) => self.finish(&source, routed),
            Err(failure) => self.refuse(input, failure),
        }
    }

    /// What becomes of a record that cannot be routed, for whatever reason.
    pub fn refuse(&self, input: &Input<'_>, failure: Failure) -> Routed {
        let source = Source::new(self, input);
        let outputs = vec![source.dead_letter(&self.dead_letters, &failure)];
        self.finish(&source, Routed { outputs, unwanted: 0, failure: Some(failure) })
    }

    /// The name of what sent a record.
    pub fn name_of(&self, rule: Rule) -> &str {
        match rule {
            Rule::To(at) => self.to.get(at).map_or("", |destination| &destination.name),
            Rule::Otherwise => "otherwise",
            Rule::Tap => "tap",
            Rule::DeadLetter => "dead_letter",
        }
    }

    fn finish(&self, source: &Source<'_>, mut routed: Routed) -> Routed {
        if let Some(tap) = &self.spec.tap {
            routed.outputs.push(source.copy(tap.clone()));
        }
        for (at, output) in routed.outputs.iter_mut().enumerate().skip(1) {
            output.headers.push(OUTPUT, Some(at.to_string().as_bytes()));
        }
        routed
    }

    fn outputs(&self, source: &Source<'_>, routed: &mut Routed) -> Result<(), Failure> {
        let mut scope = Scope::new(source.input);
        let parts = self.parts(source.input.record)?;
        let Some(parts) = parts else {
            return self.destinations(source, &mut scope, None, routed);
        };
        if parts.is_empty() {
            // There is nothing to split: as if no condition had wanted it.
            return match &self.otherwise {
                Some(otherwise) if otherwise.take.is_none() => {
                    routed.outputs.push(source.copy_of(Rule::Otherwise, self.topic_of_whole(otherwise)?));
                    Ok(())
                }
                _ => {
                    routed.unwanted += 1;
                    Ok(())
                }
            };
        }
        let count = parts.len();
        let mut bytes = 0;
        for (at, part) in parts.into_iter().enumerate() {
            let before = routed.outputs.len();
            scope.set_part(part.as_bytes());
            self.destinations(source, &mut scope, Some((part, at + 1, count)), routed)?;
            bytes += routed.outputs.iter().skip(before).map(Output::weight).sum::<usize>();
            if routed.outputs.len() > limits::ROUTE_OUTPUTS {
                let message = format!("it makes more than {} records, the limit", limits::ROUTE_OUTPUTS);
                return Err(fail("split", message));
            }
            if bytes > limits::ROUTE_OUTPUT_BYTES {
                let message = format!("it makes more than {} bytes of records, the limit", limits::ROUTE_OUTPUT_BYTES);
                return Err(fail("split", message));
            }
        }
        Ok(())
    }

    /// The topic of a destination that gets a whole where parts were expected.
    fn topic_of_whole(&self, destination: &Destination) -> Result<TopicName, Failure> {
        match &destination.topic {
            Topic::Fixed(topic) => Ok(topic.clone()),
            Topic::Computed(_) => Err(fail(&destination.name, "the split found no part to compute a topic of")),
        }
    }

    /// The parts of a record, if it is to be split.
    pub(super) fn parts<'r>(&self, record: &'r Record) -> Result<Option<Vec<&'r str>>, Failure> {
        let Some(split) = &self.split else { return Ok(None) };
        let Some(value) = &record.value else { return Ok(Some(Vec::new())) };
        split.find(value).map(Some).map_err(|message| fail("split", message))
    }

    fn destinations(
        &self,
        source: &Source<'_>,
        scope: &mut Scope<'_>,
        part: Option<(&str, usize, usize)>,
        routed: &mut Routed,
    ) -> Result<(), Failure> {
        let Matched { holds, failed } = self.index.ask(&self.conditions, self.spec.matching, scope);
        if let Some((at, error)) = failed {
            let name = self.to.get(at).map_or("", |destination| &destination.name);
            return Err(fail(name, error.message));
        }
        for at in &holds {
            let Some(destination) = self.to.get(*at) else { continue };
            routed.outputs.push(self.output(Rule::To(*at), destination, source, scope, part)?);
        }
        if holds.is_empty() {
            match &self.otherwise {
                Some(otherwise) => {
                    routed.outputs.push(self.output(Rule::Otherwise, otherwise, source, scope, part)?);
                }
                None => routed.unwanted += 1,
            }
        }
        Ok(())
    }

    fn output(
        &self,
        rule: Rule,
        destination: &Destination,
        source: &Source<'_>,
        scope: &mut Scope<'_>,
        part: Option<(&str, usize, usize)>,
    ) -> Result<Output, Failure> {
        let failed = |what: &str, error: EvalError| fail(&destination.name, format!("{what}: {}", error.message));
        let (topic, computed) = match &destination.topic {
            Topic::Fixed(topic) => (topic.clone(), false),
            Topic::Computed(expression) => {
                let text = scope.text(expression).map_err(|error| failed("topic", error))?;
                let text = text.ok_or_else(|| fail(&destination.name, "topic: it is null"))?;
                let name = TopicName::new(&String::from_utf8_lossy(&text));
                (name.map_err(|error| fail(&destination.name, format!("topic: {error}")))?, true)
            }
        };
        let whole = source.input.record.value.as_ref();
        let document = match (part, whole) {
            (Some((part, ..)), Some(whole)) => Some(whole.slice_ref(part.as_bytes())),
            (None, whole) => whole.cloned(),
            (Some(_), None) => None,
        };
        let value = if let Some(shape) = &destination.shape {
            Some(Bytes::from(scope.document(shape).map_err(|error| failed("shape", error))?))
        } else if let Some(take) = &destination.take {
            let document = document.ok_or_else(|| fail(&destination.name, "take: there is no value"))?;
            Some(taken(take, &document).map_err(|message| fail(&destination.name, format!("take: {message}")))?)
        } else {
            document
        };
        let key = match destination.key.as_ref().or(self.key.as_ref()) {
            Some(expression) => scope.text(expression).map_err(|error| failed("key", error))?.map(Bytes::from),
            None => source.input.record.key.clone(),
        };
        let mut headers = source.headers(part.map(|(_, at, count)| (at, count)));
        for (name, expression) in self.headers.iter().chain(&destination.headers) {
            let text = scope.text(expression).map_err(|error| failed(&format!("header '{name}'"), error))?;
            headers.retain(|header| header.name != name.as_bytes());
            if let Some(text) = text {
                headers.push(name, Some(&text));
            }
        }
        let timestamp = source.input.record.timestamp;
        Ok(Output { rule, topic, computed, key, value, headers, timestamp })
    }
}

/// The one part of a document that a path names.
fn taken(take: &super::Cut, document: &Bytes) -> Result<Bytes, String> {
    let found = take.find(document)?;
    match found.as_slice() {
        [one] => Ok(document.slice_ref(one.as_bytes())),
        [] => Err(format!("'{}' finds nothing", take.source())),
        many => Err(format!("'{}' finds {}, it must find one", take.source(), many.len())),
    }
}

/// A record that is being routed.
pub(super) struct Source<'a> {
    pub(super) input: Input<'a>,
    /// The route's name.
    route: &'a Bytes,
    hops: u32,
    place: OnceCell<Bytes>,
}

impl<'a> Source<'a> {
    pub(super) fn new(route: &'a Route, input: &Input<'a>) -> Self {
        let headers = &input.record.headers;
        let counted = headers.get(HOPS).and_then(|hops| std::str::from_utf8(hops).ok()?.trim().parse().ok());
        let passed = counted.unwrap_or_else(|| u32::from(headers.contains(ROUTE)));
        Self { input: *input, route: &route.name, hops: passed.saturating_add(1), place: OnceCell::new() }
    }

    /// Whether it may go on.
    pub(super) fn hops(&self) -> Result<(), Failure> {
        if self.hops <= limits::ROUTE_HOPS {
            return Ok(());
        }
        let message = format!("it has passed {} routes, the limit: is there a loop?", limits::ROUTE_HOPS);
        Err(fail("hops", message))
    }

    fn place(&self) -> Bytes {
        let Input { topic, partition, offset, .. } = self.input;
        let written = || {
            let mut text = String::with_capacity(topic.len() + PLACE_DIGITS);
            // Writing to a string does not fail.
            let _ = write!(text, "{topic}/{partition}/{offset}");
            Bytes::from(text)
        };
        self.place.get_or_init(written).clone()
    }

    /// The headers of what is made of it: its own, and where it comes from.
    fn headers(&self, part: Option<(usize, usize)>) -> Headers {
        let own = |name: &[u8]| {
            let replaced = [SOURCE, ROUTE, OUTPUT, HOPS, ERROR, RULE].iter().any(|own| name == own.as_bytes());
            replaced || part.is_some() && (name == PART.as_bytes() || name == CORRELATION.as_bytes())
        };
        let record = self.input.record;
        let theirs = record.headers.iter().filter(|header| !own(header.name)).map(|of| (of.name, of.value));
        let part = part.map(|(at, count)| (self.correlation(), format!("{at}/{count}")));
        let hops = (self.hops > 1).then(|| self.hops.to_string());
        let (place, route) = (self.place(), &self.route[..]);
        let ours = [
            part.as_ref().map(|(correlation, _)| (CORRELATION, &correlation[..])),
            part.as_ref().map(|(_, part)| (PART, part.as_bytes())),
            Some((SOURCE, &place[..])),
            Some((ROUTE, route)),
            hops.as_ref().map(|hops| (HOPS, hops.as_bytes())),
        ];
        theirs.chain(ours.into_iter().flatten().map(|(name, value)| (name.as_bytes(), Some(value)))).collect()
    }

    /// What its parts have in common: its own correlation id, or else its place. A part that is split again is a whole of its
    /// own.
    fn correlation(&self) -> Bytes {
        let headers = &self.input.record.headers;
        match (headers.get(CORRELATION), headers.get(PART)) {
            (Some(id), None) => headers.shared(id),
            (Some(id), Some(part)) => {
                let at = part.split(|byte| *byte == b'/').next().unwrap_or_default();
                Bytes::from([id, b".", String::from_utf8_lossy(at).as_bytes()].concat())
            }
            (None, _) => self.place(),
        }
    }

    fn copy(&self, topic: TopicName) -> Output {
        self.copy_of(Rule::Tap, topic)
    }

    fn copy_of(&self, rule: Rule, topic: TopicName) -> Output {
        let Record { key, value, timestamp, .. } = self.input.record.clone();
        Output { rule, topic, computed: false, key, value, headers: self.headers(None), timestamp }
    }

    pub(super) fn dead_letter(&self, topic: &TopicName, failure: &Failure) -> Output {
        let mut output = self.copy_of(Rule::DeadLetter, topic.clone());
        let why = [(RULE, &failure.rule), (ERROR, &failure.message)];
        output.headers.extend(why.map(|(name, value)| (name, Some(value))));
        output
    }
}
