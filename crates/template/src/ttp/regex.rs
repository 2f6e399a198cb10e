//! Searches of match functions: Python's `re.search` and `re.sub` on values.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use pcre2::bytes::{Regex, RegexBuilder};

use super::error::TtpError;
use super::places::Head;
use crate::pyre::python_to_pcre;

/// Backtracking steps of one attempt; PCRE2 counts per start position.
const MATCH_LIMIT: usize = 300_000;
const DEPTH_LIMIT: usize = 20_000;
const HEAP_KIB: usize = 32_768;
/// Most searches a template keeps.
const MOST_KEPT: usize = 1000;

/// PCRE2's error numbers that say a limit was reached: match, depth, JIT stack, heap.
const LIMITS: [i32; 4] = [-47, -53, -46, -63];

/// The searches that a template's functions have used; compiled once, whatever the runs.
#[derive(Debug, Default)]
pub(crate) struct Searches(Mutex<HashMap<String, Arc<Search>>>);

impl Searches {
    pub fn get(&self, pattern: &str) -> Result<Arc<Search>, TtpError> {
        let mut kept = self.0.lock();
        if let Some(search) = kept.get(pattern) {
            return Ok(Arc::clone(search));
        }
        // Patterns may be made of the text that is parsed.
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        let search = Arc::new(Search::new(pattern)?);
        kept.insert(pattern.to_owned(), Arc::clone(&search));
        Ok(search)
    }
}

/// Searches with a Python pattern.
#[derive(Debug)]
pub(crate) struct Search {
    pattern: String,
    /// The pattern as PCRE2 writes it.
    source: String,
    /// The name of each group, the whole match first.
    names: Vec<Option<String>>,
    ascii: OnceLock<Result<Regex, String>>,
    unicode: OnceLock<Result<Regex, String>>,
}

impl Search {
    pub fn new(pattern: &str) -> Result<Self, TtpError> {
        let (source, names) = python_to_pcre(pattern).map_err(|e| {
            TtpError::new("regex", format!("the pattern '{}' is not valid: {e}", pattern.escape_debug()))
        })?;
        Ok(Self {
            pattern: pattern.to_owned(),
            source,
            names,
            ascii: OnceLock::new(),
            unicode: OnceLock::new(),
        })
    }

    fn select(&self, text: &str) -> Result<&Regex, TtpError> {
        let ascii = text.is_ascii() && self.source.is_ascii();
        let cell = if ascii { &self.ascii } else { &self.unicode };
        let built = cell.get_or_init(|| {
            let full = format!(
                "(*LIMIT_MATCH={MATCH_LIMIT})(*LIMIT_DEPTH={DEPTH_LIMIT})(*LIMIT_HEAP={HEAP_KIB}){}",
                self.source
            );
            RegexBuilder::new().utf(!ascii).ucp(!ascii).build(&full).map_err(|e| e.to_string())
        });
        built.as_ref().map_err(|e| TtpError::new("regex", e.clone()))
    }

    /// Turns an engine's error into ours, naming the pattern.
    fn error(&self, e: &pcre2::Error) -> TtpError {
        if LIMITS.contains(&e.code()) {
            TtpError::limit(format_args!(
                "the pattern '{}' backtracks too much on this text: make it stricter",
                self.pattern.escape_debug()
            ))
        } else {
            TtpError::new("regex", e.to_string())
        }
    }

    pub fn is_match(&self, text: &str) -> Result<bool, TtpError> {
        self.select(text)?.is_match(text.as_bytes()).map_err(|e| self.error(&e))
    }

    /// The texts of all groups of the first match.
    pub fn groups(&self, text: &str) -> Result<Option<Vec<Option<String>>>, TtpError> {
        let caps = self.select(text)?.captures(text.as_bytes()).map_err(|e| self.error(&e))?;
        Ok(caps.map(|c| {
            (0..c.len())
                .map(|i| c.get(i).map(|m| String::from_utf8_lossy(m.as_bytes()).into_owned()))
                .collect()
        }))
    }

