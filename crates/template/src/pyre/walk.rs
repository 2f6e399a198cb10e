//! Runs a plain program over an ASCII subject, from one place and with bounded effort.
//!
//! Choices that the next byte decides are no choices; the rest backtracks by recursion. A run that
//! takes long begins to remember where it failed, which keeps it polynomial; one that takes too
//! long or nests too deeply gives up, and PCRE2 has the word.

use super::plain::{DOT, ENDLESS, How, NOT_SPACE, Op, Plain, SPACE, Set, has};

/// No position.
pub(super) const UNSET: u32 = u32::MAX;
/// Steps after which a run gives up.
const STEPS: u32 = 100_000;
/// Steps after which failures are remembered.
const MEMO_AFTER: u32 = 400;
/// Most places (steps of the program times positions) that are remembered.
const MEMO_BITS: usize = 1 << 22;
/// Choices on top of each other, so that the stack stays small.
const DEPTH: u32 = 300;

/// Where the groups of the last match were: begin and end of each, the whole match first.
#[derive(Debug, Default)]
pub(super) struct Slots {
    pub at: Vec<u32>,
    /// What was overwritten since a choice, to be put back.
    trail: Vec<(u16, u32)>,
    /// Where an attempt failed: a bit for each step of the program at each position.
    memo: Vec<u64>,
}

impl Slots {
    /// Gives back memory beyond this many words.
    pub fn shrink(&mut self, words: usize) {
        self.memo.clear();
        self.memo.shrink_to(words);
    }

    /// Forgets all, with room for `groups` beside the whole match.
    #[inline]
    pub fn clear(&mut self, groups: usize) {
        self.at.clear();
        self.at.resize((groups + 1) * 2, UNSET);
    }
}

/// What became of a phrase.
enum Phrased {
    /// The whole match is decided.
    Done(bool),
    /// This end is the last that can be: go on from there.
    Last(usize),
}

struct Walk<'a> {
    plain: &'a Plain,
    subject: &'a [u8],
    slots: &'a mut Slots,
    steps: u32,
    start: usize,
    /// Positions that are remembered, from `start` on; 0 while nothing is.
    width: usize,
    end: usize,
}

impl Plain {
    /// Whether a match begins at `at`; the slots then hold its groups. `None` when it took too
    /// many steps to say.
    pub fn run(&self, subject: &[u8], at: usize, groups: usize, slots: &mut Slots) -> Option<bool> {
        match subject.get(at) {
            Some(byte) if !has(&self.first.0, *byte) => return Some(false),
            None if !self.first.1 => return Some(false),
            _ => {}
        }
        if u32::try_from(subject.len()).is_err() {
            return None;
        }
        slots.clear(groups);
        slots.trail.clear();
        let mut walk = Walk { plain: self, subject, slots, steps: STEPS, start: at, width: 0, end: 0 };
        let hit = walk.go(0, at, 0);
        if walk.steps == 0 {
            return None;
        }
        let end = walk.end;
        if hit {
            slots.at[0] = at as u32;
            slots.at[1] = end as u32;
        }
        Some(hit)
    }
}

/// How many bytes come before white space, looked at eight by eight.
fn not_space(bytes: &[u8]) -> usize {
    const LOW: u64 = 0x0101_0101_0101_0101;
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        // The high bit of every byte below 0x21; exact for the first one.
        let low = word.wrapping_sub(LOW * 0x21) & !word & (LOW * 0x80);
        if low != 0 {
            at += (low.trailing_zeros() >> 3) as usize;
            if has(&SPACE, bytes[at]) {
                return at;
            }
            at += 1;
            continue;
        }
        at += 8;
    }
    at + bytes[at..].iter().position(|b| has(&SPACE, *b)).unwrap_or(bytes.len() - at)
}

const fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

