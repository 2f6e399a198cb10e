//! A regular expression of a platform file: kept as text, compiled when first used.

use std::fmt;
use std::sync::OnceLock;

use regex::bytes::{Regex, RegexBuilder};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// A regular expression over the device's bytes. Classes (`\w`, `\s`) mean ASCII, `.` is any byte
/// but a newline, so that devices that print invalid UTF-8 still match.
///
/// Reading one only parses the syntax; the automaton is built when a session first needs it,
/// because a process rarely meets more than a few of the platforms it knows.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    /// A pattern from `text`.
    ///
    /// # Errors
    /// The expression is wrong; the message points at the place.
    pub fn new(text: impl Into<String>) -> Result<Self, regex::Error> {
        let text = text.into();
        let regex = compile(&text)?;
        let compiled = OnceLock::new();
        // A fresh cell is empty, so this cannot fail.
        let _first = compiled.set(Some(regex));
        Ok(Self { text, compiled })
    }

    /// The expression as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The compiled expression, unless it is wrong ([`Pattern::check`] says how).
    #[must_use]
    pub fn regex(&self) -> Option<&Regex> {
        self.compiled.get_or_init(|| compile(&self.text).ok()).as_ref()
    }

    /// Whether the expression compiles.
    ///
    /// # Errors
    /// As [`Pattern::new`].
    pub fn check(&self) -> Result<(), regex::Error> {
        compile(&self.text).map(|_| ())
    }

    /// Whether it matches anywhere in `bytes`.
    #[must_use]
    pub fn is_match(&self, bytes: &[u8]) -> bool {
        self.regex().is_some_and(|r| r.is_match(bytes))
    }
}

fn compile(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text).unicode(false).size_limit(4 << 20).build()
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Err(D::Error::custom("an empty pattern matches everything; leave the key out"));
        }
        Ok(Self { text, compiled: OnceLock::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_bytes_that_are_no_utf8() {
        let pattern = Pattern::new(r"^r\S+#$").unwrap();
        assert!(pattern.is_match(b"r\xff\xfe#"));
        assert!(Pattern::new("(").is_err());
    }
}
