//! Administration of transactions.

use crate::protocol::{
    AbortTransaction, DescribeTransaction, DescribeTransactionOk, ForgetTransaction, HeldPartition, ListHeld,
    ListTransactions, TransactionSummary,
};

use super::link::Again;
use super::{Admin, ClientError};

impl Admin {
    /// Transactional ids, by name, and the one to go on behind if there are more.
    pub async fn list_transactions(
        &self,
        wanted: ListTransactions,
    ) -> Result<(Vec<TransactionSummary>, Option<String>), ClientError> {
        let listed = self.link.ask(&wanted, Again::Yes).await?;
        Ok((listed.transactions, listed.next))
    }

    /// A transactional id with the partitions of its open transaction.
    pub async fn describe_transaction(&self, id: impl Into<String>) -> Result<DescribeTransactionOk, ClientError> {
        self.link.ask(&DescribeTransaction { id: id.into() }, Again::Yes).await
    }

    /// Aborts the open transaction of an id and supersedes its producer. The id as it is now, and whether a transaction was
    /// open.
    pub async fn abort_transaction(&self, id: impl Into<String>) -> Result<(TransactionSummary, bool), ClientError> {
        let aborted = self.link.ask(&AbortTransaction { id: id.into() }, Again::No).await?;
        Ok((aborted.transaction, aborted.aborted))
    }

    /// Forgets a transactional id without an open transaction.
    pub async fn forget_transaction(&self, id: impl Into<String>) -> Result<(), ClientError> {
        self.link.ask(&ForgetTransaction { id: id.into() }, Again::No).await.map(|_| ())
    }

    /// The partitions of these topics, or of all if none are named, in which an open transaction holds up readers; and
    /// whether there are more than an answer holds.
    pub async fn held(&self, topics: Vec<String>) -> Result<(Vec<HeldPartition>, bool), ClientError> {
        let held = self.link.ask(&ListHeld { topics }, Again::Yes).await?;
        Ok((held.partitions, held.more))
    }
}
