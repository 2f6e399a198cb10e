//! Reads a TextFSM template. The wording of errors is Python textfsm's (2.1), so that what a
//! user finds about them elsewhere applies.

use std::sync::Arc;
use std::time::Instant;

use crate::error::{TemplateError, code};
use crate::limits::Limits;
use crate::pyre::{Lead, Regex};

/// Longest name of a value or state.
const MAX_NAME: usize = 48;
/// Bytes of a rule's pattern with its values put in.
const MAX_PATTERN: usize = 256 << 10;
/// Values, and states, of a template.
const MAX_NAMES: usize = 4000;
const LINE_OPS: [&str; 3] = ["Continue", "Next", "Error"];
const RECORD_OPS: [&str; 4] = ["Clear", "Clearall", "Record", "NoRecord"];

/// An option of a value, in the order written; the order decides what Required sees of a List.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opt {
    Required,
    Filldown,
    Fillup,
    Key,
    List,
}

#[derive(Debug)]
pub(super) struct Value {
    pub name: Arc<str>,
    pub options: Vec<Opt>,
    /// The value's own pattern, for lists with nested groups.
    pub nested: Option<Regex>,
    /// Neither Filldown, Fillup, List nor Required.
    pub plain: bool,
}

impl Value {
    pub fn has(&self, option: Opt) -> bool {
        self.options.contains(&option)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineOp {
    Next,
    Continue,
    Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordOp {
    NoRecord,
    Record,
    Clear,
    Clearall,
}

/// Where a rule leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Stay,
    State(usize),
    End,
    Eof,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub regex: Regex,
    /// Which group goes to which value.
    pub assigns: Vec<(u32, usize)>,
    pub line_op: LineOp,
    pub record_op: RecordOp,
    pub target: Target,
    /// The message of an Error rule, as written.
    pub message: Option<String>,
    pub line: usize,
    new_state: String,
}

/// A compiled TextFSM template. Cheap to share between threads.
#[derive(Debug)]
pub struct Template {
    pub(super) values: Vec<Value>,
    pub(super) header: Arc<[Arc<str>]>,
    pub(super) states: Vec<(String, Vec<Rule>)>,
    /// For each rule of each state, what a line must begin with.
    pub(super) leads: Vec<Box<[Lead]>>,
    pub(super) start: usize,
    /// An EOF state is written, so no record is implied at the end of the input.
    pub(super) eof_state: bool,
    pub(super) limits: Limits,
}

pub(super) fn py_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// `str.rstrip()`; nearly every line ends in a plain character and stays as it is.
fn stripped_end(line: &str) -> &str {
    match line.as_bytes().last() {
        Some(b'!'..=b'~') => line,
        _ => line.trim_end_matches(py_space),
    }
}

/// `str.lstrip()`.
fn stripped_start(line: &str) -> &str {
    let line = line.trim_start_matches(' ');
    match line.as_bytes().first() {
        Some(b'!'..=b'~') => line,
        _ => line.trim_start_matches(py_space),
    }
}

fn error(message: impl Into<String>, line: usize) -> TemplateError {
    TemplateError::new("textfsm", code::SYNTAX, message).at(line)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

fn is_comment(line: &str) -> bool {
    stripped_start(line).starts_with('#')
}

impl Template {
    /// Compiles a template with the default limits.
    ///
    /// # Errors
    /// `template_syntax` with the line, worded as Python textfsm words it.
    pub fn compile(text: &str) -> Result<Self, TemplateError> {
        Self::compile_with(text, Limits::default())
    }

    /// Compiles a template.
    ///
    /// # Errors
    /// `template_syntax` with the line; `template_limit` for a template beyond
    /// [`Limits::template_bytes`].
    pub fn compile_with(text: &str, limits: Limits) -> Result<Self, TemplateError> {
        if text.len() > limits.template_bytes {
            return Err(TemplateError::new(
                "textfsm",
                code::LIMIT,
                format!(
                    "the template has {} bytes, at most {} are allowed",
                    text.len(),
                    limits.template_bytes
                ),
            ));
        }
        let ends = memchr::memchr_iter(b'\n', text.as_bytes()).chain(std::iter::once(text.len()));
        let mut from = 0;
        let mut lines = ends.enumerate().map(|(i, end)| {
            let line = text.get(from..end).unwrap_or("");
            from = end + 1;
            (i + 1, stripped_end(line))
        });
        let (values, patterns) = read_values(&mut lines)?;
        let mut buffer = String::new();
        let mut states: Vec<(String, Vec<Rule>)> = Vec::new();
        let deadline = limits.compile_deadline();
        while let Some((name, rules)) =
            read_state(&mut lines, &states, &values, &patterns, &mut buffer, deadline)?
        {
            states.push((name, rules));
        }
        let mut template = Self {
            header: values.iter().map(|v| Arc::clone(&v.name)).collect(),
            values,
            states,
            leads: Vec::new(),
            start: 0,
            eof_state: false,
            limits,
        };
        template.validate()?;
        Ok(template)
    }

    /// Names of the values, in order: the columns of the result.
    pub fn header(&self) -> &[Arc<str>] {
        &self.header
    }

    /// Names of the values with option Key, in order.
    pub fn keys(&self) -> Vec<&str> {
        self.values.iter().filter(|v| v.has(Opt::Key)).map(|v| &*v.name).collect()
    }

    fn validate(&mut self) -> Result<(), TemplateError> {
        let bare = |message: String| TemplateError::new("textfsm", code::SYNTAX, message);
        if !self.states.iter().any(|(name, _)| name == "Start") {
            return Err(bare("Missing state 'Start'.".to_owned()));
        }
        for reserved in ["End", "EOF"] {
            if let Some((_, rules)) = self.states.iter().find(|(name, _)| name == reserved)
                && let Some(rule) = rules.first()
            {
                return Err(bare(format!("Non-Empty '{reserved}' state.")).at(rule.line));
            }
        }
        self.states.retain(|(name, _)| name != "End");
        self.eof_state = self.states.iter().any(|(name, _)| name == "EOF");
        let names: Vec<String> = self.states.iter().map(|(name, _)| name.clone()).collect();
        let index = |wanted: &str| names.iter().position(|name| name == wanted);
        for (name, rules) in &mut self.states {
            for rule in rules {
                if rule.line_op == LineOp::Error {
                    if !rule.new_state.is_empty() {
                        rule.message = Some(std::mem::take(&mut rule.new_state));
                    }
                    continue;
                }
                rule.target = match rule.new_state.as_str() {
                    "" => Target::Stay,
                    "End" => Target::End,
                    "EOF" => Target::Eof,
                    other => match index(other) {
                        Some(i) => Target::State(i),
                        None => {
                            return Err(bare(format!(
                                "State '{other}' not found, referenced in state '{name}'"
                            ))
                            .at(rule.line));
                        }
                    },
                };
            }
        }
        self.start = index("Start").unwrap_or(0);
        self.leads =
            self.states.iter().map(|(_, rules)| rules.iter().map(|r| r.regex.lead()).collect()).collect();
        Ok(())
    }
}

/// The pattern of each value, with its name as the group's.
type Patterns = Vec<(Arc<str>, String)>;

fn pattern_of<'p>(patterns: &'p [(Arc<str>, String)], name: &str) -> Option<&'p str> {
    patterns.iter().find(|(known, _)| **known == *name).map(|(_, pattern)| pattern.as_str())
}

fn read_values<'t>(
    lines: &mut impl Iterator<Item = (usize, &'t str)>,
) -> Result<(Vec<Value>, Patterns), TemplateError> {
    let mut values: Vec<Value> = Vec::with_capacity(16);
    let mut patterns: Vec<(Arc<str>, String)> = Vec::with_capacity(16);
    for (number, line) in lines {
        if line.is_empty() {
            break;
        }
        if is_comment(line) {
            continue;
        }
        if !line.starts_with("Value ") {
            return Err(if values.is_empty() {
                error("No Value definitions found.", number)
            } else {
                error(format!("Expected blank line after last Value entry. Line: {number}."), number)
            });
        }
        let (value, pattern) =
            read_value(line).map_err(|message| error(format!("{message} Line {number}."), number))?;
        if pattern_of(&patterns, &value.name).is_some() {
            return Err(error(
                format!("Duplicate declarations for Value '{}'. Line: {number}.", value.name),
                number,
            ));
        }
        if values.len() >= MAX_NAMES {
            return Err(TemplateError::new("textfsm", code::LIMIT, format!("more than {MAX_NAMES} values"))
                .at(number));
        }
        patterns.push((Arc::clone(&value.name), pattern));
        values.push(value);
    }
    Ok((values, patterns))
}

fn read_value(line: &str) -> Result<(Value, String), String> {
    let parts: Vec<&str> = line.splitn(4, ' ').collect();
    let (_, after_first) = line.split_once(' ').unwrap_or(("", ""));
    let Some(third) = parts.get(2) else {
        return Err("Expect at least 3 tokens on line.".to_owned());
    };
    let mut options: Vec<Opt> = Vec::new();
    let (name, pattern) = if third.starts_with('(') {
        after_first.split_once(' ').unwrap_or((after_first, ""))
    } else {
        for option in parts[1].split(',') {
            let option = match option {
                "Required" => Opt::Required,
                "Filldown" => Opt::Filldown,
                "Fillup" => Opt::Fillup,
                "Key" => Opt::Key,
                "List" => Opt::List,
                other => return Err(format!("Unknown option \"{other}\"")),
            };
            if options.contains(&option) {
                return Err(format!("Duplicate option \"{option:?}\""));
            }
            options.push(option);
        }
        (*third, parts.get(3).copied().unwrap_or(""))
    };
    if name.chars().count() > MAX_NAME {
        return Err(format!("Invalid Value name '{name}' or name too long."));
    }
    if !pattern.starts_with('(') || !pattern.ends_with(')') || pattern.ends_with("\\)") {
        return Err(format!("Value '{pattern}' must be contained within a '()' pair."));
    }
    let nested = if options.contains(&Opt::List) {
        let regex = Regex::new(pattern)?;
        (regex.groups_written() > 1 && regex.names().len() > 0).then_some(regex)
    } else {
        crate::pyre::check(pattern)?;
        None
    };
    let plain = !options.iter().any(|o| *o != Opt::Key);
    let template = format!("(?P<{name}>{}", &pattern[1..]);
    Ok((Value { name: name.into(), options, nested, plain }, template))
}

fn read_state<'t>(
    lines: &mut impl Iterator<Item = (usize, &'t str)>,
    states: &[(String, Vec<Rule>)],
    values: &[Value],
    patterns: &[(Arc<str>, String)],
    buffer: &mut String,
    deadline: Instant,
) -> Result<Option<(String, Vec<Rule>)>, TemplateError> {
    let Some((number, name)) = lines.by_ref().find(|(_, line)| !line.is_empty() && !is_comment(line)) else {
        return Ok(None);
    };
    if !is_word(name)
        || name.chars().count() > MAX_NAME
        || LINE_OPS.contains(&name)
        || RECORD_OPS.contains(&name)
    {
        return Err(error(format!("Invalid state name: '{name}'. Line: {number}"), number));
    }
    if states.len() >= MAX_NAMES {
        return Err(
            TemplateError::new("textfsm", code::LIMIT, format!("more than {MAX_NAMES} states")).at(number)
        );
    }
    if states.iter().any(|(other, _)| other == name) {
        return Err(error(format!("Duplicate state name: '{name}'. Line: {number}"), number));
    }
    let mut rules = Vec::with_capacity(8);
    for (number, line) in lines {
        if line.is_empty() {
            break;
        }
        if is_comment(line) {
            continue;
        }
        if !matches!(line.as_bytes(), [b' ' | b'\t', b'^', ..] | [b' ', b' ', b'^', ..]) {
            return Err(error(
                format!("Missing white space or carat ('^') before rule. Line: {number}"),
                number,
            ));
        }
        if rules.len() % 16 == 15 && Instant::now() > deadline {
            return Err(
                TemplateError::new("textfsm", code::LIMIT, "the time for compiling was over").at(number)
            );
        }
        rules.push(read_rule(stripped_start(line), number, values, patterns, buffer)?);
    }
    Ok(Some((name.to_owned(), rules)))
}

fn read_rule(
    line: &str,
    number: usize,
    values: &[Value],
    patterns: &[(Arc<str>, String)],
    expanded: &mut String,
) -> Result<Rule, TemplateError> {
    let arrow = memchr::memrchr_iter(b'>', line.as_bytes()).find_map(|end| {
        let head = line[..end].strip_suffix('-')?;
        let before = head.chars().next_back().filter(|c| py_space(*c))?;
        Some((&head[..head.len() - before.len_utf8()], &line[end + 1..]))
    });
    let (pattern, action) = arrow.map_or((line, None), |(p, a)| (p, Some(a)));
    expanded.clear();
    if patterns.is_empty() {
        expanded.push_str(pattern);
    } else {
        substitute(pattern, patterns, expanded).ok_or_else(|| {
            error(format!("Duplicate or invalid variable substitution: '{pattern}'. Line: {number}."), number)
        })?;
    }
    if expanded.len() > MAX_PATTERN {
        return Err(TemplateError::new(
            "textfsm",
            code::LIMIT,
            format!(
                "the rule's pattern has more than {MAX_PATTERN} bytes with its values put in. Line: {number}."
            ),
        )
        .at(number));
    }
    let regex = Regex::new(expanded).map_err(|why| {
        error(format!("Invalid regular expression: '{expanded}'. Line: {number}. ({why})"), number)
    })?;
    let assigns = regex
        .names()
        .zip(1u32..)
        .filter_map(|(name, group)| values.iter().position(|v| *v.name == *name).map(|value| (group, value)))
        .collect();
    let mut rule = Rule {
        regex,
        assigns,
        line_op: LineOp::Next,
        record_op: RecordOp::NoRecord,
        target: Target::Stay,
        message: None,
        line: number,
        new_state: String::new(),
    };
    if let Some(action) = action {
        let (line_op, record_op, new_state) = read_action(action)
            .ok_or_else(|| error(format!("Badly formatted rule '{line}'. Line: {number}."), number))?;
        if line_op == LineOp::Continue && !new_state.is_empty() {
            return Err(error(
                format!("Action 'Continue' with new state {new_state} specified. Line: {number}."),
                number,
            ));
        }
        if line_op != LineOp::Error && new_state.starts_with('"') {
            return Err(error(
                format!("Alphanumeric characters only in state names. Line: {number}."),
                number,
            ));
        }
        rule.line_op = line_op;
        rule.record_op = record_op;
        new_state.clone_into(&mut rule.new_state);
    }
    Ok(rule)
}

/// Replaces `$name`, `${name}` and `$$`, as Python's `string.Template.substitute`.
fn substitute(pattern: &str, patterns: &[(Arc<str>, String)], out: &mut String) -> Option<()> {
    let mut rest = pattern;
    while let Some(at) = memchr::memchr(b'$', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let (braced, body) = match rest.strip_prefix('{') {
            Some(body) => (true, body),
            None => (false, rest),
        };
        let end = body.bytes().position(|b| !(b.is_ascii_alphanumeric() || b == b'_')).unwrap_or(body.len());
        let name = &body[..end];
        if name.is_empty() || name.as_bytes()[0].is_ascii_digit() {
            return None;
        }
        rest = &body[end..];
        if braced {
            rest = rest.strip_prefix('}')?;
        }
        out.push_str(pattern_of(patterns, name)?);
        if out.len() > MAX_PATTERN {
            return Some(());
        }
    }
    out.push_str(rest);
    Some(())
}

fn line_op(word: &str) -> Option<LineOp> {
    Some(match word {
        "Continue" => LineOp::Continue,
        "Next" => LineOp::Next,
        "Error" => LineOp::Error,
        _ => return None,
    })
}

fn record_op(word: &str) -> Option<RecordOp> {
    Some(match word {
        "Clear" => RecordOp::Clear,
        "Clearall" => RecordOp::Clearall,
        "Record" => RecordOp::Record,
        "NoRecord" => RecordOp::NoRecord,
        _ => return None,
    })
}

/// What stands to the right of `->`: operators, then a state or a quoted message.
fn read_action(action: &str) -> Option<(LineOp, RecordOp, &str)> {
    let trimmed = action.trim_start_matches(py_space);
    if trimmed.is_empty() {
        return Some((LineOp::Next, RecordOp::NoRecord, ""));
    }
    if trimmed.len() == action.len() {
        return None;
    }
    let state =
        |text: &str| is_word(text) || (text.len() >= 2 && text.starts_with('"') && text.ends_with('"'));
    let (word, rest) = match trimmed.find(py_space) {
        Some(at) => (&trimmed[..at], trimmed[at..].trim_matches(py_space)),
        None => (trimmed, ""),
    };
    if rest.is_empty() || state(rest) {
        let (line_word, record_word) = match word.split_once('.') {
            Some((a, b)) => (a, Some(b)),
            None => (word, None),
        };
        if let Some(line) = line_op(line_word) {
            match record_word {
                None => return Some((line, RecordOp::NoRecord, rest)),
                Some(record_word) => {
                    if let Some(record) = record_op(record_word) {
                        return Some((line, record, rest));
                    }
                }
            }
        }
        if let Some(record) = record_op(word) {
            return Some((LineOp::Next, record, rest));
        }
    }
    state(trimmed).then_some((LineOp::Next, RecordOp::NoRecord, trimmed))
}
