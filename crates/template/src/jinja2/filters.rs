//! Filters and tests of Python's Jinja2 that minijinja lacks or does otherwise.

use std::fmt::Write as _;

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};

/// Adds all of them.
pub fn add(environment: &mut Environment<'static>) {
    environment.add_filter("center", center);
    environment.add_filter("forceescape", forceescape);
    environment.add_filter("urlize", urlize);
    environment.add_filter("xmlattr", xmlattr);
    environment.add_filter("percent_format", percent_format);
    environment.add_filter("escape", escape_filter);
    environment.add_filter("e", escape_filter);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("indent", indent);
    environment.add_filter("truncate", truncate);
    environment.add_filter("groupby", groupby);
    environment.add_filter("bounded", bounded);
    environment.add_filter("mutable", super::mutable::mutable);
    environment.add_function("__timed__", super::guard::timed);
    environment.add_function("namespace", super::mutable::namespace);
    environment.add_function("cycler", |items: Rest<Value>| Value::from_object(Cycler::new(items.0)));
    environment.add_filter("looped", super::guard::looped);
    environment.add_filter("format", format_filter);
    environment.add_filter("replace", replace);
    super::python::add(environment);
    environment.set_unknown_method_callback(method);
    environment.set_formatter(formatter);
    environment.add_test("callable", |value: Value| value.kind() == ValueKind::Plain);
}

/// Most bytes a filter may make of one text.
const MADE_BYTES: usize = 8 << 20;

fn too_large(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{what}: the result is too large"))
}

/// Passes a value that may be joined to another; see the rewrites.
fn bounded(value: Value, most: usize) -> Result<Value, Error> {
    let length = match value.as_str() {
        Some(text) => text.len(),
        None if value.kind() == ValueKind::Seq => value.len().unwrap_or(0),
        None => 0,
    };
    super::guard::charge(if value.as_str().is_some() { length / 256 } else { length })?;
    if length > most { Err(too_large("joining texts or lists")) } else { Ok(value) }
}

/// Refuses widths and precisions of six digits and more in a format string.
fn sane_widths(pattern: &str) -> Result<(), Error> {
    let mut digits = 0;
    for byte in pattern.bytes() {
        digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
        if digits > 5 {
            return Err(too_large("format"));
        }
    }
    if pattern.len() > 1 << 20 { Err(too_large("format")) } else { Ok(()) }
}

/// `"%s"|format(...)`; a keyword form (`%(name)s`) takes the keywords.
fn format_filter(pattern: String, arguments: Rest<Value>) -> Result<String, Error> {
    sane_widths(&pattern)?;
    format(FormatStyle::Printf, &pattern, &arguments)
}

fn replaced(text: &str, from: &str, to: &str, count: Option<usize>) -> Result<String, Error> {
    let hits = if from.is_empty() { text.chars().count() + 1 } else { text.matches(from).count() };
    let hits = count.map_or(hits, |most| hits.min(most));
    if hits.saturating_mul(to.len()).saturating_add(text.len()) > MADE_BYTES {
        return Err(too_large("replace"));
    }
    Ok(text.replacen(from, to, hits))
}

fn replace(text: String, from: Value, to: Value, count: Option<usize>) -> Result<String, Error> {
    replaced(&text, &from.to_string(), &to.to_string(), count)
}

/// Python's methods, with bounds on those that make long texts.
fn method(
    state: &mut minijinja::State<'_, '_>,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        match (name, arguments) {
            ("format", _) => sane_widths(text)?,
            ("replace", [from, to]) => {
                return replaced(text, &from.to_string(), &to.to_string(), None).map(Value::from);
            }
            ("join", [items]) => {
                let mut total = 0usize;
                for item in items.try_iter()? {
                    let one = item.as_str().map_or(32, str::len);
                    total = total.saturating_add(one).saturating_add(text.len());
                    if total > MADE_BYTES {
                        return Err(too_large("join"));
                    }
                }
            }
            _ => {
                if let Some(made) = super::methods::text(text, name, arguments) {
                    return made;
                }
            }
        }
    }
    if let (minijinja::value::ValueKind::Seq, "index", [wanted]) = (value.kind(), name, arguments) {
        return value.try_iter()?.position(|item| item == *wanted).map(Value::from).ok_or_else(|| {
            Error::new(ErrorKind::InvalidOperation, format!("index: {wanted} is not in the list"))
        });
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments)
}

