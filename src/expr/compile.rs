//! From text to a program that is known to end: what it mentions, and how deep it nests.

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators};
use cel::{Env, Program};

use crate::base::limits;

use super::{ExprError, MAX_NESTED, MAX_SOURCE_BYTES, depth};

/// Functions beside operators; everything else is refused when it is compiled, not when a record comes.
const FUNCTIONS: &[&str] = &[
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "bool",
    "type",
    "dyn",
    "timestamp",
    "duration",
    "min",
    "max",
    "getFullYear",
    "getMonth",
    "getDayOfYear",
    "getDayOfMonth",
    "getDate",
    "getDayOfWeek",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
];

/// Names of types, which are values too: `type(value) == string`.
const TYPES: &[&str] = &["int", "uint", "double", "string", "bytes", "bool", "list", "map", "null_type", "type"];

/// What of a record an expression needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mentions {
    pub(super) key: bool,
    pub(super) headers: bool,
    pub(super) value: bool,
    pub(super) topic: bool,
    pub(super) partition: bool,
    pub(super) offset: bool,
    pub(super) timestamp: bool,
    pub(super) part: bool,
}

/// What there is to be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variables {
    /// A record.
    Record,
    /// A record, and the part of it that is looked at.
    RecordAndPart,
}

/// Something that must equal a literal for a condition to hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Guard {
    /// The expression that must equal it, as it may be compiled by itself.
    pub path: String,
    /// What it must equal.
    pub literal: Literal,
    /// The condition is nothing but that.
    pub alone: bool,
}

/// What a guard compares with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Literal {
    /// A string.
    Text(String),
    /// A whole number.
    Int(i64),
}

/// The leftmost of the terms that are joined by `&&`, if it says that a field equals a literal: it is evaluated first, and
/// if it is false, so is the whole.
pub(super) fn guard(condition: &IdedExpr) -> Option<Guard> {
    let (mut term, mut alone) = (condition, true);
    loop {
        let Expr::Call(call) = &term.expr else { return None };
        let [left, right] = call.args.as_slice() else { return None };
        match call.func_name.as_str() {
            operators::LOGICAL_AND => (term, alone) = (left, false),
            operators::EQUALS => {
                let either = |path, literal: &IdedExpr| Some((path_of(path)?, literal_of(literal)?));
                let (path, literal) = either(left, right).or_else(|| either(right, left))?;
                return Some(Guard { path, literal, alone });
            }
            _ => return None,
        }
    }
}

fn literal_of(expr: &IdedExpr) -> Option<Literal> {
    match &expr.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(Literal::Text(text.inner().to_owned())),
        Expr::Literal(LiteralValue::Int(number)) => Some(Literal::Int(*number.inner())),
        _ => None,
    }
}

/// The text of an expression that only walks from a variable into fields.
fn path_of(expr: &IdedExpr) -> Option<String> {
    match &expr.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => Some(format!("{}.{}", path_of(&select.operand)?, select.field)),
        Expr::Call(call) if call.func_name == operators::INDEX => {
            let [operand, index] = call.args.as_slice() else { return None };
            let operand = path_of(operand)?;
            match literal_of(index)? {
                Literal::Text(name) if name.chars().all(|c| !c.is_control() && !matches!(c, '"' | '\\')) => {
                    Some(format!("{operand}[\"{name}\"]"))
                }
                Literal::Text(_) => None,
                Literal::Int(number) => Some(format!("{operand}[{number}]")),
            }
        }
        _ => None,
    }
}

pub(super) fn compile(env: &Env, source: &str, variables: Variables) -> Result<(Program, Mentions), ExprError> {
    let at_start = |message: String| ExprError { line: 1, column: 1, message };
    if source.trim().is_empty() {
        return Err(at_start("the expression is empty".to_owned()));
    }
    if source.len() > MAX_SOURCE_BYTES {
        let length = source.len();
        return Err(at_start(format!("the expression has {length} bytes; the limit is {MAX_SOURCE_BYTES}")));
    }
    depth::check(source)?;
    let program = env.compile(source).map_err(|errors| match errors.errors.first() {
        Some(error) => {
            let place = |at: isize| u32::try_from(at).unwrap_or(0).max(1);
            let message = error.msg.lines().next().unwrap_or("it cannot be understood");
            // The list of all that could stand there helps nobody.
            let message = message.split(" expecting ").next().unwrap_or(message).to_owned();
            let message = match single_equals(source) {
                true => format!("{message}; == compares"),
                false => message,
            };
            ExprError { line: place(error.pos.0), column: place(error.pos.1), message }
        }
        None => at_start("it cannot be understood".to_owned()),
    })?;
    let mut walk = Walk { info: program.source_info(), variables, mentions: Mentions::default(), bound: Vec::new() };
    walk.visit(program.expression(), 0)?;
    let mentions = walk.mentions;
    Ok((program, mentions))
}

/// Whether somewhere outside a string there is a `=` where `==` would be meant.
fn single_equals(source: &str) -> bool {
    let (mut quote, mut before) = (None, ' ');
    let mut characters = source.chars().peekable();
    while let Some(character) = characters.next() {
        match quote {
            Some(_) if character == '\\' => drop(characters.next()),
            Some(end) if character == end => quote = None,
            Some(_) => {}
            None if matches!(character, '"' | '\'') => quote = Some(character),
            None if character == '=' && !matches!(before, '=' | '!' | '<' | '>') && characters.peek() != Some(&'=') => {
                return true;
            }
            None => {}
        }
        before = character;
    }
    false
}

