//! What fuzz targets (`fuzz/`) call, and seeded tests too: bytes of any content in, through the code that the server runs
//! on what peers send. Each function panics where something is wrong. Only there when fuzzing and in the crate's own tests.

use bytes::{Bytes, BytesMut};

use crate::base::limits;
use crate::expr::{Filter, Input};
use crate::protocol::{FrameDecoder, Kind, decode_every};
use crate::record::{
    BatchBuilder, BatchHeader, BatchOptions, Batches, Bounds, Checked, CheckedRecords, Compression, Record, Thinned,
    check_compressed, check_produced, each_key, opened_bytes, read_marker, read_records, thin, verify_batch,
};
use crate::route::{self, Cut, Route};
pub use crate::server::kafka_fuzz::{decode as kafka, decode_stream as kafka_stream};

/// Bytes of a batch that is taken here.
const BATCH_BYTES: usize = 64 * 1024;

/// A stream of native frames that comes in pieces, whose size the first byte says; checksums as they are.
pub fn native_stream(data: &[u8]) {
    let Some((&size, stream)) = data.split_first() else { return };
    let mut decoder = FrameDecoder::new(limits::FRAME_BYTES);
    let mut buffer = BytesMut::new();
    for piece in stream.chunks(usize::from(size) + 1) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => {
                    if let Some(kind) = Kind::from_code(frame.kind) {
                        decode_every(kind, &frame.body);
                    }
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// The body of a native frame: the first byte says of which kind.
pub fn native_message(data: &[u8]) {
    let Some((&choice, body)) = data.split_first() else { return };
    decode_every(Kind::ALL[usize::from(choice) % Kind::ALL.len()], body);
}

/// A batch as it comes, and once more with the length and checksum that it should have.
pub fn record_batch(data: &[u8]) {
    batch(&Bytes::copy_from_slice(data));
    if data.len() >= limits::BATCH_HEADER_BYTES {
        let mut sealed = data.to_vec();
        seal(&mut sealed);
        batch(&Bytes::from(sealed));
    }
}

/// The records of a batch, as they are or compressed: behind one byte that says how, and one that says how many.
pub fn record_payload(data: &[u8]) {
    let [codec, count, payload @ ..] = data else { return };
    let mut whole = BatchBuilder::new(BatchOptions::default()).build().to_vec();
    whole.truncate(limits::BATCH_HEADER_BYTES);
    whole.extend_from_slice(payload);
    whole[22] = codec & 7;
    whole[23..27].copy_from_slice(&(i32::from(*count) - 1).to_be_bytes());
    whole[57..61].copy_from_slice(&i32::from(*count).to_be_bytes());
    seal(&mut whole);
    batch(&Bytes::from(whole));
}

/// Gives a batch the format, length and checksum that it should have.
pub(crate) fn seal(batch: &mut [u8]) {
    let length = i32::try_from(batch.len() - 12).unwrap_or(i32::MAX);
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = 2;
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// A batch that the gate refuses, as an earlier version might have stored it: some good records with their numbers for values,
/// and one of a million headers behind them, unless `good` is its place, too.
#[cfg(test)]
pub(crate) fn past_the_gate(good: u32) -> BytesMut {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    (0..good).for_each(|at| builder.push(5, Some(b"k"), Some(at.to_string().as_bytes()), &[]));
    let plain = builder.build();
    let mut records = plain[limits::BATCH_HEADER_BYTES..].to_vec();
    let headers = 1 << 20;
    // Timestamp, offset, key, value, count of headers, and these.
    let mut body = vec![0, 0, u8::try_from(good * 2).unwrap_or(0), 1, 1, 0x80, 0x80, 0x80, 0x01];
    body.resize(body.len() + headers * 2, 0);
    let mut length = (body.len() as u64) * 2;
    while length >= 0x80 {
        records.push(length as u8 | 0x80);
        length >>= 7;
    }
    records.push(length as u8);
    records.extend_from_slice(&body);
    let mut whole = plain.to_vec();
    whole.truncate(limits::BATCH_HEADER_BYTES);
    let _ = Compression::Zstd.compress(&records, &mut whole);
    whole[22] = Compression::Zstd as u8;
    whole[23..27].copy_from_slice(&good.to_be_bytes());
    whole[57..61].copy_from_slice(&(good + 1).to_be_bytes());
    seal(&mut whole);
    BytesMut::from(&whole[..])
}

/// All that is done with a batch: what is accepted from a producer can be read, to the last record.
fn batch(bytes: &Bytes) {
    let _ = (BatchHeader::parse(bytes), read_marker(bytes));
    for found in Batches::new(bytes.clone()) {
        if found.is_err() {
            break;
        }
    }
    if let Ok(header) = verify_batch(bytes) {
        let whole = bytes.slice(..header.total_bytes());
        let (mut seen, mut kept) = (0, 0);
        let walked = each_key(&whole, |_| seen += 1);
        let keep = |record: crate::record::KeyedRecord<'_>| {
            let keep = record.offset.is_multiple_of(2);
            kept += u64::from(keep);
            keep
        };
        if let Ok(thinned) = thin(&whole, Some(1), keep) {
            assert_eq!(walked, Ok(()), "thinned, but cannot be walked");
            if let Thinned::Batch(some) = thinned {
                let some = Bytes::from(some);
                assert!(verify_batch(&some).is_ok(), "thinned to what is no batch");
                let mut left = 0;
                assert_eq!(each_key(&some, |_| left += 1), Ok(()));
                assert_eq!(left, kept, "thinned to other records");
            }
        }
    }
    let Some(Checked { header, records }) = accepted(bytes) else { return };
    let checked = records.unwrap_or(CheckedRecords { newest: 0, oldest: None, without_key: None, bytes: 0 });
    let read = read_records(bytes, opened_bytes(BATCH_BYTES))
        .unwrap_or_else(|error| panic!("accepted, but not opened: {error}"));
    let (mut count, mut newest, mut without_key, mut headers, mut payload) = (0, -1, None, 0, 0);
    for record in read {
        let record = record.unwrap_or_else(|error| panic!("accepted, but not read: {error}"));
        assert_eq!(record.offset, header.base_offset.saturating_add(count), "offsets do not follow");
        newest = newest.max(record.timestamp);
        if record.key.is_none() {
            without_key.get_or_insert(u32::try_from(count).unwrap_or(u32::MAX));
        }
        assert!(record.headers.len() <= limits::RECORD_HEADERS, "more headers than are accepted");
        headers += record.headers.len();
        payload += record.weight();
        count += 1;
    }
    assert_eq!(i64::from(header.record_count), i64::try_from(count).unwrap_or(i64::MAX), "other records than counted");
    // What a reader holds of it is bounded by what it was weighed as: its bytes, its headers, and a fixed part a record.
    assert!(checked.bytes + headers * limits::HEADER_WEIGHT <= opened_bytes(BATCH_BYTES), "heavier than is accepted");
    assert!(payload <= checked.bytes + usize::try_from(count).unwrap_or(0) * 32, "more than was checked");
    assert_eq!(without_key, checked.without_key, "other keys than were checked");
    if !header.log_append_time() {
        assert_eq!(newest, checked.newest, "another time than was checked");
    }
}

/// A batch as the gate accepts it, its records checked whatever their codec.
fn accepted(bytes: &[u8]) -> Option<Checked> {
    let bounds = Bounds::accepting(BATCH_BYTES);
    let Checked { header, records } = check_produced(bytes, bounds).ok()?;
    let records = records.or_else(|| check_compressed(bytes, bounds).ok())?;
    Some(Checked { header, records: Some(records) })
}

/// Records behind a byte that says how many, in every codec that the second byte's bits choose: as one frame of the codec, or
/// in two (gzip members, Snappy blocks). What is accepted with one is accepted with all, as the same; and can be read.
/// Whether it was accepted.
pub fn record_compressed(data: &[u8]) -> bool {
    let [count, cut, records @ ..] = data else { return false };
    if records.len() + limits::BATCH_HEADER_BYTES > BATCH_BYTES {
        return false;
    }
    let mut plain: Option<Option<CheckedRecords>> = None;
    for codec in Compression::ALL {
        let mut packed = Vec::new();
        if codec.compress(records, &mut packed).is_err() {
            continue;
        }
        let whole = Bytes::from(framed(codec, *count, &packed));
        batch(&whole);
        let checked = accepted(&whole).and_then(|checked| checked.records);
        match plain {
            None => plain = Some(checked),
            Some(plain) => assert_eq!(plain, checked, "{codec}: accepted otherwise than uncompressed"),
        }
        if codec == Compression::Gzip {
            let (first, second) = records.split_at(usize::from(*cut).min(records.len()));
            let mut members = Vec::new();
            if codec.compress(first, &mut members).is_ok() && codec.compress(second, &mut members).is_ok() {
                let whole = Bytes::from(framed(codec, *count, &members));
                batch(&whole);
                let members = accepted(&whole).and_then(|checked| checked.records);
                assert_eq!(plain, Some(members), "{codec}: two members are another batch than one");
            }
        }
    }
    plain.flatten().is_some()
}

fn framed(codec: Compression, count: u8, payload: &[u8]) -> Vec<u8> {
    let mut whole = BatchBuilder::new(BatchOptions::default()).build().to_vec();
    whole.truncate(limits::BATCH_HEADER_BYTES);
    whole.extend_from_slice(payload);
    whole[22] = codec as u8;
    whole[23..27].copy_from_slice(&(i32::from(count) - 1).to_be_bytes());
    whole[57..61].copy_from_slice(&i32::from(count).to_be_bytes());
    seal(&mut whole);
    whole
}

/// The text of a filter, which is asked about a record if it is one.
pub fn filter(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(filter) = Filter::compile(text) else { return };
    let record = record();
    let _ = filter.matches(&Input { topic: "crm.eu", partition: 3, offset: record.offset, record: &record });
}

/// A file of routes. What can be read can be compiled, written, and read again as the same; and is used on a record.
pub fn route_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(specs) = route::read(text) else { return };
    let record = record();
    for spec in specs {
        let written = spec.to_toml();
        assert_eq!(route::read(&written).as_deref(), Ok(std::slice::from_ref(&spec)), "{written}");
        let route = Route::compile(&spec).unwrap_or_else(|error| panic!("read, but not compiled: {error}"));
        let _ = route.route(&Input { topic: "crm.eu", partition: 3, offset: record.offset, record: &record });
    }
}

/// A JSONPath in the first line, and the document behind it.
pub fn json_path(data: &[u8]) {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let Ok(path) = std::str::from_utf8(&data[..end]) else { return };
    for many in [false, true] {
        if let Ok(cut) = Cut::parse(path, many) {
            let _ = cut.find(&data[end + 1..]);
        }
    }
}

fn record() -> Record {
    Record {
        offset: 7,
        timestamp: 1_700_000_000_000,
        key: Some(Bytes::from_static(b"a-17")),
        value: Some(Bytes::from_static(
            br#"{"a": 120, "rate": 1.5, "lines": [{"q": 1}, {"q": 9}], "who": {"name": "Ann"}, "to": "crm.a"}"#,
        )),
        headers: [("kind", Some(&b"created"[..])), ("raw", Some(&[0xff, 0]))].into_iter().collect(),
    }
}
