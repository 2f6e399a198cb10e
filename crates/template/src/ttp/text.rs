//! Texts by pattern and format: shell globs, `str.format`, padding.

use serde_json::Value;

use super::error::TtpError;
use super::value::py_str;

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

pub(crate) fn aligned(text: &str, width: usize, fill: char, align: char) -> String {
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
