//! Rewrites of the source before compilation.
//!
//! Loops, `with`, `autoescape` and `raw` are written so that minijinja does what Jinja2 does; see
//! [`statement`].
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
///
/// # Errors
/// The line of an expression that is too deep, or of an `if` with too many branches.
pub fn rewrite<'t>(text: &'t str, options: &Options, mutable: bool) -> Result<Cow<'t, str>, usize> {
    // Only a template that keeps values can make them grow.
    let grows = ["set", "macro"].iter().any(|word| text.contains(word));
    let joins = if grows { text.bytes().filter(|b| matches!(b, b'~' | b'+')).count() } else { 0 };
    let bound = (joins > 0).then(|| GROWN_BYTES / joins);
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    let mut branches = 0;
    let mut sets = Sets::default();
    let mut rest = text;
    let starts = [
        (options.comment_start_string.as_str(), options.comment_end_string.as_str(), false),
        (options.block_start_string.as_str(), options.block_end_string.as_str(), true),
        (options.variable_start_string.as_str(), options.variable_end_string.as_str(), true),
    ];
    // Where each begin stands next; looked for again only once it was passed.
    let mut found: [Option<usize>; 3] = [Some(0); 3];
    let mut looked = [false; 3];
    loop {
        let done = text.len() - rest.len();
        let mut next: Option<(usize, usize)> = None;
        for (i, (start, ..)) in starts.iter().enumerate() {
            if found[i].is_some_and(|at| at < done || !looked[i]) {
                found[i] = rest.find(start).map(|at| done + at);
                looked[i] = true;
            }
            if let Some(at) = found[i]
                && next.is_none_or(|(first, j)| (at, starts[j].0.len()) < (first, start.len()))
            {
                next = Some((at, i));
            }
        }
        let Some((at, which)) = next else { break };
        let (at, (start, end, code)) = (at - done, starts[which]);
        let body_at = at + start.len();
        let body_len = if code { expression_end(&rest[body_at..], end) } else { rest[body_at..].find(end) };
        let Some(body_len) = body_len else { break };
        let body = &rest[body_at..body_at + body_len];
        let block = start == options.block_start_string;
        if block && body.trim_matches(['-', '+', ' ']) == "raw" {
            out.push_str(&rest[..at]);
            rest = raw(&rest[at..], body, options, &mut out);
            continue;
        }
        out.push_str(&rest[..body_at]);
        if code {
            if super::guard::too_deep(body) {
                let from = text.len() - rest.len() + body_at;
                return Err(1 + text[..from].matches('\n').count());
            }
            if block && body.trim_start_matches(['-', '+', ' ']).starts_with("elif") {
                branches += 1;
                if branches > MOST_BRANCHES {
                    let from = text.len() - rest.len() + body_at;
                    return Err(1 + text[..from].matches('\n').count());
                }
            } else if block && body.trim_start_matches(['-', '+', ' ']).starts_with("endif") {
                branches = 0;
            }
            let mut changed = String::new();
            if mutable {
                super::mutable::literals(body, &mut changed);
            }
            let body = if mutable { &changed } else { body };
            rewrite_body(body, block.then_some((options, &mut sets)), bound, &mut out);
        } else {
            out.push_str(body);
        }
        rest = &rest[body_at + body_len..];
    }
    out.push_str(rest);
    Ok(out.into())
}

/// Most `elif` of one `if`.
const MOST_BRANCHES: usize = 400;

