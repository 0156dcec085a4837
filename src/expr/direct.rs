//! Expressions of the usual shapes, answered straight from the record: comparisons of fields with literals and with each
//! other, beginnings and ends of texts, `in` a list of literals, `has`, and `&&`, `||` and `!` over these.
//!
//! An answer given here is the interpreter's, with its error where a field is missing. Whatever is not plain (another type
//! than the test is for, text that is no UTF-8, a value that is no JSON) has no answer here, and the interpreter is asked:
//! its rules are not written twice. A test with random expressions and records holds both to each other.

use std::cmp::Ordering;

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};

use super::document::{Document, Item};
use super::scope::Input;
use crate::record::Header;

/// What an expression asks.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Test {
    And(Box<Test>, Box<Test>),
    Or(Box<Test>, Box<Test>),
    Not(Box<Test>),
    Compare(Comparison, Operand, Operand),
    Text(Search, Operand, String),
    OneOf(Operand, Vec<Constant>),
    /// Whether the field at the path's end is there.
    Has(Path),
    /// The operand itself: a boolean if it is a condition.
    Is(Operand),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Search {
    Begins,
    Ends,
    Contains,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Constant(Constant),
    Path(Path),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Constant {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(String),
}

/// From a variable into fields.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Path {
    root: Root,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    Key,
    /// Always with one step.
    Headers,
    Value,
    Part,
    Topic,
    Partition,
    Offset,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Element(usize),
}

/// What a test can look at.
pub(super) struct Facts<'a, 'v> {
    pub(super) input: Input<'v>,
    pub(super) value: Option<&'a Document<'v>>,
    pub(super) part: Option<&'a Document<'v>>,
}

/// What an operand is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Found<'a> {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(&'a str),
    /// There is no field of this name, which is an error.
    Missing(&'a str),
    /// Something else.
    Unknown,
}

/// What a test says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    Yes,
    No,
    /// There is no field of this name, which is an error.
    Missing(&'a str),
    /// Only the interpreter knows.
    Unknown,
}

impl From<bool> for Answer<'_> {
    fn from(says: bool) -> Self {
        if says { Self::Yes } else { Self::No }
    }
}

impl Test {
    /// The test that an expression is, if it has one of these shapes.
    pub(super) fn of(expr: &IdedExpr) -> Option<Self> {
        match &expr.expr {
            Expr::Call(call) => Self::of_call(call).or_else(|| Operand::of(expr).map(Self::Is)),
            Expr::Select(select) if select.test => {
                let mut path = Path::of(&select.operand, true)?;
                path.step(Step::Field(select.field.clone()))?;
                Some(Self::Has(path))
            }
            _ => Operand::of(expr).map(Self::Is),
        }
    }

    fn of_call(call: &CallExpr) -> Option<Self> {
        let name = call.func_name.as_str();
        if let Some(target) = &call.target {
            let search = match name {
                "startsWith" => Search::Begins,
                "endsWith" => Search::Ends,
                "contains" => Search::Contains,
                _ => return None,
            };
            let [needle] = call.args.as_slice() else { return None };
            let Constant::Text(needle) = Constant::of(needle)? else { return None };
            return Some(Self::Text(search, Operand::of(target)?, needle));
        }
        match (name, call.args.as_slice()) {
            (operators::LOGICAL_NOT, [of]) => Some(Self::Not(Box::new(Self::of(of)?))),
            (operators::LOGICAL_AND, [left, right]) => {
                Some(Self::And(Box::new(Self::of(left)?), Box::new(Self::of(right)?)))
            }
            (operators::LOGICAL_OR, [left, right]) => {
                Some(Self::Or(Box::new(Self::of(left)?), Box::new(Self::of(right)?)))
            }
            (operators::IN, [left, right]) => {
                let Expr::List(list) = &right.expr else { return None };
                if !list.optional_indices.is_empty() {
                    return None;
                }
                let among = list.elements.iter().map(Constant::of).collect::<Option<_>>()?;
                Some(Self::OneOf(Operand::of(left)?, among))
            }
            (_, [left, right]) => {
                let comparison = match name {
                    operators::EQUALS => Comparison::Equal,
                    operators::NOT_EQUALS => Comparison::Unequal,
                    operators::LESS => Comparison::Less,
                    operators::LESS_EQUALS => Comparison::LessOrEqual,
                    operators::GREATER => Comparison::Greater,
                    operators::GREATER_EQUALS => Comparison::GreaterOrEqual,
                    _ => return None,
                };
                Some(Self::Compare(comparison, Operand::of(left)?, Operand::of(right)?))
            }
            _ => None,
        }
    }

