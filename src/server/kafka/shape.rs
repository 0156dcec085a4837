//! The shape of a request: which fields it has, in which versions. A request is walked by its shape before it is decoded,
//! so that every count and length in it is known to be true: decoding then takes memory for what was really sent.

use super::wire::{Reader, WireError};

/// The type of a field.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// So many bytes: a number, a switch, an id.
    Fixed(usize),
    /// Text, or none.
    Text,
    /// Bytes, or none.
    Blob,
    /// An array of values that are no structures.
    Many(&'static Kind),
    /// An array of structures.
    List(&'static [Field]),
    /// A structure that may be missing.
    Maybe(&'static [Field]),
}

/// A field, and the versions that have it.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its type.
    pub kind: Kind,
    /// The first version.
    pub since: i16,
    /// The last version.
    pub until: i16,
}

/// A switch, or a number of one byte.
pub const I8: Kind = Kind::Fixed(1);
/// A number of two bytes.
pub const I16: Kind = Kind::Fixed(2);
/// A number of four bytes.
pub const I32: Kind = Kind::Fixed(4);
/// A number of eight bytes.
pub const I64: Kind = Kind::Fixed(8);
/// A random id.
pub const UUID: Kind = Kind::Fixed(16);
/// Text.
pub const TEXT: Kind = Kind::Text;

/// A field of every version.
pub const fn always(kind: Kind) -> Field {
    Field { kind, since: 0, until: i16::MAX }
}

/// A field from one version on.
pub const fn from(since: i16, kind: Kind) -> Field {
    Field { kind, since, until: i16::MAX }
}

/// A field of some versions.
pub const fn within(since: i16, until: i16, kind: Kind) -> Field {
    Field { kind, since, until }
}

/// Walks over a structure.
///
/// # Errors
/// It is not all there, or a count or length in it cannot be.
pub fn walk(reader: &mut Reader<'_>, version: i16, fields: &[Field]) -> Result<(), WireError> {
    for field in fields.iter().filter(|field| (field.since..=field.until).contains(&version)) {
        walk_value(reader, version, &field.kind)?;
    }
    reader.tags()
}

fn walk_value(reader: &mut Reader<'_>, version: i16, kind: &Kind) -> Result<(), WireError> {
    match kind {
        Kind::Fixed(bytes) => _ = reader.bytes(*bytes)?,
        Kind::Text => _ = reader.optional_text()?,
        Kind::Blob => _ = reader.blob()?,
        Kind::Many(kind) => {
            for _ in 0..reader.count()? {
                walk_value(reader, version, kind)?;
            }
        }
        Kind::List(fields) => {
            for _ in 0..reader.count()? {
                walk(reader, version, fields)?;
            }
        }
        // The crate takes every other number for a missing structure, and would read on at another place.
        Kind::Maybe(fields) => match reader.i8()? {
            1 => walk(reader, version, fields)?,
            -1 => {}
            other => return Err(WireError::Presence(other)),
        },
    }
    Ok(())
}
