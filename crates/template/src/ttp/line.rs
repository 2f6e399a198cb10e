//! One template line into a pattern and its match variables.

use serde_json::{Map, Value};

use super::error::TtpError;
use super::literal::{self, Call};
use super::places::Wanted;
use super::regex;
use crate::pyre::Regex;

/// What a match of a line does to the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Adds to the record of its group.
    Add,
    /// Starts a new record.
    Start,
    /// Starts a new record without values (`_start_` alone).
    StartEmpty,
    /// Closes the group.
    End,
    /// Joins with what the record already has.
    Join,
}

impl Action {
    pub fn starts(self) -> bool {
        matches!(self, Self::Start | Self::StartEmpty)
    }
}

/// A variable of a line.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    /// Its name in the results.
    pub name: String,
    pub functions: Vec<Call>,
    /// The joining text of `joinmatches`, where it has one.
    pub join: Option<Option<String>>,
}

/// A compiled line.
#[derive(Debug)]
pub(crate) struct Rule {
    pub pattern: Regex,
    /// What every line it matches has.
    pub wanted: Wanted,
    /// Number of a group and the variable it feeds.
    pub captures: Vec<(u32, Variable)>,
    /// Variables fed with the whole match, when the line captures nothing.
    pub whole: Vec<Variable>,
    /// Names under which the line's variables are known (sanitised and as written).
    pub names: Vec<String>,
    /// Names and the text by which `joinmatches` joins them.
    pub joins: Vec<(String, String)>,
    pub action: Action,
    pub is_line: bool,
    pub line: usize,
}

/// Built-in patterns by name.
pub(crate) fn builtin(name: &str) -> Option<&'static str> {
    Some(match name {
        "PHRASE" => r"(\S+ {1})+?\S+",
        "ROW" => r"(\S+ +)+?\S+",
        "ORPHRASE" => r"\S+|(\S+ {1})+?\S+",
        "DIGIT" => r"\d+",
        "IP" => r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}",
        "PREFIX" => r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}/[0-9]{1,2}",
        "IPV6" => r"(?:[a-fA-F0-9]{1,4}:|:){1,7}(?:[a-fA-F0-9]{1,4}|:?)",
        "PREFIXV6" => r"(?:[a-fA-F0-9]{1,4}:|:){1,7}(?:[a-fA-F0-9]{1,4}|:?)/[0-9]{1,3}",
        "_line_" => r".+",
        "WORD" => r"\S+",
        "MAC" => {
            r"(?:[0-9a-fA-F]{2}(:|\.|\-)){5}([0-9a-fA-F]{2})|(?:[0-9a-fA-F]{4}(:|\.|\-)){2}([0-9a-fA-F]{4})"
        }
        _ => return None,
    })
}

/// What the compiler of a line may read and write of its group.
pub(crate) struct Scope<'a> {
    pub vars: &'a Map<String, Value>,
    pub defaults: &'a mut Map<String, Value>,
    /// The group's `default` where it is text (or any value but a map).
    pub default: Option<&'a Value>,
}

const LINE_END: &str = r"[\t ]*(?=\n|\r\n)";
const BLANKS: &str = r"[ \t]+";

