//! Methods of Python's own types, which a variable may call as functions: `upper`, `split(".")`,
//! `network`.

use serde_json::Value;

use super::error::TtpError;
use super::functions::{Context, Flag, need_int, need_text, test};
use super::ip;
use super::literal::Call;
use super::text::{aligned, format_text};
use super::value::{as_ip, py_eq, py_str};

/// The methods and attributes that [`builtin`] runs.
pub(crate) const METHODS: &[&str] = &[
    "capitalize",
    "casefold",
    "center",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isidentifier",
    "islower",
    "isnumeric",
    "isspace",
    "istitle",
    "isupper",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "pop",
    "isprintable",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill", // addresses
    "broadcast_address",
    "compressed",
    "exploded",
    "hostmask",
    "ip",
    "is_global",
    "is_link_local",
    "is_loopback",
    "is_multicast",
    "is_private",
    "is_reserved",
    "is_unspecified",
    "max_prefixlen",
    "netmask",
    "network",
    "network_address",
    "num_addresses",
    "prefixlen",
    "reverse_pointer",
    "version",
    "with_hostmask",
    "with_netmask",
    "with_prefixlen",
];

/// Methods of Python's own types: `upper`, `split(".")`, `network`.
pub(crate) fn builtin(call: &Call, data: Value, ctx: &mut Context<'_>) -> Result<(Value, Flag), TtpError> {
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
    let mut data = data;
    let Value::String(s) = &mut data else { return Ok((data, Flag::None)) };
    if call.name == "strip" && call.args.is_empty() {
        // What every column of a table of headers runs.
        s.truncate(s.trim_end().len());
        let blanks = s.len() - s.trim_start().len();
        s.drain(..blanks);
        return Ok((data, Flag::None));
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
        | "istitle" | "isidentifier" | "isprintable" => {
            let cased = s.chars().any(|c| c.is_lowercase() || c.is_uppercase());
            let ok = match call.name.as_str() {
                "isalpha" => !s.is_empty() && s.chars().all(char::is_alphabetic),
                "isalnum" => !s.is_empty() && s.chars().all(char::is_alphanumeric),
                "isnumeric" | "isdecimal" => !s.is_empty() && s.chars().all(char::is_numeric),
                "isspace" => !s.is_empty() && s.chars().all(char::is_whitespace),
                "isupper" => cased && !s.chars().any(char::is_lowercase),
                "islower" => cased && !s.chars().any(char::is_uppercase),
                "isascii" => s.is_ascii(),
                "isprintable" => !s.chars().any(|c| c.is_control() || c.is_whitespace() && c != ' '),
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
            match call.name.as_str() {
                // The odd one goes to the left where the width is odd.
                "center" => {
                    let gap = width.saturating_sub(s.chars().count());
                    let left = gap / 2 + (gap & width & 1);
                    Value::from(aligned(
                        &aligned(s, width - (gap - left).min(width), fill, '>'),
                        width,
                        fill,
                        '<',
                    ))
                }
                "ljust" => Value::from(aligned(s, width, fill, '<')),
                _ => Value::from(aligned(s, width, fill, '>')),
            }
        }
        "find" | "index" | "rfind" | "rindex" => {
            let last = call.name.starts_with('r');
            let at = if last { s.rfind(&chars()) } else { s.find(&chars()) };
            match at.and_then(|b| s.get(..b)).map(|p| p.chars().count() as i64) {
                None if call.name.ends_with("index") => {
                    return Err(TtpError::new(
                        "data",
                        format!("{}: '{}' is not in '{s}'", call.name, chars()),
                    ));
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
            // As the reference does; the compiler of the line has warned.
            return Ok((data, Flag::None));
        }
    };
    Ok((made, Flag::None))
}
