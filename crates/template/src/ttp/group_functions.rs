//! Group functions: tests and changes of a group's whole record before it is saved.

use serde_json::{Map, Value};

use super::changes::{to_float, to_int};
use super::error::TtpError;
use super::functions::{Context, lookup_source};
use super::ip;
use super::literal::Call;
use super::text::format_text;
use super::value::{ip_object, key_of, py_eq, py_str};

const KNOWN: &[&str] = &[
    "contains",
    "contains_val",
    "containsall",
    "del",
    "equal",
    "exclude",
    "exclude_val",
    "excludeall",
    "expand",
    "itemize",
    "items2dict",
    "lookup",
    "record",
    "set",
    "sformat",
    "str_to_unicode",
    "to_int",
    "to_ip",
    "void",
];

/// Refuses what is not a group function, while the template is read.
pub(crate) fn check(call: &Call) -> Result<(), TtpError> {
    match call.name.as_str() {
        "macro" => Err(TtpError::python("<group macro=...>")),
        "validate" | "cerberus" => Err(TtpError::new(
            "unsupported",
            format!(
                "the group function {} needs the Python library Cerberus: use contains, equal or exclude_val",
                call.name
            ),
        )),
        name if KNOWN.contains(&name) => Ok(()),
        other => Err(TtpError::new("function", format!("unknown group attribute or function '{other}'"))),
    }
}

/// What a group function may do beside changing its record.
pub(crate) enum Done {
    /// The record stays.
    Keep,
    /// The record is dropped.
    Drop,
    /// The record is saved as a list item (`itemize`).
    Item,
    /// A value is saved under another path, the record stays.
    ItemAt(Value, String),
}

fn name(call: &Call, index: usize, key: &str) -> Result<String, TtpError> {
    call.arg(index, key).map(py_str).ok_or_else(|| {
        TtpError::new("argument", format!("the group function {} needs its argument '{key}'", call.name))
    })
}

fn drop_if(yes: bool) -> Done {
    if yes { Done::Drop } else { Done::Keep }
}