/// Where a byte stands twice in a row, from a place on.
fn twice(line: &str, byte: u8, mut from: usize) -> Option<usize> {
    let bytes = line.as_bytes();
    loop {
        let at = from + memchr::memchr(byte, bytes.get(from..)?)?;
        if bytes.get(at + 1) == Some(&byte) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// The spans of `{{ ... }}` in a line; what stands between must not be empty.
fn spans(line: &str) -> Vec<(usize, usize)> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(open) = twice(line, b'{', at) {
        let Some(first) = line.get(open + 2..).and_then(|r| r.chars().next()) else { break };
        let Some(close) = twice(line, b'}', open + 2 + first.len_utf8()) else { break };
        out.push((open, close + 2));
        at = close + 2;
    }
    out
}

/// A variable while its attributes are read.
struct Draft {
    variable: Variable,
    safe: String,
    regexes: Vec<String>,
    action: Action,
    is_line: bool,
    /// The argument of `ignore`.
    ignore: Option<Value>,
    /// The argument of `columns`.
    columns: Option<Value>,
    /// Not saved: `ignore`.
    skip_variable: bool,
    /// The line only sets a default.
    skip_line: bool,
}

fn text_of(v: &Value) -> String {
    super::value::py_str(v)
}

fn safe_name(name: &str) -> String {
    let mut out = String::new();
    if name.starts_with(|c: char| c.is_numeric()) {
        out.push('_');
    }
    let mut gap = false;
    for c in name.chars() {
        if c.is_alphanumeric() || c == '_' {
            out.push(c);
            gap = false;
        } else if !gap {
            out.push('_');
            gap = true;
        }
    }
    out
}

/// Functions that only exist as Python or need the network.
fn refuse(call: &Call) -> Result<(), TtpError> {
    match call.name.as_str() {
        "macro" => Err(TtpError::python(format_args!(
            "the match function macro({})",
            call.text(0, "macro_name").unwrap_or("")
        ))),
        "dns" | "rdns" | "geoip_lookup" => Err(TtpError::new(
            "io",
            format!(
                "the match function {} needs the network or a database file, which parsing never uses",
                call.name
            ),
        )),
        _ => Ok(()),
    }
}

impl Draft {
    fn read(raw: &str, line: &str, scope: &mut Scope<'_>) -> Result<Self, TtpError> {
        let mut attributes = literal::calls(raw)?.into_iter();
        let Some(head) = attributes.next() else {
            return Err(TtpError::new("syntax", format!("an empty variable in '{}'", line.trim())));
        };
        let mut d = Self {
            safe: safe_name(&head.name),
            variable: Variable { name: head.name, functions: Vec::new(), join: None },
            regexes: Vec::new(),
            action: Action::Add,
            is_line: false,
            ignore: None,
            columns: None,
            skip_variable: false,
            skip_line: false,
        };
        if let Some(default) = scope.default
            && !d.unsaved()
            && !scope.defaults.contains_key(&d.variable.name)
        {
            scope.defaults.insert(d.variable.name.clone(), default.clone());
        }
        if d.safe == "ignore" {
            d.ignore = head.args.first().cloned();
        }
        if matches!(
            d.safe.as_str(),
            "ignore"
                | "_start_"
                | "_end_"
                | "_line_"
                | "_exact_"
                | "_exact_space_"
                | "_headers_"
                | "columns"
                | "chain"
                | "set"
                | "default"
                | "joinmatches"
                | "re"
        ) {
            let call = Call { name: d.safe.clone(), args: head.args, kwargs: head.kwargs };
            d.apply(call, line, scope, 0)?;
        }
        for call in attributes {
            d.apply(call, line, scope, 0)?;
        }
        Ok(d)
    }

    fn unsaved(&self) -> bool {
        matches!(self.variable.name.as_str(), "_end_" | "_line_" | "ignore" | "_start_")
    }

    fn apply(
        &mut self,
        mut call: Call,
        line: &str,
        scope: &mut Scope<'_>,
        depth: usize,
    ) -> Result<(), TtpError> {
        refuse(&call)?;
        match call.name.as_str() {
            "ignore" => self.skip_variable = true,
            "_start_" => {
                self.action = if self.safe == "_start_" { Action::StartEmpty } else { Action::Start };
            }
            "_end_" => self.action = Action::End,
            "_line_" => {
                self.action = Action::Join;
                self.is_line = true;
                self.pattern(&call, scope);
            }
            "_exact_" | "_exact_space_" => {}
            "columns" => self.columns = Some(call.args.into_iter().next().unwrap_or(Value::Null)),
            "_headers_" => self.action = Action::Start,
            "chain" => {
                if depth > 16 {
                    return Err(TtpError::limit(format_args!(
                        "chain of '{}' refers to itself",
                        self.variable.name
                    )));
                }
                let name = text_of(self.needed(call.args.first(), "chain", "an argument")?);
                let Some(value) = scope.vars.get(&name).cloned() else {
                    tracing::debug!(variable = %self.variable.name, chain = %name, "chain variable not found");
                    return Ok(());
                };
                for c in chain_calls(&value)? {
                    self.apply(c, line, scope, depth + 1)?;
                }
            }
            "set" => {
                let value = self.needed(call.arg(0, "value"), "set", "a value")?.clone();
                let mut rest = String::new();
                let mut at = 0;
                for (open, close) in spans(line) {
                    rest.push_str(line.get(at..open).unwrap_or(""));
                    at = close;
                }
                rest.push_str(line.get(at..).unwrap_or(""));
                let rest = rest.trim_end();
                if rest.is_empty() {
                    scope.defaults.insert(self.variable.name.clone(), value);
                    self.skip_line = true;
                } else {
                    call.kwargs.insert("match_line".into(), Value::String(format!("\n{rest}")));
                    self.variable.functions.push(call);
                }
            }
            "default" => {
                if !self.unsaved() {
                    let only = call.args.len() == 1;
                    let value = call.args.into_iter().next().filter(|_| only);
                    scope
                        .defaults
                        .insert(self.variable.name.clone(), value.unwrap_or_else(|| Value::from("None")));
                }
            }
            "joinmatches" => {
                self.variable.join.get_or_insert(call.args.first().map(text_of));
                self.action = Action::Join;
            }
            "re" => self.pattern(&call, scope),
            "contains_re" | "startswith_re" | "endswith_re" | "notstartswith_re" | "notendswith_re"
            | "exclude_re" | "exclude" | "contains" | "equal" | "notequal" | "sformat" => {
                for arg in &mut call.args {
                    if let Value::String(s) = arg
                        && let Some(v) = scope.vars.get(s.as_str())
                    {
                        *arg = v.clone();
                    }
                }
                self.variable.functions.push(call);
            }
            name if builtin(name).is_some() => self.pattern(&call, scope),
            name => {
                if let Some(near) = super::functions::unknown(name) {
                    tracing::warn!(
                        variable = %self.variable.name,
                        template_line = line,
                        function = name,
                        near = near.join(", "),
                        "a TTP template names an unknown match function: it does nothing"
                    );
                }
                self.variable.functions.push(call);
            }
        }
        Ok(())
    }

    /// An argument that must be there.
    fn needed<'v>(
        &self,
        value: Option<&'v Value>,
        function: &str,
        what: &str,
    ) -> Result<&'v Value, TtpError> {
        value.ok_or_else(|| {
            TtpError::new("argument", format!("{function} of '{}' needs {what}", self.variable.name))
        })
    }

    fn pattern(&mut self, call: &Call, scope: &Scope<'_>) {
        let name = call.args.first().map_or_else(|| call.name.clone(), text_of);
        self.regexes.push(named_pattern(&name, scope.vars).unwrap_or(name));
    }
}

