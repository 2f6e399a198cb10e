//! Rewrites of the source before compilation.
//!
//! Python's `%` on string literals, `"%s is %s" % (a, b)`, becomes a filter, since minijinja's `%`
//! is for numbers only. Operands of `~` and `+` get a filter that bounds their length, since a
//! template that doubles a text sixty times would else take all memory in sixty steps.

use std::borrow::Cow;

use super::Options;

/// Most bytes that one expression may join.
const GROWN_BYTES: usize = 32 << 20;

/// Words that are no operands.
const KEYWORDS: &[&str] = &[
    "and",
    "or",
    "not",
    "in",
    "is",
    "if",
    "else",
    "elif",
    "for",
    "set",
    "macro",
    "call",
    "do",
    "with",
    "filter",
    "recursive",
];

/// Rewrites the expressions inside blocks and variables.
pub fn rewrite<'t>(text: &'t str, options: &Options) -> Cow<'t, str> {
    // Cheap way out for nearly every template: only one that keeps values can make them grow.
    let grows = ["set", "macro"].iter().any(|word| text.contains(word));
    let joins = if grows { text.bytes().filter(|b| matches!(b, b'~' | b'+')).count() } else { 0 };
    if joins == 0 && !has_candidate(text) {
        return text.into();
    }
    let bound = (joins > 0).then(|| GROWN_BYTES / joins);
    let mut out = String::with_capacity(text.len() + 32);
    let mut rest = text;
    let starts = [
        (options.comment_start_string.as_str(), options.comment_end_string.as_str(), false),
        (options.block_start_string.as_str(), options.block_end_string.as_str(), true),
        (options.variable_start_string.as_str(), options.variable_end_string.as_str(), true),
    ];
    loop {
        let next = starts
            .iter()
            .filter_map(|(start, end, code)| rest.find(start).map(|at| (at, *start, *end, *code)))
            .min_by_key(|(at, start, ..)| (*at, usize::MAX - start.len()));
        let Some((at, start, end, code)) = next else { break };
        let body_at = at + start.len();
        let body_len = if code { expression_end(&rest[body_at..], end) } else { rest[body_at..].find(end) };
        let Some(body_len) = body_len else { break };
        let body = &rest[body_at..body_at + body_len];
        out.push_str(&rest[..body_at]);
        if code && body.trim_matches(['-', '+', ' ']) == "raw" {
            // Up to endraw nothing is code.
            let stop = rest[body_at..].find("endraw").map_or(rest.len(), |i| body_at + i);
            out.push_str(&rest[body_at..stop]);
            rest = &rest[stop..];
            continue;
        }
        if code {
            rewrite_body(body, bound, &mut out);
        } else {
            out.push_str(body);
        }
        rest = &rest[body_at + body_len..];
    }
    out.push_str(rest);
    out.into()
}

fn has_candidate(text: &str) -> bool {
    text.match_indices('%').any(|(at, _)| {
        text[..at].trim_end().ends_with(['"', '\'']) && !text[at + 1..].starts_with(['}', '>'])
    })
}

/// Where the delimiter `end` stands outside of strings.
fn expression_end(code: &str, end: &str) -> Option<usize> {
    let mut at = 0;
    while at < code.len() {
        if code[at..].starts_with(end) {
            return Some(at);
        }
        at += token(&code[at..]);
    }
    None
}

/// Length of a string literal, a word or one character.
fn token(code: &str) -> usize {
    let Some(first) = code.chars().next() else { return 0 };
    if first == '"' || first == '\'' {
        let mut escaped = false;
        for (i, c) in code.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == first => return i + c.len_utf8(),
                _ => {}
            }
        }
        return code.len();
    }
    if first.is_alphanumeric() || first == '_' {
        return code.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(code.len());
    }
    first.len_utf8()
}

/// The inside of a block: signs of white space control at either end are no operators.
fn rewrite_body(body: &str, bound: Option<usize>, out: &mut String) {
    let head = usize::from(body.starts_with(['-', '+']));
    let tail = body.len() - usize::from(body.len() > head && body.ends_with(['-', '+']));
    out.push_str(&body[..head]);
    rewrite_code(&body[head..tail], bound, out);
    out.push_str(&body[tail..]);
}

fn rewrite_code(code: &str, bound: Option<usize>, out: &mut String) {
    let mut at = 0;
    let mut joined = false;
    while at < code.len() {
        let len = token(&code[at..]);
        let piece = &code[at..at + len];
        let literal = piece.starts_with(['"', '\'']);
        if literal && let Some(operand_text) = code[at + len..].trim_start().strip_prefix('%') {
            let operand_text = operand_text.trim_start();
            let length = operand(operand_text);
            if length > 0 {
                out.push_str(piece);
                out.push_str("|percent_format(");
                rewrite_code(&operand_text[..length], bound, out);
                out.push(')');
                at = code.len() - operand_text.len() + length;
                joined = false;
                continue;
            }
        }
        let starts_operand = literal
            || piece.starts_with(['(', '[', '{'])
            || (piece.starts_with(|c: char| c.is_alphabetic() || c == '_') && !KEYWORDS.contains(&piece));
        if let Some(bound) = bound.filter(|_| starts_operand) {
            let length = operand(&code[at..]);
            let whole = &code[at..at + length];
            rewrite_inside(whole, bound, out);
            at += length;
            let next = code[at..].trim_start();
            if joined || next.starts_with(['~', '+']) {
                out.push_str(&format!("|bounded({bound})"));
            }
            joined = false;
            continue;
        }
        out.push_str(piece);
        at += len;
        if !piece.trim().is_empty() {
            joined = matches!(piece, "~" | "+");
        }
    }
}