/// Runs one function on a record. `defaults` are those of the record, `main` the results so far.
pub(crate) fn apply(
    call: &Call,
    record: &mut Value,
    defaults: Option<&Map<String, Value>>,
    ctx: &mut Context<'_>,
    main: &Value,
) -> Result<Done, TtpError> {
    let Value::Object(data) = record else { return Ok(Done::Keep) };
    let names: Vec<String> = call.args.iter().map(py_str).collect();
    let is_default = |k: &String| defaults.is_some_and(|d| d.contains_key(k));
    let same_default = |k: &String, v: &Value| defaults.and_then(|d| d.get(k)).is_some_and(|d| py_eq(d, v));
    let var = |ctx: &Context<'_>, v: &Value| {
        v.as_str().and_then(|s| ctx.vars.get(s)).cloned().unwrap_or_else(|| v.clone())
    };
    let need = |i: usize, key: &str| {
        call.arg(i, key).ok_or_else(|| {
            TtpError::new("argument", format!("the group function {} needs its argument '{key}'", call.name))
        })
    };
    Ok(match call.name.as_str() {
        "void" => Done::Drop,
        "str_to_unicode" => Done::Keep,
        "contains" => match names.iter().find_map(|n| data.get(n).map(|v| (n, v))) {
            Some((n, v)) => drop_if(same_default(n, v)),
            None => Done::Drop,
        },
        "containsall" => drop_if(names.iter().any(|n| data.get(n).is_none_or(|v| same_default(n, v)))),
        "exclude" => drop_if(names.iter().any(|n| data.contains_key(n) && !is_default(n))),
        "excludeall" => drop_if(names.iter().all(|n| data.contains_key(n) && !is_default(n))),
        "contains_val" => {
            let value = var(ctx, need(1, "value")?);
            let have = data.get(&name(call, 0, "key")?).cloned().unwrap_or_else(|| Value::from(""));
            drop_if(!match (&have, &value) {
                (Value::String(h), Value::String(v)) => h.contains(v.as_str()),
                (Value::Array(a), v) => a.iter().any(|x| py_eq(x, v)),
                (Value::Object(m), Value::String(v)) => m.contains_key(v),
                _ => false,
            })
        }
        "equal" => {
            let value = var(ctx, need(1, "value")?);
            drop_if(!data.get(&name(call, 0, "key")?).is_some_and(|v| py_eq(v, &value)))
        }
        "exclude_val" => {
            let value = var(ctx, need(1, "value")?);
            drop_if(data.get(&name(call, 0, "key")?).is_some_and(|v| py_eq(v, &value)))
        }
        "del" => {
            for n in &names {
                data.shift_remove(n);
            }
            Done::Keep
        }
        "expand" => {
            let mut out = Map::new();
            for (key, v) in std::mem::take(data) {
                let mut at = &mut out;
                let mut steps = key.split('.').peekable();
                while let Some(step) = steps.next() {
                    if steps.peek().is_none() {
                        at.insert(step.to_owned(), v);
                        break;
                    }
                    match at.entry(step.to_owned()).or_insert_with(|| Value::Object(Map::new())) {
                        Value::Object(m) => at = m,
                        _ => break,
                    }
                }
            }
            *data = out;
            Done::Keep
        }
        "itemize" => {
            let key = name(call, 0, "key")?;
            let path = call.text(1, "path").unwrap_or("").to_owned();
            match data.get(&key).cloned() {
                None => Done::Drop,
                Some(v) if path.is_empty() => {
                    *record = v;
                    Done::Item
                }
                Some(v) => Done::ItemAt(v, path),
            }
        }
        "items2dict" => {
            let (k, v) = (name(call, 0, "key_name")?, name(call, 1, "value_name")?);
            if !data.contains_key(&k) || !data.contains_key(&v) {
                return Ok(Done::Drop);
            }
            if let (Some(value), Some(key)) = (data.shift_remove(&v), data.shift_remove(&k)) {
                data.insert(py_str(&key), value);
            }
            Done::Keep
        }
        "lookup" => {
            let key = name(call, 0, "key")?;
            let text = |i, k| call.arg(i, k).filter(|v| super::literal::truthy(v)).and_then(Value::as_str);
            let source =
                lookup_source(text(1, "name"), text(2, "template"), text(3, "group"), ctx, Some(main));
            let found = match (source, data.get(&key)) {
                (Some(Value::Object(m)), Some(v)) => m.get(&key_of(v)).cloned(),
                _ => None,
            };
            let Some(found) = found else { return Ok(Done::Keep) };
            if let Some(field) = call.arg(4, "add_field").filter(|v| super::literal::truthy(v)) {
                data.insert(py_str(field), found);
            } else if let (true, Value::Object(m)) = (call.flag(6, "update", false), &found) {
                data.extend(m.clone());
            } else if call.flag(5, "replace", true) {
                data.insert(key, found);
            }
            Done::Keep
        }
        "record" => {
            let source = name(call, 0, "source")?;
            if let Some(v) = data.get(&source) {
                let target = call.text(1, "target").unwrap_or(&source).to_owned();
                ctx.vars.insert(target.clone(), v.clone());
                ctx.globals.insert(target, v.clone());
            }
            Done::Keep
        }
        "set" => {
            let source = need(0, "source")?;
            let known = source.as_str().and_then(|s| ctx.vars.get(s).or_else(|| ctx.globals.get(s)));
            let v = known.or_else(|| call.arg(2, "default")).unwrap_or(source).clone();
            let target = call.arg(1, "target").unwrap_or(source);
            data.insert(py_str(target), v);
            Done::Keep
        }
        "sformat" => {
            let template = name(call, 0, "string")?;
            let field = name(call, 1, "add_field")?;
            let get =
                |k: &str| data.get(k).or_else(|| ctx.vars.get(k)).or_else(|| ctx.globals.get(k)).cloned();
            if let Some(made) = format_text(&template, &[], &get)? {
                data.insert(field, Value::from(made));
            }
            Done::Keep
        }
        "to_int" => {
            let keys: Vec<String> = if names.is_empty() { data.keys().cloned().collect() } else { names };
            let number = |v: &Value| match v {
                Value::String(s) => to_int(s).or_else(|| to_float(s)),
                Value::Bool(b) => Some(Value::from(i64::from(*b))),
                Value::Number(n) if n.is_f64() => n.as_f64().map(|f| Value::from(f as i64)),
                _ => None,
            };
            let lists = call.kwargs.get("intlist").is_some_and(|v| *v == Value::Bool(true));
            for k in keys {
                let Some(v) = data.get_mut(&k) else { continue };
                if let Some(n) = number(v) {
                    *v = n;
                } else if let (true, Value::Array(a)) = (lists, &mut *v) {
                    for x in a.iter_mut() {
                        if let Some(n) = number(x) {
                            *x = n;
                        }
                    }
                }
            }
            Done::Keep
        }
        "to_ip" => {
            let (ip_key, mask_key) = (name(call, 0, "ip_key")?, name(call, 1, "mask_key")?);
            if let (Some(a), Some(m)) = (data.get(&ip_key), data.get(&mask_key))
                && let Some(made) = ip::to_ip(&format!("{}/{}", py_str(a), py_str(m)), None)
            {
                data.insert(ip_key, ip_object(made));
            }
            Done::Keep
        }
        _ => Done::Keep,
    })
}
