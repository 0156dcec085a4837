//! Floor 2: expressions over one record, in CEL (the Common Expression Language). Pure: no files, no sockets, no clock.
//!
//! A record appears as these variables; what an expression doesn't mention is neither parsed nor built:
//!
//! | variable | CEL type |
//! |---|---|
//! | `key` | string, bytes where it isn't UTF-8, null where there is none |
//! | `headers` | map of name to string (bytes where it isn't UTF-8, null for none); the last of a name counts |
//! | `value` | the value as JSON: objects are maps, whole numbers ints, other numbers doubles; null for a tombstone |
//! | `topic` | string |
//! | `partition`, `offset` | int |
//! | `timestamp` | timestamp |
//!
//! | `part` | as `value`: the part of a record that is split, where routes say so |
//!
//! Expressions of the usual shapes are answered straight from the record ([`direct`]), all others by the interpreter; both
//! say the same.
//!
//! Evaluation has to end soon whatever the expression and the record are: what it may cost at the most is known before it
//! begins ([`cost`]) and bounded by [`limits::EXPRESSION_STEPS`]. In which order a comprehension goes over a map is not
//! defined; over a list it is the list's.

mod compile;
mod cost;
mod depth;
mod direct;
mod document;
mod error;
mod exact;
mod json;
mod scope;

use std::sync::{Arc, LazyLock};

use cel::Env;

use crate::base::limits;

pub use compile::{Guard, Literal, Variables};
pub use error::{EvalError, ExprError};
pub use exact::readable;
pub use json::not_json;
pub use scope::{Input, Scalar, Scope};

use compile::Mentions;
use direct::Test;

/// Bytes of an expression's text.
pub const MAX_SOURCE_BYTES: usize = 16 * 1024;

/// How deep comprehensions may nest.
pub const MAX_NESTED: usize = 2;

/// The standard functions and types. Building them takes tens of microseconds: once for all expressions.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A compiled expression.
pub struct Expression {
    source: String,
    program: cel::Program,
    mentions: Mentions,
    /// What it asks, if it has one of the usual shapes.
    direct: Option<Test>,
    /// Bytes that it may see, whatever they hold, and stay within the limit of steps.
    always_within: usize,
}

impl Expression {
    /// Compiles an expression.
    ///
    /// # Errors
    /// With the place: it isn't CEL, is too long or too deep, costs too much on any record, or names a variable or function
    /// that doesn't exist.
    pub fn compile(source: &str, variables: Variables) -> Result<Self, ExprError> {
        let (program, mentions) = compile::compile(&ENV, source, variables)?;
        let always_within = cost::always_within(program.expression(), limits::DOCUMENT_BYTES * 2);
        if always_within < SMALLEST {
            let message = format!(
                "the expression may take more than {} steps, the limit, on any record",
                limits::EXPRESSION_STEPS
            );
            return Err(ExprError { line: 1, column: 1, message });
        }
        let direct = Test::of(program.expression());
        Ok(Self { source: source.to_owned(), program, mentions, direct, always_within })
    }

    /// The text that was compiled.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it looks into the value or a part of it, which must be JSON then.
    pub fn needs_json(&self) -> bool {
        self.mentions.value || self.mentions.part
    }

    /// What must hold for it to hold, if that is that something equals a literal.
    pub fn guard(&self) -> Option<Guard> {
        compile::guard(self.program.expression())
    }
}

/// Bytes of a record on which an expression must be sure to end, or it is refused.
const SMALLEST: usize = 64;

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}

/// An expression that says yes or no to a record.
#[derive(Debug)]
pub struct Filter(Expression);

impl Filter {
    /// Compiles a filter.
    ///
    /// # Errors
    /// As [`Expression::compile`].
    pub fn compile(source: &str) -> Result<Self, ExprError> {
        Expression::compile(source, Variables::Record).map(Self)
    }

    /// The text that was compiled.
    pub fn source(&self) -> &str {
        self.0.source()
    }

    /// Whether it matches.
    ///
    /// # Errors
    /// It cannot be said: no such field, not JSON, no boolean, over a limit.
    pub fn matches(&self, input: &Input<'_>) -> Result<bool, EvalError> {
        self.ask(input, &mut 0)
    }

    /// Whether it matches; adds how often the value was parsed to find out.
    ///
    /// # Errors
    /// As [`Filter::matches`].
    pub fn ask(&self, input: &Input<'_>, parsed: &mut u64) -> Result<bool, EvalError> {
        let mut scope = Scope::new(*input);
        let says = scope.says(&self.0);
        *parsed += scope.parsed();
        says
    }
}

#[cfg(test)]
mod tests;
