//! Where the lines of a text begin, and with what: the places at which a rule can match.
//!
//! Every pattern of a template begins with a newline and most go on with fixed letters, so a look
//! at the first eight bytes of each line spares nearly every run of a pattern.

use crate::pyre::{Held, Lead};

/// Texts up to this many bytes get an index; longer ones are searched line by line.
const INDEXED: usize = 1 << 20;

/// The first letters that a line must have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    mask: u64,
    want: u64,
}

impl Head {
    /// From the fixed letters behind the newline; the first eight count.
    pub fn new(letters: &[u8]) -> Self {
        let mut mask = [0; 8];
        mask.iter_mut().zip(letters).for_each(|(m, _)| *m = 0xff);
        Self { mask: u64::from_le_bytes(mask), want: first_bytes(letters) }
    }

    const fn fits(self, head: u64) -> bool {
        head & self.mask == self.want
    }
}

/// The first eight bytes, zeros where there are fewer.
fn first_bytes(bytes: &[u8]) -> u64 {
    if let Some(chunk) = bytes.first_chunk::<8>() {
        return u64::from_le_bytes(*chunk);
    }
    let mut chunk = [0; 8];
    chunk.iter_mut().zip(bytes).for_each(|(c, b)| *c = *b);
    u64::from_le_bytes(chunk)
}

/// What a rule asks of a line before its pattern is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    head: Head,
    lead: Lead,
}

impl Wanted {
    pub const fn new(head: Head, lead: Lead) -> Self {
        Self { head, lead }
    }

    /// `lead` is asked of ASCII lines only.
    fn fits(&self, place: &Place, ascii: bool) -> bool {
        self.head.fits(place.head)
            && (!ascii || self.lead.fits(Some(place.head as u8)) && self.lead.is_met(&place.held))
    }
}

/// A newline and the line behind it.
#[derive(Debug)]
struct Place {
    at: u32,
    head: u64,
    held: Held,
}

/// The newlines of a text.
#[derive(Debug)]
pub(crate) struct Places {
    /// Empty for a long text.
    index: Vec<Place>,
    ascii: bool,
}

impl Places {
    pub fn new(text: &str, ascii: bool) -> Self {
        let bytes = text.as_bytes();
        let mut index: Vec<Place> = Vec::new();
        if bytes.len() <= INDEXED {
            index.reserve(bytes.len() / 24 + 4);
            let mut from = 0;
            let ends = memchr::memchr_iter(b'\n', bytes).chain([bytes.len()]);
            for end in ends {
                let line = bytes.get(from..end).unwrap_or_default();
                if let Some(newline) = from.checked_sub(1) {
                    index.push(Place {
                        at: newline as u32,
                        // The newline that ends an empty line is its first byte.
                        head: first_bytes(bytes.get(from..).unwrap_or_default()),
                        held: Held::of_line(line),
                    });
                }
                from = end + 1;
            }
        }
        Self { index, ascii }
    }

    /// The places from `start` on.
    pub fn from(&self, start: usize) -> Walk<'_> {
        let next =
            if start == 0 { 0 } else { self.index.partition_point(|place| (place.at as usize) < start) };
        Walk { places: self, next, at: start }
    }
}

/// A walk over the places for one rule.
pub(crate) struct Walk<'p> {
    places: &'p Places,
    next: usize,
    at: usize,
}

impl Walk<'_> {
    /// The next place within `bytes` that the rule may match.
    pub fn next(&mut self, wanted: &Wanted, bytes: &[u8]) -> Option<usize> {
        if self.places.index.is_empty() {
            loop {
                let found = self.at + memchr::memchr(b'\n', bytes.get(self.at..)?)?;
                self.at = found + 1;
                if wanted.head.fits(first_bytes(bytes.get(self.at..)?)) {
                    return Some(found);
                }
            }
        }
        let rest = self.places.index.get(self.next..)?;
        let step = rest.iter().position(|place| wanted.fits(place, self.places.ascii))?;
        self.next += step + 1;
        let at = rest.get(step)?.at as usize;
        (at < bytes.len()).then_some(at)
    }

    /// Goes on behind a match.
    pub fn skip(&mut self, to: usize) {
        self.at = self.at.max(to);
        while self.places.index.get(self.next).is_some_and(|place| (place.at as usize) < to) {
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_cannot_match_are_passed_over() {
        let pattern = r"\n(?P<a>\d+):(?P<b>\S+)";
        let wanted = Wanted::new(Head::new(b""), crate::pyre::Regex::new(pattern).unwrap().line_lead());
        let text = "\n1 2\nx:1\n3:y\n\n";
        let places = Places::new(text, true);
        let mut walk = places.from(0);
        assert_eq!(walk.next(&wanted, text.as_bytes()), Some(8));
        assert_eq!(walk.next(&wanted, text.as_bytes()), None);
        // A match that may go on to the next line finds its bytes there.
        let across = crate::pyre::Regex::new(r"\n(?P<a>[^:]+):").unwrap().line_lead();
        assert_eq!(places.from(0).next(&Wanted::new(Head::new(b""), across), text.as_bytes()), Some(0));
    }

    #[test]
    fn long_texts_give_the_same_places() {
        let text = "\nab 1\nabc\n\nx\nabcdefgh9\nabcdefgh\n\n";
        let short = Places::new(text, true);
        let long = Places { index: Vec::new(), ascii: true };
        for letters in ["", "a", "ab", "abcdefghij", "x", "é"] {
            let any = crate::pyre::Regex::new("\\n(?=x)?").unwrap().line_lead();
            let wanted = Wanted::new(Head::new(letters.as_bytes()), any);
            for start in 0..text.len() {
                let all = |places: &Places| {
                    let mut walk = places.from(start);
                    let mut found = Vec::new();
                    while let Some(at) = walk.next(&wanted, text.as_bytes()) {
                        found.push(at);
                        if found.len() == 2 {
                            walk.skip(at + 9);
                        }
                    }
                    found
                };
                assert_eq!(all(&short), all(&long), "{letters} {start}");
            }
        }
    }
}
