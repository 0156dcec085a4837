//! Numbers and strings of JSON that the values of expressions cannot hold: numbers beyond a double's range, or with more digits
//! than it has, and escapes of lone surrogates.
//!
//! A document with such a one is a document all the same: expressions see the nearest double, and U+FFFD. What is *made* from
//! one is exact or fails: a number that is copied gets back the text that stands in the document.

use std::collections::HashMap;

use super::EvalError;

/// Decimal digits that a double always holds (IEEE 754 binary64).
const EXACT_DIGITS: usize = 15;

/// A copy of a document, of the same length, that every parser of doubles and of UTF-8 reads: numbers out of range are the
/// largest of their sign that is as short, lone surrogates are U+FFFD. `None` if there is nothing to replace. The text need not
/// be JSON; what is wrong with it stays wrong.
pub fn readable(text: &[u8]) -> Option<Vec<u8>> {
    let mut copy: Option<Vec<u8>> = None;
    for token in Tokens::new(text) {
        let replaced = match token {
            Token::Number(from, to) => {
                let finite = number(text, (from, to)).is_none_or(f64::is_finite);
                (!finite).then(|| {
                    let largest: &[u8] = if text[from] == b'-' { b"-1e308" } else { b"1e308" };
                    let mut padded = vec![b' '; to - from];
                    padded[..largest.len().min(to - from)].copy_from_slice(&largest[..largest.len().min(to - from)]);
                    (from, padded)
                })
            }
            Token::LoneSurrogate(from) => Some((from, b"\\ufffd".to_vec())),
        };
        if let Some((from, by)) = replaced {
            copy.get_or_insert_with(|| text.to_vec())[from..from + by.len()].copy_from_slice(&by);
        }
    }
    copy
}

fn number(text: &[u8], (from, to): (usize, usize)) -> Option<f64> {
    std::str::from_utf8(&text[from..to]).ok()?.parse().ok()
}

/// The numbers of a document that a double does not hold, by the double that stands for them.
#[derive(Debug, Default)]
pub(super) struct Exact {
    /// The one literal, or `None` where several different numbers are the same double.
    literals: HashMap<u64, Option<String>>,
    has_surrogates: bool,
}

impl Exact {
    /// Looks through a document.
    pub(super) fn of(text: &[u8]) -> Self {
        let mut exact = Self::default();
        let mut others = Vec::new();
        for token in Tokens::new(text) {
            let Token::Number(from, to) = token else {
                exact.has_surrogates = true;
                continue;
            };
            let Ok(literal) = std::str::from_utf8(&text[from..to]) else { continue };
            if literal.parse::<i64>().is_ok() || literal.parse::<u64>().is_ok() {
                continue;
            }
            let Ok(double) = literal.parse::<f64>() else { continue };
            let seen = match (double.is_finite(), literal.starts_with('-')) {
                (true, _) => double,
                (false, false) => 1e308,
                (false, true) => -1e308,
            };
            if seen == double && holds(literal, double) {
                others.push(seen.to_bits());
                continue;
            }
            let known = exact.literals.entry(seen.to_bits()).or_insert_with(|| Some(literal.to_owned()));
            if known.as_deref().is_some_and(|known| Decimal::of(known) != Decimal::of(literal)) {
                *known = None;
            }
        }
        for bits in others {
            if let Some(known) = exact.literals.get_mut(&bits) {
                *known = None;
            }
        }
        exact
    }

    /// The text of a number that a document holds exactly, where the double is not it.
    ///
    /// # Errors
    /// It may be one of several.
    pub(super) fn literal(&self, double: f64) -> Result<Option<&str>, EvalError> {
        match self.literals.get(&double.to_bits()) {
            None => Ok(None),
            Some(Some(literal)) => Ok(Some(literal)),
            Some(None) => Err(EvalError::new(format!(
                "the document has several numbers that are {double} to 17 digits, and it cannot be said which one is meant; \
                 'take' copies the text"
            ))),
        }
    }

    /// Whether a text is what stands in the document.
    ///
    /// # Errors
    /// It holds a character that stands for a lone surrogate.
    pub(super) fn check_text(&self, text: &str) -> Result<(), EvalError> {
        match self.has_surrogates && text.contains('\u{fffd}') {
            true => Err(EvalError::new(
                "the text has a lone surrogate, which is no character and cannot be written; 'take' copies the text",
            )),
            false => Ok(()),
        }
    }
}

/// Whether a double, written as short as can be, is this number.
fn holds(literal: &str, double: f64) -> bool {
    let digits = literal.bytes().take_while(|byte| !matches!(byte, b'e' | b'E')).filter(u8::is_ascii_digit).count();
    let has_exponent = literal.contains(['e', 'E']);
    // Fifteen digits come back from any double that is not near the ends of its range.
    digits <= EXACT_DIGITS && !has_exponent || Decimal::of(literal) == Decimal::of(&format!("{double:e}"))
}

/// A decimal number, the same for all ways to write it: its sign, digits without zeros at either end, and the power of ten of
/// the digit behind the last.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: Vec<u8>,
    power: i64,
}

