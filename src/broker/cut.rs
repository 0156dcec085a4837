//! Dead letters that their topic would not take as they are: they lose their value, and then all that is not the server's own
//! word on them, so that a dead letter can always be written.

use bytes::Bytes;

use crate::base::limits;
use crate::record::{BatchBuilder, Header, Record};

/// The header of a dead letter that says what of the record is left out of it.
pub(crate) const LEFT_OUT: &str = "tidelog-left-out";

/// What a record needs in a batch beside its bytes in one of its own, at most: the longest offset and time.
const ROOM: usize = 16;

/// Bytes of a reason that a dead letter gives.
const REASON_BYTES: usize = 16 * 1024;

/// A reason, cut to what a dead letter gives of it.
pub(crate) fn reason(mut text: String) -> String {
    if text.len() > REASON_BYTES {
        text.truncate(text.floor_char_boundary(REASON_BYTES));
        text.push_str(" ...");
    }
    text
}

/// Cuts a record until a topic with this `max_message_bytes` takes it: first its value, then its key and its headers but those
/// that `own` names, then what those say.
pub(crate) fn to_fit(record: &mut Record, max_message_bytes: usize, own: impl Fn(&[u8]) -> bool) {
    let fits = |record: &Record| {
        let header_bytes: usize = record.headers.iter().map(bytes_of).sum();
        BatchBuilder::lone_bytes(record) + ROOM <= max_message_bytes
            && record.headers.len() <= limits::RECORD_HEADERS + limits::OWN_HEADERS
            && header_bytes <= limits::RECORD_HEADER_BYTES + limits::OWN_HEADER_BYTES
    };
    if fits(record) {
        return;
    }
    let left_out = |text: String| Header { name: Bytes::from_static(LEFT_OUT.as_bytes()), value: Some(text.into()) };
    let limit = format!("the topic takes batches of up to {max_message_bytes}");
    let length = record.value.take().map_or(0, |value| value.len());
    record.headers.push(left_out(format!("the value of {length} bytes is left out: {limit}")));
    if fits(record) {
        return;
    }
    let headers = record.headers.len() - 1;
    record.headers.retain(|header| own(&header.name));
    let key = record.key.take().map_or(0, |key| key.len());
    let text =
        format!("the value of {length} bytes, the key of {key} and headers ({headers} in all) are left out: {limit}");
    record.headers.push(left_out(text));
    if !fits(record) {
        // Names of topics and groups are shorter.
        for value in record.headers.iter_mut().filter_map(|header| header.value.as_mut()) {
            if value.len() > 300 {
                value.truncate(64);
            }
        }
    }
}

/// More than a header takes in a batch.
fn bytes_of(header: &Header) -> usize {
    header.name.len() + header.value.as_ref().map_or(0, Bytes::len) + 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_fits_its_topic_whatever_the_record_was() {
        let bytes = |length: usize| Some(Bytes::from(vec![b'x'; length]));
        for (value, key, theirs, ours) in
            [(10, 10, 10, 10), (9_000, 10, 10, 10), (10, 9_000, 10, 10), (10, 10, 9_000, 10), (9_000, 900, 10, 9_000)]
        {
            let header = |name: &'static str, length| Header { name: Bytes::from(name), value: bytes(length) };
            let headers = vec![header("theirs", theirs), header("ours", ours)];
            let mut record = Record { offset: 7, timestamp: 1, key: bytes(key), value: bytes(value), headers };
            let whole = record.clone();
            to_fit(&mut record, 1024, |name| name == b"ours");
            assert!(BatchBuilder::lone_bytes(&record) <= 1024, "{value} {key} {theirs} {ours}");
            assert!(record.headers.iter().any(|header| header.name == "ours"));
            let cut = record.headers.iter().any(|header| header.name == LEFT_OUT);
            assert_eq!(cut, record != whole);
            assert_eq!(record.key.is_some(), key + theirs + ours < 9_000, "the key stays if it can");
        }
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        assert_eq!(reason("short".to_owned()), "short");
        let long = reason("ä".repeat(REASON_BYTES));
        assert!(long.len() <= REASON_BYTES + 4 && long.ends_with("ä ..."));
    }
}