/// Writes a value as Python's `str()` does, escaped where the block asks for it.
fn formatter(
    out: &mut minijinja::Output<'_>,
    state: &mut minijinja::State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    if *state.auto_escape() == AutoEscape::Html && !value.is_safe() {
        let mut text = String::new();
        escape(&python_str(value), &mut text);
        return out.write_str(&text).map_err(Error::from);
    }
    let number = value.kind() == ValueKind::Number && !value.is_integer();
    if number || matches!(value.kind(), ValueKind::Seq | ValueKind::Map) {
        return out.write_str(&python_str(value)).map_err(Error::from);
    }
    minijinja::escape_formatter(out, state, value)
}

/// Text of a value.
fn python_str(value: &Value) -> String {
    super::python::text(value)
}

fn escape_filter(value: Value) -> Value {
    if value.is_safe() {
        return value;
    }
    forceescape(value)
}

/// `int(default=0, base=10)`: the default for what is no number.
fn int(value: Value, default: Option<Value>, base: Option<u32>, kwargs: Kwargs) -> Result<Value, Error> {
    let default = default.or(kwargs.get::<Option<Value>>("default")?).unwrap_or_else(|| Value::from(0));
    let base = base.or(kwargs.get("base")?).unwrap_or(10);
    kwargs.assert_all_used()?;
    if let Some(text) = value.as_str() {
        return Ok(parse_int(text, base)
            .map(Value::from)
            .or_else(|| {
                text.trim()
                    .parse::<f64>()
                    .ok()
                    .filter(|f| f.is_finite() && f.abs() < 1e38)
                    .map(|f| Value::from(f as i128))
            })
            .unwrap_or(default));
    }
    Ok(match value.kind() {
        ValueKind::Bool => Value::from(i64::from(value.is_true())),
        ValueKind::Number if value.is_integer() => value,
        ValueKind::Number => match f64::try_from(value) {
            Ok(number) if number.is_finite() && number.abs() < 1e38 => Value::from(number as i128),
            _ => default,
        },
        _ => default,
    })
}

/// Python's `int(text, base)`.
fn parse_int(text: &str, base: u32) -> Option<i128> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match (base, lower.get(..2)) {
        (16 | 0, Some("0x")) => (16, &lower[2..]),
        (8 | 0, Some("0o")) => (8, &lower[2..]),
        (2 | 0, Some("0b")) => (2, &lower[2..]),
        (0, _) => (10, lower.as_str()),
        (base @ 2..=36, _) => (base, lower.as_str()),
        _ => return None,
    };
    if digits.starts_with(['_', '+', '-']) || digits.ends_with('_') || digits.contains("__") {
        return None;
    }
    let number = i128::from_str_radix(&digits.replace('_', ""), base).ok()?;
    Some(if negative { -number } else { number })
}

/// `float(default=0.0)`.
fn float(value: Value, default: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let default = default.or(kwargs.get::<Option<Value>>("default")?).unwrap_or_else(|| Value::from(0.0));
    kwargs.assert_all_used()?;
    if let Some(text) = value.as_str() {
        return Ok(text.trim().parse::<f64>().map_or(default, Value::from));
    }
    Ok(match value.kind() {
        ValueKind::Bool => Value::from(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => f64::try_from(value).map_or(default, Value::from),
        _ => default,
    })
}

/// `indent(width=4, first=False, blank=False)`; the width may be a text.
fn indent(
    text: String,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let width = width.or(kwargs.get("width")?);
    let first = first.or(kwargs.get("first")?).unwrap_or(false);
    let blank = blank.or(kwargs.get("blank")?).unwrap_or(false);
    kwargs.assert_all_used()?;
    let prefix = match width {
        None => "    ".to_owned(),
        Some(value) => match value.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(usize::try_from(value).map(|n| n.min(1 << 16))?),
        },
    };
    let mut out = String::with_capacity(text.len() * 2);
    let mut lines: Vec<&str> = crate::python::lines(&text).collect();
    // Jinja2 adds a newline before it splits, so a text that ends in one keeps an empty line.
    if text.is_empty() || text.ends_with('\n') {
        lines.push("");
    }
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        let wanted = if i == 0 { first } else { blank || !line.is_empty() };
        if wanted {
            out.push_str(&prefix);
        }
        out.push_str(line);
    }
    Ok(out)
}

