//! Which topics meet a pattern, and the news that this may have changed: one task a connection, which pushes no more often
//! than every [`PAUSE`], however many topics come and go.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::mapping::{self, Refusal};
use super::requests::long;
use super::session::{Answer, Session};
use crate::base::{ErrorKind, TopicPattern};
use crate::protocol::{Kind, MatchTopics, MatchTopicsOk, TopicsChanged, WatchTopics, WatchTopicsOk};
use crate::server::tasks;

/// Changes that come closer together than this are told once.
const PAUSE: Duration = Duration::from_millis(50);
/// Patterns of one request.
const PATTERNS: usize = 1000;

/// Begins to tell changes on this connection; asked again, nothing more happens.
///
/// # Errors
/// None.
pub async fn watch(session: Arc<Session>, _: WatchTopics) -> Result<Answer<WatchTopicsOk>, Refusal> {
    if !session.watches_topics.swap(true, Ordering::Relaxed) {
        // What changes from here on is told.
        let mut version = session.shared.broker.watch_topics();
        let session = session.clone();
        tasks::spawn("topic watch", async move {
            loop {
                tokio::select! {
                    changed = version.changed() => if changed.is_err() { break },
                    () = session.closing() => break,
                }
                session.push(Kind::TopicsChanged, 0, TopicsChanged {}.into()).await?;
                tokio::time::sleep(PAUSE).await;
            }
            Ok::<(), Refusal>(())
        });
    }
    Ok(WatchTopicsOk {}.into())
}

/// The topics that meet patterns.
///
/// # Errors
/// What is no pattern, or too many of them.
pub async fn match_topics(session: Arc<Session>, request: MatchTopics) -> Result<Answer<MatchTopicsOk>, Refusal> {
    let count = request.patterns.len();
    if count > PATTERNS {
        let message = format!("{count} patterns in one request; the limit is {PATTERNS}");
        return Err(Refusal::new(ErrorKind::InvalidRequest, message));
    }
    let patterns: Vec<_> =
        request.patterns.iter().map(|pattern| TopicPattern::new(pattern)).collect::<Result<_, _>>()?;
    let _turn = session.long_answers.acquire().await;
    long(&session, mapping::match_topics_ok(session.shared.broker.match_topics(&patterns))).await
}
