//! Where output goes, and how numbers look in it.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::failure::Failure;

/// Standard output, buffered. Whoever waits for something flushes first.
pub type Out = BufWriter<StdoutLock<'static>>;

/// Locks standard output.
pub fn stdout() -> Out {
    BufWriter::with_capacity(64 * 1024, io::stdout().lock())
}

/// Writes one JSON object and a line end.
///
/// # Errors
/// Those of standard output.
pub fn json_line(out: &mut impl Write, value: &impl Serialize) -> Result<(), Failure> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// Writes how many there are of each sort, the most first: a table, or JSON objects.
///
/// # Errors
/// Those of standard output.
pub fn summary<const N: usize>(
    out: &mut impl Write,
    names: [&str; N],
    sums: BTreeMap<[String; N], u64>,
    json: bool,
) -> Result<(), Failure> {
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, sum)| std::cmp::Reverse(*sum));
    if json {
        for (of, sum) in sums {
            let mut object: serde_json::Map<String, serde_json::Value> =
                names.iter().zip(of).map(|(name, value)| ((*name).to_owned(), value.into())).collect();
            object.insert("count".to_owned(), sum.into());
            json_line(out, &object)?;
        }
        return Ok(());
    }
    let header: Vec<&str> = ["count"].into_iter().chain(names).collect();
    let row = |(of, sum): ([String; N], u64)| [grouped(sum)].into_iter().chain(of).collect();
    Ok(writeln!(out, "{}", table(&header, &[0], sums.into_iter().map(row).collect()))?)
}

/// One line on stderr, whatever the message holds. A stderr that is closed is nobody's concern.
pub fn complain(message: &str) {
    let line: String = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    let _ = writeln!(io::stderr(), "tidelog: {line}");
}

/// Whether stderr is a terminal, where progress is worth drawing.
pub fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Asks on the terminal, `[y/N]`.
///
/// # Errors
/// The answer is not yes: a failure that says `refused`. Nobody can be asked: wrong usage, which says `alone`.
pub fn confirm(question: &str, alone: &str, refused: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage(alone.to_owned()));
    }
    let asked = write!(io::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    let read = asked.and_then(|()| io::stdin().read_line(&mut answer));
    match (read, answer.trim().to_ascii_lowercase().as_str()) {
        (Ok(_), "y" | "yes") => Ok(()),
        _ => Err(Failure::Failed(refused.to_owned())),
    }
}

/// A table without lines, right-aligned in the columns given. On a terminal that is too narrow for it, it has no column `meaning`, or
/// is written row by row, a line for each column.
pub fn table(header: &[&str], right: &[usize], rows: Vec<Vec<String>>) -> String {
    let width = if io::stdout().is_terminal() { Table::new().width() } else { None };
    fitted(header, right, &rows, width.map(usize::from))
}

/// The table as it fits into so many columns of text; as it is, if it does not matter.
pub(super) fn fitted(header: &[&str], right: &[usize], rows: &[Vec<String>], width: Option<usize>) -> String {
    let whole = grid(header, right, rows);
    let fits = |text: &str| width.is_none_or(|width| text.lines().all(|line| line.trim_end().chars().count() <= width));
    // Names with values: their lines are as long as they are.
    if fits(&whole) || header.is_empty() {
        return whole;
    }
    if let Some((&"meaning", rest)) = header.split_last() {
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row[..rest.len()].to_vec()).collect();
        let less = grid(rest, right, &rows);
        if fits(&less) {
            return less;
        }
    }
    let names: Vec<String> = header.iter().map(|name| title(name)).collect();
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        if at > 0 {
            text.push_str("\n\n");
        }
        let lines =
            names.iter().zip(row).map(|(name, value)| format!("{name:longest$}  {value}").trim_end().to_owned());
        text.push_str(&lines.collect::<Vec<_>>().join("\n"));
    }
    text
}

/// A column's name: one word, so that columns can be counted.
fn title(name: &str) -> String {
    name.to_uppercase().replace(' ', "_")
}

fn grid(header: &[&str], right: &[usize], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if !header.is_empty() {
        table.set_header(header.iter().map(|name| title(name)));
    }
    for row in rows {
        table.add_row(row);
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        let left = u16::from(at > 0);
        column.set_padding((left, 1));
        if right.contains(&at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// `1 record`, `1,234 records`.
pub fn count(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// Digits in groups of three.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `0.8 ms`, `12 ms`, `3.41 s`, `2 min 5 s`.
pub fn seconds(span: Duration) -> String {
    match span.as_secs_f64() {
        s if s < 0.01 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 100.0 => format!("{s:.2} s"),
        s => format!("{} min {} s", s as u64 / 60, s as u64 % 60),
    }
}

/// `100,000 records in 1.20 s (83,333/s, 8.3 MB/s)`.
pub fn rate(records: u64, bytes: u64, took: Duration) -> String {
    let per_second = |amount: u64| amount as f64 / took.as_secs_f64().max(1e-6);
    format!(
        "{} in {} ({}/s, {:.1} MB/s)",
        count(records, "record"),
        seconds(took),
        grouped(per_second(records) as u64),
        per_second(bytes) / 1e6
    )
}

/// A size as people read it: `512 B`, `1.5 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A record timestamp as RFC 3339 in UTC with milliseconds, `-` for none.
pub fn rfc3339(timestamp_ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(timestamp_ms) {
        Ok(time) if timestamp_ms != -1 => format!("{time:.3}"),
        _ => "-".to_owned(),
    }
}
