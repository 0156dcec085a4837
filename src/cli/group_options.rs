//! Options of `consume` that make it a member of a group.

use clap::{Args, ValueEnum};
use tidelog::base::{Millis, TopicName};
use tidelog::client::{GroupChange, QueueRules};

/// When a record counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AckMode {
    /// Once it is printed and out
    Auto,
    /// The same, and each ack is on the server's disk before the next record is printed
    Durable,
    /// Never: it goes back to the group when the command ends
    None,
    /// Never: each record is sent back as failed, and is a dead letter in the end
    Nack,
}

/// How the members of a group share the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GroupKind {
    /// Each record goes to one member, in any order, and is acked by itself
    Queue,
    /// Each partition belongs to one member, which gets its records in order and commits how far it has come
    Stream,
}

impl GroupKind {
    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Stream => "stream",
        }
    }
}

/// How `consume` takes part in a group.
#[derive(Debug, Args)]
#[command(next_help_heading = "Groups")]
pub struct GroupOptions {
    /// Be a member of this group: its members share the records, and each is acked
    #[arg(long, short)]
    pub group: Option<String>,
    /// Kind of the group; default: that of the group that is there, else queue
    #[arg(long, value_name = "KIND", requires = "group")]
    pub group_kind: Option<GroupKind>,
    /// In a stream group: the place that this member fills. The next one of that name goes on with what it had
    #[arg(long, value_name = "NAME", requires = "group")]
    pub instance: Option<String>,
    /// In a stream group: how long a member that is silent keeps its partitions; 10s if it is not said
    #[arg(long, value_name = "DURATION", requires = "group")]
    pub session: Option<Millis>,
    /// When a record counts as done
    #[arg(long, value_name = "MODE", default_value = "auto", requires = "group")]
    pub ack_mode: AckMode,
    /// Run this command for each record, with the value as its input: a record is acked if it succeeds, and comes again if not
    ///
    /// Variables tell which record it is: TIDELOG_TOPIC, TIDELOG_PARTITION, TIDELOG_OFFSET, TIDELOG_ATTEMPT, TIDELOG_KEY. A key with
    /// a zero byte is only in TIDELOG_KEY_BASE64; one that is too long for a variable is in neither, and TIDELOG_KEY_BYTES says
    /// how long it is.
    #[arg(long, value_name = "COMMAND", requires = "group", conflicts_with = "ack_mode")]
    pub exec: Option<String>,
    /// Records that this member may have at a time
    #[arg(long, value_name = "N", requires = "group", default_value_t = 100)]
    pub prefetch: u32,
    /// Change the group to what is said here (topics, filter, rules) before joining it
    ///
    /// Without this, a group is what its first member or `group create` has said, and a member that says otherwise is refused.
    #[arg(long, requires = "group")]
    pub redefine: bool,
    #[command(flatten)]
    pub rules: RuleOptions,
}

/// The rules of a queue group: those that are said.
#[derive(Debug, Clone, Args)]
pub struct RuleOptions {
    /// Rule of the group: how long a record is its member's before it goes to another [default: 30s]
    #[arg(long, value_name = "DURATION")]
    pub lease: Option<Millis>,
    /// Rule of the group: deliveries after which a record is a dead letter
    #[arg(long, value_name = "N")]
    pub max_deliveries: Option<u32>,
    /// Rule of the group: the wait before a second delivery; it doubles each time
    #[arg(long, value_name = "DURATION")]
    pub backoff: Option<Millis>,
    /// Rule of the group: the longest wait between two deliveries
    #[arg(long, value_name = "DURATION")]
    pub backoff_max: Option<Millis>,
    /// Rule of the group: the topic for dead letters, instead of dead-letter.GROUP
    #[arg(long, value_name = "TOPIC")]
    pub dead_letter: Option<TopicName>,
    /// Rule of the group: the next record of a key comes only when the one before is done
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub ordered_by_key: Option<bool>,
}

impl GroupOptions {
    /// An option that was given and makes sense in queue groups only.
    pub fn only_for_queues(&self) -> Option<&'static str> {
        if self.exec.is_some() {
            Some("--exec")
        } else if self.ack_mode == AckMode::Nack {
            Some("--ack-mode nack")
        } else if self.rules.are_said() {
            Some(RULES)
        } else {
            None
        }
    }

    /// An option that was given and makes sense in stream groups only.
    pub fn only_for_streams(&self) -> Option<&'static str> {
        let session = self.session.as_ref().map(|_| "--session");
        self.instance.as_ref().map(|_| "--instance").or(session)
    }

    /// An option that was given and makes sense only with a group.
    pub fn needs_group(&self) -> Option<&'static str> {
        (self.group.is_none() && self.rules.are_said()).then_some(RULES)
    }
}

/// How the rules are named in messages.
const RULES: &str = "a rule (--lease, --max-deliveries, --backoff, --dead-letter, --ordered-by-key)";

impl RuleOptions {
    /// Whether any is said.
    pub fn are_said(&self) -> bool {
        self.lease.is_some()
            || self.max_deliveries.is_some()
            || self.backoff.is_some()
            || self.backoff_max.is_some()
            || self.dead_letter.is_some()
            || self.ordered_by_key.is_some()
    }

    /// The rules with those that are said, from what they are.
    pub fn rules(&self, mut rules: QueueRules) -> QueueRules {
        if let Some(lease) = self.lease {
            rules.lease_ms = lease.0;
        }
        if let Some(deliveries) = self.max_deliveries {
            rules.max_deliveries = deliveries;
        }
        if let Some(backoff) = self.backoff {
            rules.backoff_ms = backoff.0;
            rules.backoff_max_ms = rules.backoff_max_ms.max(backoff.0);
        }
        if let Some(longest) = self.backoff_max {
            rules.backoff_max_ms = longest.0;
        }
        if let Some(topic) = &self.dead_letter {
            rules.dead_letter = Some(topic.to_string());
        }
        if let Some(ordered) = self.ordered_by_key {
            rules.ordered_by_key = ordered;
        }
        rules
    }

    /// The change of a group to what is said.
    pub fn change(&self, mut change: GroupChange) -> GroupChange {
        if let Some(lease) = self.lease {
            change = change.lease(lease.as_duration());
        }
        if let Some(deliveries) = self.max_deliveries {
            change = change.max_deliveries(deliveries);
        }
        if let Some(backoff) = self.backoff {
            change = change.backoff(backoff.as_duration());
        }
        if let Some(longest) = self.backoff_max {
            change = change.backoff_max(longest.as_duration());
        }
        if let Some(topic) = &self.dead_letter {
            change = change.dead_letter(topic.as_str());
        }
        if let Some(ordered) = self.ordered_by_key {
            change = change.ordered_by_key(ordered);
        }
        change
    }
}
