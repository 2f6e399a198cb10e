//! Python's `re.match` on text: Python's syntax, PCRE2's engine where it is needed.
//!
//! Plain patterns on ASCII subjects, nearly all there are, are compiled in one walk ([`plain`])
//! and run by a small backtracker ([`walk`]). Everything else is read by Python's rules
//! ([`syntax`]), so its errors are Python's, and run by PCRE2, compiled on first use: as bytes for
//! ASCII subjects and as Unicode for others. Step, depth and heap limits bound every run.

pub(crate) mod analysis;
mod emit;
mod follow;
mod groups;
mod plain;
mod read;
mod search;
mod simplify;
pub(crate) mod syntax;
mod walk;

pub(crate) use search::Search;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use analysis::Bytes;
use pcre2::bytes::{CaptureLocations, Regex as Pcre, RegexBuilder};
use plain::Plain;
use walk::{Slots, UNSET};

/// Backtracking steps that nearly every match stays below. A step takes some nanoseconds.
const QUICK_LIMIT: u32 = 200_000;
/// Steps after which a match is given up. Real templates reach more than a million.
const MATCH_LIMIT: u32 = 20_000_000;
/// Bytes matched after which a pattern is worth machine code (some 30 microseconds).
const JIT_AFTER: u32 = 4_000;
/// Times a plain program may give up before PCRE2 is asked at once.
const GIVE_UPS: u32 = 8;
/// PCRE2's number for "match limit exceeded".
const MATCH_LIMIT_MET: i32 = -47;
/// Nested backtracking points (interpreter only; the JIT is bounded by its stack).
const DEPTH_LIMIT: u32 = 20_000;
/// Heap for one match, in KiB (interpreter only).
const HEAP_LIMIT: u32 = 20_000;
/// Machine stack for the JIT, in bytes.
const JIT_STACK: usize = 256 * 1024;

/// A pattern that matches at a given place.
pub struct Regex {
    pattern: Box<str>,
    plain: Option<Plain>,
    gave_up: AtomicU32,
    full: OnceLock<Result<Box<Full>, String>>,
    /// Where the names of the named groups are in the pattern; the groups are numbered from 1 in
    /// this order.
    names: Box<[(u32, u32)]>,
    /// Groups as written, named or not.
    written: u32,
}

impl std::fmt::Debug for Regex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Regex({:?})", self.pattern)
    }
}

/// A Python pattern in PCRE2's syntax, and the name of each group, the whole match first.
///
/// # Errors
/// Python's own words.
pub fn python_to_pcre(pattern: &str) -> Result<(String, Vec<Option<String>>), String> {
    let parsed = syntax::parse(pattern)?;
    let mut source = String::with_capacity(pattern.len() + 16);
    emit::emit(&parsed.root, &mut source);
    let mut names = vec![None; parsed.groups as usize + 1];
    for (name, number) in parsed.names {
        if let Some(place) = names.get_mut(number as usize) {
            *place = Some(name);
        }
    }
    Ok((source, names))
}

/// Checks a pattern without keeping it.
///
/// # Errors
/// Python's own words.
pub fn check(pattern: &str) -> Result<(), String> {
    if Plain::is_plain(pattern) {
        return Ok(());
    }
    syntax::parse(pattern).map(|_| ())
}

/// What can be asked of an ASCII subject before the pattern itself.
#[derive(Clone, Copy, Debug)]
pub struct Lead {
    first: plain::Set,
    /// The empty subject may match.
    end: bool,
    needs: plain::Set,
}

/// The bytes of a subject.
#[derive(Clone, Copy, Debug)]
pub struct Held(plain::Set);

/// The bit of each byte in a set; bytes beyond ASCII have none.
const BITS: [plain::Set; 256] = {
    let mut bits = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 128 {
        bits[byte][byte >> 6] = 1 << (byte & 63);
        byte += 1;
    }
    bits
};

impl Held {
    /// Those of an ASCII subject.
    pub fn of(subject: &[u8]) -> Self {
        let mut held = [0; 2];
        for byte in subject {
            let bit = &BITS[usize::from(*byte)];
            held[0] |= bit[0];
            held[1] |= bit[1];
        }
        Self(held)
    }

    /// Those of a line and the newline before it.
    pub fn of_line(line: &[u8]) -> Self {
        let Self(held) = Self::of(line);
        Self([held[0] | plain::NEWLINE[0], held[1]])
    }
}

