//! Zigzag varints of the record format (Protocol Buffers' `sint32` and `sint64`).

/// Appends a number.
pub(crate) fn put(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push((rest as u8) | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Bytes that [`put`] takes.
pub(crate) fn size(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    (64 - (zigzag | 1).leading_zeros() as usize).div_ceil(7)
}

/// Reads a number byte by byte, wherever the bytes come from; `Ok(None)` if it does not end or is longer than 64 bits. The one
/// reader of varints: what is checked with it is read with it.
#[inline(always)]
pub(crate) fn read<E>(mut next: impl FnMut() -> Result<Option<u8>, E>) -> Result<Option<i64>, E> {
    let Some(first) = next()? else { return Ok(None) };
    let mut zigzag = u64::from(first & 0x7f);
    // Most numbers of a record are small.
    if first & 0x80 == 0 {
        return Ok(Some((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)));
    }
    for shift in (7..70).step_by(7) {
        let Some(byte) = next()? else { return Ok(None) };
        if shift == 63 && byte > 1 {
            return Ok(None);
        }
        zigzag |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(Some((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)));
        }
    }
    Ok(None)
}

/// Reads a number at `at` and moves behind it; `None` as [`read`].
pub(crate) fn get(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let next = || {
        let byte = bytes.get(*at).copied();
        *at += usize::from(byte.is_some());
        Ok::<_, std::convert::Infallible>(byte)
    };
    read(next).unwrap_or_default()
}
