//! Files of routes, as they are named on the command line.

use std::io::Read;
use std::path::Path;

use tidelog::base::limits;
use tidelog::route::{self, Mistake, RouteSpec};

use super::super::failure::Failure;
use super::super::input::FileReader;
use super::super::output;

/// The text of a file of routes.
///
/// # Errors
/// It cannot be read, is too large or is no text.
pub fn text(path: &Path) -> Result<String, Failure> {
    let (file, length) = FileReader::open(path).map_err(Failure::Failed)?;
    if length > limits::ROUTE_FILE_BYTES as u64 {
        let limit = limits::ROUTE_FILE_BYTES;
        return Err(Failure::Failed(format!("'{}' has {length} bytes; the limit is {limit}", path.display())));
    }
    let mut text = String::new();
    let read = file.take(limits::ROUTE_FILE_BYTES as u64 + 1).read_to_string(&mut text);
    read.map_err(|error| Failure::Failed(format!("cannot read '{}': {error}", path.display())))?;
    Ok(text)
}

/// The routes of a file; what is wrong with it is told line by line.
///
/// # Errors
/// As [`text`]; how many mistakes there are.
pub fn read(path: &Path) -> Result<Vec<RouteSpec>, Failure> {
    route::read(&text(path)?).map_err(|mistakes| complain(path, &mistakes))
}

/// Tells every mistake, and gives the command's end.
pub fn complain(path: &Path, mistakes: &[Mistake]) -> Failure {
    for Mistake { line, column, message } in mistakes {
        output::complain(&format!("{}:{line}:{column}: {message}", path.display()));
    }
    let count = output::count(mistakes.len() as u64, "mistake");
    Failure::Failed(format!("'{}' has {count}; nothing is applied", path.display()))
}
