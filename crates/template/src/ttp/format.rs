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

/// `yaml.dump(default_flow_style=False)`.
pub(crate) fn yaml(v: &Value) -> String {
    super::yaml::write(&sorted(v))
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

const WIDTH: usize = 80;

/// `pprint.pformat(indent=4)`.
pub(crate) fn pprint(v: &Value) -> String {
    let mut out = String::new();
    pretty(&sorted(v), 0, 0, true, &mut out);
    out
}

fn pretty(v: &Value, indent: usize, allowance: usize, top: bool, out: &mut String) {
    let flat = py_repr(v);
    let fits = flat.chars().count() + indent + allowance <= WIDTH;
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
                let inner = indent + 4 + key.chars().count() + 2;
                pretty(x, inner, if i == last { allowance + 1 } else { 1 }, false, out);
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
                pretty(x, indent + 4, if i == last { allowance + 1 } else { 1 }, false, out);
            }
            out.push(']');
        }
        Value::String(s) if !fits && !s.is_empty() => pretty_text(s, indent, allowance, top, out),
        _ => out.push_str(&flat),
    }
}

/// A long text in pieces, cut at line ends and behind blanks.
fn pretty_text(s: &str, indent: usize, allowance: usize, top: bool, out: &mut String) {
    let (indent, allowance) = if top { (indent + 1, allowance + 1) } else { (indent, allowance) };
    let length = |text: &str| py_repr(&Value::from(text)).chars().count();
    let room = WIDTH.saturating_sub(indent);
    let mut chunks: Vec<String> = Vec::new();
    let mut lines = s.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        let least = if lines.peek().is_none() { room.saturating_sub(allowance) } else { room };
        if length(line) <= least {
            chunks.push(line.to_owned());
            continue;
        }
        let mut current = String::new();
        let mut rest = line;
        while !rest.is_empty() {
            let word = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let tail = &rest[word..];
            let blanks = tail.find(|c: char| !c.is_whitespace()).unwrap_or(tail.len());
            let (part, more) = rest.split_at(word + blanks);
            rest = more;
            let candidate = format!("{current}{part}");
            if length(&candidate) > if rest.is_empty() { least } else { room } {
                if !current.is_empty() {
                    chunks.push(std::mem::take(&mut current));
                }
                current = part.to_owned();
            } else {
                current = candidate;
            }
        }
        if !current.is_empty() {
            chunks.push(current);
        }
    }
    if let [only] = chunks.as_slice() {
        out.push_str(&py_repr(&Value::from(only.as_str())));
        return;
    }
    if top {
        out.push('(');
    }
    for (i, chunk) in chunks.iter().enumerate() {
        if i > 0 {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
        }
        out.push_str(&py_repr(&Value::from(chunk.as_str())));
    }
    if top {
        out.push(')');
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
        "jira" => s(None, None, None, None, ("|", "|", "|"), 1),
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
    if name == "html" || name == "unsafehtml" {
        return Ok(html(rows, name == "html"));
    }
    let style = style(&name)
        .ok_or_else(|| TtpError::new("unsupported", format!("tabulate: unknown tablefmt '{name}'")))?;
    let width = rows.first().map_or(0, Vec::len);
    let mut cells = cells(rows);
    if name == "rst" {
        // An empty first cell would be read as the row before going on.
        for first in cells.iter_mut().skip(1).filter_map(|r| r.first_mut()).filter(|c| c.is_empty()) {
            "..".clone_into(first);
        }
    }
    let numeric: Vec<bool> = (0..width).map(|c| name != "pretty" && is_numeric(&cells, c)).collect();
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
                if name == "pretty" {
                    let (left, right) = gap.split_at(gap.len() / 2);
                    format!("{pad}{left}{s}{right}{pad}")
                } else if numeric.get(i) == Some(&true) {
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
        out.push(match name.as_str() {
            "jira" if i == 0 => row(r).replace('|', "||"),
            _ => row(r),
        });
    }
    if cells.len() == 1 {
        out.extend(line(style.below_header));
    }
    out.extend(line(style.below));
    Ok(out.join("\n"))
}

/// The texts of the cells, the row of headers first.
fn cells(rows: &[Vec<Value>]) -> Vec<Vec<String>> {
    let text = |v: &Value| if v.is_null() { String::new() } else { py_str(v).trim().to_owned() };
    rows.iter().map(|r| r.iter().map(text).collect()).collect()
}

/// Whether a column below its header holds numbers and nothing else.
fn is_numeric(cells: &[Vec<String>], column: usize) -> bool {
    let mut below = cells.iter().skip(1).filter_map(|r| r.get(column));
    below.clone().all(|c| c.is_empty() || c.parse::<f64>().is_ok()) && below.any(|c| !c.is_empty())
}

fn html(rows: &[Vec<Value>], safe: bool) -> String {
    let cells = cells(rows);
    let escaped = |s: &str| {
        if !safe {
            return s.to_owned();
        }
        let s = s.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        s.replace('"', "&quot;").replace('\'', "&#x27;")
    };
    let columns: Vec<(usize, bool)> = (0..cells.first().map_or(0, Vec::len))
        .map(|c| {
            let widest = cells.iter().skip(1).filter_map(|r| r.get(c)).map(|s| s.chars().count()).max();
            let header = cells.first().and_then(|r| r.get(c)).map_or(0, |s| s.chars().count() + 2);
            (widest.unwrap_or(0).max(header), is_numeric(&cells, c))
        })
        .collect();
    let row = |r: &Vec<String>, tag: &str| {
        let mut out = String::from("<tr>");
        for (s, (width, numeric)) in r.iter().zip(&columns) {
            let gap = " ".repeat(width.saturating_sub(s.chars().count()));
            let s = escaped(s);
            out.push_str(&if *numeric {
                format!("<{tag} style=\"text-align: right;\">{gap}{s}</{tag}>")
            } else {
                format!("<{tag}>{s}{gap}</{tag}>")
            });
        }
        out + "</tr>"
    };
    let mut out = vec!["<table>".to_owned(), "<thead>".to_owned()];
    out.extend(cells.iter().take(1).map(|r| row(r, "th")));
    out.extend(["</thead>".to_owned(), "<tbody>".to_owned()]);
    out.extend(cells.iter().skip(1).map(|r| row(r, "td")));
    out.extend(["</tbody>".to_owned(), "</table>".to_owned()]);
    out.join("\n")
}

/// The changes from `a` to `b` as DeepDiff names them (text view).
pub(crate) fn deepdiff(a: &Value, b: &Value, ignore_order: bool, verbose: bool) -> Value {
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
        let value = if kind.starts_with("dictionary") && !verbose {
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
