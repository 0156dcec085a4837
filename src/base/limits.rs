//! Every fixed limit, in one place, checked against each other when compiling. Limits that an operator may move are
//! fields of the server's configuration, whose bounds are here too.

/// Characters of a topic name. With an id behind it, it must fit a file name of 255 bytes.
pub const TOPIC_NAME_CHARS: usize = 249;

/// How long after a start an unforced deletion or reset of a group of before waits for its members, in milliseconds: clients come
/// back within one to three seconds, by their reconnect back-off and heartbeat. Whoever cannot wait forces it.
pub const MEMBERS_RETURN_MS: u64 = 5_000;

/// Characters of a group's name, at most.
pub const GROUP_NAME_CHARS: usize = 249;

/// Characters of a request's correlation id, at most.
pub const REQUEST_ID_CHARS: usize = 128;

/// The largest offset: the batch format's field is signed.
pub const MAX_OFFSET: u64 = i64::MAX as u64;

/// Bytes that may be remembered with a group's position.
pub const POSITION_METADATA_BYTES: usize = 4096;

/// Bytes that a member of a classic group may say of itself. A Kafka Streams application with thousands of tasks says some
/// hundreds of KiB, a consumer of a thousand topics some tens.
pub const CLASSIC_MEMBER_BYTES: usize = 1024 * 1024;

/// Bytes that all members of a classic group may say of themselves: a thousand members with 32 KiB each, or thirty of the
/// largest.
pub const CLASSIC_GROUP_BYTES: usize = 32 * 1024 * 1024;

/// Bytes of what the members of all classic groups say and are assigned: a hundred thousand members with a KiB each.
pub const CLASSIC_BYTES: usize = 128 * 1024 * 1024;

/// Bytes of a completed round of a classic group that is kept, so that its members go on after a restart: seven hundred members
/// with a KiB each. The members of a larger one join anew then. An event of the journal holds a MiB.
pub const CLASSIC_KEPT_GROUP_BYTES: usize = 768 * 1024;

/// The same of all groups, which are kept in memory, too.
pub const CLASSIC_KEPT_BYTES: usize = 32 * 1024 * 1024;

/// Bytes that are kept of the reason of a nack: a message and the top of a stack trace.
pub const NACK_REASON_BYTES: usize = 4 * 1024;

/// How long a group that nobody uses is remembered when nobody says otherwise, in milliseconds: seven days, as Kafka's
/// `offsets.retention.minutes`. A consumer that runs once a week needs more.
pub const GROUP_RETENTION_MS: u64 = 7 * 24 * 3_600_000;

/// Groups of a server when nobody says otherwise. A group is an application: honest are hundreds, and thousands where consoles
/// and broadcasting consumers make one for each start; these are not used any more, and give way.
pub const GROUPS: usize = 100_000;

/// Positions of all groups when nobody says otherwise: one for each group and partition that it reads.
pub const GROUP_POSITIONS: usize = 2_000_000;

/// Bytes of metadata of all positions when nobody says otherwise. Kafka Streams keeps some 20 bytes with each position, others
/// nothing: enough for all positions with 32 bytes each.
pub const GROUP_METADATA_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes of what all groups declare (rules, topics, filters) and of what their members say and own, in queue groups, stream groups
/// and groups of Kafka's newer protocol. A member takes some 600 bytes, one with a regular expression 17 KB, a partition that
/// it owns 100: honest are some MiB, and 100,000 members with ten partitions each at most.
pub const GROUP_DECLARED_BYTES: u64 = 128 * 1024 * 1024;

/// Topics with series of their own in the metrics, three each: some 2 MB of text each time. Where there are more, the largest by
/// bytes come first.
pub const METRIC_TOPICS: usize = 10_000;

/// Groups with series of their own in the metrics. Where there are more, those with members come first, then those with lag.
pub const METRIC_GROUPS: usize = 1_000;

/// Partitions of groups with series of their own in the metrics.
pub const METRIC_GROUP_PARTITIONS: usize = 20_000;

/// Groups of which the lag is looked at each time that somebody asks for the metrics.
pub const METRIC_GROUPS_LOOKED_AT: usize = 10_000;

/// A queue group's lease when nobody says otherwise, in milliseconds.
pub const QUEUE_LEASE_MS: u64 = 30_000;

