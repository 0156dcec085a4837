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
//! Evaluation has to end soon whatever the expression and the record are. CEL has no loops but comprehensions (`all`,
//! `exists`, `exists_one`, `map`, `filter`) over lists and maps that are there, and its regular expressions take linear
//! time. So it is enough to bound how deep comprehensions nest ([`MAX_NESTED`]) and how long the lists and maps are that
//! they may go over: [`Expression::longest`].

mod compile;
mod depth;
mod error;
mod input;
mod json;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::{Context, Env, Value};

pub use error::{EvalError, ExprError};
pub use input::Input;

use compile::Mentions;

/// Bytes of an expression's text.
pub const MAX_SOURCE_BYTES: usize = 16 * 1024;

/// How deep comprehensions may nest.
pub const MAX_NESTED: usize = 2;

/// Bytes of a value that an expression may look into.
pub const MAX_VALUE_BYTES: usize = 8 * 1024 * 1024;

/// The standard functions and types. Building them takes tens of microseconds: once for all expressions.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A compiled expression.
pub struct Expression {
    source: String,
    program: cel::Program,
    mentions: Mentions,
}

impl Expression {
    /// Compiles an expression.
    ///
    /// # Errors
    /// With the place: it isn't CEL, is too long or too deep, or names a variable or function that doesn't exist.
    pub fn compile(source: &str) -> Result<Self, ExprError> {
        let (program, mentions) = compile::compile(&ENV, source)?;
        Ok(Self { source: source.to_owned(), program, mentions })
    }

    /// The text that was compiled.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Elements of the longest list or map that a record's value may have for it: few where they may be gone over many
    /// times.
    pub fn longest(&self) -> usize {
        match self.mentions.nested {
            0 => 1_000_000,
            1 => 10_000,
            _ => 200,
        }
    }

    /// What it makes of a record.
    fn evaluate(&self, input: &Input<'_>) -> Result<Value, EvalError> {
        let mut context = Context::with_env(Arc::clone(&ENV));
        input.bind(&mut context, &self.mentions, self.longest())?;
        let run = AssertUnwindSafe(|| self.program.execute(&context));
        // The interpreter is not ours: a fault of its own is a failed evaluation, not the end of a connection.
        let outcome = catch_unwind(run).map_err(|_| EvalError::new("the evaluation failed for no stated reason"))?;
        outcome.map_err(|error| EvalError::new(error.to_string()))
    }
}

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
        Expression::compile(source).map(Self)
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
        match self.0.evaluate(input)? {
            Value::Bool(matches) => Ok(matches),
            other => Err(EvalError::new(format!("it is a {} and no boolean", other.type_of()))),
        }
    }
}

#[cfg(test)]
mod tests;