fn named_pattern(name: &str, vars: &Map<String, Value>) -> Option<String> {
    match vars.get(name) {
        Some(v) if literal::truthy(v) => Some(text_of(v)),
        _ => builtin(name).map(str::to_owned),
    }
}

/// The calls of a chain variable: a text or a list of texts.
pub(crate) fn chain_calls(value: &Value) -> Result<Vec<Call>, TtpError> {
    match value {
        Value::String(s) => literal::calls(s),
        Value::Array(a) => {
            let mut out = Vec::new();
            for item in a {
                out.extend(literal::calls(&text_of(item))?);
            }
            Ok(out)
        }
        _ => Err(TtpError::new("argument", "a chain variable must be text or a list of texts")),
    }
}

/// How blanks and digits of a line match.
#[derive(Clone, Copy)]
struct Exact {
    space: bool,
    digits: bool,
}

/// Adds the fixed text between variables to a pattern.
fn fixed(text: &str, exact: Exact, out: &mut String) {
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if !exact.space && matches!(c, ' ' | '\t') {
            while chars.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
            out.push_str(BLANKS);
        } else if !exact.digits && c.is_numeric() {
            while chars.next_if(|c| c.is_numeric()).is_some() {}
            out.push_str("\\d+");
        } else {
            if regex::is_special(c) {
                out.push('\\');
            }
            out.push(c);
        }
    }
}

/// Columns of a `_headers_` line: the pattern and the header names in order.
fn headers(before: &str, wanted: Option<&Value>, names: &mut Vec<String>) -> Result<String, TtpError> {
    let text = before.trim_end();
    // Each header with the blanks that follow it is one column.
    let mut columns_text: Vec<String> = Vec::new();
    let mut blank = true;
    for c in text.trim_start().chars() {
        if c.is_whitespace() {
            blank = true;
        } else if blank {
            columns_text.push(String::new());
            blank = false;
        }
        if let Some(last) = columns_text.last_mut() {
            last.push(c);
        }
    }
    let count = columns_text.len();
    if count == 0 {
        return Err(TtpError::new("syntax", "_headers_ stands on a line without headers"));
    }
    let mut columns = count as i64 - 2;
    if let Some(wanted) = wanted {
        let n = wanted.as_i64().or_else(|| text_of(wanted).trim().parse().ok());
        let n = n.ok_or_else(|| TtpError::new("argument", "columns() needs a number"))?;
        columns = n.max(1).min(count as i64);
    }
    let indent: usize =
        text.chars().take_while(|c| c.is_whitespace()).map(|c| if c == '\t' { 4 } else { 1 }).sum();
    if let Some(first) = columns_text.first_mut() {
        first.insert_str(0, &" ".repeat(indent));
    }
    // Python slices with a negative bound count from the end; the same here.
    let bound = |n: i64| if n < 0 { (count as i64 + n).max(0) as usize } else { (n as usize).min(count) };
    let mut out = String::from("\\n");
    let mut rows: Vec<String> = Vec::new();
    let mut group = |h: &str, quantifier: String| {
        let name = h.trim().to_owned();
        let row = format!("(?P<v{}>.{quantifier})", names.len());
        names.push(name);
        row
    };
    let width = |h: &str| h.chars().count();
    for h in columns_text.iter().take(bound(columns - 1)) {
        rows.push(group(h, format!("{{{}}}", width(h))));
    }
    let last = if columns - 1 < 0 { count as i64 + columns - 1 } else { columns - 1 };
    let h = columns_text
        .get(last.max(0) as usize)
        .ok_or_else(|| TtpError::new("syntax", "_headers_ needs more headers on its line"))?;
    rows.push(group(h, format!("{{1,{}}}", width(h))));
    for h in columns_text.iter().skip(bound(columns)) {
        rows.push(group(h, format!("{{0,{}}}", width(h))));
    }
    let tail = if columns >= count as i64 { ".{1,}" } else { ".*" };
    if let Some(last) = rows.last_mut() {
        let id = names.len() - 1;
        *last = format!("(?P<v{id}>{tail})");
        if let (Some(n), Some(h)) = (names.last_mut(), columns_text.last()) {
            *n = h.trim().to_owned();
        }
    }
    for r in rows {
        out.push_str(&r);
    }
    out.push_str("(?=\\n|\\r\\n)");
    Ok(out)
}

