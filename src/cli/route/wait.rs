//! `--wait` of `tidelog route describe`.

use std::time::Duration;

use tidelog::base::Millis;
use tidelog::client::{Admin, RouteDescription};
use tokio::time::Instant;

use super::super::failure::{Failure, Status};
use super::super::output::grouped;
use super::super::progress::{Progress, Unit};

/// How often a route is asked for, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Waits until a route has routed the records that are there when this begins.
///
/// # Errors
/// It has not within the time; it is paused; the server's.
pub async fn until_routed(admin: &Admin, route: &str, wait: Millis) -> Result<RouteDescription, Failure> {
    let until = Instant::now() + Duration::from_millis(wait.0);
    let first = admin.describe_route(route).await?;
    let left = |now: &RouteDescription| -> u64 {
        let goals = first.partitions.iter().map(|goal| {
            let at = now.partitions.iter().find(|at| at.topic == goal.topic && at.partition == goal.partition);
            // A topic that was deleted meanwhile holds up nobody.
            at.map_or(0, |at| goal.end.saturating_sub(at.offset))
        });
        goals.sum()
    };
    let all = left(&first);
    let mut progress = Progress::new(Unit::Records, Some(all), "waiting for the route");
    let (mut now, mut pause, mut before) = (first.clone(), PAUSES.0, all);
    loop {
        let rest = left(&now);
        progress.advance(before.saturating_sub(rest));
        before = before.min(rest);
        if rest == 0 {
            return Ok(now);
        }
        let still = format!("route '{route}' has {} of {} records still to route", grouped(rest), grouped(all));
        if now.summary.state == "paused" {
            return Err(Failure::As(Status::Conflict, format!("{still}: it is paused; tidelog route resume {route}")));
        }
        if Instant::now() >= until {
            return Err(Failure::As(Status::TimedOut, format!("{still} after {wait}")));
        }
        tokio::time::sleep(pause.min(until.saturating_duration_since(Instant::now()))).await;
        pause = (pause * 2).min(PAUSES.1);
        now = admin.describe_route(route).await?;
    }
}
