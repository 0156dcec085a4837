//! Compressed records are read a chunk at a time, and are the same as when they are not compressed.

use bytes::BytesMut;

use super::*;
use crate::base::limits;
use crate::record::chunks::CHUNK_BYTES;

fn batch(rng: &mut fastrand::Rng, most: usize) -> BytesMut {
    let mut builder = BatchBuilder::new(BatchOptions { base_offset: 7, ..BatchOptions::default() });
    for _ in 0..rng.usize(1..40) {
        // Also around the edges of chunks.
        let length = match rng.u8(..4) {
            0 => rng.usize(..10),
            1 => rng.usize(..most),
            2 => CHUNK_BYTES.min(most) - rng.usize(..80).min(most),
            _ => rng.usize(..500),
        };
        let value: Vec<u8> = (0..length).map(|_| rng.u8(b'a'..b'e')).collect();
        let headers: Vec<_> = (0..rng.usize(..4)).map(|_| ("name", rng.bool().then_some(&b"value"[..]))).collect();
        builder.push(rng.i64(0..100), rng.bool().then_some(b"key"), rng.bool().then_some(&value), &headers);
    }
    builder.build()
}

/// The same records in another codec.
fn packed(plain: &[u8], codec: Compression) -> Bytes {
    let mut whole = plain[..limits::BATCH_HEADER_BYTES].to_vec();
    whole[22] = codec as u8;
    codec.compress(&plain[limits::BATCH_HEADER_BYTES..], &mut whole).unwrap();
    crate::fuzz::seal(&mut whole);
    Bytes::from(whole)
}

#[test]
fn records_are_the_same_in_every_codec_and_a_chunk_of_them_is_held() {
    let seed = std::env::var("TIDELOG_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(11);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for round in 0..60 {
        let most = [600, 20_000, 70_000, 300_000][round % 4];
        let plain = batch(&mut rng, most).freeze();
        let expected: Vec<Record> = read_records(&plain, 64 << 20).unwrap().map(Result::unwrap).collect();
        for codec in Compression::ALL {
            let batch = packed(&plain, codec);
            let mut read = read_records(&batch, 64 << 20).unwrap();
            let mut records = Vec::new();
            loop {
                let bytes = read.next_bytes();
                let Some(record) = read.next() else { break };
                let record = record.unwrap_or_else(|error| panic!("round {round}, {codec}: {error}"));
                assert!(codec == Compression::None || bytes >= record.weight() - 32, "{bytes} {}", record.weight());
                let held = read.held();
                assert!(held <= codec.window_bytes() + CHUNK_BYTES.max(record.weight() + 32), "{codec}: {held}");
                records.push(record);
            }
            assert!(records == expected, "round {round}, {codec}");
        }
    }
}

#[test]
fn a_reader_of_a_batch_that_opens_to_the_maximum_holds_a_chunk_of_it() {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    (0..64).for_each(|_| builder.push(0, None, Some(&vec![b'x'; 1 << 20]), &[]));
    let plain = builder.build();
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let batch = packed(&plain, codec);
        let mut read = read_records(&batch, limits::MAX_DECOMPRESSED_BYTES).unwrap();
        let (mut most, mut bytes) = (0, 0);
        while let Some(record) = read.next() {
            bytes += record.unwrap().value.unwrap().len();
            most = most.max(read.held());
        }
        assert_eq!(bytes, 64 << 20, "{codec}");
        assert!(most <= codec.window_bytes() + (1 << 20) + CHUNK_BYTES, "{codec}: {most}");
    }
}

#[test]
fn what_is_before_a_fault_of_the_codec_is_read() {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    (0..3000).for_each(|at: i32| builder.push(0, None, Some(&[at as u8; 1000]), &[]));
    let plain = builder.build();
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut batch = packed(&plain, codec).to_vec();
        let cut = limits::BATCH_HEADER_BYTES + (batch.len() - limits::BATCH_HEADER_BYTES) * 9 / 10;
        batch.truncate(cut);
        crate::fuzz::seal(&mut batch);
        let length = (batch.len() - 12) as u32;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        let batch = Bytes::from(batch);
        let read: Vec<_> = read_records(&batch, 64 << 20).unwrap().collect();
        let whole = read.iter().take_while(|record| record.is_ok()).count();
        assert!(read.len() == whole + 1 && whole < 3000, "{codec}: {whole}");
        // Where they cannot be read is told as readers find it.
        let (at, _) = check_stored(&batch).unwrap_err();
        assert_eq!(at, whole as u64, "{codec}");
    }
}

