//! The primitives of Kafka's wire protocol, read with every length checked and written by hand. Integers are big-endian;
//! the flexible versions of a message have lengths as unsigned varints of one more than the length, and tagged fields.

use bytes::{BufMut, BytesMut};

/// A message that cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It ends too early.
    #[error("the message ends within a field, {missing} bytes too early")]
    Short {
        /// Bytes that are missing, at the least.
        missing: usize,
    },
    /// A length or count that cannot be.
    #[error("a length or count of {0}")]
    Length(i64),
    /// A varint of more than five bytes.
    #[error("a varint that does not end")]
    Varint,
    /// A structure that is neither there nor missing.
    #[error("a structure that may be missing begins with {0}, which is neither 1 nor -1")]
    Presence(i8),
    /// More elements than a request may have.
    #[error("more than {0} elements in one request")]
    Many(usize),
    /// Text that is none.
    #[error("text that is not UTF-8")]
    Text,
}

/// Elements that the arrays of one request may have together.
pub const MOST_ELEMENTS: usize = 100_000;

/// Reads a message front to back.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    flexible: bool,
    /// Elements that arrays may still have.
    elements: usize,
}

impl<'a> Reader<'a> {
    /// A reader of a message in a flexible version, or in an older one.
    pub fn new(bytes: &'a [u8], flexible: bool) -> Self {
        Self { bytes, at: 0, flexible, elements: MOST_ELEMENTS }
    }

    /// Reads on by other rules.
    pub fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// Elements of arrays and tagged fields so far.
    pub fn elements(&self) -> usize {
        MOST_ELEMENTS - self.elements
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// This many bytes.
    pub fn bytes(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        if length > self.left() {
            return Err(WireError::Short { missing: length - self.left() });
        }
        let bytes = &self.bytes[self.at..self.at + length];
        self.at += length;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N)?);
        Ok(out)
    }

    pub fn i8(&mut self) -> Result<i8, WireError> {
        Ok(i8::from_be_bytes(self.array()?))
    }

    pub fn i16(&mut self) -> Result<i16, WireError> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub fn i32(&mut self) -> Result<i32, WireError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64, WireError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub fn uuid(&mut self) -> Result<u128, WireError> {
        Ok(u128::from_be_bytes(self.array()?))
    }

    /// An unsigned varint, at most five bytes.
    pub fn varint(&mut self) -> Result<u32, WireError> {
        let mut value: u64 = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| WireError::Varint);
            }
        }
        Err(WireError::Varint)
    }

    /// The length of a text; −1 for none.
    fn text_length(&mut self) -> Result<Option<usize>, WireError> {
        let length = if self.flexible { i64::from(self.varint()?) - 1 } else { self.i16()?.into() };
        self.length(length)
    }

    fn length(&self, length: i64) -> Result<Option<usize>, WireError> {
        match length {
            -1 => Ok(None),
            0.. => Ok(Some(usize::try_from(length).map_err(|_| WireError::Length(length))?)),
            _ => Err(WireError::Length(length)),
        }
    }

    /// A text that may be missing.
    pub fn optional_text(&mut self) -> Result<Option<&'a str>, WireError> {
        let Some(length) = self.text_length()? else { return Ok(None) };
        std::str::from_utf8(self.bytes(length)?).map(Some).map_err(|_| WireError::Text)
    }

    /// A text.
    pub fn text(&mut self) -> Result<&'a str, WireError> {
        self.optional_text()?.ok_or(WireError::Length(-1))
    }

    /// Where the bytes of a field lie, if there are any.
    pub fn blob(&mut self) -> Result<Option<std::ops::Range<usize>>, WireError> {
        let length = if self.flexible { i64::from(self.varint()?) - 1 } else { self.i32()?.into() };
        let Some(length) = self.length(length)? else { return Ok(None) };
        let from = self.at;
        self.bytes(length)?;
        Ok(Some(from..self.at))
    }

    /// The elements of an array that may be missing. There are never more than bytes are left, and of all arrays of a
    /// request never more than [`MOST_ELEMENTS`].
    pub fn optional_count(&mut self) -> Result<Option<usize>, WireError> {
        let count = if self.flexible { i64::from(self.varint()?) - 1 } else { self.i32()?.into() };
        let Some(count) = self.length(count)? else { return Ok(None) };
        if count > self.left() {
            return Err(WireError::Short { missing: count - self.left() });
        }
        self.elements = self.elements.checked_sub(count).ok_or(WireError::Many(MOST_ELEMENTS))?;
        Ok(Some(count))
    }

    /// The elements of an array; a missing one has none.
    pub fn count(&mut self) -> Result<usize, WireError> {
        Ok(self.optional_count()?.unwrap_or(0))
    }

    /// Passes over the tagged fields that end a structure of a flexible version.
    pub fn tags(&mut self) -> Result<(), WireError> {
        if !self.flexible {
            return Ok(());
        }
        let tags = self.varint()? as usize;
        // The crate keeps them, each in a map.
        self.elements = self.elements.checked_sub(tags).ok_or(WireError::Many(MOST_ELEMENTS))?;
        for _ in 0..tags {
            self.varint()?;
            let length = self.varint()? as usize;
            self.bytes(length)?;
        }
        Ok(())
    }
}

/// Writes a message front to back.
#[derive(Debug)]
pub struct Writer {
    /// What is written.
    pub out: BytesMut,
    flexible: bool,
}

impl Writer {
    /// A writer of a message in a flexible version, or in an older one.
    pub fn new(flexible: bool) -> Self {
        Self { out: BytesMut::with_capacity(128), flexible }
    }

    pub fn varint(&mut self, value: usize) {
        let mut value = value;
        while value >= 0x80 {
            self.out.put_u8(value as u8 & 0x7f | 0x80);
            value >>= 7;
        }
        self.out.put_u8(value as u8);
    }

    /// A text; those written here are far shorter than 32 KiB.
    pub fn text(&mut self, text: &str) {
        self.optional_text(Some(text));
    }

    pub fn optional_text(&mut self, text: Option<&str>) {
        match (self.flexible, text) {
            (true, Some(text)) => self.varint(text.len() + 1),
            (true, None) => self.varint(0),
            (false, Some(text)) => self.out.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX)),
            (false, None) => self.out.put_i16(-1),
        }
        self.out.put_slice(text.unwrap_or_default().as_bytes());
    }

    /// The count of an array, or the length of bytes that follow; `None` for a missing one.
    pub fn count(&mut self, count: Option<usize>) {
        match (self.flexible, count) {
            (true, count) => self.varint(count.map_or(0, |count| count + 1)),
            (false, Some(count)) => self.out.put_i32(i32::try_from(count).unwrap_or(i32::MAX)),
            (false, None) => self.out.put_i32(-1),
        }
    }

    /// The end of a structure: no tagged field is ever written, because the clients of some years skip them wrongly.
    pub fn tags(&mut self) {
        if self.flexible {
            self.out.put_u8(0);
        }
    }
}
