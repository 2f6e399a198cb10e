//! Python regular expressions on PCRE2, compiled when first needed and bounded in effort.
//!
//! Every line pattern of TTP begins with a newline. So candidates are found by a literal search and
//! each is tried with an anchored match (`\G`), which also bounds the effort per line.

use std::sync::{
    OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use pcre2::bytes::{CaptureLocations, Regex, RegexBuilder};

use super::error::TtpError;

/// Backtracking steps of one attempt; PCRE2 counts per start position.
const MATCH_LIMIT: usize = 300_000;
const DEPTH_LIMIT: usize = 20_000;
const HEAP_KIB: usize = 32_768;
/// Bytes matched without JIT before a pattern is compiled to machine code.
const JIT_AFTER: usize = 24_000;

/// PCRE2's error numbers that say a limit was reached: match, depth, JIT stack, heap.
const LIMITS: [i32; 4] = [-47, -53, -46, -63];

fn build(pattern: &str, ascii: bool, jit: bool) -> Result<Regex, pcre2::Error> {
    let full =
        format!("(*LIMIT_MATCH={MATCH_LIMIT})(*LIMIT_DEPTH={DEPTH_LIMIT})(*LIMIT_HEAP={HEAP_KIB}){pattern}");
    let mut b = RegexBuilder::new();
    b.utf(!ascii).ucp(!ascii);
    if jit {
        // Without a stack of its own the JIT uses 32 KiB of the thread's: a larger one would be
        // mapped anew for every rule of every run. What outgrows it takes the slow way.
        b.jit_if_available(true);
    }
    b.build(&full)
}

/// What differs between Python's syntax and PCRE2's is rewritten.
pub(crate) fn translate(pattern: &str) -> String {
    if !pattern.contains(['\\', '{']) {
        return pattern.to_owned();
    }
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.char_indices();
    while let Some((i, c)) = chars.next() {
        if c == '{' && pattern.get(i + 1..).is_some_and(|r| r.starts_with(',')) {
            let digits = pattern.get(i + 2..).map_or(0, |r| r.bytes().take_while(u8::is_ascii_digit).count());
            if digits > 0 && pattern.as_bytes().get(i + 2 + digits) == Some(&b'}') {
                out.push_str("{0");
                continue;
            }
        }
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some((_, 'Z')) => out.push_str("\\z"),
            Some((j, u @ ('u' | 'U'))) => {
                let n = if u == 'u' { 4 } else { 8 };
                match pattern.get(j + 1..j + 1 + n).filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit())) {
                    Some(hex) => {
                        out.push_str(&format!("\\x{{{hex}}}"));
                        for _ in 0..n {
                            chars.next();
                        }
                    }
                    None => {
                        out.push('\\');
                        out.push(u);
                    }
                }
            }
            Some((_, e)) => {
                out.push('\\');
                out.push(e);
            }
            None => out.push('\\'),
        }
    }
    out
}

/// One regular expression in its lazily built forms.
#[derive(Debug)]
pub(crate) struct Pattern {
    source: String,
    ascii: OnceLock<Regex>,
    ascii_jit: OnceLock<Regex>,
    utf_jit: OnceLock<Regex>,
    seen: AtomicUsize,
}

impl Pattern {
    /// Checks and keeps a pattern in Python's syntax.
    pub fn new(python: &str) -> Result<Self, TtpError> {
        let p = Self {
            source: translate(python),
            ascii: OnceLock::new(),
            ascii_jit: OnceLock::new(),
            utf_jit: OnceLock::new(),
            seen: AtomicUsize::new(0),
        };
        let ascii = p.source.is_ascii();
        // A pattern with letters beyond ASCII is checked as what it is.
        let built = build(&p.source, ascii, !ascii).map_err(|e| {
            TtpError::new("regex", format!("the pattern '{}' is not valid: {e}", python.escape_debug()))
        })?;
        let _ = if ascii { p.ascii.set(built) } else { p.utf_jit.set(built) };
        Ok(p)
    }

    /// Number of groups with the whole match, and their names.
    pub fn names(&self) -> Vec<Option<String>> {
        self.ascii
            .get()
            .or_else(|| self.utf_jit.get())
            .map(|r| r.capture_names().to_vec())
            .unwrap_or_default()
    }

