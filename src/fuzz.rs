//! What fuzz targets (`fuzz/`) call, and seeded tests too: bytes of any content in, through the code that the server runs
//! on what peers send. Each function panics where something is wrong. Only there when fuzzing and in the crate's own tests.

use bytes::{Bytes, BytesMut};

use crate::base::limits;
use crate::expr::{Filter, Input};
use crate::protocol::{FrameDecoder, Kind, decode_every};
use crate::record::{
    BatchBuilder, BatchHeader, BatchOptions, Batches, Header, Record, Thinned, check_compressed, check_keyed,
    check_produced, each_key, read_marker, read_records, thin, verify_batch,
};
use crate::route::{self, Cut, Route};
pub use crate::server::kafka_fuzz::{decode as kafka, decode_stream as kafka_stream};

/// Bytes that a batch may become when it is opened here.
const OPENED_BYTES: usize = 1024 * 1024;

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
    let Ok(header) = check_produced(bytes, OPENED_BYTES) else { return };
    if check_compressed(bytes, OPENED_BYTES).is_err() {
        return;
    }
    let records = read_records(bytes, OPENED_BYTES).unwrap_or_else(|error| panic!("accepted, but not opened: {error}"));
    let mut count = 0;
    for record in records {
        let record = record.unwrap_or_else(|error| panic!("accepted, but not read: {error}"));
        assert_eq!(record.offset, header.base_offset.saturating_add(count), "offsets do not follow");
        count += 1;
    }
    assert_eq!(i64::from(header.record_count), i64::try_from(count).unwrap_or(i64::MAX), "other records than counted");
    let _ = check_keyed(bytes);
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
        headers: vec![
            Header { name: Bytes::from_static(b"kind"), value: Some(Bytes::from_static(b"created")) },
            Header { name: Bytes::from_static(b"raw"), value: Some(Bytes::from_static(&[0xff, 0])) },
        ],
    }
}