/// Writes a raw block as a text, with the white space around and in it as Jinja2 has it, where
/// minijinja would trim inside. Gives what follows.
fn raw<'t>(rest: &'t str, body: &str, options: &Options, out: &mut String) -> &'t str {
    let (start, end) = (options.block_start_string.as_str(), options.block_end_string.as_str());
    let content_at = start.len() + body.len() + end.len();
    // The tag that ends it.
    let mut from = content_at;
    let (mut stop, mut tag) = (None, "");
    while let Some(at) = rest.get(from..).and_then(|r| r.find(start)).map(|at| from + at) {
        let inner = &rest[at + start.len()..];
        let Some(length) = inner.find(end) else { break };
        if inner[..length].trim_matches(['-', '+']).trim() == "endraw" {
            stop = Some((at, at + start.len() + length + end.len()));
            tag = &inner[..length];
            break;
        }
        from = at + start.len();
    }
    let Some((stop, after)) = stop else {
        out.push_str(rest);
        return "";
    };
    if !options.trim_blocks && !options.lstrip_blocks {
        out.push_str(&rest[..after]);
        return &rest[after..];
    }
    let mut content = &rest[content_at..stop];
    if body.ends_with('-') {
        content = content.trim_start();
    }
    if tag.starts_with('-') {
        content = content.trim_end();
    } else if options.lstrip_blocks && !tag.starts_with('+') {
        let bare = content.trim_end_matches([' ', '\t']);
        if bare.ends_with('\n') {
            content = bare;
        }
    }
    let sign = |text: &str| text.chars().next().filter(|c| matches!(c, '-' | '+')).map(String::from);
    let head = sign(body).unwrap_or_default();
    let tail = tag.chars().last().filter(|c| matches!(c, '-' | '+')).map(String::from).unwrap_or_default();
    let text = content.replace('\\', "\\\\").replace('"', "\\\"");
    let (open, close) = (&options.variable_start_string, &options.variable_end_string);
    out.push_str(&format!(
        "{start}{head} if true {end}{open} \"{text}\"|safe {close}{start} endif {tail}{end}"
    ));
    &rest[after..]
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
pub(super) fn token(code: &str) -> usize {
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

/// The inside of a tag: signs of white space control at either end are no operators.
fn rewrite_body(body: &str, block: Option<(&Options, &mut Sets)>, bound: Option<usize>, out: &mut String) {
    let head = usize::from(body.starts_with(['-', '+']));
    let tail = body.len() - usize::from(body.len() > head && body.ends_with(['-', '+']));
    let code = &body[head..tail];
    out.push_str(&body[..head]);
    if !block.is_some_and(|(options, sets)| statement(code, options, sets, bound, out)) {
        rewrite_code(code, bound, out);
    }
    out.push_str(&body[tail..]);
}

/// Splits code at a word or sign that stands outside of brackets and strings.
fn split_at<'c>(code: &'c str, wanted: &str) -> Option<(&'c str, &'c str)> {
    let (mut at, mut depth) = (0, 0usize);
    while at < code.len() {
        let length = token(&code[at..]);
        match &code[at..at + length] {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            piece if depth == 0 && piece == wanted => return Some((&code[..at], &code[at + length..])),
            _ => {}
        }
        at += length;
    }
    None
}

/// The blocks of `set` that are open, and how many names were made up.
#[derive(Default)]
struct Sets {
    /// What follows the end of each, where something does.
    open: Vec<Option<String>>,
    names: usize,
}

impl Sets {
    fn name(&mut self) -> String {
        self.names += 1;
        format!("__set{}", self.names)
    }
}

/// `space.name`, the target of an assignment.
fn attribute(target: &str) -> Option<(&str, &str)> {
    let is_name = |s: &&str| !s.is_empty() && s.chars().all(|c| c.is_alphanumeric() || c == '_');
    target.trim().split_once('.').filter(|(space, name)| is_name(space) && is_name(name))
}

