//! Batches in another codec, and with the time of their append.

use super::*;

fn records(batch: &[u8]) -> Vec<Record> {
    read_records(&Bytes::copy_from_slice(batch), 1 << 20).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_batch_in_another_codec_has_the_same_records_and_producer() {
    for from in Compression::ALL {
        let was = batch(from, 100);
        for to in Compression::ALL {
            let Some(packed) = repack(&was, to, MIB).unwrap() else {
                assert_eq!(from, to);
                continue;
            };
            let (before, after) = (BatchHeader::parse(&was).unwrap(), check_produced(&packed, MIB).unwrap().header);
            assert_eq!((after.compression(), records(&packed)), (Ok(to), records(&was)), "{from} {to}");
            let same = BatchHeader {
                batch_length: before.batch_length,
                crc: before.crc,
                attributes: before.attributes,
                ..after
            };
            assert_eq!(same, before);
            if to != Compression::None {
                check_compressed(&packed, MIB).unwrap();
            }
        }
    }
}

#[test]
fn what_grows_over_the_limit_stays_as_it_came_and_what_does_not_fit_plain_is_refused() {
    let mut rng = fastrand::Rng::with_seed(4);
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let random: Vec<u8> = (0..50_000).map(|_| rng.u8(..)).collect();
    builder.push(5, None, Some(&random), &[]);
    let plain = builder.build();
    let tight = Bounds::accepting(plain.len());
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        assert_eq!(repack(&plain, codec, tight).unwrap(), None, "{codec}");
    }
    let packed = batch(Compression::Zstd, 1000);
    let bounds = Bounds::accepting(packed.len());
    let refused = repack(&packed, Compression::None, bounds).unwrap_err();
    assert!(matches!(refused, BatchError::TooLarge { limit, .. } if limit == packed.len()), "{refused}");
    assert!(repack(&packed[..200], Compression::None, MIB).is_err());
}

#[test]
fn the_time_of_the_append_is_every_records_also_of_those_that_compaction_leaves() {
    for codec in Compression::ALL {
        let mut stamped = batch(codec, 10);
        set_append_time(&mut stamped, 777_000);
        let header = verify_batch(&stamped).unwrap();
        assert!(header.log_append_time() && header.compression() == Ok(codec));
        assert!(records(&stamped).iter().all(|record| record.timestamp == 777_000));
        // A later time takes its place.
        set_append_time(&mut stamped, 778_000);
        let other = if codec == Compression::Lz4 { Compression::Gzip } else { Compression::Lz4 };
        let packed = repack(&stamped, other, MIB).unwrap().unwrap();
        assert!(records(&packed).iter().all(|record| record.timestamp == 778_000));
        for horizon in [None, Some(900_000)] {
            let Thinned::Batch(thinned) = thin(&stamped, horizon, |record| record.offset % 2 == 0).unwrap() else {
                panic!("half of it goes")
            };
            let left = records(&thinned);
            assert_eq!(left.len(), 5);
            assert!(left.iter().all(|record| record.timestamp == 778_000), "{horizon:?}");
            let header = verify_batch(&thinned).unwrap();
            assert_eq!((header.max_timestamp, header.delete_horizon()), (778_000, horizon));
        }
    }
}
