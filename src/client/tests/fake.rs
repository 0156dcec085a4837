//! A server that exists only in memory: speaks the protocol, recognizes batches that come twice by Kafka's rules, and
//! misbehaves as told.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};

use crate::base::{ErrorKind, limits};
use crate::protocol::*;
use crate::record::{BatchHeader, Batches, Record, patch_assigned, read_records, verify_batch};

/// What happens to the nth produce request.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The connection breaks before anything is done.
    DropBefore,
    /// It is stored, and the connection breaks instead of an answer.
    DropAfter,
    /// It is refused.
    Refuse(ErrorKind),
    /// It is stored and never answered.
    Silent,
}

type Known = (i32, i32, u64);

/// A subscription's credit, in records and bytes, and the task that spends it.
type Pushing = (watch::Sender<(i64, i64)>, tokio::task::JoinHandle<()>);

#[derive(Default)]
struct Log {
    batches: Vec<(u64, u64, Bytes)>,
    end: u64,
    start: u64,
    /// By id: the epoch, and of the last batches first and last sequence and offset.
    producers: HashMap<i64, (i16, VecDeque<Known>)>,
}

pub struct Topic {
    id: String,
    logs: Vec<Log>,
}

#[derive(Default)]
pub struct State {
    pub topics: HashMap<String, Topic>,
    pub faults: HashMap<u64, Fault>,
    pub fetch_faults: VecDeque<ErrorKind>,
}

pub struct Fake {
    pub address: String,
    pub state: Mutex<State>,
    pub produces: AtomicU64,
    pub connections: AtomicU64,
    pub most_in_flight: AtomicUsize,
    pub credit_messages: AtomicU64,
    pub sent_records: AtomicI64,
    pub delay_ms: AtomicU64,
    pub pings: AtomicU64,
    pub deaf: std::sync::atomic::AtomicBool,
    in_flight: AtomicUsize,
    producers: AtomicI64,
    changed: watch::Sender<u64>,
    cut: Notify,
    max_batch: u32,
    idle_ms: u64,
}

impl Fake {
    pub async fn start() -> Arc<Self> {
        Self::start_with(1024 * 1024, 60_000).await
    }

