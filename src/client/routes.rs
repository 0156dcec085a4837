//! Administration of routes.

use std::time::Duration;

use crate::base::{Offset, PartitionId};
use crate::protocol::{
    ApplyRoutes, ApplyRoutesOk, DeleteRoute, DescribeRoute, ExplainRecord, ExplainedRoute, ListRoutes, OffsetAt,
    PauseRoute, ResetPoint, ResetRoute, RouteDescription, RouteSummary,
};

use super::link::Again;
use super::{Admin, ClientError};

impl Admin {
    /// Applies a file of routes as a whole, or says what would change, or what is wrong in it. With `prune` routes that are not
    /// in it are deleted.
    pub async fn apply_routes(
        &self,
        text: impl Into<String>,
        dry_run: bool,
        prune: bool,
    ) -> Result<ApplyRoutesOk, ClientError> {
        self.link.ask(&ApplyRoutes { text: text.into(), dry_run, prune }, Again::Yes).await
    }

    /// All routes, by name.
    pub async fn list_routes(&self) -> Result<Vec<RouteSummary>, ClientError> {
        Ok(self.link.ask(&ListRoutes {}, Again::Yes).await?.routes)
    }

    /// One route: its declaration, what it has done, how far it is, and what went wrong.
    pub async fn describe_route(&self, name: impl Into<String>) -> Result<RouteDescription, ClientError> {
        Ok(self.link.ask(&DescribeRoute { name: name.into() }, Again::Yes).await?.route)
    }

    /// Lets a route stand still; everything that it had begun is done then.
    pub async fn pause_route(&self, name: impl Into<String>) -> Result<(), ClientError> {
        self.link.ask(&PauseRoute { name: name.into(), paused: true }, Again::Yes).await.map(|_| ())
    }

    /// Lets a route go on.
    pub async fn resume_route(&self, name: impl Into<String>) -> Result<(), ClientError> {
        self.link.ask(&PauseRoute { name: name.into(), paused: false }, Again::Yes).await.map(|_| ())
    }

    /// Lets a route go on from another place: it routes what it reads there as if for the first time.
    /// With `dry_run` it only says where it is and would go on.
    pub async fn reset_route(
        &self,
        name: impl Into<String>,
        to: OffsetAt,
        dry_run: bool,
    ) -> Result<Vec<ResetPoint>, ClientError> {
        Ok(self.link.ask(&ResetRoute { name: name.into(), to, dry_run }, Again::No).await?.from)
    }

    /// Deletes a route. What it has written stays.
    pub async fn delete_route(&self, name: impl Into<String>) -> Result<(), ClientError> {
        self.link.ask(&DeleteRoute { name: name.into() }, Again::No).await.map(|_| ())
    }

    /// Where routes sent a record, and why; waits for them so long.
    pub async fn explain_record(
        &self,
        topic: impl Into<String>,
        partition: PartitionId,
        offset: Offset,
        wait: Duration,
    ) -> Result<Vec<ExplainedRoute>, ClientError> {
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let request = ExplainRecord { topic: topic.into(), partition, offset, wait_ms };
        Ok(self.link.ask(&request, Again::Yes).await?.routes)
    }
}
