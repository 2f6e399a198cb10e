//! One template line into a pattern and its match variables.

use serde_json::{Map, Value};

use super::error::TtpError;
use super::literal::{self, Call};
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
    /// Text every match begins with.
    pub prefix: memchr::memmem::Finder<'static>,
    /// Whether the prefix is only the newline.
    pub bare: bool,
    /// Number of a group and the variable it feeds.
    pub captures: Vec<(u32, Variable)>,
    /// Variables fed with the whole match, when the line captures nothing.
    pub whole: Vec<Variable>,
    /// Names under which the line's variables are known (sanitised and as written).
    pub names: Vec<String>,
    /// As `names`, with what `joinmatches` says.
    pub joins: Vec<(String, Option<Option<String>>)>,
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

/// The spans of `{{ ... }}` in a line; what stands between must not be empty.
fn spans(line: &str) -> Vec<(usize, usize)> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(i) = line.get(at..).and_then(|l| l.find("{{")) {
        let open = at + i;
        let Some(first) = line.get(open + 2..).and_then(|r| r.chars().next()) else { break };
        let from = open + 2 + first.len_utf8();
        let Some(j) = line.get(from..).and_then(|l| l.find("}}")) else { break };
        out.push((open, from + j + 2));
        at = from + j + 2;
    }
    out
}

struct Draft {
    variable: Variable,
    raw: String,
    safe: String,
    regexes: Vec<String>,
    action: Action,
    is_line: bool,
    ignore: Option<Option<Value>>,
    skip_variable: bool,
    skip_line: bool,
    attributes: Vec<Call>,
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
        let mut attributes = literal::calls(raw)?;
        if attributes.is_empty() {
            return Err(TtpError::new("syntax", format!("an empty variable in '{}'", line.trim())));
        }
        let head = attributes.remove(0);
        let mut d = Self {
            variable: Variable { name: head.name.clone(), functions: Vec::new(), join: None },
            raw: raw.to_owned(),
            safe: safe_name(&head.name),
            regexes: Vec::new(),
            action: Action::Add,
            is_line: false,
            ignore: None,
            skip_variable: false,
            skip_line: false,
            attributes: attributes.clone(),
        };
        if let Some(default) = scope.default
            && !d.unsaved()
            && !scope.defaults.contains_key(&head.name)
        {
            scope.defaults.insert(head.name.clone(), default.clone());
        }
        if d.safe == "ignore" {
            d.ignore = Some(head.args.first().cloned());
        }
        let named = d.safe.clone();
        if matches!(
            named.as_str(),
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
            let call = Call { name: named, ..head };
            d.apply(&call, line, scope, 0)?;
        }
        for call in attributes {
            d.apply(&call, line, scope, 0)?;
        }
        Ok(d)
    }

    fn unsaved(&self) -> bool {
        matches!(self.variable.name.as_str(), "_end_" | "_line_" | "ignore" | "_start_")
    }

    fn apply(
        &mut self,
        call: &Call,
        line: &str,
        scope: &mut Scope<'_>,
        depth: usize,
    ) -> Result<(), TtpError> {
        refuse(call)?;
        let first = || {
            call.args.first().ok_or_else(|| {
                TtpError::new(
                    "argument",
                    format!("{} of '{}' needs an argument", call.name, self.variable.name),
                )
            })
        };
        match call.name.as_str() {
            "ignore" => self.skip_variable = true,
            "_start_" => {
                self.action = if self.safe == "_start_" { Action::StartEmpty } else { Action::Start };
            }
            "_end_" => self.action = Action::End,
            "_line_" => {
                self.action = Action::Join;
                self.is_line = true;
                self.pattern(call, scope);
            }
            "_exact_" | "_exact_space_" | "columns" => {}
            "_headers_" => self.action = Action::Start,
            "chain" => {
                if depth > 16 {
                    return Err(TtpError::limit(format_args!(
                        "chain of '{}' refers to itself",
                        self.variable.name
                    )));
                }
                let name = text_of(first()?);
                let Some(value) = scope.vars.get(&name).cloned() else {
                    tracing::debug!(variable = %self.variable.name, chain = %name, "chain variable not found");
                    return Ok(());
                };
                for c in chain_calls(&value)? {
                    self.apply(&c, line, scope, depth + 1)?;
                }
            }
            "set" => {
                let value = call.arg(0, "value").cloned().ok_or_else(|| {
                    TtpError::new("argument", format!("set of '{}' needs a value", self.variable.name))
                })?;
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
                    let mut call = call.clone();
                    call.kwargs.insert("match_line".into(), Value::String(format!("\n{rest}")));
                    self.variable.functions.push(call);
                }
            }
            "default" => {
                if !self.unsaved() {
                    let value = if call.args.len() == 1 { call.args[0].clone() } else { Value::from("None") };
                    scope.defaults.insert(self.variable.name.clone(), value);
                }
            }
            "joinmatches" => {
                self.variable.join.get_or_insert(call.args.first().map(text_of));
                self.action = Action::Join;
            }
            "re" => self.pattern(call, scope),
            "contains_re" | "startswith_re" | "endswith_re" | "notstartswith_re" | "notendswith_re"
            | "exclude_re" | "exclude" | "contains" | "equal" | "notequal" | "sformat" => {
                let mut call = call.clone();
                for arg in &mut call.args {
                    if let Value::String(s) = arg
                        && let Some(v) = scope.vars.get(s.as_str())
                    {
                        *arg = v.clone();
                    }
                }
                self.variable.functions.push(call);
            }
            name if builtin(name).is_some() => self.pattern(call, scope),
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
                self.variable.functions.push(call.clone());
            }
        }
        Ok(())
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