/// A header as a variable: blanks around it do not count, and the row of headers is no value.
fn header(name: &str, scope: &Scope<'_>) -> Variable {
    let call = |name: &str, args: Vec<Value>| Call { name: name.into(), args, kwargs: Map::new() };
    let own = scope.vars.get(name).cloned().unwrap_or_else(|| Value::from(name));
    Variable {
        name: name.to_owned(),
        functions: vec![call("strip", Vec::new()), call("exclude", vec![own])],
        join: None,
    }
}

/// What is known of a line before its pattern is compiled.
struct Line {
    pattern: String,
    /// The variables that are known by name, and the one with no name of its own (`_start_`).
    variables: Vec<Variable>,
    /// Names and the variable each stands for.
    by_name: Vec<(String, usize)>,
    /// The variable of each named group.
    groups: Vec<usize>,
    /// A variable that stands twice.
    twice: Option<String>,
    /// Nothing more is added to the pattern.
    closed: bool,
    action: Action,
    is_line: bool,
}

impl Line {
    /// Ends the pattern before a variable.
    fn cut(&mut self) {
        if self.pattern.ends_with(BLANKS) {
            self.pattern.truncate(self.pattern.len() - BLANKS.len());
        }
        self.pattern.push_str(LINE_END);
        self.closed = true;
    }

    fn headers(
        &mut self,
        before: &str,
        columns: Option<&Value>,
        scope: &mut Scope<'_>,
    ) -> Result<(), TtpError> {
        let mut names: Vec<String> = Vec::new();
        self.pattern = headers(before, columns, &mut names)?;
        self.closed = true;
        self.groups.clear();
        for (i, name) in names.iter().enumerate() {
            if names.iter().take(i).any(|other| other == name) {
                return Err(TtpError::new("syntax", format!("the header '{name}' stands twice on the line")));
            }
            if let Some(default) = scope.default
                && !scope.defaults.contains_key(name)
            {
                scope.defaults.insert(name.clone(), default.clone());
            }
            self.by_name.push((name.clone(), self.variables.len()));
            self.groups.push(self.variables.len());
            self.variables.push(header(name, scope));
        }
        Ok(())
    }

    /// Adds a variable and its place in the pattern.
    fn add(&mut self, draft: Draft, before: &str, scope: &mut Scope<'_>) -> Result<(), TtpError> {
        use std::fmt::Write as _;
        let Draft { variable, safe, regexes, .. } = draft;
        let index = self.variables.len();
        let sets = variable.functions.iter().any(|f| f.name == "set");
        let twice = self.groups.iter().any(|g| self.variables[*g].name == variable.name);
        if !draft.skip_variable {
            self.by_name.retain(|(n, _)| *n != safe && *n != variable.name);
            if variable.name != safe {
                self.by_name.push((variable.name.clone(), index));
            }
            self.by_name.push((safe.clone(), index));
        }
        self.variables.push(variable);
        self.is_line |= draft.is_line;
        if !self.action.starts() && safe != "ignore" {
            self.action = draft.action;
        }
        match safe.as_str() {
            _ if self.closed => {}
            "ignore" => match &draft.ignore {
                Some(v) => {
                    let name = text_of(v);
                    let by = named_pattern(&name, scope.vars).unwrap_or(name);
                    self.pattern.push_str("(?:");
                    self.pattern.push_str(&by);
                    self.pattern.push(')');
                }
                None => self.pattern.push_str("\\S+"),
            },
            "_start_" | "_end_" => self.cut(),
            "_headers_" => self.headers(before, draft.columns.as_ref(), scope)?,
            _ if sets => self.cut(),
            _ => {
                if twice {
                    self.twice = Some(safe.clone());
                }
                let _ = write!(self.pattern, "(?P<v{}>(?:", self.groups.len());
                self.groups.push(index);
                if regexes.is_empty() {
                    self.pattern.push_str("\\S+");
                }
                for (i, regex) in regexes.iter().enumerate() {
                    if i > 0 {
                        self.pattern.push_str(")|(?:");
                    }
                    self.pattern.push_str(regex);
                }
                self.pattern.push_str("))");
            }
        }
        Ok(())
    }
}

