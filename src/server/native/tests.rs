use bytes::{Bytes, BytesMut};

use super::mapping::Refusal;
use super::purse::Purse;
use super::reading::within;
use super::session::{goodbye, head, refused};
use crate::base::{ErrorKind, limits};
use crate::broker::Fetched;
use crate::protocol::{ErrorBody, FrameDecoder, Kind, MetricsOk, decode_body, flags};
use crate::record::{BatchBuilder, BatchOptions, patch_assigned};

#[test]
fn every_error_kind_goes_over_the_wire_with_its_code_and_message() {
    for kind in ErrorKind::ALL {
        let refusal = Refusal { range: Some((3, 9)), ..Refusal::new(kind, "what was wrong") };
        let frame = refused(Kind::Fetch.code(), flags::RESPONSE, 11, &refusal);
        let mut bytes = BytesMut::from(&frame.head[..]);
        let frame = FrameDecoder::new(limits::FRAME_BYTES).decode(&mut bytes).unwrap().unwrap();
        assert_eq!((frame.kind, frame.flags), (Kind::Fetch.code(), flags::RESPONSE | flags::ERROR));
        let body: ErrorBody = decode_body(frame.kind, &frame.body).unwrap();
        assert_eq!((body.code, body.message.as_str()), (kind.code(), "what was wrong"));
        assert_eq!(body.range.map(|range| (range.log_start, range.log_end)), Some((3, 9)));
        assert!(body.retry_after_ms.is_none() || kind.is_retriable(), "{kind} is not worth a retry");
    }
}

#[test]
fn a_message_of_any_length_fits_the_frame_of_an_error() {
    let refusal = Refusal::new(ErrorKind::InvalidRequest, "ü".repeat(limits::FRAME_BODY_BYTES));
    assert!(goodbye(&refusal).head.len() < limits::HELLO_FRAME_BYTES);
}

#[test]
fn an_answer_larger_than_a_frame_is_refused_with_both_numbers() {
    let answer = MetricsOk { text: "m".repeat(limits::FRAME_BODY_BYTES) };
    let refusal = head(Kind::Metrics.code(), flags::RESPONSE, 1, &answer, 0).unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::TooLarge);
    assert!(refusal.message.contains("1048584") && refusal.message.contains("1048576"), "{refusal}");
}

/// Three batches of ten records, read from the middle of the first.
fn fetched() -> (Fetched, usize) {
    let mut bytes = BytesMut::new();
    for number in 0..3 {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        (0..10).for_each(|_| builder.push(0, None, Some(b"v"), &[]));
        let mut batch = builder.build();
        patch_assigned(&mut batch, number * 10, 0);
        bytes.extend_from_slice(&batch);
    }
    let batch = bytes.len() / 3;
    let bytes = bytes.freeze();
    (
        Fetched {
            bytes,
            next_offset: 30,
            log_start: 0,
            stable_end: 30,
            skipped: Vec::new(),
            needs: None,
            unanswered: Default::default(),
        },
        batch,
    )
}

#[test]
fn a_delivery_is_cut_behind_the_batch_that_uses_the_credit_up() {
    let (fetched, batch) = fetched();
    let cut = |records| {
        let (bytes, next_offset) = within(&fetched, 4, records);
        (bytes.len() / batch, next_offset)
    };
    assert_eq!(cut(1), (1, 10));
    assert_eq!(cut(6), (1, 10));
    assert_eq!(cut(7), (2, 20));
    assert_eq!(cut(16), (2, 20));
    assert_eq!(cut(17), (3, 30));
    assert_eq!(cut(1000), (3, 30));
}

#[test]
fn bytes_that_are_no_batches_are_passed_on_whole() {
    let (mut fetched, _) = fetched();
    fetched.bytes = Bytes::from_static(&[7; 100]);
    assert_eq!(within(&fetched, 0, 1), (fetched.bytes.clone(), 30));
}

#[tokio::test]
async fn a_purse_pays_what_was_overdrawn_first() {
    let purse = Purse::new(10, 100);
    assert_eq!(purse.credit().await, (10, 100));
    purse.spend(25, 40);
    purse.add(15, 0);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(20), purse.credit()).await.is_err());
    purse.add(1, 0);
    assert_eq!(purse.credit().await, (1, 60));
    purse.add(u64::MAX, u64::MAX);
    purse.add(u64::MAX, u64::MAX);
    assert_eq!(purse.credit().await.0, i64::MAX as u64);
}