/// Statements that are written otherwise; false where one stays as it is.
///
/// The list of a loop passes a filter and a macro's body begins with a look at the clock (see [`super::guard`]), what is set of a namespace is given to
/// its method (see [`super::mutable`]), `with` gets its values before any name is set, `autoescape` gets a scope.
fn statement(code: &str, options: &Options, sets: &mut Sets, bound: Option<usize>, out: &mut String) -> bool {
    let (start, end) = (&options.block_start_string, &options.block_end_string);
    let word = code.trim_start();
    let begins = |w: &str| word.strip_prefix(w).filter(|r| r.starts_with([' ', '\t', '\n', '(']));
    if let Some(rest) = begins("for") {
        let Some((targets, list)) = split_at(rest, "in") else { return false };
        let (list, more) = match split_at(list, "if") {
            Some((list, condition)) => (list, Some(("if", condition))),
            None => match split_at(list, "recursive") {
                Some((list, rest)) => (list, Some(("recursive", rest))),
                None => (list, None),
            },
        };
        if list.trim().is_empty() || list.trim_end().ends_with([',', '|', '.']) {
            return false;
        }
        out.push_str(&code[..code.len() - rest.len()]);
        out.push_str(targets);
        out.push_str("in (");
        rewrite_code(list, bound, out);
        out.push_str(")|looped ");
        if let Some((word, rest)) = more {
            out.push_str(word);
            rewrite_code(rest, bound, out);
            if word == "recursive" {
                out.push_str(&format!(" {end}{start} do __timed__() "));
            }
        }
        return true;
    }
    if let Some(rest) = begins("macro") {
        // One that calls itself twice, and twice again, looks at the clock each time.
        out.push_str(" macro ");
        rewrite_code(rest, bound, out);
        out.push_str(&format!(" {end}{start} do __timed__() "));
        return true;
    }
    if let Some(rest) = begins("set") {
        let Some((targets, value)) = split_at(rest, "=") else {
            // A block whose text is set at its end.
            let (target, filters) = split_at(rest, "|").map_or((rest, None), |(t, f)| (t, Some(f)));
            let Some((space, name)) = attribute(target) else {
                sets.open.push(None);
                return false;
            };
            let kept = sets.name();
            out.push_str(&format!(" set {kept} "));
            if let Some(filters) = filters {
                out.push('|');
                rewrite_code(filters, bound, out);
            }
            sets.open.push(Some(format!("do {space}.__set__(\"{name}\", {kept})")));
            return true;
        };
        if value.trim().is_empty() || value.trim_end().ends_with(',') {
            return false;
        }
        if let Some((space, name)) = attribute(targets) {
            out.push_str(&format!(" do {space}.__set__(\"{name}\", ("));
            rewrite_code(value, bound, out);
            out.push_str(")) ");
            return true;
        }
        if !targets.contains('.') {
            return false;
        }
        // Several at once: each attribute by way of a name.
        let mut then = String::new();
        let mut names: Vec<String> = Vec::new();
        for target in targets.split(',') {
            match attribute(target) {
                Some((space, name)) => {
                    let kept = sets.name();
                    then.push_str(&format!(" {end}{start} do {space}.__set__(\"{name}\", {kept})"));
                    names.push(kept);
                }
                None => names.push(target.trim().to_owned()),
            }
        }
        out.push_str(&format!(" set {} =", names.join(", ")));
        rewrite_code(value, bound, out);
        out.push_str(&then);
        out.push(' ');
        return true;
    }
    if word.trim_end() == "endset" {
        let Some(then) = sets.open.pop().flatten() else { return false };
        out.push_str(&format!(" endset {end}{start} {then} "));
        return true;
    }
    if let Some(rest) = begins("with") {
        let mut left: Vec<(&str, &str)> = Vec::new();
        let mut more = rest;
        while !more.trim().is_empty() {
            let (one, next) = split_at(more, ",").unwrap_or((more, ""));
            let Some(pair) = split_at(one, "=") else { return false };
            left.push(pair);
            more = next;
        }
        if left.len() < 2 {
            return false;
        }
        out.push_str(" with");
        while !left.is_empty() {
            // A name is set once no value that is still to come asks for the one outside.
            let asked = |name: &str, value: &str| {
                let mut at = 0;
                while at < value.len() {
                    let length = token(&value[at..]);
                    if &value[at..at + length] == name {
                        return true;
                    }
                    at += length;
                }
                false
            };
            let free = (0..left.len()).find(|i| {
                let name = left[*i].0.trim();
                left.iter().enumerate().all(|(j, (_, value))| j == *i || !asked(name, value))
            });
            let (name, value) = left.remove(free.unwrap_or(0));
            out.push_str(name);
            out.push('=');
            rewrite_code(value, bound, out);
            if !left.is_empty() {
                out.push(',');
            }
        }
        return true;
    }
    if let Some(rest) = begins("autoescape") {
        out.push_str(" autoescape");
        rewrite_code(rest, bound, out);
        out.push_str(&format!(" {end}{start} with "));
        return true;
    }
    if word.trim_end() == "endautoescape" {
        out.push_str(&format!(" endwith {end}{start} endautoescape "));
        return true;
    }
    false
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
pub(super) fn closing(code: &str, open: usize) -> usize {
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
