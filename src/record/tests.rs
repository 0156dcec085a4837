use bytes::Bytes;

use super::partitioner::murmur2;
use super::*;

mod chunks;
mod repack;
mod weights;

const MIB: Bounds = Bounds::accepting(1 << 20);

fn batch(codec: Compression, records: u32) -> Vec<u8> {
    let options =
        BatchOptions { compression: codec, producer_id: 7, producer_epoch: 1, base_sequence: 40, base_offset: 5 };
    let mut builder = BatchBuilder::new(options);
    for at in 0..records {
        let value = format!("value {at} ").repeat(20);
        builder.push(
            1_000 + i64::from(at),
            (at % 2 == 0).then_some(b"key".as_slice()),
            (at % 5 != 4).then_some(value.as_bytes()),
            &[("name", Some(b"x".as_slice())), ("none", None)],
        );
    }
    builder.build().to_vec()
}

#[test]
fn every_codec_is_a_round_trip() {
    for codec in Compression::ALL {
        let batch = Bytes::from(batch(codec, 100));
        let header = check_produced(&batch, MIB).unwrap().header;
        assert_eq!((header.base_offset, header.next_offset(), header.record_count), (5, 105, 100));
        assert_eq!((header.compression(), header.last_sequence()), (Ok(codec), 139));
        let records: Vec<_> = read_records(&batch, 1 << 20).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(records.len(), 100);
        assert_eq!((records[99].offset, records[99].timestamp), (104, 1_099));
        assert_eq!((records[1].key.clone(), records[4].value.clone()), (None, None));
        assert_eq!(records[0].headers.iter().nth(1), Some(Header { name: b"none", value: None }));
        assert_eq!(codec.name().parse(), Ok(codec));
    }
}

#[test]
fn a_flipped_bit_behind_the_assigned_fields_is_always_found() {
    let good = batch(Compression::None, 3);
    for at in (8..12).chain(16..good.len()) {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert!(verify_batch(&bad).is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn a_batch_cut_anywhere_is_refused() {
    let good = batch(Compression::None, 3);
    for length in 0..good.len() {
        assert!(verify_batch(&good[..length]).is_err(), "{length}");
    }
    let mut two = good.clone();
    two.extend_from_slice(&good);
    assert_eq!(check_produced(&two, MIB), Err(BatchError::Trailing { extra: good.len() }));
    let mut batches = Batches::new(Bytes::from(two[..two.len() - 1].to_vec()));
    assert_eq!(batches.next().unwrap().unwrap().0.record_count, 3);
    assert!(batches.next().is_none());
    assert_eq!(batches.remainder(), good.len() - 1);
}

#[test]
fn fields_that_lie_are_refused_with_their_value() {
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = batch(Compression::None, 3);
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        header::seal(&mut bad);
        check_produced(&bad, MIB).map(|checked| checked.header)
    };
    assert_eq!(with(57, &0i32.to_be_bytes()), Err(BatchError::Field { field: "record count", value: 0 }));
    assert_eq!(with(57, &4i32.to_be_bytes()), Err(BatchError::Field { field: "last offset delta", value: 2 }));
    assert_eq!(
        with(57, &i32::MIN.to_be_bytes()),
        Err(BatchError::Field { field: "record count", value: i64::from(i32::MIN) })
    );
    assert_eq!(with(53, &(-1i32).to_be_bytes()), Err(BatchError::Field { field: "base sequence", value: -1 }));
    assert_eq!(with(21, &7u16.to_be_bytes()), Err(BatchError::Field { field: "codec", value: 7 }));
    assert_eq!(with(21, &0x20u16.to_be_bytes()), Err(BatchError::Control));
    assert_eq!(with(16, &[1]), Err(BatchError::Magic { magic: 1 }));
    assert!(matches!(with(61, &[0x7f]), Err(BatchError::Record { index: 0, .. })));
    for length in [0, 1, 48, i32::MAX, -1, i32::MIN] {
        assert!(with(8, &length.to_be_bytes()).is_err(), "{length}");
    }
    let size = batch(Compression::None, 3).len();
    assert_eq!(
        check_produced(&batch(Compression::None, 3), Bounds::accepting(10)),
        Err(BatchError::TooLarge { size, limit: 10 })
    );
}

#[test]
fn decompression_bombs_are_refused() {
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut builder = BatchBuilder::new(BatchOptions { compression: codec, ..BatchOptions::default() });
        builder.push(0, None, Some(&vec![0; 4 << 20]), &[]);
        let bomb = builder.build().freeze();
        let read: Vec<_> = read_records(&bomb, 1 << 20).unwrap().collect();
        assert!(matches!(read[..], [Err(BatchError::Bomb { .. })]), "{codec}");
        assert!(read_records(&bomb, 5 << 20).unwrap().all(|record| record.is_ok()), "{codec}");
    }
}

#[test]
fn garbage_never_panics() {
    let seed = 7;
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..20_000 {
        let codec = Compression::ALL[rng.usize(..5)];
        let mut bytes = if rng.bool() { batch(codec, 4) } else { vec![0; rng.usize(..200)] };
        for _ in 0..rng.usize(1..8) {
            if !bytes.is_empty() {
                let at = rng.usize(..bytes.len());
                bytes[at] = rng.u8(..);
            }
        }
        if bytes.len() > 61 {
            header::seal(&mut bytes);
        }
        let _ = check_produced(&bytes, MIB);
        if let Ok(records) = read_records(&Bytes::from(bytes), 1 << 16) {
            let _ = records.count();
        }
    }
}

#[test]
fn the_format_is_frozen() {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push(1, Some(b"k"), Some(b"v"), &[("h", Some(b"1"))]);
    let hex: String = builder.build().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, FROZEN);
    let batch = Bytes::from(
        hex.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect::<Vec<_>>(),
    );
    assert_eq!(read_records(&batch, 100).unwrap().count(), 1);
}

