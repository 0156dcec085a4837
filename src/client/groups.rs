//! What is stuck in queue groups, and what an operator does about it.

use crate::base::ErrorKind;
use crate::protocol::{
    DescribeFilter, DescribeFilterOk, GroupRecord, ListGroupRecords, PauseGroup, PausedGroup, PausedGroups, RecordAt,
    ResetPartition, ResetPartitions, ResetTo, SkipRecord, TopicPartition,
};

use super::link::Again;
use super::{Admin, ClientError};

impl Admin {
    /// What the filter of a queue group said of records, since the group has it or since the server started.
    pub async fn describe_filter(&self, group: impl Into<String>) -> Result<DescribeFilterOk, ClientError> {
        self.link.ask(&DescribeFilter { group: group.into() }, Again::Yes).await
    }

    /// Records that a queue group has begun with and not done, by topic, partition and offset: from a place on, at most `limit`
    /// (1 to 1000), and where to go on if there are more. A page may have fewer.
    pub async fn group_records(
        &self,
        group: impl Into<String>,
        from: Option<RecordAt>,
        limit: u32,
    ) -> Result<(Vec<GroupRecord>, Option<RecordAt>), ClientError> {
        let page = self.link.ask(&ListGroupRecords { group: group.into(), from, limit }, Again::Yes).await?;
        Ok((page.records, page.next))
    }

    /// Lets a queue group hand out nothing new, also over restarts; what its members have in hand goes on. Whether it was not
    /// paused before.
    pub async fn pause_group(&self, group: impl Into<String>) -> Result<bool, ClientError> {
        Ok(self.link.ask(&PauseGroup { name: group.into(), paused: true }, Again::Yes).await?.changed)
    }

    /// Lets a queue group go on. Whether it was paused before.
    pub async fn resume_group(&self, group: impl Into<String>) -> Result<bool, ClientError> {
        Ok(self.link.ask(&PauseGroup { name: group.into(), paused: false }, Again::Yes).await?.changed)
    }

    /// Says that a record is done for a queue group, without a delivery and durably; what it was before. What a member that has it
    /// says of it later counts for nothing.
    pub async fn skip_record(&self, group: impl Into<String>, record: RecordAt) -> Result<GroupRecord, ClientError> {
        Ok(self.link.ask(&SkipRecord { group: group.into(), record }, Again::No).await?.was)
    }

    /// Lets a group go on elsewhere in these of its partitions (at most 1000); says what changes, or with `dry_run` would change. With
    /// `force` also while it has members, which are sent away.
    pub async fn reset_partitions(
        &self,
        group: impl Into<String>,
        partitions: Vec<TopicPartition>,
        to: ResetTo,
        (dry_run, force): (bool, bool),
    ) -> Result<Vec<ResetPartition>, ClientError> {
        let request = ResetPartitions { name: group.into(), partitions, to, dry_run, force };
        Ok(self.link.ask(&request, Again::Yes).await?.partitions)
    }

    /// The groups that are paused and whose names begin with a prefix, by name. A server of before has none.
    pub async fn paused_groups(&self, prefix: &str) -> Result<Vec<PausedGroup>, ClientError> {
        let (mut all, mut after): (Vec<PausedGroup>, _) = (Vec::new(), String::new());
        loop {
            let page = PausedGroups { prefix: prefix.to_owned(), after: after.clone(), limit: u32::MAX };
            let page = match self.link.ask(&page, Again::Yes).await {
                Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(all),
                page => page?,
            };
            all.extend(page.groups);
            match all.last() {
                Some(last) if page.more => after.clone_from(&last.name),
                _ => return Ok(all),
            }
        }
    }

    /// Since when a group is paused, in milliseconds since the Unix epoch; nothing if it is not.
    pub async fn paused_since(&self, group: &str) -> Result<Option<i64>, ClientError> {
        // Of the names that begin with a name, that name is the first.
        let page = PausedGroups { prefix: group.to_owned(), after: String::new(), limit: 1 };
        match self.link.ask(&page, Again::Yes).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(None),
            page => Ok(page?.groups.into_iter().find(|paused| paused.name == group).map(|paused| paused.since_ms)),
        }
    }
}
