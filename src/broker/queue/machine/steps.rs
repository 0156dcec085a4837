//! Timers move along with the steps of the clock.

use crate::base::{Offset, TimestampMs};

use super::{CONDEMNED, Machine, RELEASED, State};

impl Machine {
    /// The clock has made so many steps, in milliseconds, since the server started. Leases and back-offs are spans, so they end
    /// as much later or earlier; a delay that a record asks for is a time, and stays.
    pub(crate) fn follow(&mut self, now: TimestampMs, steps: i64) {
        let step = steps.saturating_sub(self.steps.replace(steps).unwrap_or(steps));
        if step == 0 {
            return;
        }
        let before = now.saturating_sub(step);
        let mut kept: Vec<(Offset, Offset)> = Vec::new();
        self.deadlines.clear();
        self.dues.clear();
        for (from, span) in &mut self.spans {
            match &mut span.state {
                State::Leased { deadline, .. } => {
                    *deadline = deadline.saturating_add(step);
                    self.deadlines.insert((*deadline, *from));
                }
                State::Waiting { due } => {
                    let failed = span.failed > 0 && span.failed != CONDEMNED;
                    if *due != RELEASED && (failed || *due <= before) {
                        *due = due.saturating_add(step);
                    }
                    if failed {
                        kept.push((*from, span.end));
                    }
                    self.dues.insert((*due, *from));
                }
                State::Blocked { due: Some(due) } if span.failed > 0 && span.failed != CONDEMNED => {
                    *due = due.saturating_add(step);
                }
                State::Blocked { .. } => {}
            }
        }
        for (_, due) in self.known_failed.values_mut() {
            *due = due.saturating_add(step);
        }
        // What is kept of them says when they are due.
        for (from, to) in kept {
            self.touch(from, to);
        }
    }
}