#[test]
fn a_record_takes_the_same_memory_however_many_headers_it_has() {
    assert!(size_of::<Record>() <= limits::RECORD_WEIGHT, "{}", size_of::<Record>());
    let headers = vec![("", Some(&b""[..])); limits::RECORD_HEADERS];
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push(0, None, None, &headers);
    let batch = builder.build().freeze();
    let record = read_records(&batch, 1 << 20).unwrap().next().unwrap().unwrap();
    assert_eq!((record.headers.len(), record.headers.weight()), (limits::RECORD_HEADERS, 2 * limits::RECORD_HEADERS));
    assert!(
        record.compact() == record
            && !batch.as_ptr_range().contains(&record.compact().headers.iter().next().unwrap().name.as_ptr())
    );
    // They lie in the batch.
    let name = record.headers.iter().next().unwrap().name.as_ptr();
    assert!(batch.as_ptr_range().contains(&name));
    assert!(record.headers.iter().all(|header| header.name.is_empty() && header.value == Some(b"")));
}

#[test]
fn a_look_in_portions_finds_what_a_whole_look_finds() {
    let seed = std::env::var("TIDELOG_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(3);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let bounds = Bounds::accepting(8 << 20);
    let (mut portions, mut refused) = (0, 0);
    for round in 0..100 {
        let mut plain = batch(&mut rng, 40_000).to_vec();
        if round % 2 == 0 {
            // Mostly where lengths are.
            let at = if rng.u8(..4) == 0 { rng.usize(..plain.len() - 61) } else { rng.usize(..5) };
            let at = (limits::BATCH_HEADER_BYTES + at).min(plain.len() - 1);
            plain[at] ^= 1 << rng.u8(..8);
        }
        for codec in Compression::ALL {
            let batch = packed(&plain, codec);
            let whole = check_produced(&batch, bounds).and_then(|checked| {
                let records = checked.records.map_or_else(|| check_compressed(&batch, bounds), Ok)?;
                Ok((checked.header, records))
            });
            let mut look = Look::new(std::sync::Arc::new(BytesMut::from(&batch[..])), bounds);
            let looked = loop {
                portions += 1;
                match look.and_then(|look| look.go_on(|| true)) {
                    Ok((_, Some(checked))) => break Ok(checked),
                    Ok((rest, None)) => look = Ok(rest),
                    Err(error) => break Err(error),
                }
            };
            assert_eq!(looked, whole, "round {round}, {codec}");
            refused += usize::from(whole.is_err());
        }
    }
    assert!(refused > 50 && portions > 600, "{refused} of {portions}");
}

/// The longest portion is one record of the largest size: `cargo test --release --lib what_a_look_takes -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn what_a_look_takes() {
    for (count, bytes) in [(1, 60 << 20), (1_000_000, 50)] {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        (0..count).for_each(|at| builder.push(0, None, Some(&vec![at as u8; bytes]), &[]));
        let plain = builder.build();
        for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let batch = packed(&plain, codec);
            let mut look = Look::new(std::sync::Arc::new(BytesMut::from(&batch[..])), Bounds::accepting(8 << 20)).ok();
            let (mut whole, mut longest) = (std::time::Duration::ZERO, std::time::Duration::ZERO);
            while let Some(rest) = look.take() {
                let began = std::time::Instant::now();
                let looked = rest.go_on(|| began.elapsed().as_millis() >= 2);
                whole += began.elapsed();
                longest = longest.max(began.elapsed());
                look = looked.ok().and_then(|(rest, checked)| checked.is_none().then_some(rest));
            }
            println!("{count} records of {bytes} bytes, {codec}: {whole:?}, the longest portion {longest:?}");
        }
    }
}
