//! Small pieces of Python's text behaviour that the engines share.

/// Writes `repr()` of a string.
pub(crate) fn repr(text: &str, out: &mut String) {
    use std::fmt::Write as _;
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if u32::from(c) < 0x100 && c.is_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// Lines as `str.splitlines()` gives them.
pub(crate) struct Lines<'t> {
    rest: &'t str,
    /// Only newlines and carriage returns end a line here.
    simple: bool,
}

/// Splits like `str.splitlines()`: at `\n`, `\r`, `\r\n`, `\v`, `\f`, the separators 0x1c to
/// 0x1e, U+0085, U+2028 and U+2029.
pub(crate) fn lines(text: &str) -> Lines<'_> {
    let bytes = text.as_bytes();
    let simple = text.is_ascii()
        && memchr::memchr3(0x0b, 0x0c, b'\r', bytes).is_none()
        && memchr::memchr3(0x1c, 0x1d, 0x1e, bytes).is_none();
    Lines { rest: text, simple }
}

impl<'t> Iterator for Lines<'t> {
    type Item = &'t str;

    #[inline]
    fn next(&mut self) -> Option<&'t str> {
        if self.rest.is_empty() {
            return None;
        }
        if self.simple {
            let (line, rest) = match memchr::memchr(b'\n', self.rest.as_bytes()) {
                Some(at) => (&self.rest[..at], &self.rest[at + 1..]),
                None => (self.rest, ""),
            };
            self.rest = rest;
            return Some(line);
        }
        let bytes = self.rest.as_bytes();
        for (at, byte) in bytes.iter().enumerate() {
            let width = match byte {
                b'\r' if bytes.get(at + 1) == Some(&b'\n') => 2,
                b'\n' | b'\r' | 0x0b | 0x0c | 0x1c..=0x1e => 1,
                0xc2 if bytes.get(at + 1) == Some(&0x85) => 2,
                0xe2 if matches!(bytes.get(at + 1..at + 3), Some([0x80, 0xa8 | 0xa9])) => 3,
                _ => continue,
            };
            let line = &self.rest[..at];
            self.rest = &self.rest[at + width..];
            return Some(line);
        }
        let line = self.rest;
        self.rest = "";
        Some(line)
    }
}

/// What `str()` gives for a JSON value.
pub(crate) fn text(value: &serde_json::Value) -> String {
    use serde_json::Value;
    fn write(value: &Value, top: bool, out: &mut String) {
        match value {
            Value::Null => out.push_str("None"),
            Value::Bool(true) => out.push_str("True"),
            Value::Bool(false) => out.push_str("False"),
            Value::Number(number) => out.push_str(&number.to_string()),
            Value::String(text) if top => out.push_str(text),
            Value::String(text) => repr(text, out),
            Value::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    write(item, false, out);
                }
                out.push(']');
            }
            Value::Object(map) => {
                out.push('{');
                for (i, (key, item)) in map.iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    repr(key, out);
                    out.push_str(": ");
                    write(item, false, out);
                }
                out.push('}');
            }
        }
    }
    let mut out = String::new();
    write(value, true, &mut out);
    out
}