/// `truncate(length=255, killwords=False, end='...', leeway=5)`.
fn truncate(value: Value, arguments: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let argument = |at: usize, name: &str| -> Result<Option<Value>, Error> {
        match arguments.get(at) {
            Some(value) => Ok(Some(value.clone())),
            None => kwargs.get(name),
        }
    };
    let number = |value: Option<Value>, default: usize| value.map_or(Ok(default), usize::try_from);
    let length = number(argument(0, "length")?, 255)?;
    let killwords = argument(1, "killwords")?.is_some_and(|v| v.is_true());
    let end = argument(2, "end")?.map_or_else(|| "...".to_owned(), |v| v.to_string());
    let leeway = number(argument(3, "leeway")?, 5)?;
    kwargs.assert_all_used()?;
    let end_length = end.chars().count();
    if length < end_length {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("expected length >= {end_length}, got {length}"),
        ));
    }
    if value.is_undefined() {
        return Ok(value);
    }
    let Some(text) = value.as_str() else {
        // Python asks for the length before it cuts.
        return match value.len() {
            Some(n) if n <= length.saturating_add(leeway) => Ok(value),
            _ => Err(Error::new(ErrorKind::InvalidOperation, "truncate: the value is no text")),
        };
    };
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(value);
    }
    let kept: String = text.chars().take(length - end_length).collect();
    if killwords {
        return Ok(Value::from(kept + &end));
    }
    let cut = kept.rfind(' ').map_or(kept.as_str(), |at| &kept[..at]);
    Ok(Value::from(format!("{cut}{end}")))
}

/// `groupby(attribute, default=None, case_sensitive=False)`: a group is named by its first item.
fn groupby(
    value: Value,
    attribute: Option<Value>,
    default: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let attribute = match attribute {
        Some(attribute) => attribute,
        None => kwargs.get("attribute")?,
    };
    let default = default.or(kwargs.get("default")?);
    let case_sensitive: bool = kwargs.get::<Option<bool>>("case_sensitive")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let mut rows: Vec<(Value, Value, Value)> = Vec::new();
    for item in value.try_iter()? {
        let mut found = item.clone();
        if attribute.as_str().is_some() {
            for part in attribute.to_string().split('.') {
                found = match part.parse::<i64>() {
                    Ok(number) => found.get_item(&Value::from(number))?,
                    Err(_) => found.get_attr(part)?,
                };
            }
        } else {
            found = found.get_item(&attribute)?;
        }
        if found.is_undefined()
            && let Some(default) = &default
        {
            found = default.clone();
        }
        let key = match found.as_str() {
            Some(text) if !case_sensitive => Value::from(text.to_lowercase()),
            _ => found.clone(),
        };
        rows.push((key, found, item));
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    for (key, name, item) in rows {
        match groups.last_mut() {
            Some((last, _, items)) if *last == key => items.push(item),
            _ => groups.push((key, name, vec![item])),
        }
    }
    Ok(groups
        .into_iter()
        .map(|(_, name, items)| Value::from_object(Group { grouper: name, list: items.into() }))
        .collect())
}

/// One group: a pair that also answers to `grouper` and `list`.
#[derive(Debug)]
struct Group {
    grouper: Value,
    list: Value,
}

impl minijinja::value::Object for Group {
    fn repr(self: &std::sync::Arc<Self>) -> minijinja::value::ObjectRepr {
        minijinja::value::ObjectRepr::Seq
    }

    fn get_value(self: &std::sync::Arc<Self>, key: &Value) -> Option<Value> {
        match (key.as_str(), usize::try_from(key.clone()).ok()) {
            (Some("grouper"), _) | (_, Some(0)) => Some(self.grouper.clone()),
            (Some("list"), _) | (_, Some(1)) => Some(self.list.clone()),
            _ => None,
        }
    }

    fn enumerate(self: &std::sync::Arc<Self>) -> minijinja::value::Enumerator {
        minijinja::value::Enumerator::Seq(2)
    }

    fn render(self: &std::sync::Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = String::from("(");
        super::python::repr(&self.grouper, &mut out);
        out.push_str(", ");
        super::python::repr(&self.list, &mut out);
        out.push(')');
        f.write_str(&out)
    }
}

/// `cycler('a', 'b')`, with `next()`, `current` and `reset()`.
#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    at: std::sync::atomic::AtomicUsize,
}

