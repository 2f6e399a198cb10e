//! Match variable functions: what stands behind the pipes of `{{ name | upper | to_int }}`.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::error::TtpError;
use super::ip;
use super::literal::Call;
use super::regex::{Search, Searches, escape};
use super::value::{as_ip, ip_object, py_eq, py_str};

/// What a function says beside its value.
pub(crate) enum Flag {
    /// Nothing.
    None,
    /// The match does not count.
    Reject,
    /// More fields for the record.
    Fields(Map<String, Value>),
}

/// What functions may see and change during a run.
pub(crate) struct Context<'a> {
    pub vars: Map<String, Value>,
    pub globals: &'a mut Map<String, Value>,
    pub lookups: &'a Map<String, Value>,
    /// Results of the current template's inputs so far.
    pub results: &'a [Value],
    /// Results of templates already done, by name.
    pub templates: &'a [(String, Value)],
    /// Set once a value that JSON cannot hold was made.
    pub marked: bool,
    /// Largest value in bytes.
    pub max_value: usize,
    pub searches: &'a Searches,
}

impl Context<'_> {
    /// A compiled search, kept with the template.
    fn search(&self, pattern: &str) -> Result<Arc<Search>, TtpError> {
        self.searches.get(pattern)
    }

    fn bounded(&self, s: String, name: &str) -> Result<String, TtpError> {
        if s.len() > self.max_value {
            return Err(TtpError::limit(format_args!(
                "{name} made a value of {} bytes, more than allowed",
                s.len()
            )));
        }
        Ok(s)
    }
}

fn need<'c>(call: &'c Call, index: usize, name: &str) -> Result<&'c Value, TtpError> {
    call.arg(index, name).ok_or_else(|| {
        TtpError::new("argument", format!("the function {} needs its argument '{name}'", call.name))
    })
}

fn need_text(call: &Call, index: usize, name: &str) -> Result<String, TtpError> {
    need(call, index, name).map(py_str)
}

fn need_int(call: &Call, index: usize, name: &str) -> Result<i64, TtpError> {
    let v = need(call, index, name)?;
    v.as_i64().or_else(|| py_str(v).trim().parse().ok()).ok_or_else(|| {
        TtpError::new("argument", format!("the function {} needs a number as '{name}'", call.name))
    })
}

fn test(data: Value, ok: bool) -> (Value, Flag) {
    (data, if ok { Flag::None } else { Flag::Reject })
}

fn field(data: Value, name: &Value, value: Value) -> (Value, Flag) {
    let mut m = Map::new();
    m.insert(py_str(name), value);
    (data, Flag::Fields(m))
}

/// `pattern in data`.
fn within(pattern: &Value, data: &Value) -> bool {
    match data {
        Value::String(s) => pattern.as_str().is_some_and(|p| s.contains(p)),
        Value::Array(a) => a.iter().any(|x| py_eq(x, pattern)),
        Value::Object(m) => pattern.as_str().is_some_and(|p| m.contains_key(p)),
        _ => false,
    }
}

pub(crate) fn is_digit(s: &str) -> bool {
    let s = s.trim();
    !s.is_empty() && s.chars().all(|c| c.is_ascii_digit())
}

/// A value walked down a dotted path; missing steps give an empty map.
pub(crate) fn walk<'v>(mut at: Option<&'v Value>, path: &[&str]) -> Option<&'v Value> {
    for step in path {
        at = at.and_then(Value::as_object).and_then(|m| m.get(*step));
    }
    at
}

fn steps(path: &str) -> Vec<&str> {
    path.split('.').map(str::trim).collect()
}

/// Finds the data a lookup names: a lookup tag, another template's or another group's results.
pub(crate) fn lookup_source<'v>(
    name: Option<&str>,
    template: Option<&str>,
    group: Option<&str>,
    ctx: &'v Context<'_>,
    main: Option<&'v Value>,
) -> Option<&'v Value> {
    if let Some(name) = name {
        let path = steps(name);
        return walk(ctx.lookups.get(*path.first()?), path.get(1..)?);
    }
    if let Some(template) = template {
        let path = steps(template);
        let first = *path.first()?;
        let (_, results) = ctx.templates.iter().find(|(n, _)| n == first)?;
        let at = match results {
            Value::Array(a) => a.first(),
            other => Some(other),
        };
        return walk(at, path.get(1..)?);
    }
    let path = steps(group?);
    let first = *path.first()?;
    let here = main.and_then(|m| m.get(first));
    let at = here.or_else(|| ctx.results.iter().find_map(|r| r.get(first)));
    walk(at, path.get(1..)?)
}

