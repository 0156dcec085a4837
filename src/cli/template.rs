//! `consume --format`: how a record is printed, once parsed.

use std::io::{self, Write};
use std::str::FromStr;

use tidelog::record::Headers;

use super::output::rfc3339;

/// The sequences, for help texts.
pub const HELP: &str = "\
Format sequences:
  %t topic   %p partition   %o offset   %k key   %v value   %s bytes of the value
  %T timestamp in milliseconds   %d the same as RFC 3339   %h headers (name=value, comma-separated)   %% a percent sign
  \\n \\t \\r \\0 \\\\ and \\xHH as usual";

/// The parts of a record that can be printed.
pub struct Parts<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// Its key; none prints as nothing.
    pub key: Option<&'a [u8]>,
    /// Its value; none prints as nothing.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: &'a Headers,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Vec<u8>),
    LineEnd,
    Field(char),
}

/// A parsed format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

impl Template {
    /// The value and a line end, unless it has one: a command's output that was sent as a record is no two lines.
    pub fn value_lines() -> Self {
        Self(vec![Piece::Field('v'), Piece::LineEnd])
    }

    /// Prints a record.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write, parts: &Parts<'_>) -> io::Result<()> {
        for piece in &self.0 {
            match piece {
                Piece::Literal(bytes) => out.write_all(bytes)?,
                Piece::LineEnd => {
                    if parts.value.is_none_or(|value| !value.ends_with(b"\n")) {
                        out.write_all(b"\n")?;
                    }
                }
                Piece::Field('t') => out.write_all(parts.topic.as_bytes())?,
                Piece::Field('p') => write!(out, "{}", parts.partition)?,
                Piece::Field('o') => write!(out, "{}", parts.offset)?,
                Piece::Field('k') => out.write_all(parts.key.unwrap_or_default())?,
                Piece::Field('v') => out.write_all(parts.value.unwrap_or_default())?,
                Piece::Field('s') => write!(out, "{}", parts.value.map_or(0, <[u8]>::len))?,
                Piece::Field('T') => write!(out, "{}", parts.timestamp)?,
                Piece::Field('d') => out.write_all(rfc3339(parts.timestamp).as_bytes())?,
                Piece::Field(_) => write_headers(out, parts.headers)?,
            }
        }
        Ok(())
    }
}

fn write_headers(out: &mut impl Write, headers: &Headers) -> io::Result<()> {
    for (at, header) in headers.iter().enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        out.write_all(header.name)?;
        out.write_all(b"=")?;
        out.write_all(header.value.unwrap_or_default())?;
    }
    Ok(())
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            match c {
                '%' => match rest.next() {
                    Some('%') => literal.push(b'%'),
                    Some(field @ ('t' | 'p' | 'o' | 'k' | 'v' | 's' | 'T' | 'd' | 'h')) => {
                        if !literal.is_empty() {
                            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                        }
                        pieces.push(Piece::Field(field));
                    }
                    Some(other) => return Err(format!("there is no '%{other}'; use %t %p %o %k %v %s %T %d %h %%")),
                    None => return Err("it ends with a single '%'".to_owned()),
                },
                '\\' => literal.push(escape(&mut rest)?),
                other => literal.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self(pieces))
    }
}

fn escape(rest: &mut std::str::Chars<'_>) -> Result<u8, String> {
    match rest.next() {
        Some('n') => Ok(b'\n'),
        Some('t') => Ok(b'\t'),
        Some('r') => Ok(b'\r'),
        Some('0') => Ok(0),
        Some('\\') => Ok(b'\\'),
        Some('x') => {
            let digits: String = rest.by_ref().take(2).collect();
            let byte = u8::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 2);
            byte.ok_or_else(|| format!("'\\x{digits}' is not two hexadecimal digits"))
        }
        Some(other) => Err(format!("there is no '\\{other}'; use \\n \\t \\r \\0 \\\\ \\xHH")),
        None => Err("it ends with a single '\\'".to_owned()),
    }
}
