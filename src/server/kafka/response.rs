//! Answers on their way out.
//!
//! Null, "" and empty lists: an answer has in each nullable field what Kafka's own server writes there, whatever else the schema
//! allows, because clients have only ever met that. The crate's structs have the schema's defaults, which are often something else.
//! The rule, which `tests/kafka/nulls.rs` holds every answer of every test to:
//!
//! - A list is never null, also an empty one (Kafka's Java client takes its stream). The one exception: `aborted_transactions` of
//!   Fetch is null for who reads uncommitted records.
//! - An `error_message` is null where there is no error. Two exceptions: FindCoordinator says "NONE" up to version 3 and "" from
//!   version 4 on; DescribeQuorum says "".
//! - Text without which a request cannot be understood (names, hosts, ids, the metadata of a position, the protocol of a group up to
//!   version 6 of JoinGroup) is never null: "" stands for none.
//! - Everything else that is not there is null: racks, instances, documentation that was not asked for, the name of a topic that was
//!   asked for by an unknown id, cursors, assignments that have not changed.

use std::fmt::Debug;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::Encodable;

use super::session::Hangup;
use super::told::Codes;
use super::wire::Writer;
use crate::server::budget::Grant;

/// An answer: pieces that go out one behind the other, and the bytes that they hold of the budget.
#[derive(Debug)]
pub struct Response {
    /// The pieces.
    pub pieces: Vec<Bytes>,
    /// What they hold.
    pub grant: Option<Grant>,
    /// The errors in it, for the log; not looked for in every answer if nothing of them is logged.
    pub errors: Codes,
}

/// What an answer repeats of its request.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The kind of the request.
    pub key: i16,
    /// Its version.
    pub version: i16,
    /// Whether that is a flexible one.
    pub flexible: bool,
    /// The client's number for it.
    pub correlation: i32,
    /// The log wants to know of errors in the answer.
    pub told: bool,
}

impl Asked {
    /// A writer with the head of the answer in it; its length is put in by [`Asked::finish`].
    pub fn writer(&self) -> Writer {
        let mut writer = Writer::new(self.flexible);
        writer.out.put_i32(0);
        writer.out.put_i32(self.correlation);
        writer.tags();
        writer
    }

    /// The answer whose first piece is `head`.
    pub fn finish(head: BytesMut, rest: impl IntoIterator<Item = Bytes>, grant: Option<Grant>) -> Response {
        let mut pieces = vec![Bytes::new()];
        pieces.extend(rest);
        let bytes = head.len() - 4 + pieces.iter().map(Bytes::len).sum::<usize>();
        let mut head = head;
        head[..4].copy_from_slice(&i32::try_from(bytes).unwrap_or(i32::MAX).to_be_bytes());
        pieces[0] = head.freeze();
        Response { pieces, grant, errors: Codes::default() }
    }

    /// An answer of one of the crate's structs.
    ///
    /// # Errors
    /// The struct has a field that its version cannot carry: a fault of this module.
    pub fn answer(&self, message: &(impl Encodable + Debug)) -> Result<Response, Hangup> {
        let mut writer = self.writer();
        message
            .encode(&mut writer.out, self.version)
            .map_err(|error| Hangup::Fault(format!("the answer cannot be encoded: {error}")))?;
        let mut response = Self::finish(writer.out, [], None);
        if self.told {
            response.errors = Codes::of(message);
        }
        Ok(response)
    }
}
