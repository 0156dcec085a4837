use bytes::{Bytes, BytesMut};

use super::*;
use crate::base::limits;

fn frame(payload: &[u8]) -> Vec<u8> {
    let message = Produce { topic: "crm.accounts".to_owned(), partition: 3, ack: Ack::Durable };
    let mut out = encode_frame(Produce::KIND.code(), 0, 77, &message, payload.len()).unwrap();
    out.extend_from_slice(payload);
    out.to_vec()
}

fn decoder() -> FrameDecoder {
    FrameDecoder::new(limits::FRAME_BYTES)
}

#[test]
fn a_frame_is_a_round_trip_however_it_is_cut() {
    let stream = [frame(b"batch"), frame(b""), frame(&[7; 1000])].concat();
    for step in [1, 2, 3, 7, 24, 100, stream.len()] {
        let (mut decoder, mut buffer, mut frames) = (decoder(), BytesMut::new(), Vec::new());
        for chunk in stream.chunks(step) {
            buffer.extend_from_slice(chunk);
            while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                frames.push(frame);
            }
        }
        assert_eq!(frames.len(), 3);
        assert_eq!(frames[0].payload, Bytes::from_static(b"batch"));
        assert_eq!((frames[2].correlation, frames[2].payload.len()), (77, 1000));
        let message: Produce = frames[1].decode().unwrap();
        assert_eq!((message.topic.as_str(), message.partition, message.ack), ("crm.accounts", 3, Ack::Durable));
    }
}

#[test]
fn every_wrong_bit_of_header_and_body_is_refused() {
    let good = frame(b"x");
    for at in 4..good.len() - 1 {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let decoded = decoder().decode(&mut BytesMut::from(&bad[..]));
            assert!(!matches!(decoded, Ok(Some(_))), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn lengths_are_checked_before_the_rest_is_there() {
    let with = |length: u32, body: u32| {
        let mut bytes = frame(b"");
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        bytes[20..24].copy_from_slice(&body.to_be_bytes());
        bytes.truncate(24);
        decoder().decode(&mut BytesMut::from(&bytes[..]))
    };
    assert_eq!(with(0, 0), Err(FrameError::TooShort { length: 0, least: 20 }));
    assert_eq!(with(19, 0), Err(FrameError::TooShort { length: 19, least: 20 }));
    let limit = limits::FRAME_BYTES as u64;
    assert_eq!(with(u32::MAX, 0), Err(FrameError::TooLong { length: u64::from(u32::MAX) + 4, limit }));
    assert_eq!(with(30, 11), Err(FrameError::Body { length: 11, limit: 10 }));
    assert_eq!(with(30, u32::MAX), Err(FrameError::Body { length: u32::MAX, limit: 10 }));
    assert_eq!(with(30, 10), Ok(None));
}

#[test]
fn a_body_that_claims_too_much_is_refused_without_taking_memory() {
    let mut body = encode_body(&DeleteTopic { name: "x".to_owned() }).unwrap();
    body[..8].copy_from_slice(&u64::MAX.to_be_bytes());
    assert!(decode_body::<DeleteTopic>(12, &body).is_err());
    body[..8].copy_from_slice(&(1u64 << 40).to_be_bytes());
    assert!(decode_body::<DeleteTopic>(12, &body).is_err());
    assert!(decode_body::<ListTopicsOk>(13, &(1u64 << 50).to_be_bytes()).is_err());
}

#[test]
fn a_body_may_be_as_large_as_the_limit_and_no_larger() {
    let message = |text: usize| MetricsOk { text: "x".repeat(text) };
    let most = limits::FRAME_BODY_BYTES - 8;
    let mut whole = encode_frame(4, flags::RESPONSE, 1, &message(most), 0).unwrap();
    let frame = decoder().decode(&mut whole).unwrap().unwrap();
    assert_eq!(frame.decode::<MetricsOk>().unwrap().text.len(), most);
    let error = encode_frame(4, flags::RESPONSE, 1, &message(most + 1), 0).unwrap_err();
    assert_eq!(error, "body of 1048577 bytes is larger than the limit of 1048576");
}

#[test]
fn garbage_never_panics() {
    let seed = 5;
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..20_000 {
        let mut bytes = if rng.bool() { frame(b"abc") } else { (0..rng.usize(..100)).map(|_| rng.u8(..)).collect() };
        for _ in 0..rng.usize(..4) {
            if !bytes.is_empty() {
                let at = rng.usize(..bytes.len());
                bytes[at] = rng.u8(..);
            }
        }
        let _ = decoder().decode(&mut BytesMut::from(&bytes[..]));
        let _ = decode_body::<Hello>(1, &bytes);
        let _ = decode_body::<TopicOk>(10, &bytes);
        let _ = decode_body::<ErrorBody>(0, &bytes);
    }
}

#[test]
fn kinds_are_a_round_trip() {
    for &kind in Kind::ALL {
        assert_eq!(Kind::from_code(kind.code()), Some(kind));
    }
    assert_eq!(Kind::from_code(9999), None);
}

#[test]
fn the_wire_is_frozen() {
    let hex: String = frame(b"").iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, FROZEN);
}

/// A produce request for partition 3 of `crm.accounts`, correlation 77, without its batch.
const FROZEN: &str =
    "000000307a7e8b6d00150000000000000000004d0000001c000000000000000c63726d2e6163636f756e74730000000300000002";

/// Bodies of every kind that are right, as far as zeros and small numbers are, and what may have become of them.
#[test]
fn no_body_of_any_kind_makes_decoding_panic_and_what_is_read_is_written_as_it_was() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let rounds: u64 = number("TIDELOG_ROUNDS").unwrap_or(40);
    let seed: u64 = number("TIDELOG_SEED").unwrap_or(29);
    println!("TIDELOG_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let text = encode_body(&vec!["crm.accounts".to_owned(), "k".to_owned()]).unwrap();
    for _ in 0..rounds {
        // Words of eight and four bytes and single ones: counts, texts, options, enums as they come.
        let mut body = Vec::new();
        for _ in 0..rng.usize(..24) {
            match rng.u32(..6) {
                0 => body.extend_from_slice(&text[8..]),
                1 => body.extend_from_slice(&rng.u32(..4).to_be_bytes()),
                2 => body.push(rng.u8(..2)),
                3 => body.extend_from_slice(&[0; 8]),
                _ => body.extend_from_slice(&rng.u64(..3).to_be_bytes()),
            }
        }
        for kind in (0..Kind::ALL.len()).map(|at| u8::try_from(at).unwrap()) {
            let whole = [&[kind][..], &body].concat();
            crate::fuzz::native_message(&whole);
            crate::fuzz::native_message(&whole[..rng.usize(..=whole.len())]);
            if !body.is_empty() {
                let mut bad = whole;
                let at = rng.usize(1..bad.len());
                let end = bad.len().min(at + 8);
                let number = rng.choice([u64::MAX, 1 << 63, 1 << 40, 1 << 31, 255]).unwrap();
                bad[at..end].copy_from_slice(&number.to_be_bytes()[..end - at]);
                crate::fuzz::native_message(&bad);
            }
        }
        let mut stream = [frame(&body), frame(b"x")].concat();
        stream.insert(0, rng.u8(..));
        crate::fuzz::native_stream(&stream);
        let at = rng.usize(1..stream.len());
        stream[at] ^= 1 << rng.u8(..8);
        crate::fuzz::native_stream(&stream);
        crate::fuzz::native_stream(&stream[..at]);
    }
}