struct Walk<'a> {
    info: &'a SourceInfo,
    variables: Variables,
    mentions: Mentions,
    /// Variables of the comprehensions around.
    bound: Vec<&'a str>,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, expr: &'a IdedExpr, nested: usize) -> Result<(), ExprError> {
        match &expr.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => self.variable(name, expr.id)?,
            Expr::Select(select) => self.visit(&select.operand, nested)?,
            Expr::Call(call) => {
                let name = call.func_name.as_str();
                let operator = name.starts_with(['_', '@', '!', '-']) || name.contains('_');
                if !operator && !FUNCTIONS.contains(&name) {
                    return Err(self.error(expr.id, format!("there is no function '{name}'")));
                }
                if name == "matches" {
                    self.pattern(call.args.last(), expr.id)?;
                }
                for part in call.target.as_deref().into_iter().chain(&call.args) {
                    self.visit(part, nested)?;
                }
            }
            Expr::List(list) => {
                for element in &list.elements {
                    self.visit(element, nested)?;
                }
            }
            Expr::Map(map) => self.entries(map.entries.iter().map(|entry| &entry.expr), nested)?,
            Expr::Struct(made) => {
                return Err(self.error(expr.id, format!("there is no type '{}'", made.type_name)));
            }
            Expr::Comprehension(over) => {
                let within = nested + 1;
                if within > MAX_NESTED {
                    let message = format!("comprehensions nest deeper than {MAX_NESTED} levels");
                    return Err(self.error(expr.id, message));
                }
                // What it goes over may itself be a comprehension's result: that is a pass before, not one inside.
                self.visit(&over.iter_range, nested)?;
                let outside = self.bound.len();
                self.bound.extend([over.iter_var.as_str(), over.accu_var.as_str()]);
                self.bound.extend(over.iter_var2.as_deref());
                for part in [&over.accu_init, &over.loop_cond, &over.loop_step, &over.result] {
                    self.visit(part, within)?;
                }
                self.bound.truncate(outside);
            }
        }
        Ok(())
    }

    fn entries(&mut self, entries: impl Iterator<Item = &'a EntryExpr>, nested: usize) -> Result<(), ExprError> {
        for entry in entries {
            match entry {
                EntryExpr::MapEntry(entry) => {
                    self.visit(&entry.key, nested)?;
                    self.visit(&entry.value, nested)?;
                }
                EntryExpr::StructField(field) => self.visit(&field.value, nested)?,
            }
        }
        Ok(())
    }

    fn variable(&mut self, name: &'a str, id: u64) -> Result<(), ExprError> {
        if self.bound.contains(&name) || name.starts_with('@') {
            return Ok(());
        }
        let mentions = &mut self.mentions;
        let mentioned = match name {
            "key" => &mut mentions.key,
            "headers" => &mut mentions.headers,
            "value" => &mut mentions.value,
            "topic" => &mut mentions.topic,
            "partition" => &mut mentions.partition,
            "offset" => &mut mentions.offset,
            "timestamp" => &mut mentions.timestamp,
            "part" if self.variables == Variables::RecordAndPart => &mut mentions.part,
            name if TYPES.contains(&name) => return Ok(()),
            name => {
                let known = match self.variables {
                    Variables::Record => "key, headers, value, topic, partition, offset and timestamp",
                    Variables::RecordAndPart => "key, headers, value, part, topic, partition, offset and timestamp",
                };
                return Err(self.error(id, format!("there is no variable '{name}'; there are {known}")));
            }
        };
        *mentioned = true;
        Ok(())
    }

    /// A regular expression is compiled at every evaluation, so it must be known now what it costs.
    fn pattern(&self, pattern: Option<&IdedExpr>, id: u64) -> Result<(), ExprError> {
        let Some(Expr::Literal(LiteralValue::String(pattern))) = pattern.map(|pattern| &pattern.expr) else {
            return Err(self.error(id, "the pattern of 'matches' must be a string in quotes".to_owned()));
        };
        let compiled = regex::RegexBuilder::new(pattern.inner()).size_limit(limits::PATTERN_BYTES).build();
        match compiled {
            Ok(_) => Ok(()),
            Err(regex::Error::CompiledTooBig(limit)) => Err(self
                .error(id, format!("the pattern of 'matches' has more than the {limit} bytes allowed once compiled"))),
            Err(error) => {
                let last = error.to_string();
                let last = last.lines().last().unwrap_or("it is no regular expression").trim_start_matches("error: ");
                Err(self.error(id, format!("the pattern of 'matches': {last}")))
            }
        }
    }

    fn error(&self, id: u64, message: String) -> ExprError {
        let start = self.info.offset_for(id).map_or(0, |(start, _)| start as usize);
        let (mut line, mut column) = (1, 1);
        for character in self.info.source.chars().take(start) {
            (line, column) = if character == '\n' { (line + 1, 1) } else { (line, column + 1) };
        }
        ExprError { line, column, message }
    }
}
