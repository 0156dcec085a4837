//! An upper bound on what an evaluation may cost, known before it begins from the expression and the size of what it sees.
//!
//! CEL has no loops but comprehensions, so the bound is finite: each operation costs a fixed number of steps and one for
//! each byte that it may read or make; a comprehension costs its body once for each element. The elements of a list share the
//! list's bytes. A body's cost is convex in the size of its element (a sum of products of sizes), so no share of the bytes
//! costs more than one element that has them all, beside others that have none: that is what is counted.
//!
//! A step is about a nanosecond. The same record always meets the same verdict, on any machine and however busy it is.

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use crate::base::limits;

/// Steps of any node of the expression.
const NODE: f64 = 50.0;
/// Steps to compile a regular expression, for each byte of it: done again at every evaluation.
const PATTERN: f64 = 2_000.0;
/// Bytes of a number, a boolean or a time.
const SCALAR: f64 = 8.0;
/// Bytes that a number may have as text, beyond those it has as JSON: `1e308` is long when written out.
const WRITTEN: f64 = 400.0;

/// The size of what an expression sees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Extent {
    /// Bytes in all.
    pub(super) bytes: f64,
    /// Elements of the longest list or map in it.
    pub(super) elements: f64,
}

impl Extent {
    const NOTHING: Self = Self { bytes: 0.0, elements: 0.0 };
    const ONE: Self = Self { bytes: SCALAR, elements: 0.0 };

    fn and(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, elements: self.elements + other.elements }
    }

    fn or(self, other: Self) -> Self {
        Self { bytes: self.bytes.max(other.bytes), elements: self.elements.max(other.elements) }
    }
}

/// Steps that the expression may take on something of this size.
pub(super) fn steps(expression: &IdedExpr, seen: Extent) -> f64 {
    let mut estimate = Estimate { seen, bound: Vec::new() };
    let (cost, result) = estimate.of(expression);
    cost + result.bytes
}

