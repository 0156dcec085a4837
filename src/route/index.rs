//! Which conditions hold, without asking each: those that begin with `field == "literal"` are looked up by the field's value.
//!
//! The answers and errors are those of asking one after the other. A condition `a == "x" && rest` is false where `a` has
//! another value, whatever `rest` is; where it has this one, or cannot be had, the condition itself is asked.

use std::collections::HashMap;

use crate::expr::{EvalError, Expression, Literal, Scalar, Scope, Variables};

use super::spec::Matching;

/// Conditions with a common field, fewer of which are not worth a look-up.
const WORTH_IT: usize = 3;

/// One destination's condition, `None` for always.
pub(super) type Condition = Option<Expression>;

/// What conditions say about a record or part.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Matched {
    /// Those that hold and count, in order.
    pub(super) holds: Vec<usize>,
    /// The first that cannot be evaluated, if that was found out.
    pub(super) failed: Option<(usize, EvalError)>,
}

/// In which order conditions are asked.
#[derive(Debug)]
pub(super) struct Index {
    /// By the first condition in each.
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Ask(usize),
    LookUp(Box<Group>),
}

#[derive(Debug)]
struct Group {
    field: Expression,
    /// The conditions for a value, in order, and whether each is nothing but the comparison.
    by_value: HashMap<Literal, Vec<(usize, bool)>>,
    /// All of them, in order.
    all: Vec<usize>,
}

impl Step {
    fn first(&self) -> usize {
        match self {
            Self::Ask(at) => *at,
            Self::LookUp(group) => group.all.first().copied().unwrap_or(0),
        }
    }
}

impl Index {
    pub(super) fn new(conditions: &[Condition], variables: Variables) -> Self {
        let mut steps = Vec::new();
        let mut guarded: HashMap<String, Vec<(usize, Literal, bool)>> = HashMap::new();
        for (at, condition) in conditions.iter().enumerate() {
            match condition.as_ref().and_then(Expression::guard) {
                Some(guard) => guarded.entry(guard.path).or_default().push((at, guard.literal, guard.alone)),
                None => steps.push(Step::Ask(at)),
            }
        }
        for (path, of_path) in guarded {
            let field = Expression::compile(&path, variables).ok().filter(|_| of_path.len() >= WORTH_IT);
            let Some(field) = field else {
                steps.extend(of_path.into_iter().map(|(at, ..)| Step::Ask(at)));
                continue;
            };
            let all = of_path.iter().map(|(at, ..)| *at).collect();
            let mut by_value: HashMap<Literal, Vec<(usize, bool)>> = HashMap::new();
            for (at, literal, alone) in of_path {
                by_value.entry(literal).or_default().push((at, alone));
            }
            steps.push(Step::LookUp(Box::new(Group { field, by_value, all })));
        }
        steps.sort_by_key(Step::first);
        Self { steps }
    }

    /// Asks the conditions. With [`Matching::First`] only what comes before the first that holds is asked, so only its failures
    /// are found.
    pub(super) fn ask(&self, conditions: &[Condition], matching: Matching, scope: &mut Scope<'_>) -> Matched {
        let mut asking = Asking { conditions, matching, scope, best: usize::MAX, matched: Matched::default() };
        for step in &self.steps {
            if step.first() > asking.best {
                break;
            }
            match step {
                Step::Ask(at) => asking.ask(*at),
                Step::LookUp(group) => asking.look_up(group),
            }
        }
        let Matched { mut holds, failed } = asking.matched;
        holds.sort_unstable();
        if matching == Matching::First {
            holds.truncate(1);
        }
        // What comes behind the first match was not to be asked.
        let first = holds.first().copied().filter(|_| matching == Matching::First).unwrap_or(usize::MAX);
        match failed {
            Some((at, error)) if at < first => Matched { holds: Vec::new(), failed: Some((at, error)) },
            _ => Matched { holds, failed: None },
        }
    }
}

struct Asking<'a, 's, 'v> {
    conditions: &'a [Condition],
    matching: Matching,
    scope: &'s mut Scope<'v>,
    /// Behind this one nothing need be asked.
    best: usize,
    matched: Matched,
}

impl Asking<'_, '_, '_> {
    fn ask(&mut self, at: usize) {
        if at > self.best {
            return;
        }
        let says = match self.conditions.get(at) {
            Some(Some(condition)) => self.scope.says(condition),
            _ => Ok(true),
        };
        match says {
            Ok(true) => self.hold(at),
            Ok(false) => {}
            Err(error) => {
                // After a failure nothing goes anywhere: only an earlier one is of interest.
                self.best = self.best.min(at);
                if self.matched.failed.as_ref().is_none_or(|(known, _)| at < *known) {
                    self.matched.failed = Some((at, error));
                }
            }
        }
    }

    fn hold(&mut self, at: usize) {
        self.matched.holds.push(at);
        if self.matching == Matching::First {
            self.best = self.best.min(at);
        }
    }

    fn look_up(&mut self, group: &Group) {
        let literal = match self.scope.scalar(&group.field) {
            Ok(Scalar::Text(text)) => Literal::Text(text),
            Ok(Scalar::Int(number)) => Literal::Int(number),
            // Numbers of another kind may equal a whole number; and without a value every condition says why.
            Ok(Scalar::Other) | Err(_) => {
                for at in &group.all {
                    self.ask(*at);
                }
                return;
            }
        };
        for (at, alone) in group.by_value.get(&literal).into_iter().flatten() {
            if *alone && *at <= self.best { self.hold(*at) } else { self.ask(*at) }
        }
    }
}
