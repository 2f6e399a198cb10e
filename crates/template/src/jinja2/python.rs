//! Filters and tests that take what Python's take (arguments by place or by name) and write what
//! Python writes (`repr`, JSON with sorted keys).

use std::fmt::Write as _;

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::guard::charge;

/// Adds them.
pub fn add(environment: &mut Environment<'static>) {
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", string);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter("first", first);
    environment.add_filter("last", last);
    environment.add_filter("list", list);
    environment.add_filter("round", round);
    environment.add_filter("urlencode", urlencode);
    environment.add_filter("wordcount", wordcount);
    environment.add_filter("sort", |s: &State<'_, '_>, v: Value, args: Rest<Value>, named: Kwargs| {
        charge(v.len().unwrap_or(0) * 4)?;
        minijinja::filters::sort(s, v, by_name(&args, named, &["reverse", "case_sensitive", "attribute"])?)
    });
    environment.add_filter("unique", |s: &State<'_, '_>, v: Value, args: Rest<Value>, named: Kwargs| {
        charge(v.len().unwrap_or(0) * 4)?;
        minijinja::filters::unique(s, v, by_name(&args, named, &["case_sensitive", "attribute"])?)
    });
    environment.add_filter("dictsort", |v: Value, args: Rest<Value>, named: Kwargs| {
        charge(v.len().unwrap_or(0) * 4)?;
        minijinja::filters::dictsort(&v, by_name(&args, named, &["case_sensitive", "by", "reverse"])?)
    });
    environment.add_filter("wordwrap", |v: Value, args: Rest<Value>, named: Kwargs| {
        let names = ["width", "break_long_words", "wrapstring", "break_on_hyphens"];
        minijinja_contrib::filters::wordwrap(&v, by_name(&args, named, &names)?)
    });
    environment.add_test("iterable", |v: Value| v.is_undefined() || !v.is_none() && v.try_iter().is_ok());
    environment.add_test("sequence", |v: Value| {
        matches!(v.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Undefined)
    });
    environment.add_test("lower", |v: Value| cased(&v, char::is_lowercase, char::is_uppercase));
    environment.add_test("upper", |v: Value| cased(&v, char::is_uppercase, char::is_lowercase));
    environment.add_test("filter", |s: &State<'_, '_>, v: Value| {
        v.as_str().is_some_and(|name| minijinja::tests::is_filter(s, name))
    });
    environment.add_test("test", |s: &State<'_, '_>, v: Value| {
        v.as_str().is_some_and(|name| minijinja::tests::is_test(s, name))
    });
}

/// Arguments by place become arguments by name.
fn by_name(args: &[Value], named: Kwargs, names: &[&str]) -> Result<Kwargs, Error> {
    if args.is_empty() {
        return Ok(named);
    }
    if args.len() > names.len() {
        return Err(Error::new(ErrorKind::TooManyArguments, "too many arguments"));
    }
    let mut all: Vec<(String, Value)> =
        names.iter().zip(args).map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    for name in named.args() {
        if all.iter().any(|(n, _)| n == name) {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("got multiple values for argument '{name}'"),
            ));
        }
        all.push((name.to_owned(), named.peek(name)?));
    }
    Ok(all.into_iter().collect())
}

fn cased(v: &Value, own: fn(char) -> bool, other: fn(char) -> bool) -> bool {
    let text = text(v);
    text.chars().any(own) && !text.chars().any(other)
}

/// `repr()` of a float.
pub fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf".into() } else { "-inf".into() };
    }
    if number != 0.0 && !(1e-4..1e16).contains(&number.abs()) {
        let text = format!("{number:e}");
        if let Some((mantissa, exponent)) = text.split_once('e') {
            let (sign, digits) = match exponent.strip_prefix('-') {
                Some(digits) => ('-', digits),
                None => ('+', exponent),
            };
            return format!("{mantissa}e{sign}{digits:0>2}");
        }
    }
    format!("{number:?}")
}

fn as_float(v: &Value) -> Option<f64> {
    (v.kind() == ValueKind::Number && !v.is_integer()).then(|| f64::try_from(v.clone()).ok())?
}

/// `str()` of a value.
pub fn text(v: &Value) -> String {
    match v.kind() {
        ValueKind::Number => as_float(v).map_or_else(|| v.to_string(), float),
        ValueKind::Seq | ValueKind::Map => {
            let plain = v.to_string();
            // Only these are written otherwise.
            let digits = |at: usize| plain[..at].ends_with(|c: char| c.is_ascii_digit());
            let odd = plain.contains("undefined")
                || plain.match_indices('e').any(|(at, _)| digits(at))
                || plain.match_indices(".0").any(|(at, _)| digits(at));
            if !odd {
                return plain;
            }
            let mut out = String::with_capacity(plain.len());
            repr(v, &mut out);
            out
        }
        _ => v.to_string(),
    }
}

/// Adds `repr()` of a value.
pub fn repr(v: &Value, out: &mut String) {
    match v.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::String => crate::python::repr(v.as_str().unwrap_or_default(), out),
        ValueKind::Seq => {
            let tuple = v.to_string().starts_with('(');
            out.push(if tuple { '(' } else { '[' });
            let mut count = 0;
            for item in v.try_iter().into_iter().flatten() {
                if count > 0 {
                    out.push_str(", ");
                }
                repr(&item, out);
                count += 1;
            }
            if tuple && count == 1 {
                out.push(',');
            }
            out.push(if tuple { ')' } else { ']' });
        }
        ValueKind::Map => {
            out.push('{');
            for (i, key) in v.try_iter().into_iter().flatten().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                repr(&key, out);
                out.push_str(": ");
                repr(&v.get_item(&key).unwrap_or_default(), out);
            }
            out.push('}');
        }
        _ => out.push_str(&text(v)),
    }
}