/// The most bytes that may be seen, whatever they hold, so that the expression stays within the limit.
pub(super) fn always_within(expression: &IdedExpr, most: usize) -> usize {
    // An element has two bytes at the least, with the comma behind it.
    let within = |bytes: usize| {
        let seen = Extent { bytes: bytes as f64, elements: bytes as f64 / 2.0 + 1.0 };
        steps(expression, seen) <= limits::EXPRESSION_STEPS as f64
    };
    if within(most) {
        return most;
    }
    let (mut low, mut high) = (0, most);
    while low + 1 < high {
        let middle = low.midpoint(high);
        if within(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

struct Estimate<'a> {
    seen: Extent,
    /// Variables of the comprehensions around.
    bound: Vec<(&'a str, Extent)>,
}

impl<'a> Estimate<'a> {
    /// The cost of an expression and the size of what it gives.
    fn of(&mut self, expr: &'a IdedExpr) -> (f64, Extent) {
        match &expr.expr {
            Expr::Literal(LiteralValue::String(text)) => (NODE, sized(text.inner().len())),
            Expr::Literal(LiteralValue::Bytes(bytes)) => (NODE, sized(bytes.inner().len())),
            Expr::Unspecified | Expr::Literal(_) => (NODE, Extent::ONE),
            Expr::Ident(name) => {
                let bound = self.bound.iter().rev().find(|(bound, _)| *bound == name.as_str());
                (NODE, bound.map_or(self.seen, |(_, size)| *size))
            }
            Expr::Select(select) => {
                let (cost, size) = self.of(&select.operand);
                (cost + NODE, if select.test { Extent::ONE } else { size })
            }
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.made(&mut list.elements.iter(), list.elements.len()),
            Expr::Map(map) => {
                let mut parts = map.entries.iter().flat_map(|entry| match &entry.expr {
                    EntryExpr::MapEntry(entry) => [Some(&entry.key), Some(&entry.value)],
                    EntryExpr::StructField(field) => [None, Some(&field.value)],
                });
                self.made(&mut parts.by_ref().flatten(), map.entries.len())
            }
            Expr::Struct(_) => (NODE, Extent::ONE),
            Expr::Comprehension(over) => self.comprehension(over),
        }
    }

    /// A list or map of these: its parts are copied into it.
    fn made(&mut self, parts: &mut dyn Iterator<Item = &'a IdedExpr>, count: usize) -> (f64, Extent) {
        let (mut cost, mut bytes, mut elements) = (NODE, 0.0, count as f64);
        for part in parts {
            let (of_part, size) = self.of(part);
            cost += of_part + NODE + size.bytes;
            bytes += size.bytes + SCALAR;
            elements = f64::max(elements, size.elements);
        }
        (cost, Extent { bytes, elements })
    }

    fn call(&mut self, call: &'a CallExpr) -> (f64, Extent) {
        let parts: Vec<(f64, Extent)> =
            call.target.as_deref().into_iter().chain(&call.args).map(|part| self.of(part)).collect();
        let cost = NODE + parts.iter().map(|(cost, _)| cost).sum::<f64>();
        let all = parts.iter().fold(Extent::NOTHING, |all, (_, size)| all.and(*size));
        let first = parts.first().map_or(Extent::NOTHING, |(_, size)| *size);
        match call.func_name.as_str() {
            operators::CONDITIONAL => {
                let either = parts.iter().skip(1).fold(Extent::NOTHING, |most, (_, size)| most.or(*size));
                (cost, either)
            }
            operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT => (cost, Extent::ONE),
            operators::NOT_STRICTLY_FALSE => (cost, Extent::ONE),
            operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT => (cost, first),
            "matches" => {
                let text = first.bytes;
                let pattern = all.bytes - text;
                (cost + text * (8.0 + pattern) + (pattern + 10.0) * PATTERN, Extent::ONE)
            }
            "size"
            | "contains"
            | "startsWith"
            | "endsWith"
            | operators::EQUALS
            | operators::NOT_EQUALS
            | operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS
            | operators::IN => (cost + all.bytes, Extent::ONE),
            _ => (cost + all.bytes, Extent { bytes: all.bytes + WRITTEN, elements: all.elements }),
        }
    }

    fn comprehension(&mut self, over: &'a ComprehensionExpr) -> (f64, Extent) {
        let (of_range, range) = self.of(&over.iter_range);
        let (of_start, start) = self.of(&over.accu_init);
        let count = range.elements.max(1.0);
        // One element that has all the bytes; what lists are in it together have at most one element for two of them.
        let whole = Extent { bytes: range.bytes, elements: range.bytes / 2.0 + 1.0 };
        let (of_whole, grown) = self.body(over, whole);
        let (of_empty, grown_by_empty) = self.body(over, Extent::NOTHING);
        let result = Extent {
            bytes: start.bytes + grown.bytes + (count - 1.0) * grown_by_empty.bytes,
            elements: count.max(grown.elements),
        };
        (of_range + of_start + of_whole + (count - 1.0) * of_empty + NODE, result)
    }

    /// One round, and by how much it makes the result larger.
    fn body(&mut self, over: &'a ComprehensionExpr, element: Extent) -> (f64, Extent) {
        let outside = self.bound.len();
        self.bound.push((&over.iter_var, element));
        self.bound.extend(over.iter_var2.as_deref().map(|name| (name, element)));
        self.bound.push((&over.accu_var, Extent::NOTHING));
        let (of_condition, _) = self.of(&over.loop_cond);
        let (of_step, grown) = self.of(&over.loop_step);
        self.bound.truncate(outside);
        // The element is copied to where its variable is kept.
        (of_condition + of_step + 2.0 * NODE + element.bytes, grown)
    }
}

fn sized(bytes: usize) -> Extent {
    Extent { bytes: bytes as f64, elements: 0.0 }
}