impl Decimal {
    fn of(literal: &str) -> Self {
        let (mantissa, exponent) = literal.split_once(['e', 'E']).unwrap_or((literal, "0"));
        let (is_negative, mantissa) = mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        // An exponent of more digits than that is one of zero or of no double.
        let exponent = exponent.strip_prefix('+').unwrap_or(exponent).parse::<i64>().unwrap_or(i64::MAX / 4);
        let mut power = exponent.saturating_sub(i64::try_from(fraction.len()).unwrap_or(i64::MAX / 4));
        while digits.last() == Some(&b'0') {
            digits.pop();
            power = power.saturating_add(1);
        }
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..zeros);
        if digits.is_empty() {
            return Self { is_negative: false, digits, power: 0 };
        }
        Self { is_negative, digits, power }
    }
}

/// What of a document may not be what it seems.
enum Token {
    /// A number, from where to where.
    Number(usize, usize),
    /// `\uD800` to `\uDFFF` without its other half, six bytes from here.
    LoneSurrogate(usize),
}

/// Numbers and lone surrogates of a text that may be JSON.
struct Tokens<'t> {
    text: &'t [u8],
    at: usize,
    in_string: bool,
}

impl<'t> Tokens<'t> {
    fn new(text: &'t [u8]) -> Self {
        Self { text, at: 0, in_string: false }
    }

    /// The code unit of an escape `\uNNNN` that begins here.
    fn unit(&self, at: usize) -> Option<u16> {
        let escape = self.text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(escape).ok()?, 16).ok()
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            let at = self.at;
            let byte = *self.text.get(at)?;
            match (self.in_string, byte) {
                (true, b'\\') => match self.unit(at) {
                    Some(0xd800..=0xdbff) => {
                        if matches!(self.unit(at + 6), Some(0xdc00..=0xdfff)) {
                            self.at += 12;
                            continue;
                        }
                        self.at += 6;
                        return Some(Token::LoneSurrogate(at));
                    }
                    Some(0xdc00..=0xdfff) => {
                        self.at += 6;
                        return Some(Token::LoneSurrogate(at));
                    }
                    _ => self.at += 2,
                },
                (_, b'"') => {
                    self.in_string = !self.in_string;
                    self.at += 1;
                }
                (false, b'-' | b'0'..=b'9') => {
                    let part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                    self.at += self.text[at..].iter().take_while(part).count();
                    return Some(Token::Number(at, self.at));
                }
                _ => self.at += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn what_no_double_and_no_string_holds_is_replaced_in_place() {
        for same in
            [r#"{"a":1,"b":[1e308,-5.5,12345678901234567890123]}"#, r#""\ud83d\ude00 \\ud800 1e999""#, "", "-", "\"\\u"]
        {
            assert_eq!(readable(same.as_bytes()), None, "{same}");
        }
        for (text, read) in [
            ("[1e400]", "[1e308]"),
            ("[-1E+999, 2]", "[-1e308 , 2]"),
            (r#"{"1e400":1e400}"#, r#"{"1e400":1e308}"#),
            (r#"["\ud800x","\udc00","\ud800\ud800\udc00"]"#, r#"["\ufffdx","\ufffd","\ufffd\ud800\udc00"]"#),
        ] {
            let copy = readable(text.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(copy.clone()).unwrap(), read);
            serde_json::from_slice::<serde_json::Value>(&copy).unwrap();
        }
        let long = format!("[{}]", "9".repeat(400));
        assert_eq!(readable(long.as_bytes()).unwrap().len(), long.len());
    }

    #[test]
    fn a_number_gets_its_text_back_where_a_double_is_another() {
        for held in [
            "1",
            "-1",
            "18446744073709551615",
            "0.1",
            "1.10",
            "1e3",
            "123456789012345.5",
            "0.30000000000000004",
            "1e22",
            "0e999",
        ] {
            assert!(Exact::of(held.as_bytes()).literals.is_empty(), "{held}");
        }
        for other in [
            "18446744073709551616",
            "-9223372036854775809",
            "0.12345678901234567890123",
            "100000000000000000000.5",
            "1e400",
            "1e-400",
        ] {
            let exact = Exact::of(format!("[{other}]").as_bytes());
            let double: f64 = other.parse().unwrap();
            let seen = if double.is_finite() { double } else { 1e308 };
            // 2 to the power of 64 is a double, and is written with fewer digits.
            let text = exact.literal(seen).unwrap();
            assert!(
                text == Some(other) || text.is_none() && Decimal::of(other) == Decimal::of(&format!("{double:e}")),
                "{other}"
            );
        }
        assert!(Exact::of(b"[100000000000000000000.5, 100000000000000000000.6]").literal(1e20).is_err());
        assert!(Exact::of(b"[100000000000000000000.5, 1e20]").literal(1e20).is_err());
        assert_eq!(
            Exact::of(b"[100000000000000000000.5, 100000000000000000000.50]").literal(1e20).unwrap(),
            Some("100000000000000000000.5")
        );
        assert_eq!(Exact::of(b"[\"100000000000000000000.5\"]").literal(1e20).unwrap(), None);
        let exact = Exact::of(br#"["\ud800"]"#);
        assert!(exact.check_text("a\u{fffd}").is_err() && exact.check_text("a").is_ok());
        assert!(Exact::of("[\"\u{fffd}\"]".as_bytes()).check_text("\u{fffd}").is_ok());
    }
}