#[test]
fn keys_go_where_kafka_puts_them() {
    for (key, hash) in [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ] {
        assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
    }
    assert!((0..100u32).all(|at| partition_for_key(&at.to_be_bytes(), 3) < 3));
}

/// One record: key `k`, value `v`, header `h: 1`, timestamp 1.
/// One record: key `k`, value `v`, header `h: 1`, timestamp 1.
const FROZEN: &str = "00000000000000000000003e000000000276d990dd00000000000000000000000000010000000000000001ffffffffffffffffffffffffffff0000000118000000026b02760202680231";

#[test]
fn a_batch_of_some_records_of_another_keeps_their_offsets() {
    let whole = Bytes::from(batch(Compression::None, 10));
    let records: Vec<Record> = read_records(&whole, 1 << 20).unwrap().collect::<Result<_, _>>().unwrap();
    let mut builder = BatchBuilder::new(BatchOptions { base_offset: records[2].offset, ..BatchOptions::default() });
    for at in [2, 3, 7] {
        builder.push_record(&records[at]);
    }
    let some = builder.build().freeze();
    let header = verify_batch(&some).unwrap();
    assert_eq!((header.base_offset, header.next_offset(), header.record_count), (7, 13, 3));
    let read: Vec<Record> = read_records(&some, 1 << 20).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(read, [2, 3, 7].map(|at: usize| records[at].clone()));
}