    /// What it says of a record. Recursive as deep as the expression, which is bounded.
    pub(super) fn ask<'a>(&'a self, facts: &'a Facts<'_, '_>) -> Answer<'a> {
        match self {
            Self::And(left, right) => match left.ask(facts) {
                Answer::Yes => right.ask(facts),
                Answer::Missing(name) => match right.ask(facts) {
                    Answer::Yes => Answer::Missing(name),
                    other => other,
                },
                other => other,
            },
            Self::Or(left, right) => match left.ask(facts) {
                Answer::No => right.ask(facts),
                Answer::Missing(name) => match right.ask(facts) {
                    Answer::No => Answer::Missing(name),
                    other => other,
                },
                other => other,
            },
            Self::Not(of) => match of.ask(facts) {
                Answer::Yes => Answer::No,
                Answer::No => Answer::Yes,
                other => other,
            },
            Self::Compare(comparison, left, right) => {
                let (left, right) = (left.find(facts), right.find(facts));
                match (left, right) {
                    (Found::Unknown, _) => Answer::Unknown,
                    (Found::Missing(name), _) | (_, Found::Missing(name)) => Answer::Missing(name),
                    _ => compare(*comparison, left, right),
                }
            }
            Self::Text(search, operand, needle) => match operand.find(facts) {
                Found::Text(text) => Answer::from(match search {
                    Search::Begins => text.starts_with(needle.as_str()),
                    Search::Ends => text.ends_with(needle.as_str()),
                    Search::Contains => text.contains(needle.as_str()),
                }),
                Found::Missing(name) => Answer::Missing(name),
                _ => Answer::Unknown,
            },
            Self::OneOf(operand, among) => match operand.find(facts) {
                Found::Unknown => Answer::Unknown,
                Found::Missing(name) => Answer::Missing(name),
                found => Answer::from(among.iter().any(|one| equal(found, one.found()) == Some(true))),
            },
            Self::Has(path) => path.has(facts),
            Self::Is(operand) => match operand.find(facts) {
                Found::Bool(says) => Answer::from(says),
                Found::Missing(name) => Answer::Missing(name),
                _ => Answer::Unknown,
            },
        }
    }

    /// What it is, if it is nothing but an operand.
    pub(super) fn operand(&self) -> Option<&Operand> {
        match self {
            Self::Is(operand) => Some(operand),
            _ => None,
        }
    }
}

impl Operand {
    fn of(expr: &IdedExpr) -> Option<Self> {
        match Constant::of(expr) {
            Some(constant) => Some(Self::Constant(constant)),
            None => Path::of(expr, false).map(Self::Path),
        }
    }

    /// What it is in a record.
    pub(super) fn find<'a>(&'a self, facts: &'a Facts<'_, '_>) -> Found<'a> {
        match self {
            Self::Constant(constant) => constant.found(),
            Self::Path(path) => path.find(facts),
        }
    }
}

impl Constant {
    fn of(expr: &IdedExpr) -> Option<Self> {
        let Expr::Literal(literal) = &expr.expr else { return None };
        match literal {
            LiteralValue::Null => Some(Self::Null),
            LiteralValue::Boolean(value) => Some(Self::Bool(*value.inner())),
            LiteralValue::Int(value) => Some(Self::Int(*value.inner())),
            LiteralValue::UInt(value) => Some(Self::UInt(*value.inner())),
            LiteralValue::Double(value) => Some(Self::Double(*value.inner())),
            LiteralValue::String(value) => Some(Self::Text(value.inner().to_owned())),
            LiteralValue::Bytes(_) => None,
        }
    }