impl Cycler {
    fn new(items: Vec<Value>) -> Self {
        Self { items, at: std::sync::atomic::AtomicUsize::new(0) }
    }

    fn current(&self) -> Value {
        let at = self.at.load(std::sync::atomic::Ordering::Relaxed);
        self.items.get(at % self.items.len().max(1)).cloned().unwrap_or_default()
    }
}

impl minijinja::value::Object for Cycler {
    fn repr(self: &std::sync::Arc<Self>) -> minijinja::value::ObjectRepr {
        minijinja::value::ObjectRepr::Plain
    }

    fn get_value(self: &std::sync::Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str() == Some("current")).then(|| self.current())
    }

    fn call_method(
        self: &std::sync::Arc<Self>,
        _: &mut minijinja::State<'_, '_>,
        method: &str,
        _: &[Value],
    ) -> Result<Value, Error> {
        match method {
            "next" => {
                let current = self.current();
                self.at.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Ok(current)
            }
            "reset" => {
                self.at.store(0, std::sync::atomic::Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

fn center(text: String, width: Option<usize>) -> Result<String, Error> {
    let width = width.unwrap_or(80);
    if width > 1 << 20 {
        return Err(Error::new(ErrorKind::InvalidOperation, "center: the width is too large"));
    }
    let length = text.chars().count();
    if length >= width {
        return Ok(text);
    }
    // Python puts the odd space to the left when the width is odd.
    let margin = width - length;
    let left = margin / 2 + (margin & width & 1);
    Ok(format!("{}{text}{}", " ".repeat(left), " ".repeat(margin - left)))
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
}

fn forceescape(value: Value) -> Value {
    let mut out = String::new();
    escape(&python_str(&value), &mut out);
    Value::from_safe_string(out)
}

fn percent_format(pattern: String, operand: Value) -> Result<String, Error> {
    sane_widths(&pattern)?;
    if operand.is_tuple() {
        let items: Vec<Value> = operand.try_iter()?.collect();
        return format(FormatStyle::Printf, &pattern, &items);
    }
    format(FormatStyle::Printf, &pattern, &[operand])
}

fn xmlattr(state: &minijinja::State<'_, '_>, value: Value, autospace: Option<bool>) -> Result<Value, Error> {
    let mut out = String::new();
    for key in value.try_iter()? {
        let item = value.get_item(&key)?;
        if item.is_none() || item.is_undefined() {
            continue;
        }
        let key = key.to_string();
        if key.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '>' | '=')) {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("Invalid character in attribute name: {key:?}"),
            ));
        }
        if !out.is_empty() {
            out.push(' ');
        }
        escape(&key, &mut out);
        out.push_str("=\"");
        if item.is_safe() {
            let _ = write!(out, "{item}");
        } else {
            escape(&item.to_string(), &mut out);
        }
        out.push('"');
    }
    if !out.is_empty() && autospace.unwrap_or(true) {
        out.insert(0, ' ');
    }
    Ok(match state.auto_escape() {
        AutoEscape::None => out.into(),
        _ => Value::from_safe_string(out),
    })
}

