//! What the query of a URL says.

use percent_encoding::{percent_decode, percent_decode_str};

use super::problem::Problem;
use crate::base::TopicName;

/// The parameter that may be any bytes.
const KEY: &str = "key";

/// Names and values, in order.
#[derive(Debug)]
pub struct Query(Vec<(String, Vec<u8>)>);

impl Query {
    /// Reads a query; `known` are the names that it may have.
    ///
    /// # Errors
    /// A name that is not known, or one that comes twice; a value that is not UTF-8, but for a key's.
    pub fn read(query: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, Vec<u8>)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name), decoded(value));
            let name = String::from_utf8_lossy(&name);
            if !known.contains(&name.as_ref()) {
                return Err(Problem::wrong(format!("there is no parameter '{name}' here, but {}", known.join(", "))));
            }
            if pairs.iter().any(|(other, _)| *other == name) {
                return Err(Problem::wrong(format!("the parameter '{name}' comes twice")));
            }
            if name != KEY && std::str::from_utf8(&value).is_err() {
                let shown = String::from_utf8_lossy(&value);
                return Err(Problem::wrong(format!("{name}={shown}: the value is not UTF-8")));
            }
            pairs.push((name.into_owned(), value));
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.bytes(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The value of a parameter, byte for byte.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_slice())
    }

    /// The value of a parameter, read.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn parse<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Problem>
    where
        T::Err: std::fmt::Display,
    {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|error| Problem::wrong(format!("{name}={text}: {error}")))
    }
}

/// What a part of a path says.
///
/// # Errors
/// It is not UTF-8.
pub fn part_of_path(part: &str) -> Result<String, Problem> {
    let decoded = percent_decode_str(part).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| Problem::wrong(format!("'{part}' in the path is not UTF-8")))
}

/// As a form has it: `+` is a space, `%FE` a byte.
fn decoded(text: &str) -> Vec<u8> {
    percent_decode(text.replace('+', " ").as_bytes()).collect()
}

/// The topic that a part of a path names.
///
/// # Errors
/// It is no name.
pub fn topic_name(part: &str) -> Result<TopicName, Problem> {
    TopicName::new(&part_of_path(part)?).map_err(|error| Problem::wrong(error.to_string()))
}