/// The fixed text between variables as a pattern.
fn fixed(text: &str, line: &str) -> String {
    let escaped = regex::escape(text);
    let mut out = String::with_capacity(escaped.len());
    let exact_space = line.contains("_exact_space_");
    let exact = line.contains("_exact_");
    let mut rest = escaped.as_str();
    while let Some(c) = rest.chars().next() {
        if !exact_space && (rest.starts_with("\\ ") || rest.starts_with("\\\t")) {
            while rest.starts_with("\\ ") || rest.starts_with("\\\t") {
                rest = rest.get(2..).unwrap_or("");
            }
            out.push_str("[ \\t]+");
        } else if !exact && c.is_numeric() {
            rest = rest.trim_start_matches(char::is_numeric);
            out.push_str("\\d+");
        } else {
            out.push(c);
            rest = rest.get(c.len_utf8()..).unwrap_or("");
        }
    }
    out
}

fn cut_at(pattern: &str, mark: &str) -> Option<String> {
    let before = pattern.get(..pattern.find(mark)?)?;
    let before = before.strip_suffix("[ \\t]+").unwrap_or(before);
    Some(format!("{before}{LINE_END}"))
}

/// Columns of a `_headers_` line: the pattern and the header names in order.
fn headers(line: &str, mark: &str, draft: &Draft, names: &mut Vec<String>) -> Result<String, TtpError> {
    let at = line.find(mark).unwrap_or(line.len());
    let text = line.get(..at).unwrap_or("").trim_end().to_owned();
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
    for a in &draft.attributes {
        if a.name == "columns" {
            let n = a.args.first().and_then(|v| v.as_i64().or_else(|| text_of(v).trim().parse().ok()));
            let n = n.ok_or_else(|| TtpError::new("argument", "columns() needs a number"))?;
            columns = n.max(1).min(count as i64);
        }
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

/// Compiles one line; None where it only sets a default or has no variable.
pub(crate) fn compile(line: &str, number: usize, scope: &mut Scope<'_>) -> Result<Option<Rule>, TtpError> {
    let line = line.trim_end();
    let at = spans(line);
    if at.is_empty() {
        tracing::debug!(line = number, "a group line without a variable is skipped");
        return Ok(None);
    }
    let mut pattern = String::new();
    let mut groups: Vec<(String, Variable)> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let mut by_name: Vec<(String, Variable)> = Vec::new();
    let mut action = Action::Add;
    let mut is_line = false;
    let mut skip = false;
    for (open, close) in at {
        let raw = line.get(open + 2..close - 2).unwrap_or("");
        let draft = Draft::read(raw, line, scope)?;
        if draft.skip_line {
            skip = true;
            continue;
        }
        if !draft.skip_variable {
            by_name.retain(|(n, _)| *n != draft.safe && *n != draft.variable.name);
            by_name.push((draft.safe.clone(), draft.variable.clone()));
            if draft.variable.name != draft.safe {
                by_name.push((draft.variable.name.clone(), draft.variable.clone()));
            }
        }
        let mark = format!("{{{{{}}}}}", draft.raw);
        if pattern.is_empty() {
            let body = line.trim_start();
            let indent = line.get(..line.len() - body.len()).unwrap_or("");
            pattern.push_str("\\n");
            pattern.push_str(indent);
            let mut from = 0;
            for (o, c) in spans(body) {
                pattern.push_str(&fixed(body.get(from..o).unwrap_or(""), line));
                pattern.push_str(body.get(o..c).unwrap_or(""));
                from = c;
            }
            pattern.push_str(&fixed(body.get(from..).unwrap_or(""), line));
            pattern.push_str(LINE_END);
        }
        match draft.safe.as_str() {
            "ignore" => {
                let by = match &draft.ignore {
                    Some(Some(v)) => {
                        let name = text_of(v);
                        format!("(?:{})", named_pattern(&name, scope.vars).unwrap_or(name))
                    }
                    _ => "\\S+".to_owned(),
                };
                pattern = pattern.replacen(&mark, &by, 1);
            }
            "_start_" | "_end_" => {
                if let Some(cut) = cut_at(&pattern, &mark) {
                    pattern = cut;
                }
            }
            "_headers_" => {
                let mut header_names: Vec<String> = Vec::new();
                pattern = headers(line, &mark, &draft, &mut header_names)?;
                groups.clear();
                for (i, h) in header_names.iter().enumerate() {
                    if header_names.iter().take(i).any(|o| o == h) {
                        return Err(TtpError::new(
                            "syntax",
                            format!("the header '{h}' stands twice on the line"),
                        ));
                    }
                    let call =
                        |name: &str, args: Vec<Value>| Call { name: name.into(), args, kwargs: Map::new() };
                    let variable = Variable {
                        name: h.clone(),
                        functions: vec![
                            call("strip", Vec::new()),
                            call(
                                "exclude",
                                vec![scope.vars.get(h).cloned().unwrap_or_else(|| Value::from(h.clone()))],
                            ),
                        ],
                        join: None,
                    };
                    if let Some(default) = scope.default
                        && !scope.defaults.contains_key(h)
                    {
                        scope.defaults.insert(h.clone(), default.clone());
                    }
                    by_name.push((h.clone(), variable.clone()));
                    groups.push((format!("v{i}"), variable));
                }
            }
            _ => {}
        }
        if draft.variable.functions.iter().any(|f| f.name == "set")
            && let Some(cut) = cut_at(&pattern, &mark)
        {
            pattern = cut;
        }
        if draft.safe != "ignore" && pattern.contains(&mark) {
            if !skip && groups.iter().any(|(_, v)| v.name == draft.variable.name) {
                return Err(TtpError::new(
                    "regex",
                    format!("the variable '{}' stands twice on one line", draft.variable.name),
                ));
            }
            let id = format!("v{}", groups.len());
            let regexes =
                if draft.regexes.is_empty() { "\\S+".to_owned() } else { draft.regexes.join(")|(?:") };
            pattern = pattern.replacen(&mark, &format!("(?P<{id}>(?:{regexes}))"), 1);
            groups.push((id, draft.variable.clone()));
        }
        is_line |= draft.is_line;
        if !action.starts() && draft.safe != "ignore" {
            action = draft.action;
        }
    }
    if skip {
        return Ok(None);
    }
    for (name, _) in &by_name {
        names.push(name.clone());
    }
    let compiled = Regex::new(&pattern).map_err(|e| {
        TtpError::new("regex", format!("the pattern '{}' is not valid: {e}", pattern.escape_debug()))
    })?;
    let mut captures = Vec::new();
    // Cutting the line at `_start_`, `_end_` or `set` may have dropped a group.
    for (number, name) in (1u32..).zip(compiled.names()) {
        match groups.iter().find(|(id, _)| id == name) {
            Some((_, v)) => captures.push((number, v.clone())),
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
        for (_, v) in &by_name {
            if !whole.iter().any(|w| w.name == v.name) {
                whole.push(v.clone());
            }
        }
    }
    let prefix = regex::literal_prefix(&pattern);
    Ok(Some(Rule {
        pattern: compiled,
        bare: prefix.len() <= 1,
        prefix: memchr::memmem::Finder::new(prefix.as_bytes()).into_owned(),
        captures,
        whole,
        joins: by_name.into_iter().map(|(n, v)| (n, v.join)).collect(),
        names,
        action,
        is_line,
        line: number,
    }))
}
