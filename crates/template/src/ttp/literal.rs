//! Python literals and calls as TTP templates write them: `contains("a", key=1)`, `a = {"b": [1]}`.
//!
//! Only literals are understood. A bare name means the string of its own letters, as TTP has it.

use serde_json::{Map, Value};

use super::error::TtpError;

/// A function with its arguments, for example one item of `{{ name | split(".") | item(0) }}`.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub name: String,
    pub args: Vec<Value>,
    pub kwargs: Map<String, Value>,
}

impl Call {
    /// The argument at `index`, or by keyword.
    pub fn arg(&self, index: usize, name: &str) -> Option<&Value> {
        self.args.get(index).or_else(|| self.kwargs.get(name))
    }

    /// As [`Call::arg`], as text; absent or not text gives None.
    pub fn text(&self, index: usize, name: &str) -> Option<&str> {
        self.arg(index, name).and_then(Value::as_str)
    }

    /// A flag with a default.
    pub fn flag(&self, index: usize, name: &str, default: bool) -> bool {
        self.arg(index, name).map_or(default, truthy)
    }
}

/// Python's idea of truth.
pub(crate) fn truthy(v: &Value) -> bool {
    match v {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
    }
}

const MAX_DEPTH: usize = 64;

pub(crate) struct Reader<'a> {
    src: &'a str,
    pos: usize,
    /// Whether a bare name is text (in calls) or an error (in `<vars>`).
    names: bool,
}

impl<'a> Reader<'a> {
    fn new(src: &'a str, names: bool) -> Self {
        Self { src, pos: 0, names }
    }

