//! Looking into compressed batches: the records are walked over while they are decompressed, and nothing is kept of them,
//! so that a bomb costs time but no memory.

use std::io::{BufReader, ErrorKind, Read};

use crate::base::limits;

use super::{BatchError, BatchHeader};

/// Checks the records of a compressed batch: that they decompress to at most `limit` bytes, and are as many, as whole and
/// where they say.
///
/// # Errors
/// What is wrong with it.
pub fn check_compressed(batch: &[u8], limit: usize) -> Result<(), BatchError> {
    let header = BatchHeader::parse(batch)?;
    let total = header.total_bytes();
    if batch.len() < total {
        return Err(BatchError::Truncated { need: total, have: batch.len() });
    }
    let codec = header.compression()?;
    let records = codec.open(&batch[limits::BATCH_HEADER_BYTES..total])?;
    let mut walk = Walk {
        from: BufReader::new(records.take(limit as u64 + 1)),
        at: 0,
        limit: limit as u64,
        codec: codec.name(),
        index: 0,
    };
    for index in 0..header.record_count {
        walk.index = index;
        walk.record()?;
    }
    match walk.next()? {
        None => Ok(()),
        Some(_) => Err(BatchError::Trailing { extra: 1 }),
    }
}

struct Walk<R> {
    from: BufReader<R>,
    /// Bytes read.
    at: u64,
    limit: u64,
    codec: &'static str,
    index: u32,
}

impl<R: Read> Walk<R> {
    fn wrong(&self, what: &'static str) -> BatchError {
        BatchError::Record { index: self.index, what }
    }

    /// A byte, or `None` at the end.
    fn next(&mut self) -> Result<Option<u8>, BatchError> {
        let mut byte = [0];
        let read = loop {
            match self.from.read(&mut byte) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let read = read.map_err(|error| BatchError::Decompress { codec: self.codec, what: error.to_string() })?;
        self.count(read as u64)?;
        Ok((read == 1).then_some(byte[0]))
    }

    fn count(&mut self, bytes: u64) -> Result<(), BatchError> {
        self.at += bytes;
        if self.at > self.limit { Err(BatchError::Bomb { limit: self.limit as usize }) } else { Ok(()) }
    }

    /// A varint in zigzag form.
    fn varint(&mut self) -> Result<i64, BatchError> {
        let mut value: u64 = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.next()?.ok_or_else(|| self.wrong("it ends behind the batch"))?;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(self.wrong("a varint does not end"))
    }

    fn skip(&mut self, bytes: u64) -> Result<(), BatchError> {
        let skipped = std::io::copy(&mut self.from.by_ref().take(bytes), &mut std::io::sink());
        let skipped = skipped.map_err(|error| BatchError::Decompress { codec: self.codec, what: error.to_string() })?;
        self.count(skipped)?;
        if skipped < bytes { Err(self.wrong("it ends behind the batch")) } else { Ok(()) }
    }

    /// A length and that many bytes; −1 for none, where that may be.
    fn field(&mut self, may_be_none: bool) -> Result<(), BatchError> {
        match self.varint()? {
            -1 if may_be_none => Ok(()),
            length => {
                let length = u64::try_from(length).map_err(|_| self.wrong("a length in it is negative"))?;
                self.skip(length)
            }
        }
    }

    fn record(&mut self) -> Result<(), BatchError> {
        let length = self.varint()?;
        let length = u64::try_from(length).map_err(|_| self.wrong("its length is negative"))?;
        let end = self.at.saturating_add(length);
        self.skip(1)?;
        self.varint()?;
        if self.varint()? != i64::from(self.index) {
            return Err(self.wrong("its offset does not follow"));
        }
        self.field(true)?;
        self.field(true)?;
        let headers = self.varint()?;
        let headers = u64::try_from(headers).map_err(|_| self.wrong("its header count is negative"))?;
        for _ in 0..headers {
            self.field(false)?;
            self.field(true)?;
        }
        if self.at == end { Ok(()) } else { Err(self.wrong("its length is not that of its fields")) }
    }
}
