//! What a batch weighs when it is read is bounded when it is accepted, and what is accepted is read.

use super::*;
use crate::base::limits;
use crate::fuzz;

/// A record as bytes, its varints as given: whatever a peer may send.
fn record(timestamp: &[u8], offset: i64, key: &[u8], value: &[u8], headers: i64, tail: &[u8]) -> Vec<u8> {
    let mut body = vec![0];
    body.extend_from_slice(timestamp);
    varint::put(&mut body, offset);
    body.extend_from_slice(key);
    body.extend_from_slice(value);
    varint::put(&mut body, headers);
    body.extend_from_slice(tail);
    let mut out = Vec::new();
    varint::put(&mut out, body.len() as i64);
    out.extend_from_slice(&body);
    out
}

fn with_headers(count: usize, header: &[u8]) -> Vec<u8> {
    record(&[0], 0, &[1], &[1], count as i64, &header.repeat(count))
}

/// The batch that these bytes are the records of.
fn sealed(codec: Compression, records: &[u8], count: u32) -> Bytes {
    let mut whole = vec![0; limits::BATCH_HEADER_BYTES];
    whole[22] = codec as u8;
    whole[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    whole[43..57].fill(0xff);
    whole[57..61].copy_from_slice(&count.to_be_bytes());
    codec.compress(records, &mut whole).unwrap();
    fuzz::seal(&mut whole);
    Bytes::from(whole)
}

/// What the gate says, whatever the codec.
fn gate(batch: &[u8], bounds: Bounds) -> Result<CheckedRecords, BatchError> {
    let checked = check_produced(batch, bounds)?;
    checked.records.map_or_else(|| check_compressed(batch, bounds), Ok)
}

#[test]
fn a_varint_with_bits_above_64_is_refused_in_every_codec() {
    let mut long = vec![0x80; 9];
    long.push(2);
    for codec in Compression::ALL {
        let batch = sealed(codec, &record(&long, 0, &[1], &[1], 0, &[]), 1);
        let refused = Err(BatchError::Record { index: 0, what: "its timestamp does not end" });
        assert_eq!(gate(&batch, MIB), refused, "{codec}");
        assert!(read_records(&batch, 1 << 20).unwrap().next().unwrap().is_err(), "{codec}");
    }
}

#[test]
fn a_record_has_as_many_headers_as_the_limit_says_and_no_more() {
    let bounds = Bounds::accepting(8 << 20);
    for codec in Compression::ALL {
        let most = sealed(codec, &with_headers(limits::RECORD_HEADERS, &[0, 0]), 1);
        assert!(gate(&most, bounds).is_ok(), "{codec}");
        assert_eq!(
            read_records(&most, 1 << 20).unwrap().next().unwrap().unwrap().headers.len(),
            limits::RECORD_HEADERS
        );
        let more = sealed(codec, &with_headers(limits::RECORD_HEADERS + 1, &[0, 0]), 1);
        let (size, limit) = (limits::RECORD_HEADERS + 1, limits::RECORD_HEADERS);
        let refused = BatchError::RecordTooLarge { index: 0, what: "headers", size, limit };
        assert_eq!(gate(&more, bounds), Err(refused.clone()), "{codec}");
        assert_eq!(refused.to_string(), "record 0 of the batch has 4097 headers, more than the limit of 4096");
        // The server's own may have some more.
        assert!(gate(&more, Bounds::own(8 << 20)).is_ok(), "{codec}");
        assert!(read_records(&more, 1 << 20).unwrap().all(|record| record.is_ok()), "{codec}");
        let far = sealed(codec, &with_headers(1 << 20, &[0, 0]), 1);
        assert!(matches!(gate(&far, bounds), Err(BatchError::RecordTooLarge { what: "headers", .. })), "{codec}");
        // What is on the disk nevertheless is no record for readers.
        let read: Vec<_> = read_records(&far, 8 << 20).unwrap().collect();
        assert!(matches!(read[..], [Err(BatchError::RecordTooLarge { what: "headers", .. })]), "{codec}");
    }
}

#[test]
fn the_headers_of_a_record_have_as_many_bytes_as_the_limit_says_and_no_more() {
    let header = |bytes: usize| {
        let mut header = vec![2, b'n'];
        varint::put(&mut header, bytes as i64);
        header.resize(header.len() + bytes, b'v');
        header
    };
    let room = 2 * limits::RECORD_HEADER_BYTES - header(limits::RECORD_HEADER_BYTES).len();
    for codec in Compression::ALL {
        assert!(gate(&sealed(codec, &with_headers(1, &header(room)), 1), MIB).is_ok(), "{codec}");
        let refused = gate(&sealed(codec, &with_headers(1, &header(room + 1)), 1), MIB);
        let (size, limit) = (limits::RECORD_HEADER_BYTES + 1, limits::RECORD_HEADER_BYTES);
        assert_eq!(refused, Err(BatchError::RecordTooLarge { index: 0, what: "bytes of headers", size, limit }));
    }
}

#[test]
fn the_headers_of_a_batch_are_weighed_together() {
    let one = |offset| record(&[0], offset, &[1], &[1], 4000, &[0, 0].repeat(4000));
    let records: Vec<u8> = (0..300).flat_map(one).collect();
    let batch = sealed(Compression::Zstd, &records, 300);
    assert!(batch.len() < 10_000, "{}", batch.len());
    let refused = gate(&batch, Bounds::accepting(8 << 20));
    assert!(matches!(refused, Err(BatchError::TooHeavy { limit, .. }) if limit == 64 << 20), "{refused:?}");
}

#[test]
fn a_batch_may_be_opened_to_what_its_topic_allows() {
    const MIB: usize = 1 << 20;
    assert_eq!(opened_bytes(16 * 1024), MIB);
    for (most, opened) in [(1, 64), (8, 64), (16, 64), (32, 128), (64, 256)] {
        assert_eq!(opened_bytes(most * MIB), opened * MIB);
    }
    // A batch that fits its topic as it is fits it in any codec.
    let mut builder = BatchBuilder::new(BatchOptions::default());
    (0..100).for_each(|_| builder.push(0, None, Some(&[7; 10_000]), &[("name", Some(b"value"))]));
    let plain = builder.build();
    for codec in Compression::ALL {
        let batch = sealed(codec, &plain[limits::BATCH_HEADER_BYTES..], 100);
        assert!(gate(&batch, Bounds::accepting(plain.len())).is_ok(), "{codec}");
    }
    // One of 64 times its size is still honest; beyond that it is a bomb.
    let (size, limit) = (100_000, 64 * 1024 * 64);
    for (value, accepted) in [(limit - 100, true), (limit, false)] {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.push(0, None, Some(&vec![0; value]), &[]);
        let batch = sealed(Compression::Zstd, &builder.build()[limits::BATCH_HEADER_BYTES..], 1);
        assert!(batch.len() < size);
        let said = gate(&batch, Bounds::accepting(64 * 1024));
        assert_eq!(said.is_ok(), accepted, "{said:?}");
        assert!(said.is_ok() || said.is_err_and(|error| error.is_too_large()));
    }
}

#[test]
fn a_record_that_no_frame_could_carry_uncompressed_is_refused() {
    let value = limits::RECORD_BYTES;
    let mut body = vec![0, 0, 0, 1];
    varint::put(&mut body, value as i64);
    body.resize(body.len() + value, 0);
    body.push(0);
    let mut records = Vec::new();
    varint::put(&mut records, body.len() as i64);
    records.extend_from_slice(&body);
    let batch = sealed(Compression::Zstd, &records, 1);
    let (size, limit) = (body.len(), limits::RECORD_BYTES);
    let refused = Err(BatchError::RecordTooLarge { index: 0, what: "bytes", size, limit });
    assert_eq!(gate(&batch, Bounds::accepting(limits::MAX_BATCH_BYTES)), refused);
}

#[test]
fn members_of_gzip_one_behind_the_other_are_one_stream() {
    let records: Vec<u8> =
        (0..9).flat_map(|offset| record(&[0], offset, &[1], &[6, b'a', b'b', b'c'], 0, &[])).collect();
    for cut in [0, 1, 20, records.len() - 1, records.len()] {
        let (first, second) = records.split_at(cut);
        let mut packed = Vec::new();
        Compression::Gzip.compress(first, &mut packed).unwrap();
        Compression::Gzip.compress(second, &mut packed).unwrap();
        let mut whole = sealed(Compression::Gzip, &[], 9)[..limits::BATCH_HEADER_BYTES].to_vec();
        whole.extend_from_slice(&packed);
        fuzz::seal(&mut whole);
        let batch = Bytes::from(whole);
        assert_eq!(gate(&batch, MIB).unwrap().bytes, records.len());
        assert_eq!(read_records(&batch, 1 << 20).unwrap().map(Result::unwrap).count(), 9);
    }
}

#[test]
fn what_is_accepted_is_read_whatever_the_codec() {
    let seed = std::env::var("TIDELOG_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let number = |rng: &mut fastrand::Rng, honest: i64| -> Vec<u8> {
        let mut out = Vec::new();
        match rng.u8(..160) {
            0 => out.extend_from_slice(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, rng.u8(..4)]),
            1 => varint::put(&mut out, rng.i64(..)),
            2 => varint::put(&mut out, -rng.i64(0..3)),
            3 => varint::put(&mut out, honest + rng.i64(-2..3)),
            // Longer than it needs to be.
            4 => {
                varint::put(&mut out, honest);
                let last = out.len() - 1;
                out[last] |= 0x80;
                out.push(0);
            }
            _ => varint::put(&mut out, honest),
        }
        out
    };
    let field = |rng: &mut fastrand::Rng, may_be_none: bool| -> Vec<u8> {
        if may_be_none && rng.u8(..4) == 0 {
            return vec![1];
        }
        let length = if rng.u8(..20) == 0 { rng.usize(..3000) } else { rng.usize(..9) };
        let mut out = number(rng, length as i64);
        out.resize(out.len() + length, rng.u8(..));
        out
    };
    let mut accepted = 0;
    for _ in 0..3_000 {
        let count = rng.u8(1..6);
        let mut data = vec![count, rng.u8(..)];
        for at in 0..count {
            let mut body = vec![rng.u8(..2)];
            let timestamp = rng.i64(-5..100);
            body.extend(number(&mut rng, timestamp));
            body.extend(number(&mut rng, at.into()));
            body.extend(field(&mut rng, true));
            body.extend(field(&mut rng, true));
            let headers = rng.usize(..3);
            body.extend(number(&mut rng, headers as i64));
            for _ in 0..headers {
                body.extend(field(&mut rng, false));
                body.extend(field(&mut rng, true));
            }
            data.extend(number(&mut rng, body.len() as i64));
            data.extend(body);
        }
        if rng.u8(..20) == 0 {
            data.push(rng.u8(..));
        }
        accepted += usize::from(fuzz::record_compressed(&data));
    }
    assert!((100..2_900).contains(&accepted), "{accepted}: the samples say little");
}