    fn rest(&self) -> &'a str {
        self.src.get(self.pos..).unwrap_or("")
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, c: char) -> bool {
        if self.peek() == Some(c) {
            self.bump();
            true
        } else {
            false
        }
    }

    /// Skips blanks, newlines, comments and line continuations.
    fn space(&mut self) {
        while let Some(c) = self.peek() {
            if c == '#' {
                while self.peek().is_some_and(|c| c != '\n') {
                    self.bump();
                }
            } else if c.is_whitespace() || c == '\\' && self.rest().starts_with("\\\n") {
                self.bump();
            } else {
                break;
            }
        }
    }

    fn fail(&self, why: &str) -> TtpError {
        let near: String = self.rest().chars().take(24).collect();
        TtpError::new("syntax", format!("{why} near '{near}': only Python literals are understood here"))
    }

    fn name(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let end = rest
            .char_indices()
            .find(|(i, c)| !(c.is_alphanumeric() && (*i > 0 || !c.is_numeric()) || *c == '_'))
            .map_or(rest.len(), |(i, _)| i);
        if end == 0 {
            return None;
        }
        self.pos += end;
        rest.get(..end)
    }

    fn value(&mut self, depth: usize) -> Result<Value, TtpError> {
        if depth > MAX_DEPTH {
            return Err(TtpError::limit("a literal is nested deeper than 64 levels"));
        }
        self.space();
        match self.peek() {
            Some('[') => {
                self.bump();
                Ok(Value::Array(self.items(']', depth)?.0))
            }
            Some('(') => {
                self.bump();
                let (mut items, comma) = self.items(')', depth)?;
                if items.len() == 1 && !comma {
                    return Ok(items.remove(0));
                }
                Ok(Value::Array(items))
            }
            Some('{') => {
                self.bump();
                self.braces(depth)
            }
            Some(c) if c == '"' || c == '\'' => self.strings(),
            Some(c) if c.is_ascii_digit() || matches!(c, '-' | '+' | '.') => self.number(),
            _ => {
                let at = self.pos;
                let Some(name) = self.name() else { return Err(self.fail("unexpected text")) };
                if name.len() <= 2
                    && name.chars().all(|c| "rRbBuU".contains(c))
                    && matches!(self.peek(), Some('"' | '\''))
                {
                    self.pos = at;
                    return self.strings();
                }
                match name {
                    "True" => Ok(Value::Bool(true)),
                    "False" => Ok(Value::Bool(false)),
                    "None" => Ok(Value::Null),
                    _ if self.names => {
                        if matches!(self.peek(), Some('(' | '.' | '[')) {
                            self.pos = at;
                            return Err(self.fail("an expression"));
                        }
                        Ok(match name.to_ascii_lowercase().as_str() {
                            "true" => Value::Bool(true),
                            "false" => Value::Bool(false),
                            "none" => Value::Null,
                            _ => Value::String(name.to_owned()),
                        })
                    }
                    _ => {
                        self.pos = at;
                        Err(self.fail("a name or expression"))
                    }
                }
            }
        }
    }

    fn items(&mut self, close: char, depth: usize) -> Result<(Vec<Value>, bool), TtpError> {
        let mut out = Vec::new();
        let mut comma = false;
        loop {
            self.space();
            if self.eat(close) {
                return Ok((out, comma));
            }
            out.push(self.value(depth + 1)?);
            self.space();
            comma = self.eat(',');
            if !comma {
                self.space();
                if self.eat(close) {
                    return Ok((out, false));
                }
                return Err(self.fail(&format!("missing '{close}' or ','")));
            }
        }
    }

    fn braces(&mut self, depth: usize) -> Result<Value, TtpError> {
        let mut map = Map::new();
        let mut set = Vec::new();
        loop {
            self.space();
            if self.eat('}') {
                break;
            }
            let key = self.value(depth + 1)?;
            self.space();
            if self.eat(':') {
                let value = self.value(depth + 1)?;
                map.insert(super::value::key_of(&key), value);
            } else {
                set.push(key);
            }
            self.space();
            if !self.eat(',') {
                self.space();
                if self.eat('}') {
                    break;
                }
                return Err(self.fail("missing '}' or ','"));
            }
        }
        Ok(if set.is_empty() { Value::Object(map) } else { Value::Array(set) })
    }

    fn number(&mut self) -> Result<Value, TtpError> {
        let rest = self.rest();
        let sign = rest.starts_with(['-', '+']) as usize;
        let end = rest
            .char_indices()
            .skip(sign)
            .find(|(i, c)| {
                !(c.is_ascii_alphanumeric()
                    || matches!(c, '.' | '_')
                    || (matches!(c, '-' | '+')
                        && rest.get(..*i).is_some_and(|p| p.ends_with(['e', 'E']) && !p.contains('x'))))
            })
            .map_or(rest.len(), |(i, _)| i);
        let text = rest.get(..end).unwrap_or("").replace('_', "");
        let bare = text.trim_start_matches(['-', '+']);
        let parsed = if let Some(hex) = bare.strip_prefix("0x") {
            i64::from_str_radix(hex, 16).ok().map(Value::from)
        } else if let Ok(int) = text.trim_start_matches('+').parse::<i64>() {
            Some(Value::from(int))
        } else if bare.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            text.parse::<f64>().ok().map(Value::from)
        } else {
            None
        };
        match parsed {
            Some(v) => {
                self.pos += end;
                Ok(v)
            }
            None => Err(self.fail("not a number")),
        }
    }

    /// One or more adjacent string literals.
    fn strings(&mut self) -> Result<Value, TtpError> {
        let mut out = String::new();
        let mut end = self.pos;
        loop {
            let prefix = match self.peek() {
                Some('"' | '\'') => "",
                _ => self.name().unwrap_or(""),
            };
            let quote = match self.peek() {
                Some(q @ ('"' | '\'')) if prefix.chars().all(|c| "rRbBuU".contains(c)) => q,
                _ => {
                    self.pos = end;
                    return Ok(Value::String(out));
                }
            };
            self.string(quote, prefix.contains(['r', 'R']), &mut out)?;
            end = self.pos;
            self.space();
            if !self.rest().starts_with(['"', '\'', 'r', 'R', 'u', 'U', 'b', 'B']) {
                self.pos = end;
                return Ok(Value::String(out));
            }
        }
    }

    fn string(&mut self, quote: char, raw: bool, out: &mut String) -> Result<(), TtpError> {
        let triple: String = [quote; 3].iter().collect();
        let long = self.rest().starts_with(&triple);
        self.pos += if long { 3 } else { 1 };
        loop {
            if long && self.rest().starts_with(&triple) {
                self.pos += 3;
                return Ok(());
            }
            match self.bump() {
                None => return Err(self.fail("a string without its closing quote")),
                Some('\n') if !long => return Err(self.fail("a string without its closing quote")),
                Some(c) if c == quote && !long => return Ok(()),
                Some('\\') => self.escape(raw, out),
                Some(c) => out.push(c),
            }
        }
    }

    fn escape(&mut self, raw: bool, out: &mut String) {
        let Some(c) = self.bump() else { return };
        if raw {
            out.push('\\');
            out.push(c);
            return;
        }
        let hex = |me: &mut Self, n: usize| {
            let code =
                me.rest().get(..n).and_then(|h| u32::from_str_radix(h, 16).ok()).and_then(char::from_u32);
            if code.is_some() {
                me.pos += n;
            }
            code
        };
        match c {
            '\n' => {}
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            'a' => out.push('\u{7}'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'v' => out.push('\u{b}'),
            '0'..='7' => {
                let mut code = c.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    match self.peek().and_then(|c| c.to_digit(8)) {
                        Some(d) => {
                            code = code * 8 + d;
                            self.bump();
                        }
                        None => break,
                    }
                }
                out.extend(char::from_u32(code));
            }
            'x' | 'u' | 'U' => match hex(
                self,
                if c == 'x' {
                    2
                } else if c == 'u' {
                    4
                } else {
                    8
                },
            ) {
                Some(ch) => out.push(ch),
                None => {
                    out.push('\\');
                    out.push(c);
                }
            },
            '\\' | '\'' | '"' => out.push(c),
            _ => {
                out.push('\\');
                out.push(c);
            }
        }
    }

    fn arguments(&mut self, call: &mut Call) -> Result<(), TtpError> {
        loop {
            self.space();
            if self.peek().is_none() {
                return Ok(());
            }
            let at = self.pos;
            if let Some(name) = self.name() {
                self.space();
                if self.rest().starts_with('=') && !self.rest().starts_with("==") {
                    self.bump();
                    let value = self.value(0)?;
                    call.kwargs.insert(name.to_owned(), value);
                    self.comma()?;
                    continue;
                }
                self.pos = at;
            }
            let value = self.value(0)?;
            call.args.push(value);
            self.comma()?;
        }
    }

    fn comma(&mut self) -> Result<(), TtpError> {
        self.space();
        if self.eat(',') || self.peek().is_none() {
            return Ok(());
        }
        Err(self.fail("missing ','"))
    }
}