/// Shell-style match of a whole text: `*`, `?`, `[...]`.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let p: Vec<char> = pattern.chars().collect();
    let t: Vec<char> = text.chars().collect();
    let (mut i, mut j) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    let class = |at: usize, c: char| -> Option<(bool, usize)> {
        let mut k = at + 1;
        let negated = p.get(k) == Some(&'!');
        if negated {
            k += 1;
        }
        let start = k;
        let mut hit = false;
        loop {
            let x = *p.get(k)?;
            if x == ']' && k > start {
                return Some((hit != negated, k + 1));
            }
            match (p.get(k + 1), p.get(k + 2)) {
                (Some('-'), Some(hi)) if *hi != ']' => {
                    hit |= (x..=*hi).contains(&c);
                    k += 3;
                }
                _ => {
                    hit |= x == c;
                    k += 1;
                }
            }
        }
    };
    loop {
        let step = match (p.get(i), t.get(j)) {
            (None, None) => return true,
            (Some('*'), _) => {
                star = Some((i, j));
                i += 1;
                continue;
            }
            (Some('?'), Some(_)) => Some((i + 1, j + 1)),
            (Some('['), Some(c)) => match class(i, *c) {
                Some((true, next)) => Some((next, j + 1)),
                Some((false, _)) => None,
                None => (*c == '[').then_some((i + 1, j + 1)),
            },
            (Some(x), Some(c)) if x == c => Some((i + 1, j + 1)),
            _ => None,
        };
        match (step, star) {
            (Some((a, b)), _) => (i, j) = (a, b),
            (None, Some((si, sj))) if sj < t.len() => {
                star = Some((si, sj + 1));
                i = si + 1;
                j = sj + 1;
            }
            _ => return false,
        }
    }
}

/// `"...".format(*args, **kwargs)` for the plain forms templates use. None where a key is missing.
pub(crate) fn format_text(
    template: &str,
    args: &[&Value],
    get: &dyn Fn(&str) -> Option<Value>,
) -> Result<Option<String>, TtpError> {
    let mut out = String::new();
    let mut auto = 0;
    let mut rest = template;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..).unwrap_or("");
        match c {
            '{' if rest.starts_with('{') => {
                out.push('{');
                rest = rest.get(1..).unwrap_or("");
            }
            '}' => {
                out.push('}');
                rest = rest.strip_prefix('}').unwrap_or(rest);
            }
            '{' => {
                let Some(end) = rest.find('}') else {
                    return Err(TtpError::new("argument", format!("'{template}' has a '{{' without '}}'")));
                };
                let spec = rest.get(..end).unwrap_or("");
                rest = rest.get(end + 1..).unwrap_or("");
                let (name, format) = spec.split_once(':').unwrap_or((spec, ""));
                let (name, repr) = match name.split_once('!') {
                    Some((n, conv)) => (n, conv == "r"),
                    None => (name, false),
                };
                let base_len = name.find(['.', '[']).unwrap_or(name.len());
                let base = name.get(..base_len).unwrap_or("");
                let mut value = if base.is_empty() {
                    auto += 1;
                    args.get(auto - 1).map(|v| (*v).clone())
                } else if let Ok(n) = base.parse::<usize>() {
                    args.get(n).map(|v| (*v).clone())
                } else {
                    get(base)
                };
                for key in name.get(base_len..).unwrap_or("").split('[').skip(1) {
                    let key = key.trim_end_matches(']');
                    value = match value {
                        Some(Value::Object(m)) => m.get(key).cloned(),
                        Some(Value::Array(a)) => key.parse::<usize>().ok().and_then(|i| a.get(i).cloned()),
                        _ => None,
                    };
                }
                let Some(value) = value else { return Ok(None) };
                let text = if repr { super::value::py_repr(&value) } else { py_str(&value) };
                out.push_str(&pad(&text, format, value.is_number()));
            }
            c => out.push(c),
        }
        if out.len() > 16 << 20 {
            return Err(TtpError::limit("a formatted text grew beyond 16 MiB"));
        }
    }
    Ok(Some(out))
}

fn pad(text: &str, spec: &str, number: bool) -> String {
    let chars: Vec<char> = spec.chars().collect();
    let (fill, align, from) = match (chars.first(), chars.get(1)) {
        (Some(f), Some(a @ ('<' | '>' | '^'))) => (*f, *a, 2),
        (Some(a @ ('<' | '>' | '^')), _) => (' ', *a, 1),
        (Some('0'), _) => ('0', '>', 1),
        _ => (' ', if number { '>' } else { '<' }, 0),
    };
    let rest: String = chars.get(from..).unwrap_or(&[]).iter().collect();
    let width: usize = rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
    let text = match (rest.split_once('.'), text.parse::<f64>()) {
        (Some((_, p)), Ok(f)) if number && p.ends_with('f') => {
            let digits: usize = p.trim_end_matches('f').parse().unwrap_or(6);
            format!("{f:.*}", digits.min(50))
        }
        (Some((_, p)), _) if !number => {
            text.chars().take(p.trim_end_matches('s').parse().unwrap_or(usize::MAX)).collect()
        }
        _ => text.to_owned(),
    };
    aligned(&text, width.min(100_000), fill, align)
}

