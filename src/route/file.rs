//! Reading a file of routes: every mistake in it with its place, and nothing unless there is none.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::base::{Millis, TopicName, TopicPattern, limits};
use crate::expr::{Expression, Variables};

use super::cut::Cut;
use super::loops;
use super::spec::{AggregateSpec, DestinationSpec, Matching, RouteSpec, Start, Target};

type Spanned<T> = toml::Spanned<T>;

/// Something that is wrong in a file of routes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
    /// One line.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

/// Reads a file of routes.
///
/// # Errors
/// Every mistake, in the order of the places.
pub fn read(text: &str) -> Result<Vec<RouteSpec>, Vec<Mistake>> {
    let mut reader = Reader { text, mistakes: Vec::new() };
    if text.len() > limits::ROUTE_FILE_BYTES {
        let message = format!("the file has {} bytes; the limit is {}", text.len(), limits::ROUTE_FILE_BYTES);
        return Err(vec![Mistake { line: 1, column: 1, message }]);
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        reader.mistake(at, message);
    }
    let routes = if reader.mistakes.is_empty() { reader.routes(document.get_ref()) } else { Vec::new() };
    let Reader { mut mistakes, .. } = reader;
    if mistakes.is_empty() {
        return Ok(routes);
    }
    mistakes.sort();
    mistakes.dedup();
    Err(mistakes)
}

struct Reader<'t> {
    text: &'t str,
    mistakes: Vec<Mistake>,
}

/// A table of the file, and whose it is in messages.
struct Table<'d, 't> {
    entries: &'d DeTable<'t>,
    at: usize,
    whose: String,
}

impl<'d, 't> Table<'d, 't> {
    fn get(&self, name: &str) -> Option<&'d Spanned<DeValue<'t>>> {
        self.entries.iter().find(|(key, _)| key.get_ref().as_ref() == name).map(|(_, value)| value)
    }
}

const ROUTE_KEYS: &[&str] = &[
    "name",
    "from",
    "start",
    "match",
    "split",
    "aggregate",
    "key",
    "headers",
    "tap",
    "dead_letter",
    "create_topics",
    "max_topics",
    "to",
    "otherwise",
];
const DESTINATION_KEYS: &[&str] = &["name", "when", "topic", "take", "shape", "key", "headers"];

impl<'t> Reader<'t> {
    fn mistake(&mut self, at: usize, message: impl Into<String>) {
        let before = self.text.get(..at.min(self.text.len())).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        self.mistakes.push(Mistake { line: line as u32, column: column as u32, message: message.into() });
    }

    fn routes(&mut self, document: &DeTable<'t>) -> Vec<RouteSpec> {
        let mut routes: Vec<(RouteSpec, usize)> = Vec::new();
        let mut any = false;
        for (key, value) in document.iter() {
            if key.get_ref().as_ref() != "route" {
                self.mistake(key.span().start, format!("unknown key '{}'; a file has [[route]] only", key.get_ref()));
                continue;
            }
            let Some(tables) = value.get_ref().as_array() else {
                self.mistake(value.span().start, "'route' must be an array of tables, each begun by [[route]]");
                continue;
            };
            any = true;
            if tables.len() > limits::ROUTES {
                let message = format!("{} routes; the limit is {}", tables.len(), limits::ROUTES);
                self.mistake(value.span().start, message);
                continue;
            }
            for (number, table) in tables.iter().enumerate() {
                let at = table.span().start;
                let Some(entries) = table.get_ref().as_table() else {
                    self.mistake(at, "a route must be a table");
                    continue;
                };
                let before = self.mistakes.len();
                let route = self.route(&Table { entries, at, whose: format!("route {}", number + 1) });
                if let Some(route) = route.filter(|_| self.mistakes.len() == before) {
                    if routes.iter().any(|(other, _)| other.name == route.name) {
                        self.mistake(at, format!("there are two routes '{}'", route.name));
                    }
                    routes.push((route, at));
                }
            }
        }
        if !any && self.mistakes.is_empty() {
            self.mistake(0, "there is no [[route]] in the file");
        }
        let specs: Vec<RouteSpec> = routes.iter().map(|(route, _)| route.clone()).collect();
        if let Some(found) = loops::find(&specs) {
            let at = routes.iter().find(|(route, _)| route.name == found.route).map_or(0, |(_, at)| *at);
            self.mistake(at, found.to_string());
        }
        specs
    }