/// Reads `a | b("x") | c(1, k=2)` into its calls.
pub(crate) fn calls(line: &str) -> Result<Vec<Call>, TtpError> {
    let mut out = Vec::new();
    for item in line.split('|').map(str::trim).filter(|i| !i.is_empty()) {
        out.push(call(item, line)?);
    }
    Ok(out)
}

fn call(item: &str, line: &str) -> Result<Call, TtpError> {
    // The name reaches to the first parenthesis; what follows must end with the closing one.
    let (name, options) = match item.find('(') {
        Some(open) if item.ends_with(')') && open > 0 => {
            (item.get(..open).unwrap_or("").trim_end(), item.get(open + 1..item.len() - 1).unwrap_or(""))
        }
        _ => (item, ""),
    };
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(TtpError::new(
            "syntax",
            format!("cannot read '{item}' in '{}': expected name or name(arguments)", line.trim()),
        ));
    }
    let mut call = Call { name: name.to_owned(), args: Vec::new(), kwargs: Map::new() };
    Reader::new(options, true)
        .arguments(&mut call)
        .map_err(|e| TtpError::new("syntax", format!("in '{}': {}", line.trim(), e.message)))?;
    Ok(call)
}

/// Reads the arguments of one function written as a tag attribute: `contains="ip, mask"`.
pub(crate) fn attribute_call(name: &str, options: &str) -> Result<Call, TtpError> {
    // As in TTP, a pipe cuts the attribute.
    let options = options.split('|').next().unwrap_or("").replace('\n', " ");
    let mut call = Call { name: name.to_owned(), args: Vec::new(), kwargs: Map::new() };
    Reader::new(&options, true)
        .arguments(&mut call)
        .map_err(|e| TtpError::new("syntax", format!("in attribute {name}=\"{options}\": {}", e.message)))?;
    Ok(call)
}

/// Reads the text of `<vars>` and its like: assignments of literals, or one literal.
pub(crate) fn assignments(text: &str, tag: &str) -> Result<Value, TtpError> {
    let refuse = |e: TtpError| {
        let mut err = TtpError::python(format_args!("the text of <{tag}>"));
        err.message = format!("{} ({})", err.message, e.message);
        err
    };
    let mut r = Reader::new(text, false);
    r.space();
    if r.peek().is_none() {
        return Ok(Value::Object(Map::new()));
    }
    if matches!(r.peek(), Some('{' | '[' | '(' | '"' | '\'')) {
        let value = r.value(0).map_err(refuse)?;
        r.space();
        return match r.peek() {
            None => Ok(value),
            Some(_) => Err(refuse(r.fail("text after the literal"))),
        };
    }
    let mut out = Map::new();
    loop {
        r.space();
        if r.peek().is_none() {
            return Ok(Value::Object(out));
        }
        let Some(name) = r.name() else { return Err(refuse(r.fail("not an assignment"))) };
        r.space();
        if !r.eat('=') || r.peek() == Some('=') {
            return Err(refuse(r.fail("not an assignment")));
        }
        r.space();
        let first = r.value(0).map_err(refuse)?;
        let line_start = r.pos;
        let blanks = r.rest().len() - r.rest().trim_start_matches([' ', '\t']).len();
        r.pos += blanks;
        let value = if r.peek() == Some(',') {
            r.pos = line_start;
            let mut items = vec![first];
            while {
                r.space();
                r.eat(',')
            } {
                r.pos += r.rest().len() - r.rest().trim_start_matches([' ', '\t']).len();
                if matches!(r.peek(), None | Some('\n')) {
                    break;
                }
                items.push(r.value(0).map_err(refuse)?);
            }
            Value::Array(items)
        } else {
            first
        };
        match r.peek() {
            None | Some('\n' | '\r' | '#' | ';') => {
                r.eat(';');
            }
            Some(_) => return Err(refuse(r.fail("an expression"))),
        }
        out.insert(name.to_owned(), value);
    }
}
