//! The messages about requests and replies.

use serde::{Deserialize, Serialize};

use super::{Kind, Message, Request};

/// A named value beside a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedValue {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

/// A request to whoever responds on a topic; the payload is its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The topic.
    pub topic: String,
    /// How long an answer is of use.
    pub timeout_ms: u64,
    /// What is said beside the body.
    pub headers: Vec<NamedValue>,
    /// Topics whose responders are asked in turn, each with the reply of the one before.
    pub itinerary: Vec<String>,
    /// The request is kept on disk; without it, it never touches the disk.
    pub durable: Option<DurableAsk>,
}

impl Message for Ask {
    const KIND: Kind = Kind::Ask;
}

impl Request for Ask {
    type Response = AskOk;
}

/// What a durable request has beside the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurableAsk {
    /// Its correlation id, chosen by who asks: the same one again is the same request.
    pub id: String,
    /// Where the outcome is to be delivered: a topic.
    pub callback: Option<String>,
}

/// What became of a request; the payload is the reply's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskOk {
    /// What became of it.
    pub outcome: Outcome,
    /// What the responder said beside the body.
    pub headers: Vec<NamedValue>,
}

impl Message for AskOk {
    const KIND: Kind = Kind::Ask;
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Not decided: a durable request is on disk.
    Open,
    /// A reply; the payload is its body.
    Reply,
    /// The responder could not do it.
    Error {
        /// What a program looks at.
        code: String,
        /// What a person reads.
        text: String,
        /// The step at which it failed, from 0.
        step: u32,
        /// The topic of that step.
        topic: String,
    },
    /// Nobody responds on the topic.
    NoResponder {
        /// The step, from 0.
        step: u32,
        /// The topic of that step.
        topic: String,
    },
    /// Its time was over.
    TimedOut {
        /// The step that was waited for, from 0.
        step: u32,
        /// The topic of that step.
        topic: String,
    },
    /// It was cancelled.
    Cancelled,
}

/// Asks to be a responder on a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Respond {
    /// The topic.
    pub topic: String,
    /// Requests that it may have at a time.
    pub capacity: u32,
    /// It takes durable requests too.
    pub durable: bool,
}

impl Message for Respond {
    const KIND: Kind = Kind::Respond;
}

impl Request for Respond {
    type Response = RespondOk;
}

/// The responder is listening.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RespondOk {
    /// Its id.
    pub responder: u64,
    /// How long a durable request is its own without a word of it; 0 if it takes none.
    pub lease_ms: u64,
}

impl Message for RespondOk {
    const KIND: Kind = Kind::Respond;
}

/// Ends a responder, once its replies so far are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopResponding {
    /// The responder.
    pub responder: u64,
}

impl Message for StopResponding {
    const KIND: Kind = Kind::StopResponding;
}

impl Request for StopResponding {
    type Response = StopRespondingOk;
}

/// The responder has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRespondingOk {}

impl Message for StopRespondingOk {
    const KIND: Kind = Kind::StopResponding;
}

/// Pushed to a responder: a request; the payload is its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The responder.
    pub responder: u64,
    /// Names the request in what the responder says of it.
    pub delivery: u64,
    /// The correlation id, of a durable request.
    pub id: Option<String>,
    /// The step of an itinerary, from 0.
    pub step: u32,
    /// Which delivery of the request it is, from 1.
    pub attempt: u32,
    /// How long an answer is still of use, if that is limited.
    pub timeout_ms: Option<u64>,
    /// What is said beside the body.
    pub headers: Vec<NamedValue>,
}

impl Message for Asked {
    const KIND: Kind = Kind::Asked;
}

/// The final word on a request, which is not answered; the payload is the reply's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The responder.
    pub responder: u64,
    /// The request.
    pub delivery: u64,
    /// That it could not be done.
    pub error: Option<ReplyError>,
    /// What is said beside the body.
    pub headers: Vec<NamedValue>,
}

