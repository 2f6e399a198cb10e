//! YAML as PyYAML has it, which is YAML 1.1: `yes` is a truth, `012` is ten, `1e3` is a text.

use std::borrow::Cow;
use std::sync::OnceLock;

use regex::Regex;
use serde_json::{Map, Value};

use super::value::py_repr;

/// Reads a text.
pub(crate) fn read(text: &str) -> Result<Value, yaml_serde::Error> {
    let Yaml(value) = yaml_serde::from_str(&modern(text))?;
    Ok(value)
}

/// What a plain scalar is in YAML 1.1, where today's YAML says otherwise.
fn translated(scalar: &str) -> Option<String> {
    match scalar {
        "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Some("true".into()),
        "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Some("false".into()),
        _ => {}
    }
    let digits = scalar.strip_prefix(['-', '+']).unwrap_or(scalar);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let sign = if scalar.starts_with('-') { "-" } else { "" };
    let plain = digits.replace('_', "");
    if plain.len() > 1 && plain.starts_with('0') && plain.bytes().all(|b| (b'0'..=b'7').contains(&b)) {
        return i64::from_str_radix(&plain, 8).ok().map(|n| format!("{sign}{n}"));
    }
    if plain.contains(':') && !digits.starts_with('0') {
        let mut sum: i64 = 0;
        for (i, part) in plain.split(':').enumerate() {
            let n: i64 = part.parse().ok()?;
            if i > 0 && (part.len() > 2 || n > 59) {
                return None;
            }
            sum = sum.checked_mul(60)?.checked_add(n)?;
        }
        return Some(format!("{sign}{sum}"));
    }
    if digits.contains('_') && plain.bytes().all(|b| b.is_ascii_digit()) {
        return Some(format!("{sign}{plain}"));
    }
    // Exponents need a dot before them and a sign.
    let today = scalar.parse::<f64>().is_ok() && scalar.contains(['e', 'E']) || plain.starts_with("0o");
    (today && !is_other(scalar)).then(|| format!("'{scalar}'"))
}

/// Rewrites the plain scalars that YAML 1.1 reads otherwise.
fn modern(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut done = 0;
    let mut quote: Option<char> = None;
    let mut depth = 0usize;
    // The indent of a block scalar's header, while its lines pass.
    let mut block: Option<usize> = None;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let from = start;
        start += line.len();
        let body = line.trim_end();
        let indent = body.len() - body.trim_start().len();
        if let Some(outer) = block {
            if body.is_empty() || indent > outer {
                continue;
            }
            block = None;
        }
        let mut at = indent;
        while at < body.len() {
            let rest = &body[at..];
            let Some(first) = rest.chars().next() else { break };
            if let Some(open) = quote {
                if first == open {
                    quote = None;
                } else if first == '\\' && open == '"' {
                    at += 1;
                }
                at += body.get(at..).and_then(|r| r.chars().next()).map_or(1, char::len_utf8);
                continue;
            }
            match first {
                ' ' | '\t' | ',' => at += 1,
                '[' | '{' => {
                    depth += 1;
                    at += 1;
                }
                ']' | '}' => {
                    depth = depth.saturating_sub(1);
                    at += 1;
                }
                '"' | '\'' => {
                    quote = Some(first);
                    at += 1;
                }
                '#' => break,
                '-' | '?' | ':' if rest.len() == 1 || rest[1..].starts_with([' ', '\t']) => at += 1,
                '|' | '>' if depth == 0 => {
                    block = Some(indent);
                    break;
                }
                '&' | '*' | '!' => at += rest.find([' ', ',']).unwrap_or(rest.len()),
                _ => {
                    let length = scalar_length(rest, depth > 0);
                    let scalar = rest[..length].trim_end();
                    at += length;
                    let key = body[at..].starts_with(':');
                    if !key && let Some(made) = translated(scalar) {
                        let place = from + at - length;
                        out.push_str(&text[done..place]);
                        out.push_str(&made);
                        done = place + scalar.len();
                    }
                }
            }
        }
    }
    if done == 0 {
        return text.into();
    }
    out.push_str(&text[done..]);
    out.into()
}

/// How far a plain scalar reaches.
fn scalar_length(rest: &str, flow: bool) -> usize {
    let bytes = rest.as_bytes();
    let ends = |at: usize| match bytes[at] {
        b':' => bytes.get(at + 1).is_none_or(|b| b" \t".contains(b) || flow && b",]}".contains(b)),
        b'#' => at > 0 && bytes[at - 1] == b' ',
        b',' | b']' | b'}' => flow,
        _ => false,
    };
    (0..bytes.len()).find(|at| ends(*at)).unwrap_or(bytes.len()).max(1)
}

