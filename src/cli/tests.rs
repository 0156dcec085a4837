//! What the command line parses and prints, without a server.

use std::io::{self, Read};

use bytes::Bytes;
use clap::{CommandFactory, Parser};
use tidelog::client::StartAt;
use tidelog::record::Headers;

use super::input::{Line, LineReader};
use super::json::Text;
use super::output::{fitted, grouped, size};
use super::position::{Until, parse_from, parse_pair, parse_rate, parse_to};
use super::template::{Parts, Template};
use super::{Cli, in_one_line, is_wrong_usage};

/// Hands out its bytes in pieces of one size.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.1.min(self.0.len()).min(buffer.len());
        buffer[..piece].copy_from_slice(&self.0[..piece]);
        self.0 = &self.0[piece..];
        Ok(piece)
    }
}

fn lines(input: &[u8], piece: usize, limit: usize) -> Vec<Line> {
    let mut reader = LineReader::new(Pieces(input, piece), limit);
    let mut lines = Vec::new();
    while let Some(block) = reader.next_block().unwrap() {
        lines.extend(block);
    }
    lines
}

fn whole(text: &'static str) -> Line {
    Line::Whole(Bytes::from_static(text.as_bytes()))
}

#[test]
fn the_command_line_is_consistent() {
    super::Cli::command().debug_assert();
}

#[test]
fn lines_are_the_same_however_they_arrive() {
    let input = b"one\n\ntwo\r\nthis one is too long\nlast";
    let expected = [whole("one"), whole(""), whole("two\r"), Line::TooLong(20), whole("last")];
    for piece in 1..=input.len() {
        assert_eq!(lines(input, piece, 10), expected, "in pieces of {piece}");
    }
}

#[test]
fn a_line_at_the_limit_is_whole_and_one_byte_more_is_not() {
    for piece in [1, 3, 100] {
        assert_eq!(lines(b"12345\n123456\n12345", piece, 5), [whole("12345"), Line::TooLong(6), whole("12345")]);
        assert_eq!(lines(b"123456", piece, 5), [Line::TooLong(6)]);
    }
}

#[test]
fn nothing_has_no_line() {
    assert_eq!(lines(b"", 1, 5), []);
    assert_eq!(lines(b"\n", 1, 5), [whole("")]);
}

#[test]
fn a_huge_line_is_counted_and_not_held() {
    let mut reader = LineReader::new(io::repeat(b'x').take(50_000_000), 1000);
    let mut seen = Vec::new();
    while let Some(block) = reader.next_block().unwrap() {
        seen.extend(block);
    }
    assert_eq!(seen, [Line::TooLong(50_000_000)]);
}

#[test]
fn positions_are_read_as_written() {
    assert_eq!(parse_from("beginning"), Ok(StartAt::Beginning));
    assert_eq!(parse_from("end"), Ok(StartAt::End));
    assert_eq!(parse_from("offset:12"), Ok(StartAt::Offset(12)));
    assert_eq!(parse_from("last:3"), Ok(StartAt::Last(3)));
    assert_eq!(parse_from("time:1970-01-01T00:00:01Z"), Ok(StartAt::Time(1000)));
    assert_eq!(parse_from("time:1970-01-01T01:00:00+01:00"), Ok(StartAt::Time(0)));
    assert_eq!(parse_from("ago:2m"), Ok(StartAt::Ago(std::time::Duration::from_secs(120))));
    for wrong in ["", "start", "offset:", "offset:-1", "last:x", "time:yesterday", "time:2026-01-31", "ago:5"] {
        assert!(parse_from(wrong).is_err(), "{wrong}");
    }
    assert_eq!(parse_to("end"), Ok(Until::End));
    assert_eq!(parse_to("offset:7"), Ok(Until::Offset(7)));
    assert!(parse_to("last:7").is_err());
}

