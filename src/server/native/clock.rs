//! The clock: between the wire and the broker.

use std::sync::Arc;

use super::mapping::Refusal;
use super::session::{Answer, Session};
use crate::base::ClockDoubt;
use crate::protocol as wire;

/// What the server believes of its wall clock.
pub async fn describe(
    session: Arc<Session>,
    _request: wire::DescribeClock,
) -> Result<Answer<wire::DescribeClockOk>, Refusal> {
    let look = session.shared.broker.clock_look();
    Ok(wire::DescribeClockOk {
        wall_ms: look.wall_ms,
        now_ms: look.now_ms,
        certain_ms: look.certain_ms,
        doubt: look.doubt.map(doubt),
    }
    .into())
}

/// Somebody knows that the wall clock is right.
pub async fn confirm(
    session: Arc<Session>,
    _request: wire::ConfirmClock,
) -> Result<Answer<wire::ConfirmClockOk>, Refusal> {
    let before = session.shared.broker.confirm_clock().await?;
    Ok(wire::ConfirmClockOk { doubt: before.doubt.map(doubt) }.into())
}

fn doubt(doubt: ClockDoubt) -> wire::ClockDoubt {
    wire::ClockDoubt {
        at_start: doubt.at_start,
        ahead_ms: doubt.ahead_ms,
        steady_ms: doubt.steady_ms,
        quarantine_ms: doubt.quarantine_ms,
    }
}
