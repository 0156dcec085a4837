//! Dead letters that their topic would not take as they are: they lose their value, and then all that is not the server's own
//! word on them, so that a dead letter can always be written.

use crate::base::limits;
use crate::record::{BatchBuilder, Headers, Record};

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
        BatchBuilder::lone_bytes(record) + ROOM <= max_message_bytes
            && record.headers.len() <= limits::RECORD_HEADERS + limits::OWN_HEADERS
            && record.headers.weight() <= limits::RECORD_HEADER_BYTES + limits::OWN_HEADER_BYTES
    };
    if fits(record) {
        return;
    }
    let limit = format!("the topic takes batches of up to {max_message_bytes}");
    let length = record.value.take().map_or(0, |value| value.len());
    let text = format!("the value of {length} bytes is left out: {limit}");
    record.headers.push(LEFT_OUT, Some(text.as_bytes()));
    if fits(record) {
        return;
    }
    let headers = record.headers.len() - 1;
    record.headers.retain(|header| own(header.name));
    let key = record.key.take().map_or(0, |key| key.len());
    let text =
        format!("the value of {length} bytes, the key of {key} and headers ({headers} in all) are left out: {limit}");
    record.headers.push(LEFT_OUT, Some(text.as_bytes()));
    if !fits(record) {
        // Names of topics and groups are shorter.
        let short = |value: &[u8]| if value.len() > 300 { 64 } else { value.len() };
        let cut = record.headers.iter().map(|of| (of.name, of.value.map(|value| &value[..short(value)])));
        record.headers = cut.collect::<Headers>();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_dead_letter_fits_its_topic_whatever_the_record_was() {
        let bytes = |length: usize| Some(Bytes::from(vec![b'x'; length]));
        for (value, key, theirs, ours) in
            [(10, 10, 10, 10), (9_000, 10, 10, 10), (10, 9_000, 10, 10), (10, 10, 9_000, 10), (9_000, 900, 10, 9_000)]
        {
            let headers = [("theirs", bytes(theirs)), ("ours", bytes(ours))].into_iter().collect();
            let mut record = Record { offset: 7, timestamp: 1, key: bytes(key), value: bytes(value), headers };
            let whole = record.clone();
            to_fit(&mut record, 1024, |name| name == b"ours");
            assert!(BatchBuilder::lone_bytes(&record) <= 1024, "{value} {key} {theirs} {ours}");
            assert!(record.headers.contains("ours"));
            let cut = record.headers.contains(LEFT_OUT);
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