    fn route(&mut self, table: &Table<'_, 't>) -> Option<RouteSpec> {
        let name = self.name(table, "name");
        let whose = name.as_ref().map_or_else(|| table.whose.clone(), |name| format!("route '{name}'"));
        let table = &Table { entries: table.entries, at: table.at, whose };
        self.known(table, ROUTE_KEYS);
        if name.is_none() && table.get("name").is_none() {
            self.mistake(table.at, format!("{} has no name", table.whose));
        }
        if let Some(name) = &name
            && let Err(error) = TopicName::new(&format!("dead-letter.{name}"))
        {
            self.mistake(table.at, format!("{}: its dead letters have no topic: {error}", table.whose));
        }
        let from = self.patterns(table);
        let start = self.one_of(table, "start", &[("beginning", Start::Beginning), ("end", Start::End)]);
        let matching = self.one_of(table, "match", &[("first", Matching::First), ("all", Matching::All)]);
        let split = self.path(table, "split", true);
        let aggregate = self.aggregate(table);
        if split.is_some() && aggregate.is_some() {
            self.mistake(table.at, format!("{} has 'split' and 'aggregate'; make it two routes", table.whose));
        }
        let variables = if table.get("split").is_some() { Variables::RecordAndPart } else { Variables::Record };
        let key = self.expression(table, "key", variables);
        let headers = self.headers(table, variables);
        let to = self.destinations(table, variables);
        let otherwise = self.otherwise(table, variables);
        let tap = self.name(table, "tap");
        if to.is_empty() && otherwise.is_none() && table.get("to").is_none() && table.get("otherwise").is_none() {
            self.mistake(table.at, format!("{} goes nowhere: it needs [[route.to]] or 'otherwise'", table.whose));
        }
        Some(RouteSpec {
            name: name?,
            from,
            start: start.unwrap_or_default(),
            matching: matching.unwrap_or_default(),
            split,
            aggregate,
            key,
            tap,
            dead_letter: self.name(table, "dead_letter"),
            create_topics: self.boolean(table, "create_topics").unwrap_or(true),
            max_topics: self.number(table, "max_topics", 0..=10_000).unwrap_or(limits::ROUTE_TOPICS),
            headers,
            to,
            otherwise,
        })
    }

    fn destinations(&mut self, table: &Table<'_, 't>, variables: Variables) -> Vec<DestinationSpec> {
        let Some(value) = table.get("to") else { return Vec::new() };
        let Some(tables) = value.get_ref().as_array() else {
            self.mistake(
                value.span().start,
                format!("{}: 'to' must be tables, each begun by [[route.to]]", table.whose),
            );
            return Vec::new();
        };
        if tables.len() > limits::ROUTE_DESTINATIONS {
            let (count, limit) = (tables.len(), limits::ROUTE_DESTINATIONS);
            self.mistake(value.span().start, format!("{}: {count} destinations; the limit is {limit}", table.whose));
            return Vec::new();
        }
        let mut found: Vec<DestinationSpec> = Vec::new();
        for one in tables.iter() {
            let at = one.span().start;
            let Some(entries) = one.get_ref().as_table() else {
                self.mistake(at, format!("{}: a destination must be a table", table.whose));
                continue;
            };
            let inner = Table { entries, at, whose: table.whose.clone() };
            if let Some(destination) = self.destination(&inner, variables, None) {
                if found.iter().any(|other| other.name == destination.name) {
                    let message = format!(
                        "{}: there are two destinations '{}'; give one another 'name'",
                        table.whose, destination.name
                    );
                    self.mistake(at, message);
                }
                found.push(destination);
            }
        }
        found
    }

    fn otherwise(&mut self, table: &Table<'_, 't>, variables: Variables) -> Option<DestinationSpec> {
        let value = table.get("otherwise")?;
        match value.get_ref() {
            DeValue::String(_) => {
                let topic = self.target(table, "otherwise", variables)?;
                let name = "otherwise".to_owned();
                let headers = BTreeMap::new();
                Some(DestinationSpec { name, when: None, topic, take: None, shape: None, key: None, headers })
            }
            DeValue::Table(entries) => {
                let inner = Table { entries, at: value.span().start, whose: format!("{}: otherwise", table.whose) };
                if let Some(when) = inner.get("when") {
                    self.mistake(when.span().start, format!("{} has no condition", inner.whose));
                }
                self.destination(&inner, variables, Some("otherwise"))
            }
            _ => {
                self.mistake(value.span().start, format!("{}: 'otherwise' must be a topic or a table", table.whose));
                None
            }
        }
    }

