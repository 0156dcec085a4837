//! Changes of a push subscription that is there.

use std::sync::Arc;

use crate::catalog::{Event, PushEntry};

use super::super::broker::lock;
use super::super::groups::{AlterGroup, RulesChange};
use super::super::{Broker, BrokerError};
use super::admin::{check, no_push};
use super::{AlterPush, PushDescription};

impl Broker {
    /// Changes a push subscription and its group; what is not said stays, also where it is and whether it is paused. When this
    /// returns, the change is durable, and calls that begin from then on are as it says.
    ///
    /// # Errors
    /// There is none of that name; a part of it is refused; the journal's.
    pub async fn alter_push(self: &Arc<Self>, change: AlterPush) -> Result<PushDescription, BrokerError> {
        let changing = self.pushes.changing.lock().await;
        let name = change.name.clone();
        let held = lock(&self.catalog).push(&name).cloned().ok_or_else(|| no_push(&name))?;
        let url = change.url.clone().unwrap_or_else(|| held.url.clone());
        let endpoint = change.endpoint.apply(&name, &held.endpoint, (Some(&held.url), &url), &self.clock)?;
        let altered = PushEntry {
            url,
            batch: change.batch.unwrap_or(held.batch),
            concurrency: change.concurrency.unwrap_or(held.concurrency),
            timeout_ms: change.timeout_ms.unwrap_or(held.timeout_ms),
            endpoint,
            ..held.clone()
        };
        check(&name, altered.batch, altered.concurrency, altered.timeout_ms)?;
        // The group first: after a crash in between, the same change again makes the rest.
        if !change.topics.is_empty() || change.filter.is_some() || change.rules != RulesChange::default() {
            let AlterPush { name, topics, filter, rules, start, .. } = change;
            self.alter_group_of_push(AlterGroup { name, topics, filter, rules, start }).await?;
        }
        if altered != held {
            tracing::info!(push = %name, url = altered.url, "push subscription altered");
            let altered = PushEntry { changed_ms: self.clock.now_ms(), ..altered };
            self.commit_push(vec![Event::PushSet(altered)]).await?;
        }
        drop(changing);
        self.describe_push(&name).await
    }
}