fn aligned(text: &str, width: usize, fill: char, align: char) -> String {
    let gap = width.saturating_sub(text.chars().count());
    let left = match align {
        '>' => gap,
        '^' => gap / 2,
        _ => 0,
    };
    let mut out: String = std::iter::repeat_n(fill, left).collect();
    out.push_str(text);
    out.extend(std::iter::repeat_n(fill, gap - left));
    out
}

/// Replaces by the rules of `replaceall` and `resuball`: a variable may list what to replace.
fn replace_all(call: &Call, data: Value, ctx: &mut Context<'_>) -> Result<Value, TtpError> {
    let regex = call.name == "resuball";
    let mut args: Vec<String> = call.args.iter().map(py_str).collect();
    let new = if args.len() > 1 { args.remove(0) } else { String::new() };
    let mut text = py_str(&data);
    for old in args {
        let mut pairs: Vec<(String, String)> = Vec::new();
        match ctx.vars.get(&old) {
            Some(Value::Array(a)) => {
                pairs.extend(a.iter().filter_map(Value::as_str).map(|o| (o.to_owned(), new.clone())));
            }
            Some(Value::Object(m)) => {
                for (by, olds) in m {
                    match olds {
                        Value::Array(a) => {
                            pairs.extend(
                                a.iter().filter_map(Value::as_str).map(|o| (o.to_owned(), by.clone())),
                            );
                        }
                        Value::String(o) => pairs.push((o.clone(), by.clone())),
                        _ => {}
                    }
                }
            }
            Some(Value::String(s)) if regex => pairs.push((escape(s), new.clone())),
            Some(_) => {}
            None => pairs.push((old.clone(), new.clone())),
        }
        for (old, by) in pairs {
            let limit = ctx.max_value;
            text = if regex { ctx.search(&old)?.sub(&by, &text, 0, limit)? } else { text.replace(&old, &by) };
            text = ctx.bounded(text, &call.name)?;
        }
    }
    Ok(Value::String(text))
}

fn unrange(data: &str, range: &str, join: &str, max: usize) -> Option<Result<String, TtpError>> {
    if range.is_empty() || join.is_empty() || !data.contains(range) {
        return None;
    }
    let mut out: Vec<String> = Vec::new();
    let mut size = 0;
    for part in data.split(range) {
        let items: Vec<String> = part.split(join).filter(|i| !i.is_empty()).map(str::to_owned).collect();
        if !out.is_empty() {
            let start: i64 = out.last()?.trim().parse().ok()?;
            let end: i64 = items.first()?.trim().parse().ok()?;
            for i in start.saturating_add(1)..end {
                let s = i.to_string();
                size += s.len() + join.len();
                if size > max {
                    return Some(Err(TtpError::limit("unrange made a value larger than allowed")));
                }
                out.push(s);
            }
        }
        out.extend(items);
    }
    Some(Ok(out.join(join)))
}

const UPTIME: &str = concat!(
    r"(?i)\A\s*",
    r"(?:(?P<years>\d+)\s*(?:ys?|yrs?.?|years?)\s*(?:[,/]\s*)?)?\s*",
    r"(?:(?P<months>\d+)\s*(?:mos?.?|mths?.?|months?)\s*(?:[,/]\s*)?)?\s*",
    r"(?:(?P<weeks>[\d.]+)\s*(?:w|wks?|weeks?)\s*(?:[,/]\s*)?)?\s*",
    r"(?:(?P<days>[\d.]+)\s*(?:d|dys?|days?)\s*(?:[,/]\s*)?)?\s*",
    r"(?:(?P<hours>[\d.]+)\s*(?:h|hrs?|hours?)\s*(?:[,/]\s*)?)?\s*",
    r"(?:(?P<mins>[\d.]+)\s*(?:m|(?:mins?)|(?:minutes?))\s*(?:[,/]\s*)?)?\s*",
    r"(?:(?P<secs>[\d.]+)\s*(?:s|secs?|seconds?))?\s*$",
);
const UNITS: [(&str, u64); 7] = [
    ("years", 31_536_000),
    ("months", 2_592_000),
    ("weeks", 604_800),
    ("days", 86_400),
    ("hours", 3_600),
    ("mins", 60),
    ("secs", 1),
];