    fn destination(
        &mut self,
        table: &Table<'_, 't>,
        variables: Variables,
        name: Option<&str>,
    ) -> Option<DestinationSpec> {
        self.known(table, DESTINATION_KEYS);
        let when = self.expression(table, "when", variables);
        let topic = self.target(table, "topic", variables);
        if table.get("topic").is_none() {
            self.mistake(table.at, format!("{}: a destination has no topic", table.whose));
        }
        let take = self.path(table, "take", false);
        let shape = self.expression(table, "shape", variables);
        if take.is_some() && shape.is_some() {
            self.mistake(table.at, format!("{}: 'take' and 'shape' cannot both make the document", table.whose));
        }
        let key = self.expression(table, "key", variables);
        let headers = self.headers(table, variables);
        let given = self.string(table, "name").map(|(text, _)| text);
        let topic = topic?;
        let name = given.or_else(|| name.map(str::to_owned)).unwrap_or_else(|| topic.to_string());
        Some(DestinationSpec { name, when, topic, take, shape, key, headers })
    }

    fn aggregate(&mut self, table: &Table<'_, 't>) -> Option<AggregateSpec> {
        let value = table.get("aggregate")?;
        let Some(entries) = value.get_ref().as_table() else {
            let message = format!("{}: 'aggregate' must be a table: {{ timeout = \"10m\" }}", table.whose);
            self.mistake(value.span().start, message);
            return None;
        };
        let inner = Table { entries, at: value.span().start, whose: format!("{}: aggregate", table.whose) };
        self.known(&inner, &["timeout"]);
        if inner.get("timeout").is_none() {
            self.mistake(inner.at, format!("{} has no timeout", inner.whose));
        }
        let (text, span) = self.string(&inner, "timeout")?;
        match text.parse::<Millis>() {
            Ok(timeout) if timeout.0 > 0 => Some(AggregateSpec { timeout }),
            Ok(_) => {
                self.mistake(span.start, format!("{}: a timeout of nothing", inner.whose));
                None
            }
            Err(error) => {
                self.mistake(span.start, format!("{}: {error}", inner.whose));
                None
            }
        }
    }

    fn known(&mut self, table: &Table<'_, 't>, keys: &[&str]) {
        for (key, _) in table.entries.iter() {
            if !keys.contains(&key.get_ref().as_ref()) {
                let message =
                    format!("{}: unknown key '{}'; there are {}", table.whose, key.get_ref(), keys.join(", "));
                self.mistake(key.span().start, message);
            }
        }
    }

    fn wrong(&mut self, table: &Table<'_, 't>, name: &str, value: &Spanned<DeValue<'t>>, what: &str) {
        let found = value.get_ref().type_str();
        self.mistake(value.span().start, format!("{}: '{name}' must be {what}, not a {found}", table.whose));
    }

    fn string(&mut self, table: &Table<'_, 't>, name: &str) -> Option<(String, Range<usize>)> {
        let value = table.get(name)?;
        match value.get_ref().as_str() {
            Some(text) => Some((text.to_owned(), value.span())),
            None => {
                self.wrong(table, name, value, "a string");
                None
            }
        }
    }

