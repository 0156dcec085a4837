//! A bound on how deep an expression's tree is, found before it is parsed: parser and interpreter recurse, and a stack that
//! overflows ends the process.

use super::ExprError;

/// How deep brackets and prefix operators may nest.
const MAX_BRACKETS: usize = 48;

/// How deep the tree may be. An unoptimised build has room for twice as much on a thread of 2 MiB, measured.
const MAX_LINKS: usize = 400;

/// Reads the text once, without recursion. Each operator but `&&` and `||`, which the parser balances, makes the tree one
/// level deeper, and so do a field and an index; what is in brackets lies below what is around it. Strings and comments are
/// passed over.
pub(super) fn check(source: &str) -> Result<(), ExprError> {
    let text: Vec<char> = source.chars().collect();
    // Of each open bracket: the links since the last `&&`, `||` or comma, and the most of them so far.
    let mut open = vec![(0usize, 0usize)];
    let (mut links, mut at, mut prefixes) = (0, 0, 0);
    while let Some(&character) = text.get(at) {
        let top = open.len() - 1;
        let mut prefix = false;
        match character {
            '"' | '\'' => {
                at = string_end(&text, at);
                prefixes = 0;
                continue;
            }
            '/' if text.get(at + 1) == Some(&'/') => {
                while text.get(at).is_some_and(|&character| character != '\n') {
                    at += 1;
                }
                continue;
            }
            '&' | '|' | ',' => {
                links -= open[top].0;
                open[top].0 = 0;
            }
            '(' | '[' | '{' => {
                (links, open[top].0) = (links + 1, open[top].0 + 1);
                open[top].1 = open[top].1.max(open[top].0);
                open.push((0, 0));
            }
            ')' | ']' | '}' if top > 0 => {
                let (now, most) = open[top];
                open.pop();
                // It stays below whatever follows on the outside.
                links = links - now + most;
                let outer = &mut open[top - 1];
                outer.0 += most;
                outer.1 = outer.1.max(outer.0);
            }
            '+' | '-' | '*' | '/' | '%' | '<' | '>' | '=' | '!' | '.' | '?' | ':' => {
                prefix = matches!(character, '!' | '-');
                (links, open[top].0) = (links + 1, open[top].0 + 1);
                open[top].1 = open[top].1.max(open[top].0);
            }
            // The operator `in`: a word that is no other word's part.
            'i' if text.get(at + 1) == Some(&'n') => {
                (links, open[top].0) = (links + 1, open[top].0 + 1);
                open[top].1 = open[top].1.max(open[top].0);
            }
            _ => {}
        }
        if !character.is_whitespace() {
            prefixes = if prefix { prefixes + 1 } else { 0 };
        }
        let message = if open.len() - 1 > MAX_BRACKETS || prefixes > MAX_BRACKETS {
            format!("brackets nest deeper than {MAX_BRACKETS} levels")
        } else if links > MAX_LINKS {
            format!("operators and fields nest deeper than {MAX_LINKS} levels")
        } else {
            at += 1;
            continue;
        };
        return Err(at_place(&text, at, message));
    }
    Ok(())
}

/// The position behind a string that begins at `at`, the text's end if it does not end.
fn string_end(text: &[char], at: usize) -> usize {
    let quote = text[at];
    let raw = at > 0 && matches!(text[at - 1], 'r' | 'R');
    let triple = text.get(at + 1) == Some(&quote) && text.get(at + 2) == Some(&quote);
    let mut at = at + if triple { 3 } else { 1 };
    while let Some(&character) = text.get(at) {
        let ends =
            character == quote && (!triple || (text.get(at + 1) == Some(&quote) && text.get(at + 2) == Some(&quote)));
        match character {
            '\\' if !raw => at += 2,
            _ if ends => return at + if triple { 3 } else { 1 },
            _ => at += 1,
        }
    }
    text.len()
}

fn at_place(text: &[char], at: usize, message: String) -> ExprError {
    let (mut line, mut column) = (1, 1);
    for &character in text.iter().take(at) {
        (line, column) = if character == '\n' { (line + 1, 1) } else { (line, column + 1) };
    }
    ExprError { line, column, message }
}