fn string(v: Value) -> Value {
    if v.as_str().is_some() { v } else { Value::from(text(&v)) }
}

/// `tojson(indent=None)`: keys are sorted, letters beyond ASCII escaped, and what HTML minds.
fn tojson(v: Value, indent: Option<usize>, named: Kwargs) -> Result<Value, Error> {
    let indent = indent.or(named.get("indent")?);
    named.assert_all_used()?;
    let mut out = String::new();
    json(&v, indent.map(|n| n.min(64)), 0, &mut out)?;
    Ok(Value::from_safe_string(out))
}

fn json(v: &Value, indent: Option<usize>, level: usize, out: &mut String) -> Result<(), Error> {
    charge(1)?;
    let line = |level: usize, out: &mut String| {
        if let Some(width) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', width * level));
        }
    };
    let comma = if indent.is_some() { "," } else { ", " };
    match v.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if v.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&text(v)),
        ValueKind::String => json_text(v.as_str().unwrap_or_default(), out),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            let mut count = 0;
            for item in v.try_iter()? {
                if count > 0 {
                    out.push_str(comma);
                }
                line(level + 1, out);
                json(&item, indent, level + 1, out)?;
                count += 1;
            }
            if count > 0 {
                line(level, out);
            }
            out.push(']');
        }
        ValueKind::Map => {
            let mut keys: Vec<(String, Value)> = Vec::new();
            for key in v.try_iter()? {
                let name = match key.kind() {
                    ValueKind::None => "null".to_owned(),
                    ValueKind::Bool => key.to_string().to_lowercase(),
                    _ => text(&key),
                };
                keys.push((name, key));
            }
            keys.sort_by(|a, b| a.0.cmp(&b.0));
            out.push('{');
            let some = !keys.is_empty();
            for (i, (name, key)) in keys.into_iter().enumerate() {
                if i > 0 {
                    out.push_str(comma);
                }
                line(level + 1, out);
                json_text(&name, out);
                out.push_str(": ");
                json(&v.get_item(&key)?, indent, level + 1, out)?;
            }
            if some {
                line(level, out);
            }
            out.push('}');
        }
        kind => {
            return Err(Error::new(
                ErrorKind::BadSerialization,
                format!("a value of type {kind} is not JSON serializable"),
            ));
        }
    }
    Ok(())
}

fn json_text(s: &str, out: &mut String) {
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' if !matches!(c, '<' | '>' | '&' | '\'') => out.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

/// `default(default_value='', boolean=False)`.
fn default(v: Value, by: Option<Value>, boolean: Option<bool>, named: Kwargs) -> Result<Value, Error> {
    let by = by.or(named.get("default_value")?).unwrap_or_else(|| Value::from(""));
    let boolean = boolean.or(named.get("boolean")?).unwrap_or(false);
    named.assert_all_used()?;
    Ok(if v.is_undefined() || boolean && !v.is_true() { by } else { v })
}

fn length(v: Value) -> Result<usize, Error> {
    if v.is_undefined() { Ok(0) } else { minijinja::filters::length(&v) }
}

fn first(v: Value) -> Result<Value, Error> {
    match v.kind() {
        ValueKind::Undefined => Ok(v),
        _ => minijinja::filters::first(&v),
    }
}

fn last(v: Value) -> Result<Value, Error> {
    match v.kind() {
        ValueKind::Map => Ok(v.try_iter()?.last().unwrap_or_default()),
        ValueKind::Undefined => Ok(v),
        _ => minijinja::filters::last(v),
    }
}

fn list(state: &State<'_, '_>, v: Value) -> Result<Value, Error> {
    charge(v.len().unwrap_or(0))?;
    minijinja::filters::list(state, v)
}

/// `round(precision=0, method='common')`: half to even, and a float whenever a method is named.
fn round(v: Value, precision: Option<i32>, method: Option<&str>, named: Kwargs) -> Result<Value, Error> {
    let way = match method {
        Some(method) => method.to_owned(),
        None => named.get::<Option<String>>("method")?.unwrap_or_else(|| "common".into()),
    };
    if way == "ceil" || way == "floor" {
        let precision = precision.or(named.get("precision")?).unwrap_or(0);
        named.assert_all_used()?;
        let number =
            if v.kind() == ValueKind::Bool { f64::from(u8::from(v.is_true())) } else { f64::try_from(v)? };
        let scale = 10f64.powi(precision.clamp(-300, 300));
        let scaled = number * scale;
        let made = if way == "ceil" { scaled.ceil() } else { scaled.floor() };
        return Ok(Value::from(made / scale));
    }
    let v = if v.kind() == ValueKind::Bool { Value::from(i64::from(v.is_true())) } else { v };
    minijinja::filters::round(v, precision, method, named)
}

fn urlencode(v: Value) -> Result<Value, Error> {
    if v.kind() == ValueKind::Seq && v.len() == Some(0) {
        return Ok(Value::from(""));
    }
    if v.is_none() { Ok(Value::from("None")) } else { Ok(Value::from(minijinja::filters::urlencode(&v)?)) }
}

/// Runs of letters, digits and underscores.
fn wordcount(v: Value) -> usize {
    let text = text(&v);
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count()
}