    fn lazily<'a>(&self, cell: &'a OnceLock<Regex>, ascii: bool, jit: bool) -> Result<&'a Regex, TtpError> {
        if let Some(r) = cell.get() {
            return Ok(r);
        }
        let built = build(&self.source, ascii, jit).map_err(|e| TtpError::new("regex", e.to_string()))?;
        Ok(cell.get_or_init(|| built))
    }

    /// The form to use on a text of this length and kind.
    pub fn select(&self, len: usize, ascii: bool) -> Result<&Regex, TtpError> {
        if !ascii {
            return self.lazily(&self.utf_jit, false, true);
        }
        if let Some(r) = self.ascii_jit.get() {
            return Ok(r);
        }
        if self.seen.fetch_add(len, Ordering::Relaxed) + len > JIT_AFTER {
            return self.lazily(&self.ascii_jit, true, true);
        }
        self.lazily(&self.ascii, true, false)
    }

    /// Like a match at `at`, for the rare attempt that outgrew the JIT's stack.
    pub fn slow(
        &self,
        text: &[u8],
        at: usize,
        ascii: bool,
        locs: &mut CaptureLocations,
    ) -> Result<bool, TtpError> {
        let cell = OnceLock::new();
        let regex =
            if ascii { self.lazily(&self.ascii, true, false)? } else { self.lazily(&cell, false, false)? };
        *locs = regex.capture_locations();
        match regex.captures_read_at(locs, text, at) {
            Ok(m) => Ok(m.is_some()),
            Err(e) => Err(self.error(&e)),
        }
    }

    /// Turns an engine's error into ours, naming the pattern.
    pub fn error(&self, e: &pcre2::Error) -> TtpError {
        if LIMITS.contains(&e.code()) {
            TtpError::limit(format_args!(
                "the pattern '{}' backtracks too much on this text: make it stricter",
                self.source.trim_start_matches("\\G").escape_debug()
            ))
        } else {
            TtpError::new("regex", e.to_string())
        }
    }
}

/// Whether an error means the JIT's stack was too small for this attempt.
pub(crate) fn is_jit_stack(e: &pcre2::Error) -> bool {
    e.code() == -46
}

/// Searches `text` with a Python pattern: the first match as (start, end), groups in `locs`.
pub(crate) struct Search {
    pattern: Pattern,
}

impl Search {
    pub fn new(python: &str) -> Result<Self, TtpError> {
        Ok(Self { pattern: Pattern::new(python)? })
    }

    pub fn is_match(&self, text: &str) -> Result<bool, TtpError> {
        self.pattern
            .select(text.len(), text.is_ascii())?
            .is_match(text.as_bytes())
            .map_err(|e| self.pattern.error(&e))
    }

    /// The texts of all groups of the first match.
    pub fn groups(&self, text: &str) -> Result<Option<Vec<Option<String>>>, TtpError> {
        let r = self.pattern.select(text.len(), text.is_ascii())?;
        let caps = r.captures(text.as_bytes()).map_err(|e| self.pattern.error(&e))?;
        Ok(caps.map(|c| {
            (0..c.len())
                .map(|i| c.get(i).map(|m| String::from_utf8_lossy(m.as_bytes()).into_owned()))
                .collect()
        }))
    }

    /// `re.sub(pattern, template, text, count)`; 0 replaces all.
    pub fn sub(&self, template: &str, text: &str, count: usize, limit: usize) -> Result<String, TtpError> {
        let r = self.pattern.select(text.len(), text.is_ascii())?;
        let names = r.capture_names();
        let parts = Replacement::read(template, names)?;
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        for (n, caps) in r.captures_iter(text.as_bytes()).enumerate() {
            let caps = caps.map_err(|e| self.pattern.error(&e))?;
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

/// `re.escape`.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        if "()[]{}?*+-|^$\\.&~# \t\n\r\u{b}\u{c}".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The literal text a line pattern must begin with, newline included.
pub(crate) fn literal_prefix(pattern: &str) -> String {
    let Some(rest) = pattern.strip_prefix("\\n") else { return String::new() };
    let mut out = String::from("\n");
    let mut chars = rest.chars().peekable();
    loop {
        let c = match chars.next() {
            Some('\\') => match chars.next() {
                Some(e) if !e.is_ascii_alphanumeric() => e,
                _ => break,
            },
            Some(c) if !"[](){}?*+|^$.".contains(c) => c,
            _ => break,
        };
        // A repeated character need not be there.
        if matches!(chars.peek(), Some('?' | '*' | '{' | '+')) {
            break;
        }
        out.push(c);
    }
    out
}