/// A queue group's deliveries of a record, after which it is a dead letter, when nobody says otherwise.
pub const QUEUE_DELIVERIES: u32 = 10;

/// A queue group's wait before a second delivery, and the longest between two, when nobody says otherwise, in milliseconds.
pub const QUEUE_BACKOFF_MS: (u64, u64) = (1_000, 60_000);

/// Partitions of one topic.
pub const PARTITIONS_PER_TOPIC: u32 = 1024;

/// Durable requests that may be open when nobody says otherwise; an honest service has as many as it is asked in the time that
/// answers take. Twice as many are remembered with those that ended.
pub const OPEN_REQUESTS: usize = 100_000;

/// Receipts that may be waited for or being sent when nobody says otherwise: with the usual timeout of seven days and endpoints
/// that answer, groups that are behind by so many records.
pub const RECEIPTS: usize = 100_000;

/// Partitions of a server when nobody says otherwise. One that nobody writes to takes seven files and about 3 KB of memory.
pub const PARTITIONS: usize = 100_000;

/// Topics that one client may have created at once by naming them, and in a second from then on. An application that starts
/// names tens to hundreds; the others are created while its client asks again, as clients do.
pub const AUTO_TOPICS_BURST: u64 = 100;
/// See [`AUTO_TOPICS_BURST`].
pub const AUTO_TOPICS_A_SECOND: u64 = 10;

/// The same for all clients together.
pub const AUTO_TOPICS_BURST_OF_ALL: u64 = 500;
/// See [`AUTO_TOPICS_BURST_OF_ALL`].
pub const AUTO_TOPICS_A_SECOND_OF_ALL: u64 = 50;

/// Partitions that one Kafka Fetch may name; a partition named beyond, or twice, is refused in its place of the answer. A
/// client names all the partitions that it is assigned in each Fetch: an honest one needs some thousands. A Fetch that waits
/// holds about 300 bytes for each.
pub const FETCH_PARTITIONS: usize = 20_000;

/// Bytes of a RecordBatch v2 header, from base offset to record count.
pub const BATCH_HEADER_BYTES: usize = 61;

/// The largest batch that a topic may be set to accept, in bytes.
pub const MAX_BATCH_BYTES: usize = 64 * 1024 * 1024;

/// The largest batch a topic accepts when nobody says otherwise, in bytes.
pub const DEFAULT_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Records in one batch. Clients end a batch at some MiB: a million records would have 8 bytes each in the largest batch that a
/// topic takes when nobody says otherwise.
pub const RECORDS_PER_BATCH: u32 = 1_000_000;

/// Bytes of one record behind its length, decompressed: what fits the largest batch uncompressed, because that is how a record is handed to a
/// member of a queue group. It is 60 times what Kafka's clients send without a change of their settings.
pub const RECORD_BYTES: usize = MAX_BATCH_BYTES - BATCH_HEADER_BYTES - 4;

/// Headers of one record, as producers send it. An application sets some tens; frameworks that add a dozen at each of a
/// hundred tries come to 1,200.
pub const RECORD_HEADERS: usize = 4096;

/// Bytes of the headers of one record, as producers send it: names, values and their lengths. Stack traces of failed tries
/// have some tens of KiB each. Headers of a request travel in the body of a native frame, which must hold them.
pub const RECORD_HEADER_BYTES: usize = 512 * 1024;

/// Headers that the server adds to a record at most: to dead letters, routed and redriven records.
pub const OWN_HEADERS: usize = 64;

/// Bytes of the headers that the server adds to a record at most.
pub const OWN_HEADER_BYTES: usize = 64 * 1024;

/// Bytes that a header takes in memory beside its name and value, in round numbers. In a batch it may have two.
pub const HEADER_WEIGHT: usize = 64;

/// How far batches may be compressed: with `max_message_bytes` times the first number as the limit of what the records of a
/// batch are when decompressed, up to [`OPENED_BYTES`], and times the second beyond. `record::opened_bytes` says what that
/// serves.
pub const OPENED_TIMES: (usize, usize) = (64, 4);

/// Bytes that the records of a batch may have when decompressed, in topics whose batches are small. See [`OPENED_TIMES`].
pub const OPENED_BYTES: usize = 64 * 1024 * 1024;