    pub async fn start_with(max_batch: u32, idle_ms: u64) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Arc::new(Self {
            address: listener.local_addr().unwrap().to_string(),
            state: Mutex::default(),
            produces: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            most_in_flight: AtomicUsize::new(0),
            credit_messages: AtomicU64::new(0),
            sent_records: AtomicI64::new(0),
            delay_ms: AtomicU64::new(0),
            pings: AtomicU64::new(0),
            deaf: Default::default(),
            in_flight: AtomicUsize::new(0),
            producers: AtomicI64::new(100),
            changed: watch::Sender::new(0),
            cut: Notify::new(),
            max_batch,
            idle_ms,
        });
        let accepting = fake.clone();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                let fake = accepting.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = fake.clone().serve(socket) => {}
                        () = fake.cut.notified() => {}
                    }
                });
            }
        });
        fake
    }

    pub fn topic(&self, name: &str, partitions: usize) {
        let logs = (0..partitions).map(|_| Log::default()).collect();
        let id = format!("{:032x}", fastrand::u128(..));
        self.state.lock().unwrap().topics.insert(name.to_owned(), Topic { id, logs });
    }

    pub fn fault(&self, nth: u64, fault: Fault) {
        self.state.lock().unwrap().faults.insert(nth, fault);
    }

    /// Breaks every connection.
    pub fn cut(&self) {
        self.cut.notify_waiters();
    }

    pub fn records(&self, topic: &str, partition: usize) -> Vec<Record> {
        let state = self.state.lock().unwrap();
        let log = &state.topics[topic].logs[partition];
        log.batches.iter().flat_map(|(_, _, batch)| read_records(batch, 1 << 26).unwrap()).map(Result::unwrap).collect()
    }

    pub fn values(&self, topic: &str, partition: usize) -> Vec<String> {
        let text = |record: Record| String::from_utf8(record.value.unwrap().to_vec()).unwrap();
        self.records(topic, partition).into_iter().map(text).collect()
    }

    pub fn batches(&self, topic: &str, partition: usize) -> usize {
        self.state.lock().unwrap().topics[topic].logs[partition].batches.len()
    }

    /// Makes the log begin at `offset`.
    pub fn trim(&self, topic: &str, partition: usize, offset: u64) {
        self.state.lock().unwrap().topics.get_mut(topic).unwrap().logs[partition].start = offset;
    }

    fn append(&self, request: &Produce, payload: &Bytes) -> Result<ProduceOk, ErrorBody> {
        let mut state = self.state.lock().unwrap();
        let topic = state.topics.get_mut(&request.topic).ok_or_else(|| body(ErrorKind::NotFound, "no such topic"))?;
        let log = topic.logs.get_mut(request.partition as usize).ok_or_else(|| body(ErrorKind::NotFound, "no part"))?;
        let header = verify_batch(payload).map_err(|error| body(ErrorKind::CorruptBatch, &error.to_string()))?;
        assert_eq!(header.total_bytes(), payload.len());
        let count = u64::from(header.record_count);
        if header.producer_id >= 0 {
            let (epoch, first, last) = (header.producer_epoch, header.base_sequence, header.last_sequence());
            if let Some((known, batches)) = log.producers.get_mut(&header.producer_id) {
                if epoch < *known {
                    return Err(body(ErrorKind::FencedProducer, "fenced"));
                }
                if epoch > *known {
                    if first != 0 {
                        return Err(body(ErrorKind::OutOfOrderSequence, "epoch begins at 0"));
                    }
                    (*known, *batches) = (epoch, VecDeque::new());
                }
                if let Some((_, _, offset)) = batches.iter().find(|(f, l, _)| (*f, *l) == (first, last)) {
                    let last_offset = offset + count - 1;
                    return Ok(ProduceOk { base_offset: *offset, last_offset, timestamp: 5, duplicate: true });
                }
                if batches.back().is_some_and(|(_, last, _)| *last + 1 != first) {
                    return Err(body(ErrorKind::OutOfOrderSequence, "gap"));
                }
            }
            let (known, batches) = log.producers.entry(header.producer_id).or_default();
            *known = epoch;
            batches.push_back((first, last, log.end));
            if batches.len() > 5 {
                batches.pop_front();
            }
        }
        let mut batch = BytesMut::from(&payload[..]);
        patch_assigned(&mut batch, log.end, 0);
        let base_offset = log.end;
        log.end += count;
        log.batches.push((base_offset, log.end, batch.freeze()));
        let answer = ProduceOk { base_offset, last_offset: log.end - 1, timestamp: 5, duplicate: false };
        drop(state);
        self.changed.send_modify(|version| *version += 1);
        Ok(answer)
    }

    async fn serve(self: Arc<Self>, socket: TcpStream) {
        let (mut reader, mut writer) = socket.into_split();
        let (out, mut queue) = mpsc::unbounded_channel::<Bytes>();
        let writing = async move {
            while let Some(frame) = queue.recv().await {
                if writer.write_all(&frame).await.is_err() {
                    return;
                }
            }
        };
        let reading = async {
            let mut decoder = FrameDecoder::new(limits::FRAME_BYTES);
            let mut buffer = BytesMut::new();
            let mut subscriptions = HashMap::new();
            loop {
                while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                    if !self.handle(frame, &out, &mut subscriptions) {
                        return;
                    }
                }
                if reader.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                    return;
                }
            }
        };
        tokio::select! {
            () = writing => {}
            () = reading => {}
        }
    }

    fn handle(
        self: &Arc<Self>,
        frame: Frame,
        out: &mpsc::UnboundedSender<Bytes>,
        subscriptions: &mut HashMap<u64, Pushing>,
    ) -> bool {
        if self.deaf.load(Ordering::SeqCst) {
            return true;
        }
        let reply = Reply { out: out.clone(), kind: frame.kind, correlation: frame.correlation };
        match Kind::from_code(frame.kind).unwrap() {
            Kind::Hello => {
                let hello: Hello = frame.decode().unwrap();
                assert_eq!((hello.min_version, hello.max_version), (1, 1));
                reply.ok(&HelloOk {
                    version: 1,
                    server_id: "fake".to_owned(),
                    server_version: "0".to_owned(),
                    limits: ServerLimits {
                        max_frame_bytes: 1 << 26,
                        max_batch_bytes: self.max_batch,
                        max_requests_in_flight: 64,
                        max_bytes_in_flight: 1 << 26,
                        max_subscriptions: 100,
                        idle_timeout_ms: self.idle_ms,
                    },
                });
            }
            Kind::Ping => {
                self.pings.fetch_add(1, Ordering::SeqCst);
                reply.ok(&Pong {});
            }
            Kind::ListTopics => {
                let state = self.state.lock().unwrap();
                let summary = |(name, topic): (&String, &Topic)| TopicSummary {
                    name: name.clone(),
                    id: topic.id.clone(),
                    partitions: topic.logs.len() as u32,
                };
                reply.ok(&ListTopicsOk { topics: state.topics.iter().map(summary).collect() });
            }
            Kind::Metadata => {
                let request: Metadata = frame.decode().unwrap();
                let known = self.state.lock().unwrap().topics.contains_key(&request.topic);
                if !known && request.create {
                    self.topic(&request.topic, 1);
                }
                match self.state.lock().unwrap().topics.get(&request.topic) {
                    Some(topic) => reply.ok(&MetadataOk {
                        id: topic.id.clone(),
                        partitions: topic.logs.len() as u32,
                        max_batch_bytes: self.max_batch,
                        created: !known,
                    }),
                    None => reply.error(body(ErrorKind::NotFound, "no such topic")),
                }
            }
            Kind::InitProducer => {
                let request: InitProducer = frame.decode().unwrap();
                let (producer_id, epoch) = match request.resume {
                    Some((id, epoch)) => (id, epoch + 1),
                    None => (self.producers.fetch_add(1, Ordering::SeqCst), 0),
                };
                reply.ok(&InitProducerOk { producer_id, epoch });
            }
            Kind::Produce => return self.produce(&frame, reply),
            Kind::ListOffsets => {
                let request: ListOffsets = frame.decode().unwrap();
                let state = self.state.lock().unwrap();
                let log = &state.topics[&request.topic].logs[request.partition as usize];
                let offset = match request.at {
                    OffsetAt::Beginning => log.start,
                    OffsetAt::End => log.end,
                    OffsetAt::Timestamp(time) => {
                        let found = log.batches.iter().flat_map(|(_, _, batch)| read_records(batch, 1 << 26).unwrap());
                        found.map(Result::unwrap).find(|record| record.timestamp >= time).map_or(log.end, |r| r.offset)
                    }
                };
                reply.ok(&ListOffsetsOk { offset, timestamp: -1 });
            }
            Kind::Subscribe => {
                let request: Subscribe = frame.decode().unwrap();
                if let Some(kind) = self.state.lock().unwrap().fetch_faults.pop_front() {
                    reply.error(body(kind, "as told"));
                    return true;
                }
                let id = subscriptions.len() as u64 + 1;
                let credit = watch::Sender::new((request.credit_records as i64, request.credit_bytes as i64));
                reply.ok(&SubscribeOk { subscription: id, log_start: 0, stable_end: 0 });
                let task = tokio::spawn(self.clone().push(id, request, out.clone(), credit.clone()));
                subscriptions.insert(id, (credit, task));
            }
            Kind::Credit => {
                let request: Credit = frame.decode().unwrap();
                self.credit_messages.fetch_add(1, Ordering::SeqCst);
                if let Some((credit, _)) = subscriptions.get(&request.subscription) {
                    credit.send_modify(|credit| {
                        credit.0 += request.records as i64;
                        credit.1 += request.bytes as i64;
                    });
                }
            }
            Kind::Unsubscribe => {
                let request: Unsubscribe = frame.decode().unwrap();
                if let Some((_, task)) = subscriptions.remove(&request.subscription) {
                    task.abort();
                }
                reply.ok(&UnsubscribeOk {});
            }
            other => reply.error(body(ErrorKind::Unsupported, other.name())),
        }
        true
    }

    fn produce(self: &Arc<Self>, frame: &Frame, reply: Reply) -> bool {
        let nth = self.produces.fetch_add(1, Ordering::SeqCst) + 1;
        let request: Produce = frame.decode().unwrap();
        let fault = self.state.lock().unwrap().faults.get(&nth).copied();
        match fault {
            Some(Fault::DropBefore) => return false,
            Some(Fault::Refuse(kind)) => {
                reply.error(body(kind, "as told"));
                return true;
            }
            _ => {}
        }
        let outcome = self.append(&request, &frame.payload);
        match fault {
            Some(Fault::DropAfter) => return false,
            Some(Fault::Silent) => return true,
            _ => {}
        }
        if request.ack == Ack::None {
            return outcome.is_ok();
        }
        let in_flight = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_flight.fetch_max(in_flight, Ordering::SeqCst);
        let fake = self.clone();
        tokio::spawn(async move {
            let delay = fake.delay_ms.load(Ordering::SeqCst);
            if delay > 0 {
                tokio::time::sleep(Duration::from_millis(delay)).await;
            }
            fake.in_flight.fetch_sub(1, Ordering::SeqCst);
            match outcome {
                Ok(stored) => reply.ok(&stored),
                Err(error) => reply.error(error),
            }
        });
        true
    }

    async fn push(
        self: Arc<Self>,
        id: u64,
        request: Subscribe,
        out: mpsc::UnboundedSender<Bytes>,
        credit: watch::Sender<(i64, i64)>,
    ) {
        let (mut position, mut told) = (request.offset, false);
        let (mut changed, mut granted) = (self.changed.subscribe(), credit.subscribe());
        loop {
            let _ = changed.borrow_and_update();
            let (end, batch) = {
                let state = self.state.lock().unwrap();
                let log = &state.topics[&request.topic].logs[request.partition as usize];
                (log.end, log.batches.iter().find(|(_, next, _)| *next > position).cloned())
            };
            let (payload, next_offset) = match batch {
                Some((_, next, batch)) => {
                    if granted.wait_for(|credit| credit.0 > 0 && credit.1 > 0).await.is_err() {
                        return;
                    }
                    credit.send_modify(|credit| {
                        credit.0 -= (next - position) as i64;
                        credit.1 -= batch.len() as i64;
                    });
                    self.sent_records.fetch_add((next - position) as i64, Ordering::SeqCst);
                    (batch, next)
                }
                None if !told => {
                    told = true;
                    (Bytes::new(), position)
                }
                None => {
                    if changed.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            position = next_offset;
            let message = Delivery {
                subscription: id,
                next_offset,
                stable_end: end,
                skipped: vec![],
                unanswered: 0,
                reason: None,
            };
            let head = encode_frame(Kind::Delivery.code(), flags::PUSH, id, &message, payload.len()).unwrap();
            if out.send([&head[..], &payload[..]].concat().into()).is_err() {
                return;
            }
        }
    }
}

struct Reply {
    out: mpsc::UnboundedSender<Bytes>,
    kind: u16,
    correlation: u64,
}

impl Reply {
    fn ok(&self, message: &impl Serialize) {
        let frame = encode_frame(self.kind, flags::RESPONSE, self.correlation, message, 0).unwrap();
        let _ = self.out.send(frame.freeze());
    }

    fn error(&self, body: ErrorBody) {
        let flags = flags::RESPONSE | flags::ERROR;
        let frame = encode_frame(self.kind, flags, self.correlation, &body, 0).unwrap();
        let _ = self.out.send(frame.freeze());
    }
}

fn body(kind: ErrorKind, message: &str) -> ErrorBody {
    ErrorBody { code: kind.code(), message: message.to_owned(), retry_after_ms: None, range: None }
}

/// The sequence numbers and epochs of a partition's batches, as stored.
pub fn headers(fake: &Fake, topic: &str, partition: usize) -> Vec<BatchHeader> {
    let state = fake.state.lock().unwrap();
    let batches = state.topics[topic].logs[partition].batches.iter();
    batches.map(|(_, _, batch)| Batches::new(batch.clone()).next().unwrap().unwrap().0).collect()
}
