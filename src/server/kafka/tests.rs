//! Hostile requests. Bodies are made from the shapes of the requests, so that they are understood at first, and then
//! damaged: each is answered or ends the connection, and none is a fault of the server or makes it panic.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};

use super::api::{self, APIS, Api};
use super::requests;
use super::session::{Hangup, Session};
use super::shape::{Field, I8, I16, I32, I64, Kind, TEXT, UUID, always, from, within};
use crate::record::{BatchBuilder, BatchOptions, Compression};
use crate::server::Server;
use crate::server::config::ServerConfig;

const PRODUCE: &[Field] = &[
    always(TEXT),
    always(I16),
    always(I32),
    always(Kind::List(&[always(TEXT), always(Kind::List(&[always(I32), always(Kind::Blob)]))])),
];

const FETCH: &[Field] = &[
    within(0, 14, I32),
    always(I32),
    always(I32),
    always(I32),
    always(I8),
    from(7, I32),
    from(7, I32),
    always(Kind::List(&[
        within(0, 12, TEXT),
        from(13, UUID),
        always(Kind::List(&[always(I32), from(9, I32), always(I64), from(12, I32), from(5, I64), always(I32)])),
    ])),
    from(7, Kind::List(&[within(0, 12, TEXT), from(13, UUID), always(Kind::Many(&I32))])),
    from(11, TEXT),
];

fn shape(api: &Api) -> &'static [Field] {
    match api.key {
        api::PRODUCE => PRODUCE,
        api::FETCH => FETCH,
        _ => api.shape.unwrap_or(&[]),
    }
}

struct Maker {
    rng: fastrand::Rng,
    flexible: bool,
    out: BytesMut,
}

impl Maker {
    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.put_u8(value as u8);
    }

    /// A length or count; now and then a lie.
    fn count(&mut self, count: Option<usize>, short: bool) {
        let lie = self.rng.u32(0..400) == 0;
        let count = if lie { self.rng.i64(-3..=i64::from(u32::MAX)) } else { count.map_or(-1, |count| count as i64) };
        match (self.flexible, short) {
            (true, _) => self.varint((count + 1) as u32),
            (false, true) => self.out.put_i16(count as i16),
            (false, false) => self.out.put_i32(count as i32),
        }
    }

    fn batch(&mut self) -> Vec<u8> {
        let codec = self.rng.usize(0..Compression::ALL.len());
        let options = BatchOptions {
            compression: Compression::ALL[codec],
            producer_id: self.rng.i64(-1..3),
            producer_epoch: self.rng.i16(0..2),
            base_sequence: self.rng.i32(0..3),
            ..BatchOptions::default()
        };
        let mut builder = BatchBuilder::new(options);
        for _ in 0..self.rng.usize(0..3) {
            builder.push(self.rng.i64(-1..9), Some(b"k"), None, &[]);
        }
        let mut batch = builder.build().to_vec();
        if self.rng.bool() {
            let at = self.rng.usize(0..batch.len());
            batch[at] = self.rng.u8(..);
            if self.rng.bool() {
                let crc = crc32c::crc32c(&batch[21..]);
                batch[17..21].copy_from_slice(&crc.to_be_bytes());
            }
        }
        batch
    }

    fn value(&mut self, version: i16, kind: &Kind) {
        match kind {
            Kind::Fixed(bytes) => {
                let number = match self.rng.u32(0..8) {
                    0 => i128::from(self.rng.i64(..)),
                    1 => -1,
                    2 => i128::MAX,
                    3 => i128::MIN,
                    _ => self.rng.i128(0..4),
                };
                self.out.put_slice(&number.to_be_bytes()[16 - bytes..]);
            }
            Kind::Text => {
                let text = *self
                    .rng
                    .choice(["t", "t", "t", "g", "", "a b", "retention.ms", "1", "..", "range"].iter())
                    .unwrap_or(&"t");
                let text = (self.rng.u32(0..12) > 0).then_some(text);
                self.count(text.map(str::len), true);
                self.out.put_slice(text.unwrap_or_default().as_bytes());
            }
            Kind::Blob => {
                let blob = (self.rng.u32(0..8) > 0).then(|| self.batch());
                self.count(blob.as_ref().map(Vec::len), false);
                self.out.put_slice(&blob.unwrap_or_default());
            }
            Kind::Many(kind) => {
                let count = self.rng.usize(0..4);
                self.count(Some(count), false);
                (0..count).for_each(|_| self.value(version, kind));
            }
            Kind::List(fields) => {
                let count = (self.rng.u32(0..12) > 0).then(|| self.rng.usize(0..4));
                self.count(count, false);
                (0..count.unwrap_or(0)).for_each(|_| self.fields(version, fields));
            }
            Kind::Maybe(fields) => {
                let there = self.rng.bool();
                self.out.put_i8(if there { 1 } else { -1 });
                if there {
                    self.fields(version, fields);
                }
            }
        }
    }

    fn fields(&mut self, version: i16, fields: &[Field]) {
        for field in fields.iter().filter(|field| (field.since..=field.until).contains(&version)) {
            self.value(version, &field.kind);
        }
        if self.flexible {
            let tags = if self.rng.u32(0..8) == 0 { self.rng.u32(0..3) } else { 0 };
            self.varint(tags);
            for tag in 0..tags {
                self.varint(tag + 40);
                self.varint(2);
                self.out.put_i16(7);
            }
        }
    }
}