fn uptime(data: Value, format: &str, ctx: &mut Context<'_>) -> Result<Value, TtpError> {
    let text = py_str(&data);
    let Some(groups) = ctx.search(UPTIME)?.groups(&text)? else { return Ok(data) };
    if groups.first().and_then(Option::as_ref).is_none_or(|w| w.trim().is_empty()) {
        return Ok(data);
    }
    let found: Vec<(&str, u64, &String)> = UNITS
        .iter()
        .zip(groups.iter().skip(1))
        .filter_map(|((n, m), v)| v.as_ref().map(|v| (*n, *m, v)))
        .collect();
    if !found.iter().all(|(_, _, v)| is_digit(v)) {
        return Ok(data);
    }
    Ok(match format {
        "seconds" => {
            let mut sum: u64 = 0;
            for (_, unit, v) in found {
                sum = sum.saturating_add(v.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(unit));
            }
            Value::from(sum)
        }
        "dict" => {
            Value::Object(found.into_iter().map(|(n, _, v)| (n.to_owned(), Value::from(v.clone()))).collect())
        }
        _ => data,
    })
}

fn mac_eui(data: Value) -> Value {
    let mut mac: String = py_str(&data).to_lowercase();
    mac.retain(|c| !matches!(c, '.' | ':' | '-'));
    if mac.is_empty() || !mac.chars().all(char::is_alphanumeric) {
        return data;
    }
    let mut chars: Vec<char> = mac.chars().collect();
    while chars.len() < 12 {
        chars.push('0');
    }
    let pairs: Vec<String> = chars.chunks(2).map(|p| p.iter().collect()).collect();
    Value::String(pairs.join(":"))
}

fn text_var(ctx: &Context<'_>, v: &Value) -> Value {
    v.as_str().and_then(|s| ctx.vars.get(s)).cloned().unwrap_or_else(|| v.clone())
}

/// Python's int(text).
pub(crate) fn to_int(text: &str) -> Option<Value> {
    let t = text.trim();
    let clean: String = if t.contains('_') && !t.starts_with('_') && !t.ends_with('_') && !t.contains("__") {
        t.replace('_', "")
    } else {
        t.to_owned()
    };
    let digits = clean.strip_prefix(['+', '-']).unwrap_or(&clean);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let unsigned = clean.strip_prefix('+').unwrap_or(&clean);
    unsigned.parse::<i64>().map(Value::from).or_else(|_| unsigned.parse::<u64>().map(Value::from)).ok()
}

/// Python's float(text).
pub(crate) fn to_float(text: &str) -> Option<Value> {
    let t = text.trim();
    if t.is_empty() || !t.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'))
    {
        return None;
    }
    t.parse::<f64>().ok().filter(|f| f.is_finite()).map(Value::from)
}

