//! Floor 4: the one API that every listener calls. A pattern that works through one door works through all.
//!
//! Knows no protocol: no wire struct appears here. Blocking disk work runs on the commit threads (appends and syncs) or
//! on the runtime's bounded blocking pool (reads and administration), never on an async worker but one that has handed its
//! tasks over for the time ([`Place::Here`]); no lock is held across an await. What computes for long (opening compressed
//! batches, asking filters) runs on threads of its own, in portions, fair between connections and groups (`work`).

mod admin;
mod asked;
#[expect(clippy::module_inception, reason = "the type that gives the module its name")]
mod broker;
mod classic;
mod clients;
mod clock;
mod compaction;
mod creations;
mod cut;
mod dependents;
mod error;
mod fetch;
mod filtered;
mod groups;
mod hold;
mod lag;
mod listing;
mod metrics;
mod observe;
mod opened;
mod partition;
mod produce;
mod push;
mod queue;
mod reader;
mod receipts;
mod records;
mod refused;
mod requests;
mod room;
mod routes;
mod scrub;
mod settled;
mod storage;
mod stream;
mod task;
mod transactions;
mod types;
mod upkeep;
mod watch;
mod work;

pub use asked::Encode;
pub use broker::Broker;
pub use classic::{
    ClassicError, ClassicJoin, ClassicJoined, ClassicLook, ClassicMember, ClassicRefusal, ClassicShare, ClassicVoice,
};
pub use clients::Client;
pub use dependents::{Dependent, DependentHow, DependentKind};
pub use error::BrokerError;
pub use filtered::{FilterAt, Filtered};
pub use groups::{
    AlterGroup, Commit, Committer, GroupHold, GroupPosition, GroupProtocol, NewGroup, RulesChange, Terms,
};
pub use listing::{GroupLine, GroupTotals, Page, PageOf, TopicLine, TopicTotals};
pub use metrics::Metrics;
pub(crate) use opened::{Next, Opened, Unreadable};
pub use produce::{Offer, Place, ProduceFuture};
pub use push::{
    AlterPush, EndpointChange, NewPush, PushCounts, PushDescription, PushStats, PushTrouble, SecretChange, SecretError,
    WebhookSecret, WebhookSecrets, is_over as secret_is_over, signing as signing_secrets,
};

pub use crate::base::Isolation;
pub use crate::catalog::Processed;
pub use queue::{
    DELIVER_AT, DeadLetterTopic, DeadLetterWay, EXPIRES_AT, FilterCounts, GroupDescription, GroupMember,
    GroupPartition, GroupRecord, GroupRecords, Handed, JoinQueue, MAX_ASKED, MAX_LISTED, MemberId, Paused, QueueMember,
    RecordAt, Redrive, Redriven, ResetPartition, ResetQueue, ResetTo, Settled, Settlement, Verdict,
};
pub use reader::{PartitionReader, PartitionWatch, ReadAt, TopicHandle};
pub use receipts::{LONGEST as LONGEST_RECEIPT, RECEIPT_STATES, ReceiptCounts, ReceiptFilter, receipt_state};
pub use refused::{BadReason, BadRecord};
pub use requests::{
    Asker, CALLBACK_ERROR, CALLBACK_URL, CORRELATION_ID, Content, DEAD_CALLBACKS, DEADLINE, DurableRequest, ERROR,
    ERROR_CODE, Ending, ITINERARY, LastWord, LiveRequest, LiveResponder, OUTCOME, Port, Post, REPLIES, REPLY_TO,
    REQUEST_STATES, ReplyAddress, RequestFilter, STEP, STEP_TOPIC, callback_state, state_name,
};
pub use routes::{
    Applied, ApplyOptions, Change, ChangeKind, ResetPoint, RouteDescription, RoutePartition, RouteSummary, StartPoint,
    Trace, Trouble,
};
pub use scrub::PartitionDamage;
pub use settled::SETTLE;
pub use stream::{
    ConsumerBeat, ConsumerJoin, ConsumerLook, ConsumerMember, ConsumerShare, Epoch, JoinStream, MemberError,
    StreamBeat, StreamJoined, StreamPartition, StreamShare,
};
pub use transactions::{BeginTransactional, Held, Producer, ProducerLook, TransactionError, TransactionLook};
pub use types::{
    AckLevel, BrokerConfig, FetchRequest, Fetched, Marked, NewTopic, OffsetAt, PartitionDescription, PartitionEnds,
    Produced, SettingValue, Skipped, Startup, TopicDescription, TopicMetadata, TopicSummary, Unanswered,
};
pub use work::{Portion, WorkKey};

#[cfg(test)]
mod tests;