/// The most that one batch may hold once decompressed, in bytes, in any topic; and for readers, who may meet what earlier
/// versions took.
pub const MAX_DECOMPRESSED_BYTES: usize = 256 * 1024 * 1024;

/// Bytes of the decompressed records of a batch, with [`HEADER_WEIGHT`] for each header, from which on readers treat a batch
/// as damaged. More than any topic accepts.
pub const READ_WEIGHT: usize = 512 * 1024 * 1024;

/// Smallest and largest segment size an operator may set, in bytes. Positions in an index are 32 bits wide.
pub const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 64 * 1024..=2 * 1024 * 1024 * 1024;

/// Segment size when nobody says otherwise, in bytes.
pub const DEFAULT_SEGMENT_BYTES: u64 = 256 * 1024 * 1024;

/// Bytes of log between two entries of a sparse index.
pub const INDEX_INTERVAL_BYTES: u64 = 16 * 1024;

/// Bytes appended after which a checkpoint is due; it bounds what recovery has to read.
pub const CHECKPOINT_INTERVAL_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes of the table of keys while a log is compacted: for 1,048,576 keys at a time. One log is compacted at a time.
pub const COMPACTION_KEY_BYTES: usize = 32 * 1024 * 1024;

/// Producer batches remembered per producer and partition, as in Kafka: what clients may have in flight.
pub const PRODUCER_BATCHES: usize = 5;

/// Producers remembered per partition, about 2 MB; the one idle longest is forgotten first. Idempotency keys have places of their
/// own. A client has one producer id for its life: honest are hundreds, and thousands after a restart of all clients.
pub const PRODUCERS_PER_PARTITION: usize = 10_000;

/// Idempotency keys of HTTP appends that a partition remembers however old they are: about 1 MB. A client with few requests may
/// so repeat one after days.
pub const KEYS_KEPT: usize = 10_000;

/// How long every idempotency key is remembered, in milliseconds: an honest client repeats a request within seconds to minutes.
/// A new key that has no place is refused (HTTP 429) rather than a younger one forgotten.
pub const KEY_PROMISE_MS: u64 = 15 * 60_000;

/// Idempotency keys that a partition remembers: 277 appends with a key in each second of the promised time. A site with more has
/// several partitions, over which keys spread. Memory: up to 100 bytes a key, and as much again for the last checkpoint.
pub const KEYS_PER_PARTITION: usize = 250_000;

/// Idempotency keys beyond [`KEYS_KEPT`] of each partition that all partitions of a server remember together: 1,111 appends with
/// a key in each second of the promised time, beside 11 a second for every partition. Memory: up to 200 MB when all are taken.
pub const KEYS_SHARED: usize = 1_000_000;

/// Producer ids from here up to the server's own stand for idempotency keys of HTTP requests.
pub const KEY_PRODUCER_IDS: i64 = 1 << 61;

/// Producer ids from here on are the server's own: a log never forgets them, and nobody else may use them.
pub const OWN_PRODUCER_IDS: i64 = 1 << 62;

/// Bytes of a transactional id.
pub const TRANSACTIONAL_ID_BYTES: usize = 1024;

/// Transactional ids that are remembered. When there are so many, the one without an open transaction that was used longest ago
/// is forgotten for a new one, first of those that never had a transaction. A stream processor has an id for each task, or a
/// pool of some thousands; who makes up an id for each start needs none of the old ones.
pub const TRANSACTIONAL_IDS: usize = 100_000;

/// Of these, the ids that were asked for last from one address: a host with every task of a large stream processor has some
/// thousands. One that has so many gets new ones for its own old ones, and leaves the rest to others.
pub const TRANSACTIONAL_IDS_OF_ADDRESS: usize = 50_000;

/// Bytes of all transactional ids, on average 160 each. An id is in memory four times, with about 700 bytes beside it: at the
/// limits 130 MiB.
pub const TRANSACTIONAL_IDS_BYTES: usize = 16 * 1024 * 1024;

/// How long a transactional id without use is remembered when nobody says otherwise, in milliseconds: as in Kafka.
pub const TRANSACTIONAL_ID_EXPIRATION_MS: u64 = 7 * 24 * 3_600_000;