/// Compiles one line; None where it only sets a default or has no variable.
pub(crate) fn compile(line: &str, number: usize, scope: &mut Scope<'_>) -> Result<Option<Rule>, TtpError> {
    let line = line.trim_end();
    let at = spans(line);
    if at.is_empty() {
        tracing::debug!(line = number, "a group line without a variable is skipped");
        return Ok(None);
    }
    let digits = line.contains("_exact_");
    let exact = Exact { digits, space: digits && line.contains("_exact_space_") };
    let indent = line.len() - line.trim_start().len();
    let mut made = Line {
        pattern: String::with_capacity(line.len() * 2 + 48),
        variables: Vec::with_capacity(at.len()),
        by_name: Vec::with_capacity(at.len()),
        groups: Vec::with_capacity(at.len()),
        twice: None,
        closed: false,
        action: Action::Add,
        is_line: false,
    };
    made.pattern.push_str("\\n");
    made.pattern.push_str(line.get(..indent).unwrap_or(""));
    let mut from = indent;
    let mut skip = false;
    for (open, close) in at {
        let draft = Draft::read(line.get(open + 2..close - 2).unwrap_or(""), line, scope)?;
        if draft.skip_line {
            skip = true;
            continue;
        }
        if skip {
            continue;
        }
        if !made.closed {
            fixed(line.get(from..open).unwrap_or(""), exact, &mut made.pattern);
            from = close;
        }
        made.add(draft, line.get(..open).unwrap_or(""), scope)?;
    }
    if skip {
        return Ok(None);
    }
    if let Some(name) = made.twice {
        return Err(TtpError::new("regex", format!("the variable '{name}' stands twice on one line")));
    }
    if !made.closed {
        fixed(line.get(from..).unwrap_or(""), exact, &mut made.pattern);
        made.pattern.push_str(LINE_END);
    }
    finish(made, number)
}

/// Compiles the pattern of a line and hands its variables to the groups.
fn finish(made: Line, number: usize) -> Result<Option<Rule>, TtpError> {
    let Line { pattern, variables, by_name, groups, action, is_line, .. } = made;
    let compiled = Regex::new(&pattern).map_err(|e| {
        TtpError::new("regex", format!("the pattern '{}' is not valid: {e}", pattern.escape_debug()))
    })?;
    let mut joins = Vec::new();
    for (name, at) in &by_name {
        if let Some(Some(Some(by))) = variables.get(*at).map(|v| &v.join) {
            joins.push((name.clone(), by.clone()));
        }
    }
    let mut known: Vec<Option<Variable>> = variables.into_iter().map(Some).collect();
    let mut captures = Vec::with_capacity(groups.len());
    for (number, name) in (1u32..).zip(compiled.names()) {
        let group = name.strip_prefix('v').and_then(|n| n.parse::<usize>().ok());
        match group.and_then(|g| groups.get(g)).and_then(|at| known.get_mut(*at)?.take()) {
            Some(variable) => captures.push((number, variable)),
            None => {
                return Err(TtpError::new(
                    "regex",
                    format!("the named group (?P<{name}>...) is not a match variable: use (?:...)"),
                ));
            }
        }
    }
    let mut whole: Vec<Variable> = Vec::new();
    if captures.is_empty() {
        for (_, at) in &by_name {
            whole.extend(known.get_mut(*at).and_then(Option::take));
        }
    }
    Ok(Some(Rule {
        wanted: Wanted::new(regex::literal_head(&pattern), compiled.line_lead()),
        pattern: compiled,
        captures,
        whole,
        joins,
        names: by_name.into_iter().map(|(n, _)| n).collect(),
        action,
        is_line,
        line: number,
    }))
}
