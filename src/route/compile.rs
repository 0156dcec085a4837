//! From a declaration to what can be asked.

use bytes::Bytes;

use crate::base::TopicName;
use crate::expr::{Expression, Variables};

use super::cut::Cut;
use super::index::{Condition, Index};
use super::spec::{DestinationSpec, RouteSpec, Target};

/// A route that can be asked where records go.
#[derive(Debug)]
pub struct Route {
    pub(super) spec: RouteSpec,
    /// Its name, as a header has it.
    pub(super) name: Bytes,
    pub(super) split: Option<Cut>,
    pub(super) key: Option<Expression>,
    pub(super) headers: Vec<(String, Expression)>,
    pub(super) conditions: Vec<Condition>,
    pub(super) index: Index,
    pub(super) to: Vec<Destination>,
    pub(super) otherwise: Option<Destination>,
    pub(super) dead_letters: TopicName,
}

#[derive(Debug)]
pub(super) struct Destination {
    pub(super) name: String,
    pub(super) topic: Topic,
    pub(super) take: Option<Cut>,
    pub(super) shape: Option<Expression>,
    pub(super) key: Option<Expression>,
    pub(super) headers: Vec<(String, Expression)>,
}

#[derive(Debug)]
pub(super) enum Topic {
    Fixed(TopicName),
    Computed(Box<Expression>),
}

impl Route {
    /// Compiles a declaration.
    ///
    /// # Errors
    /// An expression or path in it that is wrong. What [`super::read`] gave has none.
    pub fn compile(spec: &RouteSpec) -> Result<Self, String> {
        let variables = if spec.split.is_some() { Variables::RecordAndPart } else { Variables::Record };
        let wrong = |what: String| format!("route '{}': {what}", spec.name);
        let made = |source: &String| Expression::compile(source, variables).map_err(|error| wrong(error.to_string()));
        let cut = |path: &String| Cut::parse(path, true).map_err(|error| wrong(format!("'{path}' {}", error.message)));
        let destination = |spec: &DestinationSpec| {
            let topic = match &spec.topic {
                Target::Fixed(topic) => Topic::Fixed(topic.clone()),
                Target::Computed(source) => Topic::Computed(Box::new(made(source)?)),
            };
            let headers = spec.headers.iter().map(|(name, source)| Ok((name.clone(), made(source)?)));
            Ok::<_, String>(Destination {
                name: spec.name.clone(),
                topic,
                take: spec.take.as_ref().map(cut).transpose()?,
                shape: spec.shape.as_ref().map(made).transpose()?,
                key: spec.key.as_ref().map(made).transpose()?,
                headers: headers.collect::<Result<_, String>>()?,
            })
        };
        let conditions = spec.to.iter().map(|one| one.when.as_ref().map(made).transpose());
        let conditions: Vec<Condition> = conditions.collect::<Result<_, String>>()?;
        let headers = spec.headers.iter().map(|(name, source)| Ok((name.clone(), made(source)?)));
        Ok(Self {
            split: spec.split.as_ref().map(cut).transpose()?,
            key: spec.key.as_ref().map(made).transpose()?,
            headers: headers.collect::<Result<_, String>>()?,
            index: Index::new(&conditions, variables),
            conditions,
            to: spec.to.iter().map(destination).collect::<Result<_, String>>()?,
            otherwise: spec.otherwise.as_ref().map(destination).transpose()?,
            dead_letters: spec.dead_letters(),
            name: Bytes::from(spec.name.as_str().to_owned()),
            spec: spec.clone(),
        })
    }

    /// What was declared.
    pub fn spec(&self) -> &RouteSpec {
        &self.spec
    }
}