/// The longest time-out that a producer may ask for when nobody says otherwise, in milliseconds: as in Kafka. Most clients ask
/// for 10 s or a minute; a stream processor that asks for an hour needs a larger `transaction_max_timeout`, or a smaller
/// `transaction.timeout.ms` of its own, longer than its checkpoints take.
pub const TRANSACTION_TIMEOUT_MS: u64 = 900_000;

/// Characters that are kept of what a client with a transactional id calls itself.
pub const TRANSACTION_CLIENT_CHARS: usize = 128;

/// Partitions that a transaction may write to.
pub const TRANSACTION_PARTITIONS: usize = 10_000;

/// Groups whose positions a transaction may commit.
pub const TRANSACTION_GROUPS: usize = 100;

/// Bytes of the positions that a transaction may commit.
pub const TRANSACTION_POSITION_BYTES: usize = 512 * 1024;

/// Bytes of partitions, groups and positions that all open transactions hold together.
pub const TRANSACTIONS_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of a native frame's header.
pub const FRAME_HEADER_BYTES: usize = 24;

/// Bytes of a native frame's body (the bincode part), whatever its payload.
pub const FRAME_BODY_BYTES: usize = 1024 * 1024;

/// Bytes of a whole native frame: header, body and the largest payload.
pub const FRAME_BYTES: usize = FRAME_HEADER_BYTES + FRAME_BODY_BYTES + MAX_BATCH_BYTES;

/// Bytes of a native frame before the handshake is done.
pub const HELLO_FRAME_BYTES: usize = 4096;

/// Steps that the evaluation of an expression may take, by what is known before it begins. A step is about a nanosecond.
pub const EXPRESSION_STEPS: u64 = 100_000_000;

/// Bytes that a regular expression of a filter or route may have once compiled.
pub const PATTERN_BYTES: usize = 256 * 1024;

/// Bytes of a value that filters and routes look into, and of a document that a route makes.
pub const DOCUMENT_BYTES: usize = 8 * 1024 * 1024;

/// Levels of lists and objects in a document that filters and routes look into. It is that of `serde_json`.
pub const DOCUMENT_DEPTH: usize = 127;

/// Bytes of a file of routes.
pub const ROUTE_FILE_BYTES: usize = 512 * 1024;

/// Routes of a server.
pub const ROUTES: usize = 1_000;

/// Destinations of a route.
pub const ROUTE_DESTINATIONS: usize = 1_000;

/// Parts that a split may make of one record.
pub const ROUTE_PARTS: usize = 10_000;

/// Records that a route may make of one record.
pub const ROUTE_OUTPUTS: usize = 20_000;

/// Bytes of all records that a route may make of one record.
pub const ROUTE_OUTPUT_BYTES: usize = 64 * 1024 * 1024;

/// Routes that a record may pass one after the other; one that goes on is a dead letter.
pub const ROUTE_HOPS: u32 = 16;

/// Topics that the computed destinations of one route may make, when it doesn't say how many.
pub const ROUTE_TOPICS: usize = 100;

/// Parts that an aggregate holds of wholes that are not complete, for each partition that it reads.
pub const AGGREGATE_PARTS: usize = 20_000;

/// Bytes of the parts that an aggregate holds of wholes that are not complete, for each partition that it reads.
pub const AGGREGATE_BYTES: usize = 64 * 1024 * 1024;

/// Portions of work that may wait for the workers under one key (a connection, group, partition or route). A caller submits the
/// next portion when the last is done, so an honest connection has as many as it has requests under way that look into
/// batches: what is beyond waits without a place in the queue.
pub const WORK_PER_KEY: usize = 16;

/// Bytes of uncompressed batches whose records are looked at where the caller runs. A record has seven bytes at least, a
/// header two, and either takes some ten nanoseconds: less than a millisecond. Beyond it, and for compressed batches, workers
/// do it; an honest producer of large batches pays some ten microseconds for each.
pub const INLINE_BYTES: usize = 64 * 1024;

/// Bytes that the server's own readers of records (queue groups) hold together of what they have read and not handed out yet:
/// more than a hundred that read at the same time. Those that wait for their members give it up when others need it.
pub const READERS_BYTES: usize = 256 * 1024 * 1024;

/// Bytes of deliveries that wait to be sent to the members of all groups, beyond which each member gets one at a time.
pub const QUEUED_BYTES: usize = 64 * 1024 * 1024;