impl Walk<'_> {
    /// Whether what can follow (a set, or the end) is at a position.
    #[inline]
    fn fits(&self, at: usize, next: &Set, end: bool) -> bool {
        match self.subject.get(at) {
            Some(byte) => has(next, *byte),
            None => end,
        }
    }

    #[inline]
    const fn spend(&mut self, steps: u32) -> bool {
        self.steps = self.steps.saturating_sub(steps);
        self.steps > 0
    }

    fn unwind(&mut self, mark: usize) {
        while self.slots.trail.len() > mark {
            if let Some((slot, was)) = self.slots.trail.pop() {
                self.slots.at[usize::from(slot)] = was;
            }
        }
    }

    /// Tries the rest of the program from a position, putting the slots back on failure.
    fn attempt(&mut self, pc: usize, at: usize, depth: u32) -> bool {
        if depth >= DEPTH || !self.spend(1) {
            self.steps = 0;
            return false;
        }
        let bit = if self.steps < STEPS - MEMO_AFTER { self.memo_bit(pc, at) } else { None };
        if let Some(bit) = bit
            && self.slots.memo[bit >> 6] >> (bit & 63) & 1 != 0
        {
            return false;
        }
        let mark = self.slots.trail.len();
        if self.go(pc, at, depth + 1) {
            return true;
        }
        self.unwind(mark);
        if let Some(bit) = bit {
            self.slots.memo[bit >> 6] |= 1 << (bit & 63);
        }
        false
    }

    /// The bit of a place in the memory of failures; groups and choices made before have no say in
    /// whether the rest of a plain program matches.
    #[cold]
    fn memo_bit(&mut self, pc: usize, at: usize) -> Option<usize> {
        if self.width == 0 {
            let ops = self.plain.ops.len();
            self.width = (self.subject.len() - self.start + 1).min(MEMO_BITS / ops);
            self.slots.memo.clear();
            self.slots.memo.resize((ops * self.width).div_ceil(64), 0);
        }
        let at = at.checked_sub(self.start)?;
        (at < self.width).then(|| pc * self.width + at)
    }

    /// Words and blanks, one pair after the other, each time with what follows tried first.
    fn phrase(&mut self, pc: usize, at: usize, many: bool, next: u16, how: How, depth: u32) -> Phrased {
        let subject = self.subject;
        let next = self.plain.set(next);
        let mut at = at;
        let mut word = not_space(&subject[at..]);
        loop {
            if word == 0 || subject.get(at + word) != Some(&b' ') || !self.spend(1) {
                return Phrased::Done(false);
            }
            at += word + 1;
            while many && subject.get(at) == Some(&b' ') {
                at += 1;
            }
            word = not_space(&subject[at..]);
            let last = subject.get(at + word) != Some(&b' ');
            let least = if how.once { word.max(1) } else { 1 };
            let mut length = word;
            while length >= least {
                if self.fits(at + length, next, how.end) {
                    if last && length == least {
                        return Phrased::Last(at + length);
                    }
                    if self.attempt(pc + 1, at + length, depth) {
                        return Phrased::Done(true);
                    }
                    if self.steps == 0 {
                        return Phrased::Done(false);
                    }
                }
                length -= 1;
            }
        }
    }

    fn go(&mut self, mut pc: usize, mut at: usize, depth: u32) -> bool {
        let plain = self.plain;
        let subject = self.subject;
        loop {
            match plain.ops[pc] {
                Op::Literal { at: from, len } => {
                    let (from, len) = (usize::from(from), usize::from(len));
                    let wanted = &plain.text[from..from + len];
                    // Most literals are short and differ early.
                    let Some(found) = subject.get(at..at + len) else { return false };
                    if found.iter().zip(wanted).any(|(a, b)| a != b) {
                        return false;
                    }
                    at += len;
                }
                Op::One(set) => match subject.get(at) {
                    Some(byte) if has(plain.set(set), *byte) => at += 1,
                    _ => return false,
                },
                Op::Run { set, min, max, next, how } => {
                    let rest = &subject[at..];
                    let rest = if max == ENDLESS { rest } else { &rest[..rest.len().min(usize::from(max))] };
                    let taken = match set {
                        DOT => memchr::memchr(b'\n', rest).unwrap_or(rest.len()),
                        NOT_SPACE => not_space(rest),
                        set => {
                            let set = plain.set(set);
                            rest.iter().position(|b| !has(set, *b)).unwrap_or(rest.len())
                        }
                    };
                    if taken < usize::from(min) || !self.spend(1 + (taken >> 5) as u32) {
                        return false;
                    }
                    if how.once {
                        at += taken;
                        pc += 1;
                        continue;
                    }
                    let (low, high) = (at + usize::from(min), at + taken);
                    let next = plain.set(next);
                    if how.lazy {
                        let mut try_at = low;
                        loop {
                            if self.fits(try_at, next, how.end) {
                                if try_at == high {
                                    break;
                                }
                                if self.attempt(pc + 1, try_at, depth) {
                                    return true;
                                }
                                if self.steps == 0 {
                                    return false;
                                }
                            }
                            if try_at == high {
                                return false;
                            }
                            try_at += 1;
                        }
                        at = high;
                    } else {
                        let mut try_at = high;
                        loop {
                            if self.fits(try_at, next, how.end) {
                                if try_at == low {
                                    break;
                                }
                                if self.attempt(pc + 1, try_at, depth) {
                                    return true;
                                }
                                if self.steps == 0 {
                                    return false;
                                }
                            }
                            if try_at == low {
                                return false;
                            }
                            try_at -= 1;
                        }
                        at = low;
                    }
                }
                Op::Phrase { many, next, how } => match self.phrase(pc, at, many, next, how, depth) {
                    Phrased::Done(hit) => return hit,
                    Phrased::Last(end) => at = end,
                },
                Op::LineEnd => {
                    while matches!(subject.get(at), Some(b' ' | b'\t')) {
                        at += 1;
                    }
                    match subject.get(at) {
                        Some(b'\n') => {}
                        Some(b'\r') if subject.get(at + 1) == Some(&b'\n') => {}
                        _ => return false,
                    }
                }
                Op::Save(slot) => {
                    let place = &mut self.slots.at[usize::from(slot)];
                    if depth > 0 {
                        self.slots.trail.push((slot, *place));
                    }
                    *place = at as u32;
                }
                Op::Start => {
                    if at != 0 {
                        return false;
                    }
                }
                Op::Dollar => {
                    if at < subject.len() && (at + 1 != subject.len() || subject[at] != b'\n') {
                        return false;
                    }
                }
                Op::End => {
                    if at != subject.len() {
                        return false;
                    }
                }
                Op::Boundary(not) => {
                    let before = at > 0 && word(subject[at - 1]);
                    let after = subject.get(at).copied().is_some_and(word);
                    // Python's `\B` does not match in an empty text.
                    if (before != after) == not || not && subject.is_empty() {
                        return false;
                    }
                }
                Op::Split { prefer, other, a, b, ends } => {
                    let first = pc.wrapping_add_signed(isize::from(prefer));
                    let second = pc.wrapping_add_signed(isize::from(other));
                    let can_first = self.fits(at, plain.set(a), ends & 1 != 0);
                    let can_second = self.fits(at, plain.set(b), ends & 2 != 0);
                    pc = match (can_first, can_second) {
                        (true, true) => {
                            if self.attempt(first, at, depth) {
                                return true;
                            }
                            if self.steps == 0 {
                                return false;
                            }
                            second
                        }
                        (true, false) => first,
                        (false, true) => second,
                        (false, false) => return false,
                    };
                    if !self.spend(1) {
                        return false;
                    }
                    continue;
                }
                Op::Jump(by) => {
                    pc = pc.wrapping_add_signed(isize::from(by));
                    continue;
                }
                Op::Look(negative, skip) => {
                    let mark = self.slots.trail.len();
                    // One deeper than any choice, so that what the body saves can be put back.
                    let hit = self.attempt(pc + 1, at, depth);
                    if self.steps == 0 || hit == negative {
                        return false;
                    }
                    if negative {
                        self.unwind(mark);
                    }
                    pc = pc.wrapping_add_signed(isize::from(skip));
                    continue;
                }
                Op::Behind(negative, width, skip) => {
                    let hit = at
                        .checked_sub(usize::from(width))
                        .is_some_and(|from| self.attempt(pc + 1, from, depth));
                    if self.steps == 0 || hit == negative {
                        return false;
                    }
                    pc = pc.wrapping_add_signed(isize::from(skip));
                    continue;
                }
                Op::Match => {
                    self.end = at;
                    return true;
                }
            }
            pc += 1;
        }
    }
}
