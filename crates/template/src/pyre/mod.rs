//! Python's `re.match` on lines of text: Python's syntax, PCRE2's engine.
//!
//! A pattern is read by Python's rules ([`syntax`]), so its errors are Python's; what decides
//! quickly is decided without PCRE2 ([`onepass`]); the rest is compiled by PCRE2 on first use, as
//! bytes for ASCII lines and as Unicode for others. Match, depth and heap limits bound every run.

pub(crate) mod analysis;
mod emit;
mod onepass;
mod search;
mod simplify;
pub(crate) mod syntax;

pub(crate) use search::Search;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use analysis::Bytes;
use onepass::OnePass;
use pcre2::bytes::{CaptureLocations, Regex as Pcre, RegexBuilder};

/// Backtracking steps that nearly every match stays below. A step takes some nanoseconds.
const QUICK_LIMIT: u32 = 200_000;
/// Steps after which a match is given up. Real templates reach more than a million.
const MATCH_LIMIT: u32 = 20_000_000;
/// Matches after which a pattern is worth machine code (some 30 microseconds).
const JIT_AFTER: u32 = 40;
/// PCRE2's number for "match limit exceeded".
const MATCH_LIMIT_MET: i32 = -47;
/// Nested backtracking points (interpreter only; the JIT is bounded by its stack).
const DEPTH_LIMIT: u32 = 20_000;
/// Heap for one match, in KiB (interpreter only).
const HEAP_LIMIT: u32 = 20_000;
/// Machine stack for the JIT, in bytes.
const JIT_STACK: usize = 256 * 1024;

/// A pattern that matches at the beginning of a line.
pub struct Regex {
    source: Box<str>,
    first: Option<Box<Bytes>>,
    quick: Option<OnePass>,
    ascii_pattern: bool,
    /// For the first few lines: compiled without JIT, which takes longer than they do.
    cold: OnceLock<Option<Pcre>>,
    uses: AtomicU32,
    bytes: OnceLock<Option<Pcre>>,
    unicode: OnceLock<Result<Pcre, String>>,
    /// The Unicode form again, with the last limit.
    patient: OnceLock<Result<Pcre, String>>,
    groups: u32,
    /// Groups as written, before those without a name were dropped.
    written: u32,
    names: Vec<(String, u32)>,
}

impl std::fmt::Debug for Regex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Regex({:?})", self.source)
    }
}

/// Where the groups of the last match were, and the memory PCRE2 needs; one per thread of work.
pub struct Scratch {
    locations: Option<(u32, CaptureLocations)>,
    slots: Vec<u32>,
    from_slots: bool,
    slow: bool,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { locations: None, slots: Vec::new(), from_slots: true, slow: false }
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scratch")
    }
}

impl Scratch {
    /// Begin and end of a group in the last match.
    #[inline]
    pub fn span(&self, group: u32) -> Option<(usize, usize)> {
        if self.from_slots {
            onepass::span(&self.slots, group)
        } else {
            self.locations.as_ref().and_then(|(_, l)| l.get(group as usize))
        }
    }

    /// Whether a match since the last call took long, so that a look at the clock is due.
    #[inline]
    pub const fn took_long(&mut self) -> bool {
        std::mem::replace(&mut self.slow, false)
    }

    /// Match memory for at least this many groups. One block serves every pattern, since PCRE2
    /// only asks that it be large enough.
    fn room(&mut self, groups: u32) -> Result<&mut CaptureLocations, String> {
        if self.locations.as_ref().is_none_or(|(n, _)| *n < groups) {
            let room = groups.max(31);
            let shape = RegexBuilder::new()
                .jit_if_available(true)
                .max_jit_stack_size(Some(JIT_STACK))
                .build(&"()".repeat(room as usize))
                .map_err(|e| e.to_string())?;
            self.locations = Some((room, shape.capture_locations()));
        }
        self.locations.as_mut().map(|(_, l)| l).ok_or_else(String::new)
    }
}

