//! Match variable functions: what stands behind the pipes of `{{ name | upper | to_int }}`.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::changes::{mac_eui, replace_all, to_float, to_int, unrange, uptime};
use super::error::TtpError;
use super::ip;
use super::literal::Call;
use super::methods::{METHODS, builtin};
use super::regex::{Search, Searches, escape};
use super::text::{format_text, glob};
use super::value::{as_ip, ip_object, key_of, py_eq, py_str};

/// Every match function of TTP that [`apply`] runs; beside them come the methods of Python's text.
const KNOWN: &[&str] = &[
    "append",
    "cidr_match",
    "contains",
    "contains_re",
    "copy",
    "count",
    "endswith_re",
    "equal",
    "exclude",
    "exclude_re",
    "gpvlookup",
    "greaterthan",
    "ip_info",
    "is_ip",
    "isdigit",
    "item",
    "join",
    "joinmatches",
    "lessthan",
    "let",
    "lookup",
    "mac_eui",
    "notdigit",
    "notendswith_re",
    "notequal",
    "notstartswith_re",
    "prepend",
    "print",
    "raise",
    "record",
    "replaceall",
    "resub",
    "resuball",
    "rlookup",
    "set",
    "sformat",
    "startswith_re",
    "to_cidr",
    "to_float",
    "to_int",
    "to_ip",
    "to_list",
    "to_net",
    "to_str",
    "to_unicode",
    "truncate",
    "unrange",
    "uptimeparse",
    "void",
];

/// For a name that is neither a match function nor a method of Python's text: the functions that
/// may have been meant. The reference passes over such a name with a line in its log.
pub(crate) fn unknown(name: &str) -> Option<Vec<&'static str>> {
    if KNOWN.contains(&name) || METHODS.contains(&name) {
        return None;
    }
    let near = |known: &&&str| distance(name, known) <= 1 + name.len() / 4;
    Some(KNOWN.iter().chain(METHODS).filter(near).copied().take(5).collect())
}

/// How many letters must be changed, added or taken away to make one word the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().take(64).enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

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
    /// Largest value in bytes.
    pub max_value: usize,
    pub searches: &'a Searches,
}

impl Context<'_> {
    /// A compiled search, kept with the template.
    pub fn search(&self, pattern: &str) -> Result<Arc<Search>, TtpError> {
        self.searches.get(pattern)
    }

    pub fn bounded(&self, s: String, name: &str) -> Result<String, TtpError> {
        if s.len() > self.max_value {
            return Err(TtpError::limit(format_args!(
                "{name} made a value of {} bytes, more than allowed",
                s.len()
            )));
        }
        Ok(s)
    }
}

pub(crate) fn need<'c>(call: &'c Call, index: usize, name: &str) -> Result<&'c Value, TtpError> {
    call.arg(index, name).ok_or_else(|| {
        TtpError::new("argument", format!("the function {} needs its argument '{name}'", call.name))
    })
}

pub(crate) fn need_text(call: &Call, index: usize, name: &str) -> Result<String, TtpError> {
    need(call, index, name).map(py_str)
}

pub(crate) fn need_int(call: &Call, index: usize, name: &str) -> Result<i64, TtpError> {
    let v = need(call, index, name)?;
    v.as_i64().or_else(|| py_str(v).trim().parse().ok()).ok_or_else(|| {
        TtpError::new("argument", format!("the function {} needs a number as '{name}'", call.name))
    })
}

pub(crate) fn test(data: Value, ok: bool) -> (Value, Flag) {
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

fn text_var(ctx: &Context<'_>, v: &Value) -> Value {
    v.as_str().and_then(|s| ctx.vars.get(s)).cloned().unwrap_or_else(|| v.clone())
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
                .and_then(|m| m.get(&key_of(&data)))
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