impl Lead {
    /// Whether a subject with this first byte (none when empty) can match.
    #[inline]
    pub const fn fits(&self, first: Option<u8>) -> bool {
        match first {
            Some(byte) => plain::has(&self.first, byte),
            None => self.end,
        }
    }

    /// Whether anything must be held.
    #[inline]
    pub const fn is_choosy(&self) -> bool {
        self.needs[0] | self.needs[1] != 0
    }

    /// Whether a subject that holds these bytes can match.
    #[inline]
    pub const fn is_met(&self, held: &Held) -> bool {
        self.needs[0] & !held.0[0] == 0 && self.needs[1] & !held.0[1] == 0
    }
}

/// The form for PCRE2.
struct Full {
    source: Box<str>,
    first: Option<Bytes>,
    ascii_pattern: bool,
    /// Bytes matched so far.
    seen: AtomicU32,
    /// For the first few lines: compiled without JIT, which takes longer than they do.
    ascii: OnceLock<Result<Pcre, String>>,
    ascii_jit: OnceLock<Result<Pcre, String>>,
    unicode: OnceLock<Result<Pcre, String>>,
    unicode_jit: OnceLock<Result<Pcre, String>>,
    /// The Unicode form again, with the last limit.
    patient: OnceLock<Result<Pcre, String>>,
    /// PCRE2's numbers of the named groups.
    numbers: Box<[u32]>,
    names: Vec<(String, u32)>,
    groups: u32,
    written: u32,
}

/// Where the groups of the last match were, and the memory matching needs; one per thread of work.
#[derive(Default)]
pub struct Scratch {
    locations: Option<(u32, CaptureLocations)>,
    slots: Slots,
    slow: bool,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scratch")
    }
}

thread_local! {
    /// What the last run of a thread left, to spare the next the making of it.
    static SPARE: std::cell::Cell<Option<Scratch>> = const { std::cell::Cell::new(None) };
}

/// Memory of failed attempts that a thread may keep, in words.
const SPARE_MEMO: usize = 1 << 13;

impl Scratch {
    /// The one that the last run of this thread left, or a new one.
    pub fn reused() -> Self {
        SPARE.take().unwrap_or_default()
    }

    /// Leaves it to the next run of this thread.
    pub fn leave(mut self) {
        self.slow = false;
        self.slots.shrink(SPARE_MEMO);
        SPARE.set(Some(self));
    }

    /// Begin and end of a named group in the last match, numbered as in [`Regex::names`]; 0 is
    /// the whole match.
    #[inline]
    pub fn span(&self, group: u32) -> Option<(usize, usize)> {
        let at = group as usize * 2;
        let (start, end) = (*self.slots.at.get(at)?, *self.slots.at.get(at + 1)?);
        (start != UNSET && end != UNSET).then_some((start as usize, end as usize))
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

impl Full {
    fn new(pattern: &str) -> Result<Self, String> {
        let parsed = syntax::parse(pattern)?;
        let written = parsed.groups;
        let parsed = simplify::simplify(parsed);
        let (bytes, empty) = analysis::first(&parsed.root);
        let mut source = String::from("\\G(?:");
        emit::emit(&parsed.root, &mut source);
        source.push(')');
        let full = Self {
            ascii_pattern: source.is_ascii(),
            source: source.into(),
            first: (!empty).then_some(bytes),
            seen: AtomicU32::new(0),
            ascii: OnceLock::new(),
            ascii_jit: OnceLock::new(),
            unicode: OnceLock::new(),
            unicode_jit: OnceLock::new(),
            patient: OnceLock::new(),
            numbers: parsed.names.iter().map(|(_, number)| *number).collect(),
            names: parsed.names,
            groups: parsed.groups,
            written,
        };
        // What PCRE2 might still refuse is asked now, so that a template with it never compiles.
        if parsed.exotic || pattern.len() > 4096 {
            full.form(&full.unicode, QUICK_LIMIT, true, false)?;
        }
        Ok(full)
    }

    fn form<'a>(
        &self,
        cell: &'a OnceLock<Result<Pcre, String>>,
        limit: u32,
        unicode: bool,
        jit: bool,
    ) -> Result<&'a Pcre, String> {
        let built = cell.get_or_init(|| {
            RegexBuilder::new()
                .utf(unicode)
                .ucp(unicode)
                .jit_if_available(jit)
                .build(&format!(
                    "(*LIMIT_MATCH={limit})(*LIMIT_DEPTH={DEPTH_LIMIT})(*LIMIT_HEAP={HEAP_LIMIT}){}",
                    self.source
                ))
                .map_err(|e| e.to_string())
        });
        built.as_ref().map_err(Clone::clone)
    }