#[test]
fn rates_and_headers_are_read_as_written() {
    assert_eq!(parse_rate("500/s"), Ok(500.0));
    assert_eq!(parse_rate("0.5"), Ok(0.5));
    for wrong in ["0", "-1", "x", "inf", "5/m", ""] {
        assert!(parse_rate(wrong).is_err(), "{wrong}");
    }
    assert_eq!(parse_pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
    assert_eq!(parse_pair("a="), Ok(("a".to_owned(), String::new())));
    assert!(parse_pair("=b").is_err() && parse_pair("a").is_err());
}

fn headers() -> Headers {
    [("a", Some(&b"1"[..])), ("b", None), ("a", Some(b"\xff"))].into_iter().collect()
}

#[test]
fn a_template_prints_what_it_names() {
    let parts = Parts {
        topic: "orders",
        partition: 2,
        offset: 17,
        timestamp: 1500,
        key: Some(b"k"),
        value: Some(b"v\xff"),
        headers: &headers().iter().take(2).collect(),
    };
    let template: Template = "%t/%p/%o %k=%v (%s) %T %d [%h] 100%%\\t\\x41\\n".parse().unwrap();
    let mut out = Vec::new();
    template.write(&mut out, &parts).unwrap();
    assert_eq!(out, b"orders/2/17 k=v\xff (2) 1500 1970-01-01T00:00:01.500Z [a=1,b=] 100%\tA\n");
    for wrong in ["%x", "%", "\\", "\\y", "\\x4", "\\xzz"] {
        assert!(wrong.parse::<Template>().is_err(), "{wrong}");
    }
}

#[test]
fn json_has_text_where_it_is_text_and_base64_where_not() {
    let json = |bytes: &[u8]| serde_json::to_string(&Text(bytes)).unwrap();
    assert_eq!(json(b"a\"b"), r#""a\"b""#);
    assert_eq!(json(b"\xff\x00"), r#"{"base64":"/wA="}"#);
    assert_eq!(serde_json::to_string(&headers()).unwrap(), r#"{"a":["1",{"base64":"/w=="}],"b":null}"#);
}

#[test]
fn numbers_are_written_for_people() {
    assert_eq!([grouped(0), grouped(999), grouped(1000), grouped(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
    assert_eq!([size(512), size(1536)], ["512 B", "1.5 KiB"]);
}

#[test]
fn wrong_usage_is_told_in_one_line_that_says_where_the_help_is() {
    let said = |args: &[&str]| {
        let error = Cli::try_parse_from(args).unwrap_err();
        assert!(is_wrong_usage(&error), "{error}");
        let asked: Vec<String> = args.iter().skip(1).map(ToString::to_string).collect();
        in_one_line(&error.render().to_string(), &asked)
    };
    for (args, line) in [
        (
            &["tidelog", "produce", "orders", "--receipt-of", "erp"][..],
            "the following required arguments were not provided: --receipt-to <URL>; see 'tidelog produce --help'",
        ),
        (
            &["tidelog", "produce", "orders", "--hedaer", "a=b"],
            "unexpected argument '--hedaer' found; tip: a similar argument exists: '--header'; see 'tidelog produce --help'",
        ),
        (
            &["tidelog", "requests", "list", "--limit", "0"],
            "invalid value '0' for '--limit <LIMIT>': 0 is not in 1..=4294967295; see 'tidelog requests list --help'",
        ),
        (
            &["tidelog", "sevre"],
            "unrecognized subcommand 'sevre'; tip: a similar subcommand exists: 'serve'; see 'tidelog --help'",
        ),
    ] {
        assert_eq!(said(args).split_whitespace().collect::<Vec<_>>().join(" "), line);
    }
    assert!(!is_wrong_usage(&Cli::try_parse_from(["tidelog", "produce", "--help"]).unwrap_err()));
    assert!(!is_wrong_usage(&Cli::try_parse_from(["tidelog"]).unwrap_err()));
}

#[test]
fn a_table_that_is_too_wide_has_no_meanings_or_a_line_for_each_column() {
    let rows = [["durability", "sync", "when a record counts"], ["cleanup", "delete", "what goes"]];
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect();
    let header = ["setting", "its value", "meaning"];
    let whole = fitted(&header, &[], &rows, None);
    assert!(whole.starts_with("SETTING     ITS_VALUE  MEANING"), "{whole}");
    assert_eq!(fitted(&header, &[], &rows, Some(80)), whole);
    let less = fitted(&header, &[], &rows, Some(30));
    assert!(less.contains("sync") && !less.contains("when"), "{less}");
    let blocks = fitted(&header, &[], &rows, Some(15));
    let expected = "SETTING    durability\nITS_VALUE  sync\nMEANING    when a record counts\n\nSETTING    cleanup\n\
                    ITS_VALUE  delete\nMEANING    what goes";
    assert_eq!(blocks, expected);
}

#[test]
fn help_is_broken_once_at_the_width_there_is() {
    let text = "Examples:\n  tidelog a b          what it does\n  tidelog c\n\nOne paragraph that is\nbroken by hand.\n\nStates:\n  due  it waits";
    let wide = "Examples:\n  tidelog a b          what it does\n  tidelog c\n\nOne paragraph that is broken by hand.\n\nStates:\n  due  it waits";
    assert_eq!(super::help::reflowed(text, 80), wide);
    let narrow = super::help::reflowed(text, 20);
    assert!(narrow.starts_with("Examples:\n  tidelog a b\n      what it does\n  tidelog c\n"), "{narrow}");
    // Nothing that was there is lost.
    let mut every = vec![super::help::fitted(Cli::command())];
    while let Some(command) = every.pop() {
        every.extend(command.get_subcommands().cloned());
        let Some(text) = command.get_after_help().map(ToString::to_string) else { continue };
        for width in [40, 80, 100] {
            let set = super::help::reflowed(&text, width);
            assert_eq!(set.split_whitespace().collect::<Vec<_>>(), text.split_whitespace().collect::<Vec<_>>());
        }
    }
}