    fn found(&self) -> Found<'_> {
        match self {
            Self::Null => Found::Null,
            Self::Bool(value) => Found::Bool(*value),
            Self::Int(value) => Found::Int(*value),
            Self::UInt(value) => Found::UInt(*value),
            Self::Double(value) => Found::Double(*value),
            Self::Text(value) => Found::Text(value),
        }
    }
}

impl Path {
    /// The path that an expression walks. One that is not at its `end` yet may be nothing but `headers`.
    fn of(expr: &IdedExpr, more_follows: bool) -> Option<Self> {
        let path = match &expr.expr {
            Expr::Ident(name) => {
                let root = match name.as_str() {
                    "key" => Root::Key,
                    "headers" => Root::Headers,
                    "value" => Root::Value,
                    "part" => Root::Part,
                    "topic" => Root::Topic,
                    "partition" => Root::Partition,
                    "offset" => Root::Offset,
                    _ => return None,
                };
                Self { root, steps: Vec::new() }
            }
            Expr::Select(select) if !select.test => {
                let mut path = Self::of(&select.operand, true)?;
                path.step(Step::Field(select.field.clone()))?;
                path
            }
            Expr::Call(call) if call.func_name == operators::INDEX && call.target.is_none() => {
                let [operand, index] = call.args.as_slice() else { return None };
                let step = match Constant::of(index)? {
                    Constant::Text(name) => Step::Field(name),
                    Constant::Int(index) => Step::Element(usize::try_from(index).ok()?),
                    _ => return None,
                };
                let mut path = Self::of(operand, true)?;
                path.step(step)?;
                path
            }
            _ => return None,
        };
        let whole_headers = path.root == Root::Headers && path.steps.is_empty();
        (more_follows || !whole_headers).then_some(path)
    }

    fn step(&mut self, step: Step) -> Option<()> {
        let may = match (self.root, &step) {
            (Root::Value | Root::Part, _) => true,
            // Names that are no UTF-8 are seen with this character in place of what they have.
            (Root::Headers, Step::Field(name)) => self.steps.is_empty() && !name.contains('\u{fffd}'),
            _ => false,
        };
        self.steps.push(step);
        may.then_some(())
    }

    fn find<'a>(&'a self, facts: &'a Facts<'_, '_>) -> Found<'a> {
        let text = |bytes: Option<&'a [u8]>| match bytes {
            None => Found::Null,
            Some(bytes) => std::str::from_utf8(bytes).map_or(Found::Unknown, Found::Text),
        };
        match self.root {
            Root::Key => text(facts.input.record.key.as_deref()),
            Root::Headers => match self.header(facts) {
                Some(Ok(header)) => text(header.value),
                Some(Err(name)) => Found::Missing(name),
                None => Found::Unknown,
            },
            Root::Value => facts.value.map_or(Found::Unknown, |document| look(document, &self.steps)),
            Root::Part => facts.part.map_or(Found::Unknown, |document| look(document, &self.steps)),
            Root::Topic => Found::Text(facts.input.topic),
            Root::Partition => Found::Int(i64::from(facts.input.partition)),
            Root::Offset => Found::Int(i64::try_from(facts.input.offset).unwrap_or(i64::MAX)),
        }
    }

    /// The header of this name, of several the last.
    fn header<'a>(&'a self, facts: &'a Facts<'_, '_>) -> Option<Result<Header<'a>, &'a str>> {
        let [Step::Field(name)] = self.steps.as_slice() else { return None };
        Some(facts.input.record.headers.find(name).ok_or(name.as_str()))
    }

    fn has<'a>(&'a self, facts: &'a Facts<'_, '_>) -> Answer<'a> {
        let document = match self.root {
            Root::Headers => {
                return self.header(facts).map_or(Answer::Unknown, |header| Answer::from(header.is_ok()));
            }
            Root::Value => facts.value,
            Root::Part => facts.part,
            _ => None,
        };
        let (Some(document), Some((Step::Field(name), before))) = (document, self.steps.split_last()) else {
            return Answer::Unknown;
        };
        match walk(document, before) {
            Ok(at) if matches!(document.item(at), Some(Item::Map(_))) => {
                Answer::from(document.field(at, name).is_some())
            }
            Err(Found::Missing(name)) => Answer::Missing(name),
            _ => Answer::Unknown,
        }
    }
}

