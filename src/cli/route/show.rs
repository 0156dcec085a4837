//! What became, or would become, of a record: for people and as JSON.

use std::io::Write;

use serde::Serialize;
use tidelog::client::{ExplainedRoute, RuleVerdict};
use tidelog::record::Headers;
use tidelog::route::{Explanation, Output, RouteSpec, Rule, Verdict};

use super::super::failure::Failure;
use super::super::json::Text;
use super::super::output;

/// Characters of a value that people are shown.
const SHOWN: usize = 100;

/// What one route makes of one record.
#[derive(Serialize)]
pub struct Shown<'a> {
    /// The route.
    pub route: &'a str,
    /// The conditions that were asked, for each part.
    pub parts: Vec<ShownPart<'a>>,
    /// What goes where.
    pub outputs: Vec<ShownOutput<'a>>,
    /// Parts, or whole records, that nobody wanted.
    pub unwanted: u64,
    /// Why it is a dead letter.
    pub failure: Option<ShownFailure<'a>>,
    /// It waits for other parts of its whole.
    #[serde(skip_serializing_if = "is_false")]
    pub waits: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// The conditions for a part, or for the whole where nothing is split.
#[derive(Serialize)]
pub struct ShownPart<'a> {
    /// `2/5`.
    pub part: Option<String>,
    /// Every condition.
    pub rules: Vec<ShownRule<'a>>,
}

/// A condition.
#[derive(Serialize)]
pub struct ShownRule<'a> {
    /// The destination's name.
    pub rule: &'a str,
    /// The condition; none for always.
    pub when: Option<&'a str>,
    /// `matched`, `not_matched`, `not_asked` or `failed`.
    pub verdict: &'static str,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
}

/// A record that goes somewhere.
#[derive(Serialize)]
pub struct ShownOutput<'a> {
    /// What sent it: a destination's name, `otherwise`, `tap` or `dead_letter`.
    pub rule: &'a str,
    /// Where.
    pub topic: &'a str,
    /// The partition, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// The offset, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Its key.
    pub key: Option<Text<'a>>,
    /// Which part of a whole it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// Its headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<&'a Headers>,
    /// Its value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Option<Text<'a>>>,
}

/// Why a record is a dead letter.
#[derive(Serialize)]
pub struct ShownFailure<'a> {
    /// The rule that could not be evaluated.
    pub rule: &'a str,
    /// One line.
    pub message: &'a str,
}

impl<'a> Shown<'a> {
    /// What a route says.
    pub fn new(spec: &'a RouteSpec, explanation: &'a Explanation) -> Self {
        let parts = explanation.parts.iter().map(|part| ShownPart {
            part: part.part.map(|(at, count)| format!("{at}/{count}")),
            rules: part
                .rules
                .iter()
                .map(|rule| {
                    let (verdict, error) = match &rule.verdict {
                        Verdict::Matched => ("matched", None),
                        Verdict::NotMatched => ("not_matched", None),
                        Verdict::NotAsked => ("not_asked", None),
                        Verdict::Failed(error) => ("failed", Some(error.as_str())),
                    };
                    ShownRule { rule: &rule.rule, when: rule.condition.as_deref(), verdict, error }
                })
                .collect(),
        });
        let routed = &explanation.routed;
        let failure = routed.failure.as_ref();
        Self {
            route: spec.name.as_str(),
            parts: parts.collect(),
            outputs: routed.outputs.iter().map(|output| shown(spec, output)).collect(),
            unwanted: routed.unwanted as u64,
            failure: failure.map(|failure| ShownFailure { rule: &failure.rule, message: &failure.message }),
            waits: false,
        }
    }

    /// Prints it for people.
    ///
    /// # Errors
    /// Those of standard output.
    pub fn print(&self, out: &mut impl Write) -> Result<(), Failure> {
        writeln!(out, "  route {}", self.route)?;
        for ShownPart { part, rules } in &self.parts {
            if let Some(part) = part {
                writeln!(out, "    part {part}")?;
            }
            for rule in rules {
                let mark = match rule.verdict {
                    "matched" => "yes",
                    "not_matched" => "no",
                    "failed" => "FAILED",
                    _ => "-",
                };
                let when = rule.when.map_or("always".to_owned(), one_line);
                let error = rule.error.map_or(String::new(), |error| format!("   {}", one_line(error)));
                writeln!(out, "      {mark:<7}{}: {when}{error}", rule.rule)?;
            }
        }
        for output in &self.outputs {
            let place = match (output.partition, output.offset) {
                (Some(partition), Some(offset)) => format!(" at {partition}/{offset}"),
                (Some(partition), None) => format!(" partition {partition}"),
                _ => String::new(),
            };
            let text = |text: &Text<'_>| one_line(&String::from_utf8_lossy(text.0));
            let key = output.key.as_ref().map_or(String::new(), |key| format!("  key {}", text(key)));
            let value = |value: &Option<Text<'_>>| {
                value.as_ref().map_or("  null".to_owned(), |value| format!("  {}", text(value)))
            };
            let value = output.value.as_ref().map_or(String::new(), value);
            let part = output.part.as_ref().map_or(String::new(), |part| format!("  part {part}"));
            writeln!(out, "    -> {}{place}  ({}){key}{part}{value}", output.topic, output.rule)?;
        }
        if let Some(failure) = &self.failure {
            writeln!(out, "    dead letter: rule '{}': {}", failure.rule, one_line(failure.message))?;
        }
        if self.unwanted > 0 {
            let what = if self.parts.iter().any(|part| part.part.is_some()) { "part" } else { "record" };
            writeln!(out, "    no rule matched {}", output::count(self.unwanted, what))?;
        }
        if self.waits {
            writeln!(out, "    waits for the other parts of its whole, or is put together with them")?;
        }
        Ok(())
    }
}