/// Runs one function on a value.
pub(crate) fn apply(call: &Call, data: Value, ctx: &mut Context<'_>) -> Result<(Value, Flag), TtpError> {
    let text = |v: &Value| py_str(v);
    Ok(match call.name.as_str() {
        "set" => {
            let line = call.kwargs.get("match_line").and_then(Value::as_str).unwrap_or("");
            if text(&data).trim_end() != line {
                return Ok((data, Flag::Reject));
            }
            let value = need(call, 0, "value")?;
            let known = value.as_str().and_then(|s| ctx.vars.get(s).or_else(|| ctx.globals.get(s)));
            (known.unwrap_or(value).clone(), Flag::None)
        }
        "let" => {
            let first = need(call, 0, "name_or_value")?;
            match call.arg(1, "var_value") {
                Some(v) => field(data, first, v.clone()),
                None => (first.clone(), Flag::None),
            }
        }
        "copy" => {
            let copied = data.clone();
            field(data, need(call, 0, "name")?, copied)
        }
        "record" => {
            let name = need_text(call, 0, "record")?;
            ctx.vars.insert(name.clone(), data.clone());
            ctx.globals.insert(name, data.clone());
            (data, Flag::None)
        }
        "count" => {
            for (index, key) in [(0, "var"), (1, "globvar")] {
                let Some(name) = call.arg(index, key).filter(|v| super::literal::truthy(v)).map(py_str)
                else {
                    continue;
                };
                let scope: &mut Map<String, Value> = if key == "var" { &mut ctx.vars } else { ctx.globals };
                let n = scope.get(&name).and_then(Value::as_i64).unwrap_or(0);
                scope.insert(name, Value::from(n + 1));
            }
            (data, Flag::None)
        }
        "joinmatches" | "to_unicode" | "print" => (data, Flag::None),
        "void" => (data, Flag::Reject),
        "raise" => {
            let message = call.text(0, "message").unwrap_or("").to_owned();
            return Err(TtpError::new(
                "data",
                format!("the template raised an error on '{}': {message}", text(&data)),
            ));
        }
        "to_str" => (Value::String(text(&data)), Flag::None),
        "to_list" => (Value::Array(vec![data]), Flag::None),
        "to_int" => match &data {
            Value::String(s) => (to_int(s).unwrap_or(data), Flag::None),
            Value::Number(n) => (
                n.as_f64()
                    .filter(|_| !n.is_i64() && !n.is_u64())
                    .map_or(data.clone(), |f| Value::from(f as i64)),
                Flag::None,
            ),
            Value::Bool(b) => (Value::from(i64::from(*b)), Flag::None),
            _ => (data, Flag::None),
        },
        "to_float" => match &data {
            Value::String(s) => (to_float(s).unwrap_or(data), Flag::None),
            Value::Number(n) => (n.as_f64().map_or(data.clone(), Value::from), Flag::None),
            _ => (data, Flag::None),
        },
        "exclude" => {
            let hit = within(need(call, 0, "pattern")?, &data);
            test(data, !hit)
        }
        "contains" => {
            let hit = call.args.iter().any(|p| within(p, &data));
            test(data, hit)
        }
        "equal" => {
            let hit = py_eq(&data, need(call, 0, "value")?);
            test(data, hit)
        }
        "notequal" => {
            let hit = py_eq(&data, need(call, 0, "value")?);
            test(data, !hit)
        }
        "isdigit" => {
            let ok = is_digit(&text(&data));
            test(data, ok)
        }
        "notdigit" => {
            let ok = is_digit(&text(&data));
            test(data, !ok)
        }
        "greaterthan" | "lessthan" => {
            let (a, b) = (text(&data), need_text(call, 0, "value")?);
            let (a, b) = (a.trim(), b.trim());
            let order = (is_digit(a) && is_digit(b)).then(|| {
                let (x, y) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
                x.len().cmp(&y.len()).then_with(|| x.cmp(y))
            });
            let want = if call.name == "greaterthan" {
                std::cmp::Ordering::Greater
            } else {
                std::cmp::Ordering::Less
            };
            test(data, order == Some(want))
        }
        "sformat" => {
            let template = need_text(call, 0, "string")?;
            let made = format_text(&template, &[&data], &|_| None)?.ok_or_else(|| {
                TtpError::new("argument", format!("sformat: '{template}' names a field there is not"))
            })?;
            (Value::String(ctx.bounded(made, "sformat")?), Flag::None)
        }
        "join" => match &data {
            Value::Array(a) => {
                let sep = need_text(call, 0, "char")?;
                (Value::String(a.iter().map(py_str).collect::<Vec<_>>().join(&sep)), Flag::None)
            }
            _ => (data, Flag::None),
        },
        "append" | "prepend" => {
            let by = text_var(ctx, need(call, 0, "char")?);
            let front = call.name == "prepend";
            match data {
                Value::String(s) => {
                    let joined =
                        if front { format!("{}{s}", text(&by)) } else { format!("{s}{}", text(&by)) };
                    (Value::String(ctx.bounded(joined, &call.name)?), Flag::None)
                }
                Value::Array(mut a) => {
                    a.insert(if front { 0 } else { a.len() }, by);
                    (Value::Array(a), Flag::None)
                }
                other => (other, Flag::None),
            }
        }
        "replaceall" | "resuball" => (replace_all(call, data, ctx)?, Flag::None),
        "resub" => {
            let old = need_text(call, 0, "old")?;
            let new = need_text(call, 1, "new")?;
            let count = call.arg(2, "count").and_then(Value::as_u64).unwrap_or(1) as usize;
            let old = match ctx.vars.get(&old) {
                Some(v) => escape(&py_str(v)),
                None => old,
            };
            let limit = ctx.max_value;
            (Value::String(ctx.search(&old)?.sub(&new, &text(&data), count, limit)?), Flag::None)
        }
        "truncate" => {
            let n = need_int(call, 0, "truncate")?.max(0) as usize;
            let s = text(&data);
            let words: Vec<&str> = s.split(' ').collect();
            if words.len() >= n {
                (Value::String(words[..n].join(" ")), Flag::None)
            } else {
                (data, Flag::None)
            }
        }
        "startswith_re" | "endswith_re" | "contains_re" | "notstartswith_re" | "notendswith_re"
        | "exclude_re" => {
            let p = need_text(call, 0, "pattern")?;
            let p = if call.name.contains("startswith") {
                format!("^{p}")
            } else if call.name.contains("endswith") {
                format!("{p}$")
            } else {
                p
            };
            let hit = ctx.search(&p)?.is_match(&text(&data))?;
            let negative = call.name.starts_with("not") || call.name == "exclude_re";
            test(data, hit != negative)
        }
        "item" => {
            let index = need_int(call, 0, "item_index")?;
            let pick = |len: usize| -> Option<usize> {
                let last = len.checked_sub(1)?;
                Some(if index >= 0 {
                    (index as usize).min(last)
                } else {
                    len.saturating_sub(index.unsigned_abs() as usize)
                })
            };
            match &data {
                Value::Array(a) => {
                    (pick(a.len()).and_then(|i| a.get(i).cloned()).unwrap_or(Value::Null), Flag::None)
                }
                Value::String(s) => {
                    let c: Vec<char> = s.chars().collect();
                    (pick(c.len()).map_or(Value::Null, |i| Value::String(c[i].to_string())), Flag::None)
                }
                _ => (data, Flag::None),
            }
        }
        "unrange" => {
            let (r, j) = (need_text(call, 0, "rangechar")?, need_text(call, 1, "joinchar")?);
            match unrange(&text(&data), &r, &j, ctx.max_value) {
                Some(made) => (Value::String(made?), Flag::None),
                None => (data, Flag::None),
            }
        }
        "uptimeparse" => {
            let format = call.text(0, "format").unwrap_or("seconds").to_owned();
            (uptime(data, &format, ctx)?, Flag::None)
        }
        "mac_eui" => (mac_eui(data), Flag::None),
        "to_cidr" => {
            let bits: Option<u32> =
                text(&data).split('.').map(|p| p.trim().parse::<u64>().ok().map(u64::count_ones)).sum();
            (bits.map_or(data, Value::from), Flag::None)
        }
        "to_ip" | "to_net" => {
            let s = text(&data);
            let made = if call.name == "to_ip" {
                ip::to_ip(&s, version(call))
            } else {
                ip::to_net(&s, version(call))
            };
            let made = made.ok_or_else(|| {
                TtpError::new("data", format!("{}: '{s}' is not an address of that kind", call.name))
            })?;
            ctx.marked = true;
            (ip_object(made), Flag::None)
        }
        "is_ip" => {
            let ok = ip::to_ip(&text(&data), version(call)).is_some();
            test(data, ok)
        }
        "ip_info" => {
            let made = match as_ip(&data) {
                Some(ip) => Some(ip.to_owned()),
                None => ip::to_ip(&text(&data), version(call)),
            };
            (made.and_then(|ip| ip::info(&ip)).unwrap_or(data), Flag::None)
        }
        "cidr_match" => {
            let prefix = text(&text_var(ctx, need(call, 0, "prefix")?));
            let net = ip::to_net(&prefix, None).ok_or_else(|| {
                TtpError::new("argument", format!("cidr_match: '{prefix}' is not a network"))
            })?;
            match as_ip(&data).map(str::to_owned).or_else(|| ip::to_ip(&text(&data), None)) {
                Some(ip) => test(data, ip::overlap(&ip, &net)),
                None => (data, Flag::None),
            }
        }
        "lookup" => {
            let name = call.text(0, "name");
            let template = call.text(1, "template");
            let group = call.text(2, "group");
            let found = lookup_source(name, template, group, ctx, None)
                .and_then(Value::as_object)
                .and_then(|m| data.as_str().and_then(|d| m.get(d)))
                .cloned();
            added(data, found, call.arg(3, "add_field"))
        }
        "rlookup" => {
            let source = lookup_source(Some(&need_text(call, 0, "name")?), None, None, ctx, None).cloned();
            let s = text(&data);
            let found = source
                .as_ref()
                .and_then(Value::as_object)
                .and_then(|m| m.iter().find(|(k, _)| s.contains(k.as_str())));
            let found = found.map(|(_, v)| v.clone()).filter(|v| !v.is_null());
            added(data, found, call.arg(1, "add_field"))
        }
        "gpvlookup" => {
            let source = lookup_source(Some(&need_text(call, 0, "name")?), None, None, ctx, None).cloned();
            let Some(Value::Object(map)) = source else { return Ok((data, Flag::None)) };
            let multi = call.flag(3, "multimatch", false);
            let s = text(&data);
            let mut found = Vec::new();
            for (key, patterns) in &map {
                let patterns: Vec<String> = match patterns {
                    Value::Array(a) => a.iter().map(py_str).collect(),
                    Value::String(p) => p.chars().map(String::from).collect(),
                    _ => Vec::new(),
                };
                for p in patterns {
                    if glob(&p, &s) {
                        found.push(Value::from(key.clone()));
                        if !multi {
                            break;
                        }
                    }
                }
                if !multi && !found.is_empty() {
                    break;
                }
            }
            if let Some(name) = call.arg(2, "record").filter(|v| **v != Value::Bool(false)).map(py_str) {
                ctx.vars.insert(name.clone(), Value::Array(found.clone()));
                ctx.globals.insert(name, Value::Array(found.clone()));
            }
            let found = (!found.is_empty()).then_some(Value::Array(found));
            added(data, found, call.arg(1, "add_field"))
        }
        _ => builtin(call, data, ctx)?,
    })
}