/// An operand: what stands in its brackets is rewritten too.
fn rewrite_inside(whole: &str, bound: usize, out: &mut String) {
    let mut at = 0;
    while at < whole.len() {
        let len = token(&whole[at..]);
        if whole[at..].starts_with(['(', '[', '{']) {
            let end = closing(whole, at);
            out.push_str(&whole[at..=at]);
            rewrite_code(&whole[at + 1..end], Some(bound), out);
            out.push_str(&whole[end..whole.len().min(end + 1)]);
            at = end + 1;
        } else {
            out.push_str(&whole[at..at + len]);
            at += len;
        }
    }
}

/// Where the bracket that opens at `open` closes; the end when it does not.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    let mut at = open;
    while at < code.len() {
        match code.as_bytes()[at] {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
        at += token(&code[at..]);
    }
    code.len()
}

/// Length of the operand: a name, literal or bracket with what follows it (`.x`, `[..]`, `(..)`,
/// `|filter`).
fn operand(code: &str) -> usize {
    let mut at = 0;
    while code[at..].starts_with(['-', '+', ' ']) {
        at += 1;
    }
    let bracket = |at: usize| (closing(code, at) + 1).min(code.len());
    match code[at..].chars().next() {
        Some('(' | '[' | '{') => at = bracket(at),
        Some(c) if c.is_alphanumeric() || c == '_' || c == '"' || c == '\'' => {
            at += token(&code[at..]);
        }
        _ => return 0,
    }
    loop {
        let rest = &code[at..];
        if rest.starts_with(['(', '[']) {
            at = bracket(at);
        } else if rest.starts_with(['.', '|']) {
            let inner = rest[1..].trim_start();
            let skip = rest.len() - inner.len();
            let word = token(inner);
            if word == 0 {
                return at;
            }
            at += skip + word;
        } else {
            return at;
        }
    }
}

/// Turns line statements into blocks, as Jinja2 reads them: a colon at the end is dropped, the
/// line's indent and newline go with it, and `print x` is a variable. minijinja knows neither the
/// colon nor `print`. The newline moves inside the block, so that line numbers stay.
pub fn line_statements<'t>(text: &'t str, options: &Options) -> Cow<'t, str> {
    let prefix = options.line_statement_prefix.as_deref().filter(|p| !p.is_empty());
    let comment = options.line_comment_prefix.as_deref().filter(|p| !p.is_empty());
    if prefix.is_none() && comment.is_none() {
        return text.into();
    }
    // The end of the statement that is open: blank lines after it belong to it.
    let mut pending = String::new();
    let mut out = String::with_capacity(text.len() + 32);
    for line in text.split_inclusive('\n') {
        let body = line.trim_start_matches([' ', '\t', '\x0b']);
        if !pending.is_empty() {
            if line.trim().is_empty() {
                out.push_str(if line.ends_with('\n') { "\n" } else { "" });
                continue;
            }
            out.push_str(&std::mem::take(&mut pending));
        }
        let is_comment =
            comment.is_some_and(|c| body.starts_with(c) && prefix.is_none_or(|p| c.len() > p.len()));
        let opens_other =
            [&options.block_start_string, &options.variable_start_string, &options.comment_start_string]
                .iter()
                .any(|s| prefix.is_some_and(|p| s.len() > p.len()) && body.starts_with(s.as_str()));
        let statement = match prefix.and_then(|p| body.strip_prefix(p)) {
            Some(statement) if !is_comment && !opens_other => statement,
            _ => {
                // A comment takes the blanks before it, never the newline.
                match comment.and_then(|c| line.find(c)) {
                    Some(at) => {
                        out.push_str(line[..at].trim_end_matches([' ', '\t']));
                        out.push_str(if line.ends_with('\n') { "\n" } else { "" });
                    }
                    None => out.push_str(line),
                }
                continue;
            }
        };
        let mut code = statement.trim();
        if let Some(at) = comment.and_then(|c| code.find(c)) {
            code = code[..at].trim_end();
        }
        code = code.strip_prefix(['-', '+']).unwrap_or(code).trim_start();
        code = code.strip_suffix(':').unwrap_or(code);
        let newline = if line.ends_with('\n') { "\n" } else { " " };
        let (start, code, end) = match code.strip_prefix("print ") {
            Some(value) => (&options.variable_start_string, value, &options.variable_end_string),
            None => (&options.block_start_string, code, &options.block_end_string),
        };
        out.push_str(start);
        out.push(' ');
        out.push_str(code);
        out.push_str(newline);
        if options.trim_blocks && start == &options.block_start_string {
            pending.push('+');
        }
        pending.push_str(end);
    }
    out.push_str(&pending);
    out.into()
}