impl Message for Reply {
    const KIND: Kind = Kind::Reply;
}

/// Why a request could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyError {
    /// What a program looks at.
    pub code: String,
    /// What a person reads.
    pub text: String,
}

/// A part of a reply, as payload, or the news that the request is being worked on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The responder.
    pub responder: u64,
    /// The request.
    pub delivery: u64,
    /// There is a part.
    pub part: bool,
    /// What is said beside the part.
    pub headers: Vec<NamedValue>,
}

impl Message for Progress {
    const KIND: Kind = Kind::Progress;
}

impl Request for Progress {
    type Response = ProgressOk;
}

/// The part is on its way, and the next one may be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressOk {
    /// Somebody still waits for the reply.
    pub wanted: bool,
}

impl Message for ProgressOk {
    const KIND: Kind = Kind::Progress;
}

/// Pushed to a requester: a part of the reply, as payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyPart {
    /// What the responder said beside it.
    pub headers: Vec<NamedValue>,
}

impl Message for ReplyPart {
    const KIND: Kind = Kind::Progress;
}

/// Asks what became of a durable request, and waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitReply {
    /// The correlation id.
    pub id: String,
    /// How long to wait.
    pub wait_ms: u64,
}

impl Message for AwaitReply {
    const KIND: Kind = Kind::AwaitReply;
}

impl Request for AwaitReply {
    type Response = AwaitReplyOk;
}

/// What became of it; the payload is the reply's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitReplyOk {
    /// The request.
    pub request: RequestInfo,
    /// What became of it.
    pub outcome: Outcome,
    /// What the responder said beside the body.
    pub headers: Vec<NamedValue>,
}

impl Message for AwaitReplyOk {
    const KIND: Kind = Kind::AwaitReply;
}

/// A durable request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestInfo {
    /// The correlation id.
    pub id: String,
    /// `open`, `replied`, `failed`, `timed_out` or `cancelled`.
    pub state: String,
    /// The topics of its steps, in order.
    pub steps: Vec<String>,
    /// The step that is waited for, or at which it ended, from 0.
    pub step: u32,
    /// Who asked.
    pub requester: String,
    /// When it was asked, in milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// When its time is over.
    pub deadline_ms: i64,
    /// When it ended.
    pub finished_ms: Option<i64>,
    /// Where the outcome is delivered.
    pub callback: Option<String>,
    /// `none`, `waiting` (for the outcome), `sending`, `delivered` or `dead_letter`.
    pub callback_state: String,
    /// Why it failed.
    pub error: Option<ReplyError>,
}

/// Asks for durable requests, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListRequests {
    /// Only those in this state; see [`RequestInfo::state`].
    pub state: Option<String>,
    /// Only those with a step of this topic.
    pub topic: Option<String>,
    /// Only those behind this one in the list: the last of the page before.
    pub before: Option<String>,
    /// So many at the most.
    pub limit: u32,
}

impl Default for ListRequests {
    /// As many as one answer holds.
    fn default() -> Self {
        Self { state: None, topic: None, before: None, limit: 1000 }
    }
}

impl Message for ListRequests {
    const KIND: Kind = Kind::ListRequests;
}

impl Request for ListRequests {
    type Response = ListRequestsOk;
}

/// Durable requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListRequestsOk {
    /// Those asked for.
    pub requests: Vec<RequestInfo>,
    /// There are more.
    pub more: bool,
}

impl Message for ListRequestsOk {
    const KIND: Kind = Kind::ListRequests;
}

/// Ends a durable request without a reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRequest {
    /// The correlation id.
    pub id: String,
}

impl Message for CancelRequest {
    const KIND: Kind = Kind::CancelRequest;
}

impl Request for CancelRequest {
    type Response = CancelRequestOk;
}

/// The request has ended: cancelled, unless something else came first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRequestOk {
    /// The request.
    pub request: RequestInfo,
}

impl Message for CancelRequestOk {
    const KIND: Kind = Kind::CancelRequest;
}