    fn boolean(&mut self, table: &Table<'_, 't>, name: &str) -> Option<bool> {
        let value = table.get(name)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.wrong(table, name, value, "true or false");
        }
        found
    }

    fn number(&mut self, table: &Table<'_, 't>, name: &str, allowed: std::ops::RangeInclusive<usize>) -> Option<usize> {
        let value = table.get(name)?;
        let number = value.get_ref().as_integer().and_then(|number| number.as_str().parse().ok());
        let within = number.filter(|number| allowed.contains(number));
        if within.is_none() {
            let what = format!("a whole number from {} to {}", allowed.start(), allowed.end());
            self.mistake(value.span().start, format!("{}: '{name}' must be {what}", table.whose));
        }
        within
    }

    fn one_of<T: Copy>(&mut self, table: &Table<'_, 't>, name: &str, words: &[(&str, T)]) -> Option<T> {
        let (text, span) = self.string(table, name)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| format!("'{word}'")).collect();
            let message = format!("{}: '{name}' is '{text}'; it can be {}", table.whose, known.join(" or "));
            self.mistake(span.start, message);
        }
        found
    }

    fn name(&mut self, table: &Table<'_, 't>, key: &str) -> Option<TopicName> {
        let (text, span) = self.string(table, key)?;
        match TopicName::new(&text) {
            Ok(name) => Some(name),
            Err(error) => {
                let error = error.to_string().replace("topic name", key);
                self.mistake(span.start, format!("{}: {error}", table.whose));
                None
            }
        }
    }

    fn patterns(&mut self, table: &Table<'_, 't>) -> Vec<TopicPattern> {
        let Some(value) = table.get("from") else {
            self.mistake(table.at, format!("{} reads nothing: it needs 'from'", table.whose));
            return Vec::new();
        };
        let texts: Vec<_> = match value.get_ref() {
            DeValue::String(_) => vec![value],
            DeValue::Array(texts) => texts.iter().collect(),
            _ => {
                self.wrong(table, "from", value, "a topic or a list of topics");
                return Vec::new();
            }
        };
        if texts.is_empty() || texts.len() > 100 {
            let message = format!("{}: 'from' has {} topics; allowed are 1 to 100", table.whose, texts.len());
            self.mistake(value.span().start, message);
        }
        let mut patterns = Vec::new();
        for text in texts {
            match text.get_ref().as_str().map(TopicPattern::new) {
                None => self.wrong(table, "from", text, "a topic or a list of topics"),
                Some(Ok(pattern)) => patterns.push(pattern),
                Some(Err(error)) => self.mistake(text.span().start, format!("{}: from: {error}", table.whose)),
            }
        }
        patterns
    }

    fn headers(&mut self, table: &Table<'_, 't>, variables: Variables) -> BTreeMap<String, String> {
        let mut headers = BTreeMap::new();
        let Some(value) = table.get("headers") else { return headers };
        let Some(entries) = value.get_ref().as_table() else {
            self.wrong(table, "headers", value, "a table of names and expressions");
            return headers;
        };
        let inner = Table { entries, at: value.span().start, whose: format!("{}: headers", table.whose) };
        for (name, _) in entries.iter() {
            let text = name.get_ref().as_ref();
            if text.starts_with("tidelog-") {
                let message = format!("{}: '{text}' is set by the server", inner.whose);
                self.mistake(name.span().start, message);
            }
            if let Some(expression) = self.expression(&inner, text, variables) {
                headers.insert(text.to_owned(), expression);
            }
        }
        headers
    }

    fn path(&mut self, table: &Table<'_, 't>, name: &str, many: bool) -> Option<String> {
        let (text, span) = self.string(table, name)?;
        match Cut::parse(&text, many) {
            Ok(_) => Some(text),
            Err(error) => {
                let at = span.start + 1 + error.at.min(text.len());
                self.mistake(at, format!("{}: '{name}' {}", table.whose, error.message));
                None
            }
        }
    }

    fn target(&mut self, table: &Table<'_, 't>, name: &str, variables: Variables) -> Option<Target> {
        let (text, span) = self.string(table, name)?;
        match Target::new(&text) {
            Ok(Target::Computed(_)) => self.expression(table, name, variables).map(Target::Computed),
            Ok(fixed) => Some(fixed),
            Err(message) => {
                self.mistake(span.start, format!("{}: {message}", table.whose));
                None
            }
        }
    }

    fn expression(&mut self, table: &Table<'_, 't>, name: &str, variables: Variables) -> Option<String> {
        let (text, span) = self.string(table, name)?;
        match Expression::compile(&text, variables) {
            Ok(_) => Some(text),
            Err(error) => {
                let at = self.within(&span, &text, error.line, error.column);
                self.mistake(at, format!("{}: '{name}': {}", table.whose, error.message));
                None
            }
        }
    }

    /// The place in the file of a place in a string of it; the string's begin if it has escapes.
    fn within(&self, span: &Range<usize>, value: &str, line: u32, column: u32) -> usize {
        let raw = self.text.get(span.clone()).unwrap_or_default();
        let Some(start) = raw.find(value).filter(|_| !value.is_empty()) else { return span.start };
        let before: usize = value.split_inclusive('\n').take(line as usize - 1).map(str::len).sum();
        let rest = value.get(before..).unwrap_or_default();
        let inside: usize = rest.chars().take(column as usize - 1).map(char::len_utf8).sum();
        span.start + start + before + inside
    }
}