fn version(call: &Call) -> Option<u8> {
    call.args.iter().find_map(|a| match a.as_str() {
        Some("ipv4") => Some(4),
        Some("ipv6") => Some(6),
        _ => None,
    })
}

fn added(data: Value, found: Option<Value>, add_field: Option<&Value>) -> (Value, Flag) {
    match (found, add_field.filter(|v| **v != Value::Bool(false))) {
        (None, _) => (data, Flag::None),
        (Some(v), Some(name)) => field(data, name, v),
        (Some(v), None) => (v, Flag::None),
    }
}

/// Methods of Python's own types: `upper`, `split(".")`, `network`.
fn builtin(call: &Call, data: Value, ctx: &mut Context<'_>) -> Result<(Value, Flag), TtpError> {
    if let Some(ip) = as_ip(&data) {
        return Ok(match ip::attribute(ip, &call.name) {
            Some(Value::Bool(ok)) => test(data, ok),
            Some(v) => (v, Flag::None),
            None => (data, Flag::None),
        });
    }
    if let Value::Array(a) = &data {
        return Ok(match call.name.as_str() {
            "pop" => {
                let i = call.args.first().and_then(Value::as_i64).unwrap_or(-1);
                let at = if i < 0 { a.len() as i64 + i } else { i };
                (a.get(at.max(0) as usize).cloned().unwrap_or(Value::Null), Flag::None)
            }
            "index" => {
                let at = call.args.first().and_then(|v| a.iter().position(|x| py_eq(x, v)));
                (at.map_or(data.clone(), Value::from), Flag::None)
            }
            _ => (data, Flag::None),
        });
    }
    let Value::String(s) = &data else { return Ok((data, Flag::None)) };
    let arg = |i: usize| call.args.get(i).map(py_str);
    let chars = || arg(0).unwrap_or_default();
    let made: Value = match call.name.as_str() {
        "upper" => Value::from(s.to_uppercase()),
        "lower" | "casefold" => Value::from(s.to_lowercase()),
        "title" => {
            let mut out = String::new();
            let mut inside = false;
            for c in s.chars() {
                if inside {
                    out.extend(c.to_lowercase())
                } else {
                    out.extend(c.to_uppercase())
                }
                inside = c.is_alphabetic();
            }
            Value::from(out)
        }
        "capitalize" => {
            let mut it = s.chars();
            let first: String = it.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
            Value::from(first + &it.as_str().to_lowercase())
        }
        "swapcase" => Value::from(
            s.chars()
                .flat_map(|c| {
                    if c.is_uppercase() {
                        c.to_lowercase().collect::<Vec<_>>()
                    } else {
                        c.to_uppercase().collect()
                    }
                })
                .collect::<String>(),
        ),
        "strip" | "lstrip" | "rstrip" => {
            let set = chars();
            let cut = |c: char| if call.args.is_empty() { c.is_whitespace() } else { set.contains(c) };
            Value::from(match call.name.as_str() {
                "strip" => s.trim_matches(cut),
                "lstrip" => s.trim_start_matches(cut),
                _ => s.trim_end_matches(cut),
            })
        }
        "split" | "rsplit" => {
            let max = call.arg(1, "maxsplit").and_then(Value::as_i64).filter(|n| *n >= 0).map(|n| n as usize);
            let parts: Vec<String> = match (call.arg(0, "sep").filter(|v| !v.is_null()).map(py_str), max) {
                (Some(sep), _) if sep.is_empty() => {
                    return Err(TtpError::new("argument", "split needs a separator that is not empty"));
                }
                (Some(sep), None) => s.split(&sep).map(str::to_owned).collect(),
                (Some(sep), Some(n)) if call.name == "split" => {
                    s.splitn(n + 1, &sep).map(str::to_owned).collect()
                }
                (Some(sep), Some(n)) => {
                    let mut v: Vec<String> = s.rsplitn(n + 1, &sep).map(str::to_owned).collect();
                    v.reverse();
                    v
                }
                (None, None) => s.split_whitespace().map(str::to_owned).collect(),
                (None, Some(n)) => {
                    let mut v: Vec<String> = Vec::new();
                    let mut rest = s.trim_start();
                    while !rest.is_empty() && v.len() < n {
                        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                        v.push(rest.get(..end).unwrap_or("").to_owned());
                        rest = rest.get(end..).unwrap_or("").trim_start();
                    }
                    if !rest.is_empty() {
                        v.push(rest.to_owned());
                    }
                    v
                }
            };
            Value::Array(parts.into_iter().map(Value::from).collect())
        }
        "splitlines" => Value::Array(s.lines().map(Value::from).collect()),
        "partition" | "rpartition" => {
            let sep = chars();
            let found = if call.name == "partition" { s.split_once(&sep) } else { s.rsplit_once(&sep) };
            let (a, b, c) = match found {
                Some((a, c)) => (a, sep.as_str(), c),
                None if call.name == "partition" => (s.as_str(), "", ""),
                None => ("", "", s.as_str()),
            };
            Value::Array([a, b, c].into_iter().map(Value::from).collect())
        }
        "replace" => {
            let (old, new) = (need_text(call, 0, "old")?, need_text(call, 1, "new")?);
            let made = match call.arg(2, "count").and_then(Value::as_u64) {
                Some(n) => s.replacen(&old, &new, n as usize),
                None => s.replace(&old, &new),
            };
            Value::from(ctx.bounded(made, "replace")?)
        }
        "removeprefix" => Value::from(s.strip_prefix(&chars()).unwrap_or(s)),
        "removesuffix" => Value::from(s.strip_suffix(&chars()).unwrap_or(s)),
        "startswith" | "endswith" => {
            let options: Vec<String> = match call.args.first() {
                Some(Value::Array(a)) => a.iter().map(py_str).collect(),
                Some(v) => vec![py_str(v)],
                None => return Err(TtpError::new("argument", format!("{} needs a text", call.name))),
            };
            let ok = options
                .iter()
                .any(|o| if call.name == "startswith" { s.starts_with(o) } else { s.ends_with(o) });
            return Ok(test(data, ok));
        }
        "isalpha" | "isalnum" | "isnumeric" | "isdecimal" | "isspace" | "isupper" | "islower" | "isascii"
        | "istitle" | "isidentifier" => {
            let cased = s.chars().any(|c| c.is_lowercase() || c.is_uppercase());
            let ok = match call.name.as_str() {
                "isalpha" => !s.is_empty() && s.chars().all(char::is_alphabetic),
                "isalnum" => !s.is_empty() && s.chars().all(char::is_alphanumeric),
                "isnumeric" | "isdecimal" => !s.is_empty() && s.chars().all(char::is_numeric),
                "isspace" => !s.is_empty() && s.chars().all(char::is_whitespace),
                "isupper" => cased && !s.chars().any(char::is_lowercase),
                "islower" => cased && !s.chars().any(char::is_uppercase),
                "isascii" => s.is_ascii(),
                "istitle" => {
                    cased
                        && s.split(|c: char| !c.is_alphabetic()).all(|w| {
                            let mut it = w.chars();
                            it.next().is_none_or(char::is_uppercase) && !it.any(char::is_uppercase)
                        })
                }
                _ => {
                    s.chars().all(|c| c.is_alphanumeric() || c == '_')
                        && !s.starts_with(|c: char| c.is_numeric())
                }
            };
            return Ok(test(data, ok));
        }
        "zfill" => {
            let width = need_int(call, 0, "width")?.clamp(0, 100_000) as usize;
            let (sign, digits) = match s.strip_prefix(['-', '+']) {
                Some(d) => (s.get(..1).unwrap_or(""), d),
                None => ("", s.as_str()),
            };
            Value::from(format!("{sign}{}", aligned(digits, width.saturating_sub(sign.len()), '0', '>')))
        }
        "center" | "ljust" | "rjust" => {
            let width = need_int(call, 0, "width")?.clamp(0, 100_000) as usize;
            let fill = arg(1).and_then(|f| f.chars().next()).unwrap_or(' ');
            let align = match call.name.as_str() {
                "center" => '^',
                "ljust" => '<',
                _ => '>',
            };
            Value::from(aligned(s, width, fill, align))
        }
        "find" | "index" => {
            let at = s.find(&chars()).and_then(|b| s.get(..b)).map(|p| p.chars().count() as i64);
            match at {
                None if call.name == "index" => {
                    return Err(TtpError::new("data", format!("index: '{}' is not in '{s}'", chars())));
                }
                at => Value::from(at.unwrap_or(-1)),
            }
        }
        "expandtabs" => Value::from(
            s.replace('\t', &" ".repeat(need_int(call, 0, "tabsize").unwrap_or(8).clamp(0, 64) as usize)),
        ),
        "format" => match format_text(s, &call.args.iter().collect::<Vec<_>>(), &|k| {
            call.kwargs.get(k).cloned()
        })? {
            Some(v) => Value::from(v),
            None => {
                return Err(TtpError::new("argument", format!("format: '{s}' names a field there is not")));
            }
        },
        _ => {
            tracing::debug!(function = %call.name, "an unknown match function does nothing");
            return Ok((data, Flag::None));
        }
    };
    Ok((made, Flag::None))
}