    fn select(&self, length: usize, ascii: bool) -> Result<&Pcre, String> {
        let more = u32::try_from(length).unwrap_or(u32::MAX);
        let hot = self.seen.load(Relaxed) >= JIT_AFTER;
        if !hot {
            self.seen.fetch_add(more.min(JIT_AFTER), Relaxed);
        }
        match (ascii && self.ascii_pattern, hot) {
            (true, false) => self.form(&self.ascii, QUICK_LIMIT, false, false),
            (true, true) => self.form(&self.ascii_jit, QUICK_LIMIT, false, true),
            (false, false) => self.form(&self.unicode, QUICK_LIMIT, true, false),
            (false, true) => self.form(&self.unicode_jit, QUICK_LIMIT, true, true),
        }
    }

    fn matches(&self, subject: &[u8], at: usize, ascii: bool, scratch: &mut Scratch) -> Result<bool, String> {
        if let Some(first) = &self.first {
            match subject.get(at) {
                Some(byte) if first.has(*byte) => {}
                _ => return Ok(false),
            }
        }
        // The first use compiles, which takes longer than most matches.
        scratch.slow |= self.seen.load(Relaxed) == 0;
        let regex = self.select(subject.len() - at, ascii)?;
        let found = regex.captures_read_at(scratch.room(self.groups)?, subject, at).map(|m| m.is_some());
        let found = match found {
            // The JIT's stack or the interpreter's memory ran out, or many steps were taken.
            Err(error) if [MATCH_LIMIT_MET, -46, -53, -63].contains(&error.code()) => {
                scratch.slow = true;
                let patient = self.form(&self.patient, MATCH_LIMIT, true, true)?;
                patient.captures_read_at(scratch.room(self.groups)?, subject, at).map(|m| m.is_some())
            }
            found => found,
        };
        if !found.map_err(|e| e.to_string())? {
            return Ok(false);
        }
        let Scratch { slots, locations, .. } = scratch;
        slots.clear(self.numbers.len());
        let numbers = std::iter::once(0).chain(self.numbers.iter().copied());
        for (number, pair) in numbers.zip(slots.at.chunks_exact_mut(2)) {
            if let Some((start, end)) = locations.as_ref().and_then(|(_, l)| l.get(number as usize)) {
                pair[0] = start as u32;
                pair[1] = end as u32;
            }
        }
        Ok(true)
    }
}

/// Where the definitions of names are in a pattern.
fn place(pattern: &str, names: &[(String, u32)]) -> Box<[(u32, u32)]> {
    let mut from = 0;
    let mut places = Vec::with_capacity(names.len());
    for (name, _) in names {
        let mark = format!("?P<{name}>");
        let Some(at) = pattern.get(from..).and_then(|rest| rest.find(&mark)) else { break };
        let start = from + at + 3;
        places.push((start as u32, (start + name.len()) as u32));
        from = start + name.len();
    }
    places.into()
}

impl Regex {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Python's own words, such as `missing ), unterminated subpattern at position 3`.
    pub fn new(pattern: &str) -> Result<Self, String> {
        if let Some(mut plain) = Plain::new(pattern) {
            return Ok(Self {
                pattern: pattern.into(),
                names: std::mem::take(&mut plain.names),
                written: plain.written,
                plain: Some(plain),
                gave_up: AtomicU32::new(0),
                full: OnceLock::new(),
            });
        }
        let full = Full::new(pattern)?;
        Ok(Self {
            pattern: pattern.into(),
            names: place(pattern, &full.names),
            written: full.written,
            plain: None,
            gave_up: AtomicU32::new(0),
            full: OnceLock::from(Ok(Box::new(full))),
        })
    }

