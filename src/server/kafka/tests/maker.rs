//! Bodies of requests, made from their shapes.

use bytes::{BufMut, BytesMut};

use super::super::api::{self, Api};
use super::super::shape::{Field, I8, I16, I32, I64, Kind, TEXT, UUID, always, from, within};
use crate::record::{BatchBuilder, BatchOptions, Compression};

const API_VERSIONS: &[Field] = &[from(3, TEXT), from(3, TEXT)];

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
        api::API_VERSIONS => API_VERSIONS,
        _ => api.shape.unwrap_or(&[]),
    }
}

/// Makes one body.
pub struct Maker {
    rng: fastrand::Rng,
    flexible: bool,
    /// Nothing is missing, and nothing lies.
    true_to_form: bool,
    out: BytesMut,
}

impl Maker {
    /// A body of values that are mostly good.
    pub fn new(rng: fastrand::Rng, api: &Api, version: i16) -> Self {
        Self { rng, flexible: api.is_flexible(version), true_to_form: false, out: BytesMut::new() }
    }

    /// A body with something in every field.
    pub fn true_to_form(rng: fastrand::Rng, api: &Api, version: i16) -> Self {
        Self { true_to_form: true, ..Self::new(rng, api, version) }
    }

    /// Makes it.
    pub fn body(mut self, api: &Api, version: i16) -> BytesMut {
        self.fields(version, shape(api));
        self.out
    }

    /// Whether something with a chance of one in so many happens.
    fn seldom(&mut self, of: u32) -> bool {
        !self.true_to_form && self.rng.u32(0..of) == 0
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.put_u8(value as u8);
    }

    /// A length or count; now and then a lie.
    fn count(&mut self, count: Option<usize>, short: bool) {
        let lie = self.seldom(400);
        let count = if lie { self.rng.i64(-3..=i64::from(u32::MAX)) } else { count.map_or(-1, |count| count as i64) };
        match (self.flexible, short) {
            (true, _) => self.varint((count + 1) as u32),
            (false, true) => self.out.put_i16(count as i16),
            (false, false) => self.out.put_i32(count as i32),
        }
    }

    /// Elements of an array.
    fn some(&mut self) -> usize {
        if self.true_to_form { self.rng.usize(1..3) } else { self.rng.usize(0..4) }
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
                let number = match if self.true_to_form { 8 } else { self.rng.u32(0..8) } {
                    0 => i128::from(self.rng.i64(..)),
                    1 => -1,
                    2 => i128::MAX,
                    3 => i128::MIN,
                    8 => self.rng.i128(0..2),
                    _ => self.rng.i128(0..4),
                };
                self.out.put_slice(&number.to_be_bytes()[16 - bytes..]);
            }
            Kind::Text => {
                let text = *self
                    .rng
                    .choice(["t", "t", "t", "g", "", "a b", "retention.ms", "1", "..", "range"].iter())
                    .unwrap_or(&"t");
                let text = (!self.seldom(12)).then_some(text);
                self.count(text.map(str::len), true);
                self.out.put_slice(text.unwrap_or_default().as_bytes());
            }
            Kind::Blob => {
                let blob = (!self.seldom(8)).then(|| self.batch());
                self.count(blob.as_ref().map(Vec::len), false);
                self.out.put_slice(&blob.unwrap_or_default());
            }
            Kind::Many(kind) => {
                let count = self.some();
                self.count(Some(count), false);
                (0..count).for_each(|_| self.value(version, kind));
            }
            Kind::List(fields) => {
                let count = (!self.seldom(12)).then(|| self.some());
                self.count(count, false);
                (0..count.unwrap_or(0)).for_each(|_| self.fields(version, fields));
            }
            Kind::Maybe(fields) => {
                let there = self.true_to_form || self.rng.bool();
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
            let tags = if self.seldom(8) { self.rng.u32(0..3) } else { 0 };
            self.varint(tags);
            for tag in 0..tags {
                self.varint(tag + 40);
                self.varint(2);
                self.out.put_i16(7);
            }
        }
    }
}
