//! What the query of a URL says.

use percent_encoding::percent_decode_str;

use super::problem::Problem;
use crate::base::TopicName;

/// Names and values, in order.
#[derive(Debug)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query; `known` are the names that it may have.
    ///
    /// # Errors
    /// A name that is not known, or one that comes twice.
    pub fn read(query: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !known.contains(&name.as_ref()) {
                return Err(Problem::wrong(format!("there is no parameter '{name}' here, but {}", known.join(", "))));
            }
            if pairs.iter().any(|(other, _)| *other == name) {
                return Err(Problem::wrong(format!("the parameter '{name}' comes twice")));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
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
pub fn part_of_path(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

/// The topic that a part of a path names.
///
/// # Errors
/// It is no name.
pub fn topic_name(part: &str) -> Result<TopicName, Problem> {
    TopicName::new(&part_of_path(part)).map_err(|error| Problem::wrong(error.to_string()))
}
