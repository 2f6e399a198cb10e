//! Formatters of outputs: json, yaml, pprint, csv, tabulate, and the difference of two structures.

use serde_json::{Map, Value};

use super::error::TtpError;
use super::literal::Call;
use super::value::{py_eq, py_repr, py_str};

fn sorted(v: &Value) -> Value {
    match v {
        Value::Object(m) => {
            let mut keys: Vec<&String> = m.keys().collect();
            keys.sort();
            Value::Object(keys.into_iter().filter_map(|k| m.get(k).map(|v| (k.clone(), sorted(v)))).collect())
        }
        Value::Array(a) => Value::Array(a.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// `json.dumps(sort_keys=True, indent=4)`; letters beyond ASCII are escaped as Python does.
pub(crate) fn json(v: &Value) -> Result<String, TtpError> {
    let mut out = Vec::new();
    let mut ser = serde_json::Serializer::with_formatter(
        &mut out,
        serde_json::ser::PrettyFormatter::with_indent(b"    "),
    );
    serde::Serialize::serialize(&sorted(v), &mut ser).map_err(|e| TtpError::new("data", e.to_string()))?;
    let text = String::from_utf8_lossy(&out);
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            escaped.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    Ok(escaped)
}

/// `yaml.dump(default_flow_style=False)`.
pub(crate) fn yaml(v: &Value) -> String {
    let mut out = String::new();
    yaml_node(&sorted(v), 0, &mut out);
    if !matches!(v, Value::Array(a) if !a.is_empty()) && !matches!(v, Value::Object(m) if !m.is_empty()) {
        out.push('\n');
        if !matches!(v, Value::Array(_) | Value::Object(_)) {
            out.push_str("...\n");
        }
    }
    out
}

fn yaml_node(v: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match v {
        Value::Object(m) if !m.is_empty() => {
            for (i, (k, x)) in m.iter().enumerate() {
                if i > 0 {
                    out.push_str(&pad);
                }
                out.push_str(&yaml_scalar(k, indent));
                out.push(':');
                match x {
                    Value::Object(o) if !o.is_empty() => {
                        out.push('\n');
                        out.push_str(&" ".repeat(indent + 2));
                        yaml_node(x, indent + 2, out);
                    }
                    Value::Array(a) if !a.is_empty() => {
                        out.push('\n');
                        out.push_str(&pad);
                        yaml_node(x, indent, out);
                    }
                    _ => {
                        out.push(' ');
                        yaml_node(x, indent + 2, out);
                        out.push('\n');
                    }
                }
            }
        }
        Value::Array(a) if !a.is_empty() => {
            for (i, x) in a.iter().enumerate() {
                if i > 0 {
                    out.push_str(&pad);
                }
                out.push_str("- ");
                yaml_node(x, indent + 2, out);
                if !matches!(x, Value::Object(o) if !o.is_empty())
                    && !matches!(x, Value::Array(b) if !b.is_empty())
                {
                    out.push('\n');
                }
            }
        }
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(_) => out.push_str(&py_repr(v)),
        Value::String(s) => out.push_str(&yaml_scalar(s, indent)),
    }
}

/// A text as YAML: plain where it reads back as text, else quoted as PyYAML quotes.
fn yaml_scalar(s: &str, indent: usize) -> String {
    let special = s.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{feff}');
    if special {
        return serde_json::to_string(s).unwrap_or_else(|_| py_repr(&Value::from(s)));
    }
    let reads_as_text =
        matches!(yaml_serde::from_str::<yaml_serde::Value>(s), Ok(yaml_serde::Value::String(t)) if t == s);
    let old_bool =
        matches!(s.to_ascii_lowercase().as_str(), "yes" | "no" | "on" | "off" | "y" | "n" | "=" | "<<")
            && s != "y"
            && s != "n"
            && s != "Y"
            && s != "N";
    let bytes = s.as_bytes();
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit() || b == b'_' || b == b',');
    // YAML 1.1 reads these as numbers or times: 0o17 as 017, 1:30, 2020-01-01.
    let looks_number = bytes.first().is_some_and(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.'))
        && (digits(s)
            || s.split(':').count() > 1
                && s.trim_start_matches(['-', '+']).split(':').all(|p| digits(p) && p.len() <= 2)
            || s.len() == 10 && s.split('-').map(str::len).eq([4, 2, 2]) && s.split('-').all(digits));
    let plain = reads_as_text
        && !old_bool
        && !looks_number
        && !s.contains('\n')
        && !s.starts_with(|c: char| "!&*|>'\"%@`#,[]{}".contains(c))
        && !s.starts_with("- ")
        && !s.starts_with("---")
        && !s.starts_with("...")
        && s != "-"
        && s != "?"
        && !s.contains(": ")
        && !s.contains(" #")
        && !s.ends_with(':')
        && s.trim() == s;
    if plain {
        return s.to_owned();
    }
    let mut out = String::from("'");
    for c in s.chars() {
        match c {
            '\'' => out.push_str("''"),
            '\n' => {
                out.push_str("\n\n");
                out.push_str(&" ".repeat(indent));
            }
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

/// `pprint.pformat(indent=4)`.
pub(crate) fn pprint(v: &Value) -> String {
    let mut out = String::new();
    pretty(&sorted(v), 0, 0, &mut out);
    out
}

fn pretty(v: &Value, indent: usize, allowance: usize, out: &mut String) {
    let flat = py_repr(v);
    let fits = flat.chars().count() + indent + allowance <= 80;
    match v {
        Value::Object(m) if !fits && !m.is_empty() => {
            out.push_str("{   ");
            let last = m.len() - 1;
            for (i, (k, x)) in m.iter().enumerate() {
                if i > 0 {
                    out.push_str(",\n");
                    out.push_str(&" ".repeat(indent + 4));
                }
                let key = py_repr(&Value::from(k.clone()));
                out.push_str(&key);
                out.push_str(": ");
                pretty(
                    x,
                    indent + 4 + key.chars().count() + 2,
                    if i == last { allowance + 1 } else { 1 },
                    out,
                );
            }
            out.push('}');
        }
        Value::Array(a) if !fits && !a.is_empty() => {
            out.push_str("[   ");
            let last = a.len() - 1;
            for (i, x) in a.iter().enumerate() {
                if i > 0 {
                    out.push_str(",\n");
                    out.push_str(&" ".repeat(indent + 4));
                }
                pretty(x, indent + 4, if i == last { allowance + 1 } else { 1 }, out);
            }
            out.push(']');
        }
        _ => out.push_str(&flat),
    }
}

/// Rows joined as the csv formatter does: every cell quoted, inner quotes left as they are.
pub(crate) fn csv(rows: &[Vec<Value>], sep: &str, quote: &str) -> String {
    let sep = format!("{quote}{sep}{quote}");
    let lines: Vec<String> = rows
        .iter()
        .map(|r| format!("{quote}{}{quote}", r.iter().map(py_str).collect::<Vec<_>>().join(&sep)))
        .collect();
    lines.join("\n")
}

/// Line pieces of a table style: begin, fill, separator, end; None draws no line.
type Rule = Option<(&'static str, &'static str, &'static str, &'static str)>;

struct Style {
    above: Rule,
    below_header: Rule,
    between: Rule,
    below: Rule,
    row: (&'static str, &'static str, &'static str),
    padding: usize,
}

fn style(name: &str) -> Option<Style> {
    let grid = |l, m, r| Some((l, m, l, r));
    let s = |above, below_header, between, below, row, padding| Style {
        above,
        below_header,
        between,
        below,
        row,
        padding,
    };
    Some(match name {
        "plain" => s(None, None, None, None, ("", "  ", ""), 0),
        "simple" => s(None, Some(("", "-", "  ", "")), None, None, ("", "  ", ""), 0),
        "grid" => s(
            grid("+", "-", "+"),
            grid("+", "=", "+"),
            grid("+", "-", "+"),
            grid("+", "-", "+"),
            ("|", "|", "|"),
            1,
        ),
        "fancy_grid" => s(
            Some(("╒", "═", "╤", "╕")),
            Some(("╞", "═", "╪", "╡")),
            Some(("├", "─", "┼", "┤")),
            Some(("╘", "═", "╧", "╛")),
            ("│", "│", "│"),
            1,
        ),
        "github" => s(None, Some(("|", "-", "|", "|")), None, None, ("|", "|", "|"), 1),
        "pipe" => s(None, Some(("|", "-", "|", "|")), None, None, ("|", "|", "|"), 1),
        "orgtbl" => s(None, Some(("|", "-", "+", "|")), None, None, ("|", "|", "|"), 1),
        "presto" => s(None, Some(("", "-", "+", "")), None, None, ("", "|", ""), 1),
        "pretty" => {
            s(grid("+", "-", "+"), grid("+", "-", "+"), None, grid("+", "-", "+"), ("|", "|", "|"), 1)
        }
        "psql" => s(
            Some(("+", "-", "+", "+")),
            Some(("|", "-", "+", "|")),
            None,
            Some(("+", "-", "+", "+")),
            ("|", "|", "|"),
            1,
        ),
        "rst" => s(
            Some(("", "=", "  ", "")),
            Some(("", "=", "  ", "")),
            None,
            Some(("", "=", "  ", "")),
            ("", "  ", ""),
            0,
        ),
        "outline" => {
            s(grid("+", "-", "+"), grid("+", "=", "+"), None, grid("+", "-", "+"), ("|", "|", "|"), 1)
        }
        "tsv" => s(None, None, None, None, ("", "\t", ""), 0),
        _ => return None,
    })
}

/// `tabulate.tabulate` in its common styles.
pub(crate) fn tabulate(rows: &[Vec<Value>], call: Option<&Call>) -> Result<String, TtpError> {
    let name = call
        .and_then(|c| c.kwargs.get("tablefmt").or_else(|| c.args.get(1)))
        .map_or_else(|| "simple".into(), py_str);
    let style = style(&name)
        .ok_or_else(|| TtpError::new("unsupported", format!("tabulate: unknown tablefmt '{name}'")))?;
    let width = rows.first().map_or(0, Vec::len);
    let numeric: Vec<bool> = (0..width)
        .map(|c| {
            name != "pretty"
                && rows.len() > 1
                && rows.iter().skip(1).all(|r| {
                    r.get(c).is_some_and(|v| py_str(v).is_empty() || py_str(v).trim().parse::<f64>().is_ok())
                })
                && rows.iter().skip(1).any(|r| r.get(c).is_some_and(|v| !py_str(v).is_empty()))
        })
        .collect();
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|r| {
            r.iter().map(|v| if v.is_null() { String::new() } else { py_str(v) }.trim().to_owned()).collect()
        })
        .collect();
    // A header keeps two blanks of room, as the reference gives it.
    let widths: Vec<usize> = (0..width)
        .map(|c| cells.iter().map(|r| r.get(c).map_or(0, |s| s.chars().count())).max().unwrap_or(0))
        .enumerate()
        .map(|(c, w)| match (name.as_str(), cells.first().and_then(|h| h.get(c))) {
            ("pretty", _) | (_, None) => w,
            (_, Some(h)) => w.max(h.chars().count() + 2),
        })
        .collect();
    let pad = " ".repeat(style.padding);
    let line = |r: Rule| {
        r.map(|(b, f, s, e)| {
            let parts: Vec<String> = widths
                .iter()
                .enumerate()
                .map(|(i, w)| {
                    let fill = f.repeat(w + 2 * style.padding);
                    match (name.as_str(), numeric.get(i)) {
                        ("pipe", Some(true)) => format!("{}:", fill.get(1..).unwrap_or("")),
                        ("pipe", _) => format!(":{}", fill.get(1..).unwrap_or("")),
                        _ => fill,
                    }
                })
                .collect();
            format!("{b}{}{e}", parts.join(s)).trim_end().to_owned()
        })
    };
    let row = |r: &Vec<String>| {
        let parts: Vec<String> = r
            .iter()
            .enumerate()
            .map(|(i, s)| {
                let gap = " ".repeat(widths.get(i).copied().unwrap_or(0).saturating_sub(s.chars().count()));
                if numeric.get(i) == Some(&true) {
                    format!("{pad}{gap}{s}{pad}")
                } else {
                    format!("{pad}{s}{gap}{pad}")
                }
            })
            .collect();
        format!("{}{}{}", style.row.0, parts.join(style.row.1), style.row.2).trim_end().to_owned()
    };
    let mut out: Vec<String> = Vec::new();
    out.extend(line(style.above));
    for (i, r) in cells.iter().enumerate() {
        if i == 1 {
            out.extend(line(style.below_header));
        } else if i > 1 {
            out.extend(line(style.between));
        }
        out.push(row(r));
    }
    if cells.len() == 1 {
        out.extend(line(style.below_header));
    }
    out.extend(line(style.below));
    Ok(out.join("\n"))
}

/// The changes from `a` to `b` as DeepDiff names them (text view).
pub(crate) fn deepdiff(a: &Value, b: &Value, ignore_order: bool) -> Value {
    let mut found: Vec<(&'static str, String, Value)> = Vec::new();
    compare(a, b, "root", ignore_order, &mut found);
    let mut out = Map::new();
    for kind in [
        "type_changes",
        "dictionary_item_added",
        "dictionary_item_removed",
        "values_changed",
        "iterable_item_added",
        "iterable_item_removed",
    ] {
        let items: Vec<(String, Value)> =
            found.iter().filter(|(k, _, _)| *k == kind).map(|(_, p, v)| (p.clone(), v.clone())).collect();
        if items.is_empty() {
            continue;
        }
        let value = if kind.starts_with("dictionary") {
            Value::Array(items.into_iter().map(|(p, _)| Value::from(p)).collect())
        } else {
            Value::Object(items.into_iter().collect())
        };
        out.insert(kind.into(), value);
    }
    Value::Object(out)
}

fn type_name(v: &Value) -> &'static str {
    match v {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

fn compare(
    a: &Value,
    b: &Value,
    path: &str,
    ignore_order: bool,
    out: &mut Vec<(&'static str, String, Value)>,
) {
    let change = |types: bool| {
        let mut m = Map::new();
        if types {
            m.insert("old_type".into(), Value::from(type_name(a)));
            m.insert("new_type".into(), Value::from(type_name(b)));
            m.insert("old_value".into(), a.clone());
            m.insert("new_value".into(), b.clone());
        } else {
            m.insert("new_value".into(), b.clone());
            m.insert("old_value".into(), a.clone());
        }
        Value::Object(m)
    };
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let at = |k: &str| format!("{path}[{}]", py_repr(&Value::from(k)));
            for (k, v) in y.iter().filter(|(k, _)| !x.contains_key(*k)) {
                out.push(("dictionary_item_added", at(k), v.clone()));
            }
            for (k, v) in x.iter().filter(|(k, _)| !y.contains_key(*k)) {
                out.push(("dictionary_item_removed", at(k), v.clone()));
            }
            for (k, v) in x {
                if let Some(w) = y.get(k) {
                    compare(v, w, &at(k), ignore_order, out);
                }
            }
        }
        (Value::Array(x), Value::Array(y)) if ignore_order => {
            let lacks = |list: &[Value], v: &Value| !list.iter().any(|o| py_eq(o, v));
            for (i, v) in y.iter().enumerate().filter(|(_, v)| lacks(x, v)) {
                out.push(("iterable_item_added", format!("{path}[{i}]"), v.clone()));
            }
            for (i, v) in x.iter().enumerate().filter(|(_, v)| lacks(y, v)) {
                out.push(("iterable_item_removed", format!("{path}[{i}]"), v.clone()));
            }
        }
        (Value::Array(x), Value::Array(y)) => {
            for (i, (v, w)) in x.iter().zip(y).enumerate() {
                compare(v, w, &format!("{path}[{i}]"), ignore_order, out);
            }
            for (i, v) in y.iter().enumerate().skip(x.len()) {
                out.push(("iterable_item_added", format!("{path}[{i}]"), v.clone()));
            }
            for (i, v) in x.iter().enumerate().skip(y.len()) {
                out.push(("iterable_item_removed", format!("{path}[{i}]"), v.clone()));
            }
        }
        _ if type_name(a) != type_name(b) => out.push(("type_changes", path.to_owned(), change(true))),
        _ if !py_eq(a, b) => out.push(("values_changed", path.to_owned(), change(false))),
        _ => {}
    }
}