/// The place at a path's end, or what is found in its stead.
fn walk<'a>(document: &Document<'_>, steps: &'a [Step]) -> Result<usize, Found<'a>> {
    let mut at = 0;
    for step in steps {
        at = match (document.item(at), step) {
            (Some(Item::Map(_)), Step::Field(name)) => document.field(at, name).ok_or(Found::Missing(name))?,
            (Some(Item::List(_)), Step::Element(index)) => document.element(at, *index).ok_or(Found::Unknown)?,
            _ => return Err(Found::Unknown),
        };
    }
    Ok(at)
}

fn look<'a>(document: &'a Document<'_>, steps: &'a [Step]) -> Found<'a> {
    match walk(document, steps) {
        Ok(at) => match document.item(at) {
            Some(Item::Null) => Found::Null,
            Some(Item::Bool(value)) => Found::Bool(*value),
            Some(Item::Int(value)) => Found::Int(*value),
            Some(Item::UInt(value)) => Found::UInt(*value),
            Some(Item::Double(value)) => Found::Double(*value),
            Some(Item::Text(text)) => Found::Text(text),
            Some(Item::List(_) | Item::Map(_)) | None => Found::Unknown,
        },
        Err(found) => found,
    }
}

fn compare<'a>(comparison: Comparison, left: Found<'_>, right: Found<'_>) -> Answer<'a> {
    let ordered = |holds: fn(Ordering) -> bool| order(left, right).map(holds);
    let says = match comparison {
        Comparison::Equal => equal(left, right),
        Comparison::Unequal => equal(left, right).map(|equal| !equal),
        Comparison::Less => ordered(Ordering::is_lt),
        Comparison::LessOrEqual => ordered(Ordering::is_le),
        Comparison::Greater => ordered(Ordering::is_gt),
        Comparison::GreaterOrEqual => ordered(Ordering::is_ge),
    };
    says.map_or(Answer::Unknown, Answer::from)
}

/// Whether they are equal; things of different kinds are not, but numbers may be.
fn equal(left: Found<'_>, right: Found<'_>) -> Option<bool> {
    match (left, right) {
        (Found::Unknown | Found::Missing(_), _) | (_, Found::Unknown | Found::Missing(_)) => None,
        (Found::Null, Found::Null) => Some(true),
        _ => Some(order(left, right) == Some(Ordering::Equal)),
    }
}

/// How two things of a kind are ordered.
fn order(left: Found<'_>, right: Found<'_>) -> Option<Ordering> {
    match (left, right) {
        (Found::Text(left), Found::Text(right)) => Some(left.cmp(right)),
        (Found::Bool(left), Found::Bool(right)) => Some(left.cmp(&right)),
        (Found::Int(left), Found::Int(right)) => Some(left.cmp(&right)),
        (Found::UInt(left), Found::UInt(right)) => Some(left.cmp(&right)),
        (Found::Int(left), Found::UInt(right)) => {
            Some(u64::try_from(left).map_or(Ordering::Less, |left| left.cmp(&right)))
        }
        (Found::UInt(left), Found::Int(right)) => {
            Some(u64::try_from(right).map_or(Ordering::Greater, |right| left.cmp(&right)))
        }
        (Found::Double(left), Found::Double(right)) => left.partial_cmp(&right),
        (Found::Double(left), Found::Int(right)) => left.partial_cmp(&(right as f64)),
        (Found::Double(left), Found::UInt(right)) => left.partial_cmp(&(right as f64)),
        (Found::Int(left), Found::Double(right)) => (left as f64).partial_cmp(&right),
        (Found::UInt(left), Found::Double(right)) => (left as f64).partial_cmp(&right),
        _ => None,
    }
}
