//! The headers of a record as they lie in a batch. Nothing is taken apart before somebody asks, so a record with thousands of
//! headers weighs as much in memory as one with none, beside the bytes that it has in its batch.
//!
//! ```text
//! (varint name length, name, varint value length or −1, value)*
//! ```

use std::fmt;

use bytes::Bytes;

use super::builder::put_field;
use super::walk;

/// One header of a record, where it lies.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Header<'a> {
    /// Its name; UTF-8 by the format, though not every producer keeps to it.
    pub name: &'a [u8],
    /// Its value.
    pub value: Option<&'a [u8]>,
}

/// The headers of a record, in order; a name may come more than once.
///
/// ```
/// use tidelog::record::Headers;
///
/// let headers: Headers = [("kind", Some("created")), ("seen", None)].into_iter().collect();
/// assert_eq!(headers.get("kind"), Some(&b"created"[..]));
/// assert!(headers.contains("seen") && headers.get("seen").is_none());
/// assert_eq!(headers.iter().map(|header| header.name).collect::<Vec<_>>(), [&b"kind"[..], b"seen"]);
/// ```
#[derive(Clone, Default)]
pub struct Headers {
    /// Walked over before, or written here.
    bytes: Bytes,
    count: usize,
}

impl Headers {
    /// None.
    pub const fn new() -> Self {
        Self { bytes: Bytes::new(), count: 0 }
    }

    /// So many headers that were walked over and fill these bytes.
    pub(super) fn walked(bytes: Bytes, count: usize) -> Self {
        Self { bytes, count }
    }

    /// The bytes that they are in a batch.
    pub(super) fn encoded(&self) -> &[u8] {
        &self.bytes
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that they take: names, values and their lengths.
    pub fn weight(&self) -> usize {
        self.bytes.len()
    }

    /// Each, in order. Every call reads the bytes anew.
    pub fn iter(&self) -> HeaderIter<'_> {
        HeaderIter { bytes: &self.bytes, at: 0, left: self.count }
    }

    /// The value of the header of this name, of several the last; `None` as well if it has no value.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        self.find(name)?.value
    }

    /// The header of this name, of several the last.
    pub fn find(&self, name: impl AsRef<[u8]>) -> Option<Header<'_>> {
        let name = name.as_ref();
        self.iter().filter(|header| header.name == name).last()
    }

    /// Whether there is a header of this name.
    pub fn contains(&self, name: impl AsRef<[u8]>) -> bool {
        let name = name.as_ref();
        self.iter().any(|header| header.name == name)
    }

    /// The value of a header of this record, sharing its memory.
    pub(crate) fn shared(&self, value: &[u8]) -> Bytes {
        self.bytes.slice_ref(value)
    }

    /// Adds one. Headers of a record that was read are copied first.
    pub fn push(&mut self, name: impl AsRef<[u8]>, value: Option<&[u8]>) {
        self.extend([(name, value)]);
    }

    /// Keeps only those that are wanted.
    pub fn retain(&mut self, mut wanted: impl FnMut(Header<'_>) -> bool) {
        if !self.iter().all(&mut wanted) {
            *self = self.iter().filter(|header| wanted(*header)).collect();
        }
    }
}

/// Iterates over the headers of a record.
#[derive(Debug, Clone)]
pub struct HeaderIter<'a> {
    bytes: &'a [u8],
    at: usize,
    left: usize,
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        if self.left == 0 {
            return None;
        }
        // They were walked over before, so this does not fail.
        let (name, value) = walk::header(self.bytes, &mut self.at)?;
        self.left -= 1;
        Some(Header { name: self.bytes.get(name)?, value: value.and_then(|value| self.bytes.get(value)) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for HeaderIter<'_> {}

impl<'a> IntoIterator for &'a Headers {
    type Item = Header<'a>;
    type IntoIter = HeaderIter<'a>;

    fn into_iter(self) -> HeaderIter<'a> {
        self.iter()
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> Extend<(N, Option<V>)> for Headers {
    fn extend<I: IntoIterator<Item = (N, Option<V>)>>(&mut self, pairs: I) {
        // Takes the memory over if nobody else has a part of it.
        let mut bytes = Vec::from(std::mem::take(&mut self.bytes));
        for (name, value) in pairs {
            put_field(&mut bytes, Some(name.as_ref()));
            put_field(&mut bytes, value.as_ref().map(AsRef::as_ref));
            self.count += 1;
        }
        self.bytes = bytes.into();
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, Option<V>)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, Option<V>)>>(pairs: I) -> Self {
        let mut headers = Self::new();
        headers.extend(pairs);
        headers
    }
}

impl<'a> Extend<Header<'a>> for Headers {
    fn extend<I: IntoIterator<Item = Header<'a>>>(&mut self, headers: I) {
        self.extend(headers.into_iter().map(|Header { name, value }| (name, value)));
    }
}

impl<'a> FromIterator<Header<'a>> for Headers {
    fn from_iter<I: IntoIterator<Item = Header<'a>>>(headers: I) -> Self {
        headers.into_iter().map(|Header { name, value }| (name, value)).collect()
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        // Producers may write a length longer than need be.
        self.count == other.count && (self.bytes == other.bytes || self.iter().eq(other.iter()))
    }
}

impl Eq for Headers {}

impl fmt::Debug for Header<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\": ", self.name.escape_ascii())?;
        match self.value {
            Some(value) => write!(f, "\"{}\"", value.escape_ascii()),
            None => f.write_str("null"),
        }
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Headers {
        [("a", Some(&b"1"[..])), ("b", None), ("a", Some(&[0xff])), ("", Some(b""))].into_iter().collect()
    }

    #[test]
    fn headers_are_read_as_they_were_written() {
        let headers = some();
        assert_eq!((headers.len(), headers.weight(), headers.iter().len()), (4, 13, 4));
        assert_eq!(headers.get("a"), Some(&[0xff][..]), "the last of a name");
        assert_eq!((headers.get("b"), headers.contains("b"), headers.contains("c")), (None, true, false));
        assert_eq!(headers.get(b""), Some(&b""[..]));
        assert_eq!(format!("{headers:?}"), r#"{"a": "1", "b": null, "a": "\xff", "": ""}"#);
        assert_eq!((Headers::new(), Headers::default().is_empty()), (Headers::default(), true));
    }

    #[test]
    fn headers_are_changed_without_a_change_of_those_that_share_their_bytes() {
        let (before, mut after) = (some(), some());
        let shared = after.clone();
        after.retain(|header| header.name != b"a");
        after.push("c", Some(b"3"));
        after.extend([("d", None::<&[u8]>), ("e", Some(b"5"))]);
        let expected = [("b", None), ("", Some("")), ("c", Some("3")), ("d", None), ("e", Some("5"))];
        assert_eq!(after, expected.into_iter().collect());
        assert_eq!(shared, before);
        after.retain(|_| true);
        assert_eq!(after.iter().collect::<Headers>(), after);
        after.retain(|_| false);
        assert!(after.is_empty() && after.weight() == 0);
    }

    #[test]
    fn lengths_that_are_longer_than_need_be_are_the_same_headers() {
        // "a": "1", with each length as two bytes.
        let long = Headers::walked(Bytes::from_static(&[0x82, 0, b'a', 0x82, 0, b'1']), 1);
        let short: Headers = [("a", Some("1"))].into_iter().collect();
        assert_eq!((&long, long.get("a")), (&short, Some(&b"1"[..])));
        assert_ne!(long, Headers::new());
    }
}