/// Links out of URLs and mail addresses, word by word, as Jinja2's `urlize`.
fn urlize(text: String, arguments: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let limit: Option<usize> = match arguments.first() {
        Some(v) => Some(usize::try_from(v.clone()).map_err(|_| {
            Error::new(ErrorKind::InvalidOperation, "urlize: trim_url_limit must be a number")
        })?),
        None => kwargs.get("trim_url_limit")?,
    };
    let nofollow: bool = match arguments.get(1) {
        Some(v) => v.is_true(),
        None => kwargs.get::<Option<bool>>("nofollow")?.unwrap_or(false),
    };
    let target: Option<String> = kwargs.get("target")?;
    let rel: Option<String> = kwargs.get("rel")?;
    let schemes: Vec<String> = kwargs.get::<Option<Vec<String>>>("extra_schemes")?.unwrap_or_default();
    kwargs.assert_all_used()?;
    let mut rels: Vec<String> = rel
        .iter()
        .flat_map(|r| r.split_whitespace().map(str::to_owned))
        .chain(nofollow.then(|| "nofollow".to_owned()))
        .chain(["noopener".to_owned()])
        .collect();
    rels.sort();
    rels.dedup();
    let mut extra = format!(" rel=\"{}\"", rels.join(" "));
    if let Some(target) = target {
        extra.push_str(" target=\"");
        escape(&target, &mut extra);
        extra.push('"');
    }
    let mut escaped = String::with_capacity(text.len());
    escape(&text, &mut escaped);
    let mut out = String::with_capacity(escaped.len() * 2);
    let mut rest = escaped.as_str();
    while !rest.is_empty() {
        let word_end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        word(&rest[..word_end], limit, &extra, &schemes, &mut out);
        rest = &rest[word_end..];
        let space_end = rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
        out.push_str(&rest[..space_end]);
        rest = &rest[space_end..];
    }
    Ok(Value::from_safe_string(out))
}

fn word(text: &str, limit: Option<usize>, extra: &str, schemes: &[String], out: &mut String) {
    let mut head_end = 0;
    loop {
        let rest = &text[head_end..];
        match ["(", "<", "&lt;"].iter().find(|p| rest.starts_with(**p)) {
            Some(p) => head_end += p.len(),
            None => break,
        }
    }
    let mut tail_start = text.len();
    loop {
        let rest = &text[head_end..tail_start];
        match [")", ">", ".", ",", "\n", "&gt;"].iter().find(|p| rest.ends_with(**p)) {
            Some(p) => tail_start -= p.len(),
            None => break,
        }
    }
    // A closing bracket whose partner is inside stays with the link.
    for (open, close) in [("(", ")"), ("<", ">"), ("&lt;", "&gt;")] {
        let mut missing = text[head_end..tail_start].matches(open).count() as isize
            - text[head_end..tail_start].matches(close).count() as isize;
        while missing > 0 {
            let Some(at) = text[tail_start..].find(close) else { break };
            tail_start += at + close.len();
            missing -= 1;
        }
    }
    let (head, middle, tail) = (&text[..head_end], &text[head_end..tail_start], &text[tail_start..]);
    out.push_str(head);
    let shown = |s: &str| match limit {
        Some(limit) if s.chars().count() > limit => {
            format!("{}...", s.chars().take(limit).collect::<String>())
        }
        _ => s.to_owned(),
    };
    let lower = middle.to_ascii_lowercase();
    let scheme_less = ["https://", "http://", "mailto:"].iter().find(|p| lower.starts_with(**p));
    let host_like = |s: &str| {
        let host = s.split(['/', ':', '?']).next().unwrap_or("");
        host.contains('.')
            && [".com", ".net", ".org", ".int", ".edu", ".gov", ".mil", ".info", ".ca"]
                .iter()
                .any(|end| host.ends_with(end))
    };
    let mail = |s: &str| {
        s.split_once('@').is_some_and(|(user, host)| {
            !user.is_empty()
                && host.contains('.')
                && !host.contains(['/', ':', '@'])
                && !host.starts_with('.')
                && !host.ends_with('.')
        })
    };
    match scheme_less {
        Some(&"mailto:") if mail(&middle[7..]) => {
            let _ = write!(out, "<a href=\"{middle}\">{}</a>", &middle[7..]);
        }
        Some(p) if *p != "mailto:" && middle.len() > p.len() => {
            let _ = write!(out, "<a href=\"{middle}\"{extra}>{}</a>", shown(middle));
        }
        _ if lower.starts_with("www.") || (host_like(&lower) && !lower.contains('@')) => {
            let _ = write!(out, "<a href=\"https://{middle}\"{extra}>{}</a>", shown(middle));
        }
        _ if mail(middle) && !lower.starts_with("www.") && !middle.contains(':') => {
            let _ = write!(out, "<a href=\"mailto:{middle}\">{middle}</a>");
        }
        _ if schemes.iter().any(|s| middle != s && middle.starts_with(s.as_str())) => {
            let _ = write!(out, "<a href=\"{middle}\"{extra}>{middle}</a>");
        }
        _ => out.push_str(middle),
    }
    out.push_str(tail);
}
