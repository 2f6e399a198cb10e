//! Values as Python shows them: keys, `str()`, `repr()`, truthful comparison.
//!
//! Results are `serde_json::Value`. Two things Python has and JSON lacks are marked with a leading
//! NUL until results leave the engine: an address object (`{"\0ip": text}`) and a key that is not
//! text (`"\0" + key`).

use serde_json::{Map, Value};

pub(crate) const IP: &str = "\0ip";

thread_local! {
    /// Whether a mark was made on this thread since it was last asked.
    static MARKED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Whether a mark was made since the last call: only then must results be settled.
pub(crate) fn were_marked() -> bool {
    MARKED.replace(false)
}

/// The map key for a literal key; keys that are not text are marked.
pub(crate) fn key_of(v: &Value) -> String {
    match v {
        Value::String(s) => s.clone(),
        other => {
            MARKED.set(true);
            format!("\0{}", py_str(other))
        }
    }
}

/// Makes an address object.
pub(crate) fn ip_object(text: String) -> Value {
    MARKED.set(true);
    let mut m = Map::new();
    m.insert(IP.to_owned(), Value::String(text));
    Value::Object(m)
}

/// The text of an address object.
pub(crate) fn as_ip(v: &Value) -> Option<&str> {
    match v {
        Value::Object(m) if m.len() == 1 => m.get(IP).and_then(Value::as_str),
        _ => None,
    }
}

/// `str(v)`.
pub(crate) fn py_str(v: &Value) -> String {
    match v {
        Value::String(s) => s.clone(),
        other => py_repr(other),
    }
}

/// `repr(v)`.
pub(crate) fn py_repr(v: &Value) -> String {
    let mut out = String::new();
    repr_into(v, &mut out);
    out
}

fn float(f: f64) -> String {
    if f.is_finite() && f == f.trunc() && f.abs() < 1e16 { format!("{f:.1}") } else { format!("{f}") }
}

pub(crate) fn repr_str(s: &str, out: &mut String) {
    let quote = if s.contains('\'') && !s.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in s.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 || (c as u32) == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push(quote);
}

pub(crate) fn key_text(k: &str) -> &str {
    k.strip_prefix('\0').unwrap_or(k)
}

fn repr_into(v: &Value, out: &mut String) {
    match v {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(i), _, _) => out.push_str(&i.to_string()),
            (_, Some(u), _) => out.push_str(&u.to_string()),
            (_, _, Some(f)) => out.push_str(&float(f)),
            _ => out.push_str(&n.to_string()),
        },
        Value::String(s) => repr_str(s, out),
        Value::Array(a) => {
            out.push('[');
            for (i, x) in a.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                repr_into(x, out);
            }
            out.push(']');
        }
        Value::Object(m) => {
            if let Some(ip) = as_ip(v) {
                out.push_str(ip);
                return;
            }
            out.push('{');
            for (i, (k, x)) in m.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                match k.strip_prefix('\0') {
                    Some(k) => out.push_str(k),
                    None => repr_str(k, out),
                }
                out.push_str(": ");
                repr_into(x, out);
            }
            out.push('}');
        }
    }
}

/// Replaces the NUL marks by what JSON can say.
pub(crate) fn settle(v: &mut Value) {
    if let Value::Object(m) = &*v
        && m.len() == 1
        && m.keys().all(|k| k == IP)
        && let Some(ip) = as_ip(v)
    {
        *v = Value::String(ip.to_owned());
        return;
    }
    match v {
        Value::Array(a) => a.iter_mut().for_each(settle),
        Value::Object(m) => {
            if m.keys().any(|k| k.starts_with('\0')) {
                *m = std::mem::take(m).into_iter().map(|(k, v)| (key_text(&k).to_owned(), v)).collect();
            }
            m.values_mut().for_each(settle);
        }
        _ => {}
    }
}

/// `a == b` of Python: `1 == 1.0`, `True == 1`, maps without order.
pub(crate) fn py_eq(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Bool(x), Value::Number(n)) | (Value::Number(n), Value::Bool(x)) => {
            n.as_f64() == Some(f64::from(*x))
        }
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| py_eq(a, b)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| py_eq(v, w)))
        }
        _ => a == b,
    }
}
