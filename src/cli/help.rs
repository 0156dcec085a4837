//! How help texts are set: paragraphs that are broken by hand in the source are whole again, so that they are broken once, at the
//! terminal's width; an example whose comment does not fit beside it has it below.

use clap::Command;
use comfy_table::Table;

/// Columns that a text has at most.
const WIDEST: usize = 120;
/// Columns if there is no terminal.
const USUAL: usize = 100;
/// How far the comment of an example is set in, below it.
const COMMENT: &str = "      ";

/// A command as its help fits the terminal, with all below it.
pub fn fitted(command: Command) -> Command {
    let width = Table::new().width().map_or(USUAL, usize::from).min(WIDEST);
    set(command, width)
}

fn set(command: Command, width: usize) -> Command {
    let after = command.get_after_help().map(|text| reflowed(&text.to_string(), width));
    let command = match after {
        Some(text) => command.after_help(text),
        None => command,
    };
    command.max_term_width(WIDEST).mut_subcommands(|sub| set(sub, width))
}

/// A text whose paragraphs have a line each, and whose indented lines fit so many columns where they can.
pub(super) fn reflowed(text: &str, width: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut is_open = false;
    for line in text.lines() {
        let indented = line.starts_with(' ');
        if indented && line.chars().count() > width {
            push_narrow(&mut lines, line, width);
        } else if is_open
            && !indented
            && !line.is_empty()
            && let Some(last) = lines.last_mut()
        {
            last.push(' ');
            last.push_str(line);
        } else {
            lines.push(line.to_owned());
        }
        is_open = !indented && !line.is_empty() && !line.ends_with(':');
    }
    lines.join("\n")
}

/// An example and its comment, one below the other.
fn push_narrow(lines: &mut Vec<String>, line: &str, width: usize) {
    let start = line.len() - line.trim_start().len();
    let gap = line[start..].find("  ").map(|gap| start + gap);
    let Some((what, comment)) = gap.map(|gap| line.split_at(gap)) else {
        lines.push(line.to_owned());
        return;
    };
    lines.push(what.to_owned());
    let mut current = String::new();
    for word in comment.split_whitespace() {
        if !current.is_empty() && COMMENT.len() + current.chars().count() + 1 + word.chars().count() > width {
            lines.push(format!("{COMMENT}{current}"));
            current.clear();
        }
        if !current.is_empty() {
            current.push(' ');
        }
        current.push_str(word);
    }
    lines.push(format!("{COMMENT}{current}"));
}