fn of(bytes: &[u8]) -> Vec<Record> {
    read_records(&Bytes::copy_from_slice(bytes), 1 << 20).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_thinned_batch_keeps_its_header_and_the_other_records_as_they_are() {
    for codec in Compression::ALL {
        let whole = batch(codec, 20);
        let all = of(&whole);
        // Values of every fifth record are missing: tombstones. They get a horizon, which stays.
        let keep = |record: KeyedRecord<'_>| record.offset % 2 == 1 && record.offset < 20;
        let Thinned::Batch(some) = thin(&whole, Some(5_000), keep).unwrap() else { panic!("{codec}") };
        let (before, after) = (verify_batch(&whole).unwrap(), verify_batch(&some).unwrap());
        assert_eq!((after.base_offset, after.last_offset()), (before.base_offset, before.last_offset()));
        assert_eq!((after.last_sequence(), after.producer_id), (before.last_sequence(), 7));
        assert_eq!((after.compression(), after.record_count), (Ok(codec), 8));
        assert_eq!((after.delete_horizon(), after.max_timestamp), (Some(5_000), 1_014));
        let expected: Vec<_> =
            all.iter().filter(|record| record.offset % 2 == 1 && record.offset < 20).cloned().collect();
        assert_eq!(of(&some), expected, "{codec}");
        assert_eq!(thin(&some, Some(9_000), |_| true).unwrap(), Thinned::Whole, "the horizon is set once");
        // Without tombstones there is none.
        let Thinned::Batch(fewer) = thin(&some, Some(9_000), |record| !record.tombstone).unwrap() else {
            panic!("{codec}")
        };
        assert_eq!(verify_batch(&fewer).unwrap().delete_horizon(), None);
        let expected: Vec<_> = expected.into_iter().filter(|record| record.value.is_some()).collect();
        assert_eq!(of(&fewer), expected, "{codec}");
        assert_eq!(thin(&fewer, Some(0), |_| false).unwrap(), Thinned::Nothing);
        assert_eq!(thin(&fewer, Some(0), |_| true).unwrap(), Thinned::Whole);
        let empty = empty_batch(&before);
        let header = verify_batch(&empty).unwrap();
        assert_eq!((header.record_count, header.last_sequence(), header.is_gap()), (0, before.last_sequence(), false));
        assert_eq!(of(&empty), []);
    }
}

#[test]
fn gaps_stand_for_any_number_of_offsets() {
    for (from, to, count) in [(7, 8, 1), (0, i32::MAX as u64, 1), (5, 5 << 30, 3)] {
        let mut next = from;
        let batches = gap_batches(from, to);
        assert_eq!(batches.len(), count);
        for batch in batches {
            let header = verify_batch(&batch).unwrap();
            assert_eq!((header.base_offset, header.is_gap()), (next, true));
            assert_eq!(check_produced(&batch, MIB), Err(BatchError::Field { field: "record count", value: 0 }));
            next = header.next_offset();
        }
        assert_eq!(next, to);
    }
}

#[test]
fn records_without_a_key_are_found_in_every_codec() {
    for codec in Compression::ALL {
        // Every second record has a key.
        let keyed = |batch: Vec<u8>| {
            let checked = check_produced(&batch, MIB).unwrap();
            checked.records.unwrap_or_else(|| check_compressed(&batch, MIB).unwrap()).keyed()
        };
        assert_eq!(keyed(batch(codec, 1)), Ok(()), "{codec}");
        assert_eq!(keyed(batch(codec, 4)), Err(BatchError::NoKey { index: 1 }), "{codec}");
    }
    let mut horizon = batch(Compression::None, 1);
    horizon[22] |= 0x40;
    header::seal(&mut horizon);
    assert_eq!(check_produced(&horizon, MIB), Err(BatchError::Horizon));
}

#[test]
fn no_damage_to_a_batch_makes_reading_panic_and_what_is_accepted_can_be_read() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let rounds: usize = number("TIDELOG_ROUNDS").unwrap_or(1);
    let seed = number("TIDELOG_SEED").unwrap_or(31) as u64;
    println!("TIDELOG_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for codec in Compression::ALL.repeat(rounds) {
        let good = batch(codec, 1 + rng.u32(..3));
        crate::fuzz::record_batch(&good);
        for length in 0..good.len() {
            crate::fuzz::record_batch(&good[..length]);
        }
        for at in 0..good.len() {
            for number in [[0xff; 4], [0x80, 0, 0, 0], [0x7f, 0xff, 0xff, 0xff], rng.u32(..).to_be_bytes()] {
                let mut bad = good.clone();
                let end = bad.len().min(at + 4);
                bad[at..end].copy_from_slice(&number[..end - at]);
                crate::fuzz::record_batch(&bad);
            }
            let mut bad = good.clone();
            bad[at] ^= 1 << rng.u8(..8);
            crate::fuzz::record_batch(&bad);
        }
        for _ in 0..100 {
            let noise: Vec<u8> = (0..rng.usize(..200)).map(|_| rng.u8(..)).collect();
            crate::fuzz::record_payload(&noise);
        }
    }
}
