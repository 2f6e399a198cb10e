//! Where the lines of a text begin, and with what: the places at which a rule can match.
//!
//! Every pattern of a template begins with a newline and most go on with fixed letters, so a look
//! at the first eight bytes of each line spares nearly every run of a pattern.

/// Texts up to this many bytes get an index; longer ones are searched line by line.
const INDEXED: usize = 4 << 20;

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

/// The newlines of a text.
#[derive(Debug)]
pub(crate) struct Places {
    /// Where each newline is and what the line after it begins with; empty for a long text.
    index: Vec<(u32, u64)>,
}

impl Places {
    pub fn new(text: &str) -> Self {
        let bytes = text.as_bytes();
        if bytes.len() > INDEXED {
            return Self { index: Vec::new() };
        }
        let mut index = Vec::with_capacity(bytes.len() / 24);
        for at in memchr::memchr_iter(b'\n', bytes) {
            index.push((at as u32, first_bytes(bytes.get(at + 1..).unwrap_or_default())));
        }
        Self { index }
    }

    /// The places within `bytes`, from `start` on, where a line begins with these letters.
    pub fn from(&self, start: usize) -> Walk<'_> {
        Walk { places: self, next: self.index.partition_point(|(at, _)| (*at as usize) < start), at: start }
    }
}

/// A walk over the places for one rule.
pub(crate) struct Walk<'p> {
    places: &'p Places,
    next: usize,
    at: usize,
}

impl Walk<'_> {
    /// The next place that fits.
    pub fn next(&mut self, head: Head, bytes: &[u8]) -> Option<usize> {
        if self.places.index.is_empty() {
            loop {
                let found = self.at + memchr::memchr(b'\n', bytes.get(self.at..)?)?;
                self.at = found + 1;
                if head.fits(first_bytes(bytes.get(self.at..)?)) {
                    return Some(found);
                }
            }
        }
        let rest = self.places.index.get(self.next..)?;
        let (step, at) =
            rest.iter().enumerate().find(|(_, (_, line))| head.fits(*line)).map(|(i, (at, _))| (i, *at))?;
        self.next += step + 1;
        let at = at as usize;
        (at < bytes.len()).then_some(at)
    }

    /// Goes on behind a match.
    pub fn skip(&mut self, to: usize) {
        self.at = self.at.max(to);
        while self.places.index.get(self.next).is_some_and(|(at, _)| (*at as usize) < to) {
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_give_the_same_places() {
        let text = "\nab 1\nabc\n\nx\nabcdefgh9\nabcdefgh\n\n";
        let short = Places::new(text);
        let long = Places { index: Vec::new() };
        for letters in ["", "a", "ab", "abcdefghij", "x", "é"] {
            let head = Head::new(letters.as_bytes());
            for start in 0..text.len() {
                let all = |places: &Places| {
                    let mut walk = places.from(start);
                    let mut found = Vec::new();
                    while let Some(at) = walk.next(head, text.as_bytes()) {
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