    /// Names of the named groups in order of definition; the first has number 1.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter().map(|(from, to)| self.pattern.get(*from as usize..*to as usize).unwrap_or(""))
    }

    /// The pattern as written.
    pub const fn as_str(&self) -> &str {
        &self.pattern
    }

    /// How many groups the pattern writes.
    pub const fn groups_written(&self) -> u32 {
        self.written
    }

    /// What an ASCII subject must begin with and hold.
    pub fn lead(&self) -> Lead {
        self.plain.as_ref().map_or(Lead { first: [u64::MAX; 2], end: true, needs: [0; 2] }, |plain| Lead {
            first: plain.first.0,
            end: plain.first.1,
            needs: plain.needs,
        })
    }

    /// Of a pattern that begins with a newline: what an ASCII line must begin with and hold. The
    /// bytes it holds are asked only where a match cannot go on to the next line.
    pub fn line_lead(&self) -> Lead {
        self.plain.as_ref().map_or(Lead { first: [u64::MAX; 2], end: true, needs: [0; 2] }, |plain| Lead {
            first: plain.second,
            end: true,
            needs: if plain.stays_on_line() { plain.needs } else { [0; 2] },
        })
    }

    fn full(&self) -> Result<&Full, String> {
        let full = self.full.get_or_init(|| Full::new(&self.pattern).map(Box::new));
        full.as_deref().map_err(Clone::clone)
    }

    /// Whether the pattern matches at the beginning of `line`; `ascii` says that it holds ASCII
    /// only. The groups are then read from `scratch`.
    ///
    /// # Errors
    /// PCRE2's words when a limit was met or the pattern could not be compiled.
    #[inline]
    pub fn matches(&self, line: &str, ascii: bool, scratch: &mut Scratch) -> Result<bool, String> {
        self.matches_at(line.as_bytes(), 0, ascii, scratch)
    }

    /// As [`Regex::matches`], at a place of a longer text; `subject` is UTF-8.
    ///
    /// # Errors
    /// As [`Regex::matches`].
    #[inline]
    pub fn matches_at(
        &self,
        subject: &[u8],
        at: usize,
        ascii: bool,
        scratch: &mut Scratch,
    ) -> Result<bool, String> {
        if ascii
            && let Some(plain) = &self.plain
            && self.gave_up.load(Relaxed) < GIVE_UPS
        {
            if let Some(hit) = plain.run(subject, at, self.names.len(), &mut scratch.slots) {
                return Ok(hit);
            }
            self.gave_up.fetch_add(1, Relaxed);
        }
        self.full()?.matches(subject, at, ascii, scratch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Groups = Vec<Option<(usize, usize)>>;

    fn groups(pattern: &str, line: &str, ascii: bool) -> Option<Groups> {
        groups_or_limit(pattern, line, ascii).unwrap()
    }

    fn groups_or_limit(pattern: &str, line: &str, ascii: bool) -> Result<Option<Groups>, String> {
        // PCRE2 refuses some looks within looks that Python takes.
        let regex = Regex::new(pattern)?;
        let mut scratch = Scratch::default();
        let hit = regex.matches(line, ascii, &mut scratch)?;
        Ok(hit.then(|| (0..=regex.names().len() as u32).map(|g| scratch.span(g)).collect()))
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
            ("a{3,2}", "min repeat greater than max repeat at position 2"),
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
        // What is repeated no times has no width and no effect, whatever it is.
        assert!(syntax::parse(r"(?<=a(?:b*){0})c").is_ok());
        assert_eq!(groups(r"((a){0})+", "", true), Some(vec![Some((0, 0))]));
    }

    /// Patterns of the kind that templates hold, and some that are worse.
    fn pattern() -> impl Strategy<Value = String> {
        let leaf = prop::sample::select(vec![
            "a",
            "b",
            "ab",
            r"\s",
            r"\S",
            r"\d",
            r"\w",
            ".",
            "[ab]",
            "[^a ]",
            "-",
            r"\.",
            "1",
            " ",
            r"\b",
            r"\B",
            "^",
            "$",
            r"\Z",
            "[a-b1]",
            r"[\s-]",
            r"[\w.]",
            r"\W",
            r"[^\S]",
            "(?i:A)",
            r"(\S+ {1})+?\S+",
            r"(\S+ +)+?\S+",
            r"[\t ]*(?=\n|\r\n)",
            r"\n",
        ])
        .prop_map(str::to_owned);
        let repeat = prop::sample::select(vec![
            "", "", "", "*", "+", "?", "{2}", "{1,2}", "*?", "+?", "??", "{2,}", "{,2}", "{0,3}?", "{0}",
        ]);
        let inner = leaf.prop_recursive(4, 24, 5, move |inner| {
            let pieces = prop::collection::vec((inner, repeat.clone(), 0..14u8), 1..5);
            let arms = prop::collection::vec(pieces, 1..3);
            arms.prop_map(|arms| {
                let arm = |pieces: Vec<(String, &str, u8)>| -> String {
                    pieces
                        .into_iter()
                        .map(|(piece, repeat, kind)| match kind {
                            0 => format!("({piece}){repeat}"),
                            1 => format!("(?P<NAME>{piece}){repeat}"),
                            2 => format!("(?P<NAME>(?:{piece}){repeat})"),
                            3 => format!("(?={piece})"),
                            4 => format!("(?!{piece})"),
                            // PCRE2 does not look further back than a look-behind is long, and so is
                            // wrong about what looks back from the beginning of one.
                            6 | 7
                                if piece.contains("(?<")
                                    || piece.contains(r"\b")
                                    || piece.contains(r"\B") =>
                            {
                                format!("(?:{piece})")
                            }
                            6 => format!("(?<={piece})"),
                            7 => format!("(?<!{piece})"),
                            5 if piece.chars().count() == 1 => format!("{piece}{repeat}"),
                            _ => format!("(?:{piece}){repeat}"),
                        })
                        .collect()
                };
                arms.into_iter().map(arm).collect::<Vec<_>>().join("|")
            })
        });
        inner.prop_map(|pattern| {
            let mut out = String::new();
            for (i, part) in pattern.split("NAME").enumerate() {
                if i > 0 {
                    out.push_str(&format!("g{i}"));
                }
                out.push_str(part);
            }
            out
        })
    }

    /// The plain program and PCRE2 say the same of generated patterns, for as long as
    /// `NETPULSE_FUZZ_SECONDS` says (`scripts/fuzz pyre MINUTES`).
    #[test]
    fn fuzz_pyre() {
        use proptest::strategy::ValueTree as _;
        use proptest::test_runner::{Config, TestRunner};
        let seconds = std::env::var("NETPULSE_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
        let cases = (pattern(), "[ab1 .\\-\n]{0,14}");
        let mut count = 0u64;
        while std::time::Instant::now() < until {
            let (pattern, line) = cases.new_tree(&mut runner).unwrap().current();
            count += 1;
            if syntax::parse(&pattern).is_err() {
                assert!(Plain::new(&pattern).is_none(), "{pattern:?} is not valid");
                continue;
            }
            // Every place of the text, since TTP matches in the middle of one.
            let Ok(regex) = Regex::new(&pattern) else { continue };
            let mut scratch = Scratch::default();
            for at in 0..=line.len() {
                let mut run = |ascii: bool| {
                    let hit = regex.matches_at(line.as_bytes(), at, ascii, &mut scratch)?;
                    Ok::<_, String>(hit.then(|| {
                        (0..=regex.names().len() as u32).map(|g| scratch.span(g)).collect::<Vec<_>>()
                    }))
                };
                if let (Ok(ours), Ok(theirs)) = (run(true), run(false)) {
                    assert_eq!(ours, theirs, "{pattern:?} on {line:?} at {at}");
                }
            }
        }
        println!("{count} patterns");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

        /// The quick way and PCRE2 agree on every group.
        #[test]
        fn plain_is_pcre(pattern in pattern(), line in "[ab1 .\\-\n]{0,12}") {
            let Ok(_) = syntax::parse(&pattern) else {
                prop_assert!(Plain::new(&pattern).is_none(), "{} is not valid", pattern);
                return Ok(());
            };
            // Some of these are exponential for PCRE2.
            if let (Ok(ours), Ok(theirs)) =
                (groups_or_limit(&pattern, &line, true), groups_or_limit(&pattern, &line, false))
            {
                prop_assert_eq!(ours, theirs, "{}", pattern);
            }
        }

        /// No pattern text makes the reader panic or hang.
        #[test]
        fn any_text_is_read(text in "[\\\\()\\[\\]{}|*+?^$a-d0-3,:=!<>P#.i-]{0,40}") {
            let read = syntax::parse(&text);
            if let Some(plain) = Plain::new(&text) {
                let read = read.expect(&text);
                let names: Vec<&str> = read.names.iter().map(|(name, _)| name.as_str()).collect();
                let regex = Regex::new(&text).unwrap();
                prop_assert_eq!(regex.names().collect::<Vec<_>>(), names);
                prop_assert_eq!(plain.written, read.groups);
            }
        }
    }
}
