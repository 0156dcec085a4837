//! Why a record goes where it goes, for people.

use crate::expr::{Input, Scope};

use super::compile::Route;
use super::evaluate::{Routed, Source};
use super::spec::Matching;

/// What a condition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Matched,
    /// It doesn't.
    NotMatched,
    /// An earlier one held, and only the first counts.
    NotAsked,
    /// It cannot be said.
    Failed(String),
}

/// A condition and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleVerdict {
    /// The destination's name.
    pub rule: String,
    /// The condition, `None` for always.
    pub condition: Option<String>,
    /// What it says.
    pub verdict: Verdict,
}

/// A part, or the whole where nothing is split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartExplanation {
    /// Which part of how many.
    pub part: Option<(usize, usize)>,
    /// Every condition, in order.
    pub rules: Vec<RuleVerdict>,
}

/// What becomes of a record, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What was asked.
    pub parts: Vec<PartExplanation>,
    /// What becomes of it.
    pub routed: Routed,
}

impl Route {
    /// What becomes of a record, and why. Every condition is asked, one after the other.
    pub fn explain(&self, input: &Input<'_>) -> Explanation {
        let mut parts = Vec::new();
        let mut scope = Scope::new(*input);
        let passes = Source::new(self, input).hops().is_ok();
        match self.parts(input.record) {
            Ok(None) if passes => parts.push(PartExplanation { part: None, rules: self.verdicts(&mut scope) }),
            Ok(Some(found)) if passes => {
                let count = found.len();
                for (at, part) in found.into_iter().enumerate() {
                    scope.set_part(part.as_bytes());
                    parts.push(PartExplanation { part: Some((at + 1, count)), rules: self.verdicts(&mut scope) });
                }
            }
            // What is wrong with it is said by what becomes of it.
            _ => {}
        }
        Explanation { parts, routed: self.route(input) }
    }

    fn verdicts(&self, scope: &mut Scope<'_>) -> Vec<RuleVerdict> {
        let mut decided = false;
        let mut verdicts = Vec::with_capacity(self.to.len());
        for (destination, condition) in self.to.iter().zip(&self.conditions) {
            let verdict = match condition {
                _ if decided => Verdict::NotAsked,
                None => Verdict::Matched,
                Some(condition) => match scope.says(condition) {
                    Ok(true) => Verdict::Matched,
                    Ok(false) => Verdict::NotMatched,
                    Err(error) => Verdict::Failed(error.message),
                },
            };
            let ends = matches!(verdict, Verdict::Matched | Verdict::Failed(_));
            decided |= ends && self.spec.matching == Matching::First;
            let condition = condition.as_ref().map(|condition| condition.source().to_owned());
            verdicts.push(RuleVerdict { rule: destination.name.clone(), condition, verdict });
        }
        verdicts
    }
}