/// `yaml.dump(default_flow_style=False)` of values whose keys are sorted.
pub(crate) fn write(v: &Value) -> String {
    let mut out = String::new();
    let scalar = match v {
        Value::Array(a) => a.is_empty(),
        Value::Object(m) => m.is_empty(),
        _ => true,
    };
    node(v, if scalar { 2 } else { 0 }, &mut out);
    if scalar {
        out.push('\n');
        // A plain scalar has no end of its own.
        if !matches!(v, Value::Array(_) | Value::Object(_)) && !out.starts_with(['\'', '"']) {
            out.push_str("...\n");
        }
    }
    out
}

fn node(v: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match v {
        Value::Object(m) if !m.is_empty() => {
            for (i, (k, x)) in m.iter().enumerate() {
                if i > 0 {
                    out.push_str(&pad);
                }
                scalar(k, None, out);
                out.push(':');
                match x {
                    Value::Object(o) if !o.is_empty() => {
                        out.push('\n');
                        out.push_str(&pad);
                        out.push_str("  ");
                        node(x, indent + 2, out);
                    }
                    Value::Array(a) if !a.is_empty() => {
                        out.push('\n');
                        out.push_str(&pad);
                        node(x, indent, out);
                    }
                    _ => {
                        out.push(' ');
                        node(x, indent + 2, out);
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
                node(x, indent + 2, out);
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
        Value::String(s) => scalar(s, Some(indent), out),
    }
}

/// Whether YAML 1.1 reads a plain scalar as something else than a text.
fn is_other(s: &str) -> bool {
    static OTHER: OnceLock<Option<Regex>> = OnceLock::new();
    let pattern = concat!(
        r"^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF|~|null|Null|NULL|<<|=",
        r"|[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?",
        r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        r"|[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+",
        r"|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+|[0-9]{4}-[0-9]{2}-[0-9]{2}",
        r"|[0-9]{4}-[0-9][0-9]?-[0-9][0-9]?(?:[Tt]|[ \t]+)[0-9][0-9]?:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?",
        r"(?:[ \t]*(?:Z|[-+][0-9][0-9]?(?::[0-9]{2})?))?)$"
    );
    OTHER.get_or_init(|| Regex::new(pattern).ok()).as_ref().is_some_and(|r| r.is_match(s))
}

/// How PyYAML writes a text.
#[derive(PartialEq, Eq)]
enum Style {
    Plain,
    Single,
    Double,
}

const BREAKS: [char; 4] = ['\n', '\u{85}', '\u{2028}', '\u{2029}'];

fn style(s: &str, key: bool) -> Style {
    if s.is_empty() {
        return Style::Single;
    }
    let (mut indicators, mut breaks, mut mixed) = (false, false, false);
    let mut before: Option<char> = None;
    let chars: Vec<char> = s.chars().collect();
    for (i, c) in chars.iter().copied().enumerate() {
        let blank_next = chars.get(i + 1).is_none_or(|n| *n == ' ' || *n == '\t' || BREAKS.contains(n));
        let blank_before = before.is_none_or(|b| b == ' ' || b == '\t' || BREAKS.contains(&b));
        indicators |= match c {
            '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@'
            | '`'
                if i == 0 =>
            {
                true
            }
            '?' | '-' if i == 0 => blank_next,
            ':' => blank_next,
            '#' => blank_before,
            _ => false,
        };
        let ends_line = BREAKS.contains(&c);
        breaks |= ends_line;
        if !ends_line && !(' '..='~').contains(&c) {
            return Style::Double;
        }
        mixed |= ends_line && before == Some(' ') || c == ' ' && before.is_some_and(|b| BREAKS.contains(&b));
        before = Some(c);
    }
    // Letters beyond ASCII are written as escapes, line ends other than a newline are such.
    if mixed || s.contains(['\u{85}', '\u{2028}', '\u{2029}']) {
        return Style::Double;
    }
    indicators |= s.starts_with("---") || s.starts_with("...");
    let edges = s.starts_with(' ') || s.ends_with(' ');
    if !indicators && !breaks && !edges && !is_other(s) {
        Style::Plain
    } else if key && breaks {
        Style::Double
    } else {
        Style::Single
    }
}

const WIDTH: usize = 80;

/// Writes a text; one that is no key is folded, its further lines begin at `indent`.
fn scalar(s: &str, indent: Option<usize>, out: &mut String) {
    let style = style(s, indent.is_none());
    let mut pen = Pen { column: out.rsplit('\n').next().map_or(0, |l| l.chars().count()), indent, out };
    match style {
        Style::Plain => pen.words(s, false),
        Style::Single => pen.words(s, true),
        Style::Double => pen.double(s),
    }
}

struct Pen<'o> {
    column: usize,
    indent: Option<usize>,
    out: &'o mut String,
}

impl Pen<'_> {
    fn put(&mut self, text: &str) {
        self.column += text.chars().count();
        self.out.push_str(text);
    }

    fn new_line(&mut self) {
        self.out.push('\n');
        self.column = 0;
        self.put(&" ".repeat(self.indent.unwrap_or(0)));
    }

    fn folds(&self) -> bool {
        self.indent.is_some() && self.column > WIDTH
    }

    /// A plain or single quoted text: a single blank beyond the width becomes a new line.
    fn words(&mut self, s: &str, quoted: bool) {
        if quoted {
            self.put("'");
        }
        let mut rest = s;
        let mut begun = false;
        while let Some(first) = rest.chars().next() {
            let kind = |c: char| if c == ' ' { 1 } else { u8::from(c == '\n') * 2 };
            let end = rest.find(|c| kind(c) != kind(first)).unwrap_or(rest.len());
            let (piece, more) = rest.split_at(end);
            match kind(first) {
                1 if piece.len() == 1 && self.folds() && (!quoted || begun && !more.is_empty()) => {
                    self.new_line()
                }
                2 => {
                    self.out.push('\n');
                    self.out.push_str(piece);
                    self.out.pop();
                    self.new_line();
                }
                _ if quoted => self.put(&piece.replace('\'', "''")),
                _ => self.put(piece),
            }
            begun = true;
            rest = more;
        }
        if quoted {
            self.put("'");
        }
    }

    fn double(&mut self, s: &str) {
        self.put("\"");
        let chars: Vec<char> = s.chars().collect();
        // Characters from here on are not yet written.
        let mut start = 0;
        for end in 0..=chars.len() {
            let c = chars.get(end).copied();
            let escaped = c.is_none_or(|c| c == '"' || c == '\\' || !(' '..='~').contains(&c));
            if escaped {
                if start < end {
                    let text: String = chars.get(start..end).unwrap_or_default().iter().collect();
                    self.put(&text);
                    start = end;
                }
                if let Some(c) = c {
                    self.put(&escape(c));
                    start = end + 1;
                }
            }
            let inside = end > 0 && end + 1 < chars.len();
            if inside
                && (c == Some(' ') || start >= end)
                && self.indent.is_some()
                && self.column + end.saturating_sub(start) > WIDTH
            {
                let text: String = chars.get(start..end).unwrap_or_default().iter().collect();
                self.put(&text);
                start = start.max(end);
                self.put("\\");
                self.new_line();
                if chars.get(start) == Some(&' ') {
                    self.put("\\");
                }
            }
        }
        self.put("\"");
    }
}

fn escape(c: char) -> String {
    let short = match c {
        '\0' => '0',
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\u{b}' => 'v',
        '\u{c}' => 'f',
        '\r' => 'r',
        '\u{1b}' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{a0}' => '_',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        c if u32::from(c) <= 0xff => return format!("\\x{:02X}", u32::from(c)),
        c if u32::from(c) <= 0xffff => return format!("\\u{:04X}", u32::from(c)),
        c => return format!("\\U{:08X}", u32::from(c)),
    };
    format!("\\{short}")
}

/// YAML read straight into our values: a key given twice takes its last value.
struct Yaml(Value);

impl<'de> serde::Deserialize<'de> for Yaml {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(YamlVisitor).map(Yaml)
    }
}

struct YamlVisitor;

impl<'de> serde::de::Visitor<'de> for YamlVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }

    fn visit_newtype_struct<D: serde::Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        while let Some(Yaml(v)) = seq.next_element()? {
            out.push(v);
        }
        Ok(Value::Array(out))
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some((Yaml(k), Yaml(v))) = map.next_entry()? {
            out.insert(super::value::key_of(&k), v);
        }
        Ok(Value::Object(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_of_yaml_1_1() {
        let text = "a: yes # or no\nb: 'yes'\nc: [on, \"off\", 012, 1:30, y]\nd: |\n  yes\n  no\ne: 1e3\nf: 1_000\nyes: no\ng: yes sir\n- h";
        let made = modern(text);
        assert_eq!(
            made,
            "a: true # or no\nb: 'yes'\nc: [true, \"off\", 10, 90, y]\nd: |\n  yes\n  no\ne: '1e3'\nf: 1000\nyes: false\ng: yes sir\n- h"
        );
        assert!(matches!(modern("a: 1\nb: text\n"), Cow::Borrowed(_)));
    }
}