fn shown<'a>(spec: &'a RouteSpec, output: &'a Output) -> ShownOutput<'a> {
    let rule = match output.rule {
        Rule::To(at) => spec.to.get(at).map_or("", |destination| &destination.name),
        Rule::Otherwise => "otherwise",
        Rule::Tap => "tap",
        Rule::DeadLetter => "dead_letter",
    };
    let headers = &output.headers;
    ShownOutput {
        rule,
        topic: output.topic.as_str(),
        partition: None,
        offset: None,
        key: output.key.as_deref().map(Text),
        part: headers
            .iter()
            .find(|header| header.name == tidelog::route::PART.as_bytes())
            .and_then(|header| Some(String::from_utf8_lossy(header.value?).into_owned())),
        headers: Some(headers),
        value: Some(output.value.as_deref().map(Text)),
    }
}

/// At most so much of a text, on one line.
pub fn one_line(text: &str) -> String {
    let mut line: String =
        text.chars().take(SHOWN).map(|character| if character.is_control() { ' ' } else { character }).collect();
    if text.chars().nth(SHOWN).is_some() {
        line.push_str("...");
    }
    line
}

/// Where a record that was just sent went.
#[derive(Serialize)]
pub struct ShownTrace<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// What each route made of it.
    pub routes: Vec<TracedRoute<'a>>,
}

/// What a route made of it.
#[derive(Serialize)]
pub struct TracedRoute<'a> {
    /// It was routed in time.
    pub done: bool,
    /// Conditions and outputs.
    #[serde(flatten)]
    pub shown: Shown<'a>,
    /// Outputs that are not listed.
    pub more_outputs: u64,
}

impl<'a> ShownTrace<'a> {
    /// As the server tells it.
    pub fn new(topic: &'a str, partition: u32, offset: u64, routes: &'a [ExplainedRoute]) -> Self {
        Self { topic, partition, offset, routes: routes.iter().map(traced).collect() }
    }
}

fn traced(of: &ExplainedRoute) -> TracedRoute<'_> {
    let parts = of.parts.iter().map(|part| ShownPart {
        part: part.part.clone(),
        rules: part
            .rules
            .iter()
            .map(|rule| {
                let verdict = match rule.verdict {
                    RuleVerdict::Matched => "matched",
                    RuleVerdict::NotMatched => "not_matched",
                    RuleVerdict::NotAsked => "not_asked",
                    RuleVerdict::Failed => "failed",
                };
                ShownRule { rule: &rule.rule, when: rule.when.as_deref(), verdict, error: rule.error.as_deref() }
            })
            .collect(),
    });
    let outputs = of.outputs.iter().map(|output| ShownOutput {
        rule: &output.rule,
        topic: &output.topic,
        partition: Some(output.partition),
        offset: output.offset,
        key: output.key.as_deref().map(Text),
        part: output.part.clone(),
        headers: None,
        value: None,
    });
    let failure = of.failure.as_ref();
    let shown = Shown {
        route: &of.route,
        parts: parts.collect(),
        outputs: outputs.collect(),
        unwanted: of.unwanted,
        failure: failure.map(|failure| ShownFailure { rule: &failure.rule, message: &failure.message }),
        waits: of.aggregated,
    };
    TracedRoute { done: of.done, shown, more_outputs: of.more_outputs }
}

/// Prints it for people.
///
/// # Errors
/// Those of standard output.
pub fn print_trace(out: &mut impl Write, trace: &ShownTrace<'_>) -> Result<(), Failure> {
    writeln!(out, "record {}/{}/{}", trace.topic, trace.partition, trace.offset)?;
    if trace.routes.is_empty() {
        writeln!(out, "  no route reads this topic")?;
    }
    for TracedRoute { done, shown, more_outputs } in &trace.routes {
        shown.print(out)?;
        if *more_outputs > 0 {
            writeln!(out, "    and {}", output::count(*more_outputs, "record"))?;
        }
        if !done {
            writeln!(out, "    not routed yet")?;
        }
    }
    Ok(())
}
