//! Python's `re.finditer` with `re.MULTILINE` over a whole text.

use pcre2::bytes::{Regex as Pcre, RegexBuilder};

use super::analysis::{self, Bytes};
use super::{DEPTH_LIMIT, HEAP_LIMIT, JIT_STACK, QUICK_LIMIT, emit, simplify, syntax};

/// A pattern that is looked for anywhere in a text.
#[derive(Debug)]
pub struct Search {
    regex: Pcre,
    /// The same for a match that is not empty, tried where an empty one was found.
    longer: Pcre,
    first: Option<Bytes>,
    names: Vec<(String, u32)>,
}

/// Where a group is.
pub type Span<'a> = &'a dyn Fn(u32) -> Option<(usize, usize)>;

impl Search {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Python's words for a bad pattern.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let parsed = simplify::simplify(syntax::parse_multiline(pattern)?);
        let (first, empty) = analysis::first(&parsed.root);
        // Positions are tried one by one from outside, so that the clock can be read between
        // them: PCRE2 counts its steps anew for each position.
        let limits =
            format!("(*LIMIT_MATCH={QUICK_LIMIT})(*LIMIT_DEPTH={DEPTH_LIMIT})(*LIMIT_HEAP={HEAP_LIMIT})");
        let mut source = String::new();
        emit::emit(&parsed.root, &mut source);
        let build = |source: String| {
            RegexBuilder::new()
                .utf(true)
                .ucp(true)
                .jit_if_available(true)
                .max_jit_stack_size(Some(JIT_STACK))
                .build(&source)
                .map_err(|e| e.to_string())
        };
        let regex = build(format!("{limits}\\G(?:{source})"))?;
        let longer = build(format!("{limits}\\G(?:{source})(?!\\G)"))?;
        Ok(Self { regex, longer, first: (!empty).then_some(first), names: parsed.names })
    }

    /// Named groups with their numbers.
    pub fn names(&self) -> &[(String, u32)] {
        &self.names
    }

    /// Calls `found` for every match; `tick` is asked now and then whether to go on.
    ///
    /// # Errors
    /// What the callbacks say, or PCRE2 when a limit was met.
    pub fn each(
        &self,
        text: &str,
        mut tick: impl FnMut(usize) -> Result<(), String>,
        mut found: impl FnMut(&[(String, u32)], Span<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let bytes = text.as_bytes();
        let mut room = self.regex.capture_locations();
        let mut at = 0;
        let mut tries = 0usize;
        // As in Python, a match may begin where an empty one was, if it is longer.
        let mut advance = false;
        while at <= bytes.len() {
            if let Some(first) = &self.first {
                match bytes[at..].iter().position(|b| first.has(*b)) {
                    Some(skip) => {
                        advance &= skip == 0;
                        at += skip;
                    }
                    None => break,
                }
            }
            if !text.is_char_boundary(at) {
                at += 1;
                continue;
            }
            if tries.is_multiple_of(16) {
                tick(at)?;
            }
            tries += 1;
            let regex = if advance { &self.longer } else { &self.regex };
            let hit = regex
                .captures_read_at(&mut room, bytes, at)
                .map_err(|e| format!("the pattern gave up at byte {at}: {e}"))?
                .map(|m| m.end());
            match hit {
                None => {
                    at += 1;
                    advance = false;
                }
                Some(end) => {
                    found(&self.names, &|group| room.get(group as usize))?;
                    advance = end == at;
                    at = end;
                }
            }
        }
        Ok(())
    }
}
