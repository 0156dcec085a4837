//! What is due again: leased anew, put off, or condemned.

use crate::base::{Offset, TimestampMs};
use crate::catalog::Processed;

use super::{BURIAL, CONDEMNED, Due, Machine, MemberId, Span, State};

impl Machine {
    /// Leases what was due to a member (or to [`BURIAL`]), and says which records that were: one may have been acked
    /// meanwhile. A record of it that is not named among `there` is done: it is of no use any more if it is named among
    /// `expired`, or else gone from the log.
    pub(crate) fn lease_due(
        &mut self,
        due: Due,
        (there, expired): (&[Offset], &[Offset]),
        member: MemberId,
        now: TimestampMs,
    ) -> Vec<Offset> {
        let mut leased = Vec::with_capacity(there.len());
        let deadline = self.deadline(now);
        let mut there = there.iter().copied().peekable();
        for (from, span) in self.carve(due.from, due.to) {
            // One that is to be a dead letter has been condemned meanwhile, or it was put off.
            let is_due = matches!(span.state, State::Waiting { due } if due <= now);
            if !is_due || span.failed == CONDEMNED && due.failed != CONDEMNED {
                self.put(from, span);
                continue;
            }
            let mut at = from;
            while at < span.end {
                while there.next_if(|offset| *offset < at).is_some() {}
                if there.peek() != Some(&at) {
                    let is_expired = expired.binary_search(&at).is_ok();
                    let ending = if is_expired { Processed::Expired } else { Processed::Deleted };
                    self.endings.add(at, at + 1, ending);
                    self.done(at, Span { end: at + 1, ..span }, now);
                    at += 1;
                    continue;
                }
                let begin = at;
                while at < span.end && there.next_if_eq(&at).is_some() {
                    leased.push(at);
                    at += 1;
                }
                self.put(begin, Span { end: at, state: State::Leased { member, deadline }, ..span });
                if member != BURIAL {
                    self.redeliveries += at - begin;
                }
            }
        }
        leased
    }

    /// What was due waits for longer.
    pub(crate) fn put_off(&mut self, due: Due, until: TimestampMs) {
        for (from, span) in self.carve(due.from, due.to) {
            let waits = matches!(span.state, State::Waiting { .. });
            self.put(from, if waits { Span { state: State::Waiting { due: until }, ..span } } else { span });
        }
    }

    /// A record that waits is to be a dead letter, whatever its deliveries.
    pub(crate) fn condemn(&mut self, offset: Offset, now: TimestampMs) {
        for (from, span) in self.carve(offset, offset + 1) {
            let waits = matches!(span.state, State::Waiting { .. });
            let condemned = Span { failed: CONDEMNED, state: State::Waiting { due: now }, ..span };
            if waits {
                self.touch(from, span.end);
            }
            self.put(from, if waits { condemned } else { span });
        }
    }
}