fn request(rng: &mut fastrand::Rng, api: &Api, version: i16, damage: bool) -> BytesMut {
    let flexible = api.is_flexible(version);
    let mut maker = Maker { rng: rng.fork(), flexible, out: BytesMut::new() };
    for number in [api.key, version] {
        maker.out.put_i16(number);
    }
    maker.out.put_i32(7);
    maker.out.put_i16(1);
    maker.out.put_u8(b'c');
    if flexible {
        maker.out.put_u8(0);
    }
    let head = maker.out.len();
    maker.fields(version, shape(api));
    let mut out = maker.out;
    if damage && out.len() > head {
        match rng.u32(0..4) {
            0 => out.truncate(rng.usize(head..out.len())),
            1 => out.extend((0..rng.usize(1..20)).map(|_| rng.u8(..)).collect::<Vec<_>>()),
            _ => {
                for _ in 0..rng.usize(1..4) {
                    let at = rng.usize(head..out.len());
                    out[at] = if rng.bool() { rng.u8(..) } else { 0xff };
                }
            }
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_answered_or_ends_the_connection_whatever_is_in_it() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let rounds: u64 = number("TIDELOG_ROUNDS").unwrap_or(30);
    let seed: u64 = number("TIDELOG_SEED").unwrap_or(11);
    println!("TIDELOG_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let config = ServerConfig {
        data_dir: dir.path().join("data"),
        listen: "127.0.0.1:0".to_owned(),
        topic_defaults: crate::catalog::TopicSettings::default()
            .with(&[("durability".to_owned(), "interval".to_owned())].into())
            .unwrap(),
        ..ServerConfig::default()
    };
    let server = Server::start(config).await.unwrap();
    let address = server.kafka_addresses()[0];
    let account = server.shared.incoming.account(1 << 30);
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut answered, mut ended) = (0, 0);
    for round in 0..rounds {
        for api in APIS {
            for version in api.min..=api.max {
                for damage in [false, true] {
                    let frame = request(&mut rng, api, version, damage);
                    let what = format!("round {round}: {} version {version}: {frame:02x?}", api.name);
                    let session = Session::new(Arc::clone(&server.shared), address, address);
                    // Nobody waits for anything here.
                    session.close();
                    let grant = account.take(1).await;
                    let outcome = match requests::begin(&session, frame, grant) {
                        Ok(pending) => {
                            let answer = tokio::time::timeout(Duration::from_secs(60), pending).await;
                            answer.unwrap_or_else(|_| panic!("no answer: {what}"))
                        }
                        Err(hangup) => Err(hangup),
                    };
                    match outcome {
                        Ok(_) => answered += 1,
                        Err(Hangup::Fault(fault)) => panic!("{fault}: {what}"),
                        Err(_) => ended += 1,
                    }
                }
            }
        }
    }
    println!("{answered} answered, {ended} ended the connection");
    assert!(answered > ended / 4, "too few of the requests were understood");
    server.stop().await;
}