    /// `re.sub(pattern, template, text, count)`; 0 replaces all.
    pub fn sub(&self, template: &str, text: &str, count: usize, limit: usize) -> Result<String, TtpError> {
        let r = self.select(text)?;
        let parts = Replacement::read(template, &self.names)?;
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        for (n, caps) in r.captures_iter(text.as_bytes()).enumerate() {
            let caps = caps.map_err(|e| self.error(&e))?;
            let Some(whole) = caps.get(0) else { break };
            out.push_str(text.get(at..whole.start()).unwrap_or(""));
            for part in &parts {
                match part {
                    Replacement::Text(t) => out.push_str(t),
                    Replacement::Group(g) => {
                        if let Some(m) = caps.get(*g) {
                            out.push_str(&String::from_utf8_lossy(m.as_bytes()));
                        }
                    }
                }
            }
            if out.len() > limit {
                return Err(TtpError::limit("a replacement made the value larger than the allowed size"));
            }
            at = whole.end();
            if count > 0 && n + 1 == count {
                break;
            }
        }
        out.push_str(text.get(at..).unwrap_or(""));
        Ok(out)
    }
}

enum Replacement {
    Text(String),
    Group(usize),
}

impl Replacement {
    fn read(template: &str, names: &[Option<String>]) -> Result<Vec<Self>, TtpError> {
        let mut out = Vec::new();
        let mut text = String::new();
        let mut rest = template;
        while let Some(c) = rest.chars().next() {
            rest = rest.get(c.len_utf8()..).unwrap_or("");
            if c != '\\' {
                text.push(c);
                continue;
            }
            let Some(e) = rest.chars().next() else {
                text.push('\\');
                break;
            };
            rest = rest.get(e.len_utf8()..).unwrap_or("");
            let group = match e {
                '1'..='9' => {
                    let second = rest
                        .chars()
                        .next()
                        .and_then(|c| c.to_digit(10))
                        .filter(|d| (e.to_digit(10).unwrap_or(0) * 10 + d) < names.len() as u32);
                    if second.is_some() {
                        rest = rest.get(1..).unwrap_or("");
                    }
                    let first = e.to_digit(10).unwrap_or(0) as usize;
                    Some(second.map_or(first, |d| first * 10 + d as usize))
                }
                'g' if rest.starts_with('<') => {
                    let end = rest.find('>').unwrap_or(0);
                    let name = rest.get(1..end).unwrap_or("");
                    rest = rest.get(end + 1..).unwrap_or("");
                    match name.parse::<usize>() {
                        Ok(n) => Some(n),
                        Err(_) => {
                            Some(names.iter().position(|n| n.as_deref() == Some(name)).ok_or_else(|| {
                                TtpError::new("regex", format!("replacement names an unknown group '{name}'"))
                            })?)
                        }
                    }
                }
                _ => None,
            };
            match group {
                Some(g) if g < names.len() => {
                    out.push(Self::Text(std::mem::take(&mut text)));
                    out.push(Self::Group(g));
                }
                Some(g) => {
                    return Err(TtpError::new(
                        "regex",
                        format!("replacement names group {g}, the pattern has fewer"),
                    ));
                }
                None => match e {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    '\\' => text.push('\\'),
                    _ => {
                        text.push('\\');
                        text.push(e);
                    }
                },
            }
        }
        out.push(Self::Text(text));
        Ok(out)
    }
}

/// Whether `re.escape` puts a backslash before it.
pub(crate) const fn is_special(c: char) -> bool {
    matches!(
        c,
        '(' | ')'
            | '['
            | ']'
            | '{'
            | '}'
            | '?'
            | '*'
            | '+'
            | '-'
            | '|'
            | '^'
            | '$'
            | '\\'
            | '.'
            | '&'
            | '~'
            | '#'
            | ' '
            | '\t'
            | '\n'
            | '\r'
            | '\u{b}'
            | '\u{c}'
    )
}

/// `re.escape`.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        if is_special(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The first of the letters that a line must begin with to match a line's pattern.
pub(crate) fn literal_head(pattern: &str) -> Head {
    let mut letters = [0; 8];
    let mut count = 0;
    let mut bytes = pattern.strip_prefix("\\n").unwrap_or("").bytes().peekable();
    while count < letters.len() {
        let byte = match bytes.next() {
            Some(b'\\') => match bytes.next() {
                Some(e) if e.is_ascii() && !e.is_ascii_alphanumeric() => e,
                _ => break,
            },
            Some(b) if b.is_ascii() && !b"[](){}?*+|^$.".contains(&b) => b,
            // A character of several bytes may be repeated as a whole.
            _ => break,
        };
        // A repeated character need not be there.
        if matches!(bytes.peek(), Some(b'?' | b'*' | b'{' | b'+')) {
            break;
        }
        letters[count] = byte;
        count += 1;
    }
    Head::new(&letters[..count])
}
