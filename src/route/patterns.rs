//! `match()` and `search()` of JSONPath (RFC 9535, 2.4.6 and 2.4.7): regular expressions as RFC 9485 has them.
//!
//! Of the crate's own functions each compiles its expression anew for each node; here a thread remembers some.

use std::cell::RefCell;
use std::collections::HashMap;

use regex::{Regex, RegexBuilder};
use serde_json::Value;
use serde_json_path::functions::{LogicalType, ValueType};

/// Expressions that a thread remembers.
const REMEMBERED: usize = 32;
/// Bytes that a compiled one may take, and again for what it remembers while it matches.
const BYTES: usize = 256 * 1024;

thread_local! {
    static COMPILED: RefCell<HashMap<String, Option<Regex>>> = RefCell::default();
}

#[serde_json_path::function(name = "match")]
fn matches(value: ValueType, pattern: ValueType) -> LogicalType {
    found(&value, &pattern, true)
}

#[serde_json_path::function]
fn search(value: ValueType, pattern: ValueType) -> LogicalType {
    found(&value, &pattern, false)
}

/// What is no string, and an expression that is none, meets nothing.
fn found(value: &ValueType<'_>, pattern: &ValueType<'_>, whole: bool) -> LogicalType {
    let (Some(Value::String(text)), Some(Value::String(pattern))) = (value.as_value(), pattern.as_value()) else {
        return LogicalType::False;
    };
    let source = if whole { format!(r"\A(?:{})\z", dotted(pattern)) } else { dotted(pattern) };
    COMPILED.with_borrow_mut(|compiled| {
        if !compiled.contains_key(&source) {
            if compiled.len() >= REMEMBERED {
                compiled.clear();
            }
            let regex = RegexBuilder::new(&source).size_limit(BYTES).dfa_size_limit(BYTES).build();
            compiled.insert(source.clone(), regex.ok());
        }
        match compiled.get(&source) {
            Some(Some(regex)) if regex.is_match(text) => LogicalType::True,
            _ => LogicalType::False,
        }
    })
}

/// A dot stands for all but the ends of lines, of which the crate knows only one (RFC 9485, 5.4).
fn dotted(pattern: &str) -> String {
    let (mut out, mut in_class, mut escaped) = (String::with_capacity(pattern.len()), false, false);
    for character in pattern.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => in_class = true,
            ']' => in_class = false,
            '.' if !in_class => {
                out.push_str(r"[^\n\r]");
                continue;
            }
            _ => {}
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use crate::route::Cut;

    #[test]
    fn expressions_choose_parts() {
        let text =
            br#"{"l":[{"k":"eu-1"},{"k":"eu-12"},{"k":"x eu-1"},{"k":7},{"k":"a\rb"},{"k":"\u00e9t\u00e9"},{}]}"#;
        let chosen = |path: &str| {
            let cut = Cut::parse(path, true).unwrap_or_else(|error| panic!("{path}: {}", error.message));
            cut.find(text).unwrap().len()
        };
        for (path, count) in [
            ("$.l[?match(@.k, 'eu-[0-9]')]", 1),
            ("$.l[?search(@.k, 'eu-[0-9]')]", 3),
            ("$.l[?match(@.k, 'eu-1|x.*')]", 2),
            ("$.l[?match(@.k, 'a.b')]", 0),
            ("$.l[?match(@.k, 'a[.]b')]", 0),
            (r"$.l[?match(@.k, '\\p{L}+')]", 1),
            ("$.l[?match(@.k, '(')]", 0),
            ("$.l[?search(@.k, 'eu') && !match(@.k, 'eu-1')]", 2),
            ("$.l[?length(@.k) > 4]", 2),
            ("$.l[?count(@.*) == 0]", 1),
        ] {
            assert_eq!(chosen(path), count, "{path}");
        }
    }
}