impl Regex {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Python's own words, such as `missing ), unterminated subpattern at position 3`.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let parsed = syntax::parse(pattern)?;
        let written = parsed.groups;
        let parsed = simplify::simplify(parsed);
        let (bytes, empty) = analysis::first(&parsed.root);
        let quick = OnePass::new(&parsed.root);
        let complete = quick.as_ref().is_some_and(OnePass::complete);
        let mut source = String::from("\\A(?:");
        emit::emit(&parsed.root, &mut source);
        source.push(')');
        let regex = Self {
            ascii_pattern: source.is_ascii(),
            source: source.into(),
            first: (!empty).then(|| Box::new(bytes)),
            quick,
            cold: OnceLock::new(),
            uses: AtomicU32::new(0),
            bytes: OnceLock::new(),
            unicode: OnceLock::new(),
            patient: OnceLock::new(),
            groups: parsed.groups,
            written,
            names: parsed.names,
        };
        // What PCRE2 might still refuse is asked now, so that a template with it never compiles.
        if parsed.exotic || (!complete && pattern.len() > 4096) {
            regex.unicode()?;
        }
        Ok(regex)
    }

    /// Named groups with their numbers, in order of definition.
    pub fn names(&self) -> &[(String, u32)] {
        &self.names
    }

    /// How many groups the pattern writes.
    pub const fn groups_written(&self) -> u32 {
        self.written
    }

    fn build(&self, limit: u32, unicode: bool, jit: bool) -> Result<Pcre, pcre2::Error> {
        RegexBuilder::new().utf(unicode).ucp(unicode).jit_if_available(jit).build(&format!(
            "(*LIMIT_MATCH={limit})(*LIMIT_DEPTH={DEPTH_LIMIT})(*LIMIT_HEAP={HEAP_LIMIT}){}",
            self.source
        ))
    }

    fn unicode(&self) -> Result<&Pcre, String> {
        let built =
            self.unicode.get_or_init(|| self.build(QUICK_LIMIT, true, true).map_err(|e| e.to_string()));
        built.as_ref().map_err(Clone::clone)
    }

    fn plain(&self) -> Option<&Pcre> {
        if !self.ascii_pattern {
            return None;
        }
        if self.uses.load(Relaxed) < JIT_AFTER {
            self.uses.fetch_add(1, Relaxed);
            return self.cold.get_or_init(|| self.build(QUICK_LIMIT, false, false).ok()).as_ref();
        }
        self.bytes.get_or_init(|| self.build(QUICK_LIMIT, false, true).ok()).as_ref()
    }

    /// Whether the pattern matches at the beginning of `line`, which holds no newline; `ascii`
    /// says that it holds ASCII only. The groups are then read from `scratch`.
    ///
    /// # Errors
    /// PCRE2's words when a limit was met or the pattern could not be compiled.
    #[inline]
    pub fn matches(&self, line: &str, ascii: bool, scratch: &mut Scratch) -> Result<bool, String> {
        let bytes = line.as_bytes();
        if let Some(first) = &self.first {
            match bytes.first() {
                Some(b) if first.has(*b) => {}
                _ => return Ok(false),
            }
        }
        if ascii && let Some(quick) = &self.quick {
            onepass::clear(&mut scratch.slots, self.groups);
            match quick.run(bytes, &mut scratch.slots) {
                None => return Ok(false),
                Some(end) if quick.complete() => {
                    scratch.slots[0] = 0;
                    scratch.slots[1] = u32::try_from(end).unwrap_or(u32::MAX);
                    scratch.from_slots = true;
                    return Ok(true);
                }
                Some(_) => {}
            }
        }
        self.backtrack(bytes, ascii, scratch)
    }

    fn backtrack(&self, line: &[u8], ascii: bool, scratch: &mut Scratch) -> Result<bool, String> {
        let regex = match if ascii { self.plain() } else { None } {
            Some(regex) => regex,
            None => self.unicode()?,
        };
        scratch.from_slots = false;
        let room = scratch.room(self.groups)?;
        match regex.captures_read(room, line) {
            Ok(found) => return Ok(found.is_some()),
            Err(error) if error.code() == MATCH_LIMIT_MET => {}
            Err(error) => return Err(error.to_string()),
        }
        scratch.slow = true;
        let patient = self
            .patient
            .get_or_init(|| self.build(MATCH_LIMIT, true, true).map_err(|e| e.to_string()))
            .as_ref()
            .map_err(Clone::clone)?;
        let room = scratch.room(self.groups)?;
        match patient.captures_read(room, line) {
            Ok(found) => Ok(found.is_some()),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn groups(pattern: &str, line: &str, ascii: bool) -> Option<Vec<Option<(usize, usize)>>> {
        let regex = Regex::new(pattern).unwrap();
        let mut scratch = Scratch::default();
        regex
            .matches(line, ascii, &mut scratch)
            .unwrap()
            .then(|| regex.names().iter().map(|(_, g)| scratch.span(*g)).collect())
    }

    #[test]
    fn errors_are_pythons() {
        for (pattern, message) in [
            ("(a", "missing ), unterminated subpattern at position 0"),
            ("a)", "unbalanced parenthesis at position 1"),
            ("*a", "nothing to repeat at position 0"),
            ("a**", "multiple repeat at position 2"),
            ("[z-a]", "bad character range z-a at position 1"),
            ("[a", "unterminated character set at position 0"),
            (r"\h", r"bad escape \h at position 0"),
            ("(?P<n>a)(?P<n>b)", "redefinition of group name 'n' as group 2; was group 1 at position 12"),
            ("(?<=a+)b", "look-behind requires fixed-width pattern"),
            ("a(?i)b", "global flags not at the start of the expression at position 1"),
            ("a{3,2}", "min repeat greater than max repeat at position 1"),
        ] {
            assert_eq!(Regex::new(pattern).unwrap_err(), message, "{pattern}");
        }
    }

    #[test]
    fn syntax_that_differs_from_pcre() {
        // `\Z` is the very end, `\v` a vertical tab, `\<` a plain character, `[[:x` a set.
        assert!(groups(r"a\Z", "a", true).is_some());
        assert!(groups(r"\<a\>", "<a>", true).is_some());
        assert!(groups(r"[[:a]b", ":b", false).is_some());
        assert!(groups("a{,2}$", "aa", false).is_some());
        assert!(groups("a{x}", "a{x}", false).is_some());
        assert!(groups(r"\x41\u0042", "AB", false).is_some());
        assert!(groups(r"(?i)straße", "STRAßE", false).is_some());
        assert!(groups(r"(?P<a>x)(?P=a)$", "xx", true).is_some());
    }

    /// Pieces that rules are made of.
    fn pattern() -> impl Strategy<Value = String> {
        let atom = prop::sample::select(vec![
            "a", "b", "ab", r"\s", r"\S", r"\d", r"\w", ".", "[ab]", "[^a ]", "-", r"\.", "(?:a|b)",
            "(?:ab|1)", "(a|1)", "(?:a b)", "(?i:A)",
        ]);
        let repeat = prop::sample::select(vec!["", "", "*", "+", "?", "{2}", "{1,2}", "*?", "+?"]);
        let piece = (atom, repeat, any::<bool>()).prop_map(|(a, r, named)| (format!("(?:{a}){r}"), named));
        (prop::collection::vec(piece, 1..6), any::<bool>()).prop_map(|(pieces, end)| {
            let mut out = String::from("^");
            for (i, (piece, named)) in pieces.into_iter().enumerate() {
                if named {
                    out.push_str(&format!("(?P<g{i}>{piece})"));
                } else {
                    out.push_str(&piece);
                }
            }
            if end {
                out.push('$');
            }
            out
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

        /// The quick way and PCRE2 agree on every group.
        #[test]
        fn quick_is_pcre(pattern in pattern(), line in "[ab1 .\\-]{0,12}") {
            prop_assert_eq!(groups(&pattern, &line, true), groups(&pattern, &line, false), "{}", pattern);
        }

        /// No pattern text makes the reader panic or hang.
        #[test]
        fn any_text_is_read(text in "[\\\\()\\[\\]{}|*+?^$a-d0-3,:=!<>P#.i-]{0,40}") {
            let _ = Regex::new(&text);
        }
    }
}
