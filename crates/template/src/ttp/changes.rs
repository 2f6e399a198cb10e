//! Functions that make one value of another: replacing, ranges, uptimes, addresses, numbers.

use serde_json::Value;

use super::error::TtpError;
use super::functions::{Context, is_digit};
use super::literal::Call;
use super::regex::escape;
use super::value::py_str;

/// Replaces by the rules of `replaceall` and `resuball`: a variable may list what to replace.
pub(crate) fn replace_all(call: &Call, data: Value, ctx: &mut Context<'_>) -> Result<Value, TtpError> {
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

pub(crate) fn unrange(data: &str, range: &str, join: &str, max: usize) -> Option<Result<String, TtpError>> {
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

pub(crate) fn uptime(data: Value, format: &str, ctx: &mut Context<'_>) -> Result<Value, TtpError> {
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

pub(crate) fn mac_eui(data: Value) -> Value {
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