/// What a record counts for in memory, beside the bytes of its key, value and headers: 120 bytes in a list.
pub const RECORD_WEIGHT: usize = 128;

/// How long a durable request may take if nobody says it, in milliseconds: it is kept for those who come back for its outcome.
pub const DURABLE_REQUEST_MS: u64 = 24 * 3_600_000;

/// Push subscriptions of a server.
pub const PUSHES: usize = 1_000;

/// Headers that the endpoint of a push subscription gets with each call beside the server's own.
pub const PUSH_HEADERS: usize = 16;

/// Bytes of the name of such a header.
pub const PUSH_HEADER_NAME_BYTES: usize = 128;

/// Bytes of the value of such a header: tokens have some two thousand.
pub const PUSH_HEADER_VALUE_BYTES: usize = 4_096;

/// Bytes of names and values of such headers together. They are in memory for each push, and in each call.
pub const PUSH_HEADERS_BYTES: usize = 16 * 1024;

/// Headers of an HTTP request.
pub const HTTP_HEADERS: usize = 128;

/// Bytes of the head of an HTTP request; less than 8 KiB is not supported by what reads it.
pub const HTTP_HEAD_BYTES: usize = 64 * 1024;

/// Memory that the body of an HTTP request takes at most while it is worked on, as a multiple of its length: as it came,
/// taken apart, and as a batch.
pub const HTTP_BODY_TIMES: usize = 3;

/// Records in one HTTP request.
pub const HTTP_RECORDS: usize = 10_000;

const _: () = {
    assert!(DEFAULT_BATCH_BYTES <= MAX_BATCH_BYTES);
    assert!(MAX_BATCH_BYTES * OPENED_TIMES.1 <= MAX_DECOMPRESSED_BYTES && OPENED_BYTES <= MAX_DECOMPRESSED_BYTES);
    // Beside the bytes of names and values a frame has two lengths of eight bytes and a flag for each header.
    let framed = RECORD_HEADER_BYTES + OWN_HEADER_BYTES + (RECORD_HEADERS + OWN_HEADERS) * 17;
    assert!(framed + 64 * 1024 <= FRAME_BODY_BYTES);
    assert!(MAX_BATCH_BYTES as u64 <= *SEGMENT_BYTES.end());
    assert!(*SEGMENT_BYTES.end() <= u32::MAX as u64);
    assert!(DEFAULT_SEGMENT_BYTES >= *SEGMENT_BYTES.start() && DEFAULT_SEGMENT_BYTES <= *SEGMENT_BYTES.end());
    assert!(FRAME_BYTES <= u32::MAX as usize);
    assert!(AUTO_TOPICS_BURST <= AUTO_TOPICS_BURST_OF_ALL && AUTO_TOPICS_A_SECOND <= AUTO_TOPICS_A_SECOND_OF_ALL);
    assert!(KEYS_KEPT <= KEYS_PER_PARTITION && KEYS_PER_PARTITION <= KEYS_SHARED);
};

/// By how much the wall clock may differ from the trusted time before that is a leap, and doubted, in milliseconds. A machine
/// whose time is set right by NTP differs by less; what is less is followed slowly (see [`CLOCK_PACE`]).
pub const CLOCK_LEAP_MS: u64 = 5 * 60 * 1000;

/// For how long a server may have been down, by the wall clock, before the wall clock is doubted at its start, in milliseconds.
/// A server that was down for longer serves at once as well: it waits for the quarantine only with what cannot be taken back.
pub const CLOCK_DOWN_MS: u64 = 60 * 60 * 1000;

/// The trusted time goes faster or slower than time passes by one part in so many, until it is the wall clock's. A difference of
/// [`CLOCK_LEAP_MS`] is gone after 50 minutes, and a lease of 30 seconds ends at most 3 seconds early or late meanwhile.
pub const CLOCK_PACE: u64 = 10;

/// How often the time is kept for the next start, in milliseconds: two small syncs each time.
pub const CLOCK_KEEP_MS: u64 = 60 * 1000;

/// How long the wall clock is doubted when nobody says otherwise, in milliseconds: time for NTP, or somebody who has seen the
/// warning, to set it right.
pub const CLOCK_QUARANTINE_MS: u64 = 60 * 60 * 1000;
