//! Reads a plain pattern: one walk over its text that writes the program.

use std::cell::RefCell;

use super::plain::{
    ALL, DOT, ENDLESS, EVERY, How, KNOWN, MOST_COPIES, MOST_DEPTH, MOST_OPS, NONE, Op, Set, complement,
    lookup,
};

/// What is being written; kept per thread, since a template compiles many small patterns.
#[derive(Default)]
pub(super) struct Build {
    pub(super) ops: Vec<Op>,
    pub(super) text: Vec<u8>,
    pub(super) sets: Vec<Set>,
    pub(super) names: Vec<(u32, u32)>,
}

thread_local! {
    pub(super) static BUILD: RefCell<Build> = RefCell::default();
}

/// Where the reading of a pattern is.
pub(super) struct Reader<'p> {
    pub(super) pattern: &'p [u8],
    pub(super) at: usize,
    pub(super) build: &'p mut Build,
    pub(super) written: u32,
    pub(super) depth: u32,
    /// Whether the next character may join the literal before it.
    pub(super) merge: bool,
}

/// Pieces that every TTP template has, each with a step of its own.
const LINE_END: &[u8] = br"[\t ]*(?=\n|\r\n)";
const PHRASE: &[u8] = br"(\S+ {1})+?\S+";
const ROW: &[u8] = br"(\S+ +)+?\S+";

/// What was just read, for the quantifier that may follow.
enum Atom {
    Byte(u8),
    Set(u16),
    /// Steps from here on; the flag says that they can match nothing.
    Group(usize, bool),
    Anchor,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.pattern.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn eat(&mut self, text: &[u8]) -> bool {
        let hit = self.pattern.get(self.at..).is_some_and(|rest| rest.starts_with(text));
        if hit {
            self.at += text.len();
        }
        hit
    }

    /// Takes a piece that no quantifier follows.
    fn whole(&mut self, text: &[u8]) -> bool {
        let rest = self.pattern.get(self.at..).unwrap_or_default();
        let hit = rest.starts_with(text) && !matches!(rest.get(text.len()), Some(b'*' | b'+' | b'?' | b'{'));
        if hit {
            self.at += text.len();
        }
        hit
    }

    fn phrase(&mut self, many: bool) {
        self.written += 1;
        self.push(Op::Phrase { many, next: 0, how: How { lazy: true, once: false, end: false } });
    }

    fn push(&mut self, op: Op) {
        self.build.ops.push(op);
        self.merge = false;
    }

    pub(super) fn number(&mut self, set: Set) -> Option<u16> {
        if let Some(at) = KNOWN.iter().position(|known| *known == set) {
            return u16::try_from(at).ok();
        }
        let at = self.build.sets.iter().position(|known| *known == set).unwrap_or_else(|| {
            self.build.sets.push(set);
            self.build.sets.len() - 1
        });
        u16::try_from(at + KNOWN.len()).ok()
    }

    /// The number of a set that is most likely new.
    pub(super) fn fresh(&mut self, set: Set) -> Option<u16> {
        if set == ALL {
            return Some(EVERY);
        }
        self.build.sets.push(set);
        u16::try_from(self.build.sets.len() - 1 + KNOWN.len()).ok()
    }

    fn distance(from: usize, to: usize) -> Option<i16> {
        i16::try_from(to as i64 - from as i64).ok()
    }

    /// Reads up to `)` or the end; true when nothing can be matched.
    pub(super) fn alternatives(&mut self) -> Option<bool> {
        self.depth += 1;
        if self.depth > MOST_DEPTH || self.build.ops.len() > MOST_OPS {
            return None;
        }
        self.merge = false;
        let mut branch = self.build.ops.len();
        let mut jumps: Vec<usize> = Vec::new();
        let mut nullable = self.sequence()?;
        while self.eat(b"|") {
            let other = Self::distance(branch, self.build.ops.len() + 2)?;
            self.build.ops.insert(branch, Op::Split { prefer: 1, other, a: 0, b: 0, ends: 0 });
            jumps.push(self.build.ops.len());
            self.push(Op::Jump(0));
            branch = self.build.ops.len();
            nullable |= self.sequence()?;
        }
        for jump in jumps {
            self.build.ops[jump] = Op::Jump(Self::distance(jump, self.build.ops.len())?);
        }
        self.merge = false;
        self.depth -= 1;
        Some(nullable)
    }

    fn sequence(&mut self) -> Option<bool> {
        let mut nullable = true;
        while let Some(byte) = self.peek() {
            let atom = match byte {
                b'|' | b')' => break,
                b'*' | b'+' | b'?' => return None,
                b'{' => {
                    // A brace that counts nothing is a brace.
                    if self.pattern.get(self.at + 1).is_none_or(brace_counts) {
                        return None;
                    }
                    self.at += 1;
                    Atom::Byte(byte)
                }
                b'.' => {
                    self.at += 1;
                    Atom::Set(DOT)
                }
                b'^' => {
                    self.at += 1;
                    self.push(Op::Start);
                    Atom::Anchor
                }
                b'$' => {
                    self.at += 1;
                    self.push(Op::Dollar);
                    Atom::Anchor
                }
                b'[' if self.whole(LINE_END) => {
                    self.push(Op::LineEnd);
                    continue;
                }
                b'[' => {
                    self.at += 1;
                    Atom::Set(self.class()?)
                }
                b'\\' => {
                    self.at += 1;
                    self.escape()?
                }
                b'(' if self.whole(PHRASE) => {
                    self.phrase(false);
                    nullable = false;
                    continue;
                }
                b'(' if self.whole(ROW) => {
                    self.phrase(true);
                    nullable = false;
                    continue;
                }
                b'(' => {
                    self.at += 1;
                    self.group()?
                }
                byte => {
                    let rest = &self.pattern[self.at..];
                    let plain = rest.iter().position(|b| is_special(*b)).unwrap_or(rest.len());
                    // The last character of a row may be repeated, and then stands alone.
                    let row = if plain < rest.len() { plain - 1 } else { plain };
                    if row > 0 {
                        self.row(self.at, row)?;
                        self.at += row;
                        nullable = false;
                        continue;
                    }
                    self.at += 1;
                    Atom::Byte(byte)
                }
            };
            nullable &= self.quantified(atom)?;
        }
        Some(nullable)
    }

    /// Writes an atom with the quantifier that follows it.
    fn quantified(&mut self, atom: Atom) -> Option<bool> {
        let (min, max) = match self.peek() {
            Some(b'*') => (0, ENDLESS),
            Some(b'+') => (1, ENDLESS),
            Some(b'?') => (0, 1),
            Some(b'{') if self.pattern.get(self.at + 1).is_none_or(brace_counts) => self.counts()?,
            _ => {
                return Some(match atom {
                    Atom::Byte(byte) => {
                        self.literal(byte)?;
                        false
                    }
                    Atom::Set(set) => {
                        self.push(Op::One(set));
                        false
                    }
                    Atom::Group(_, nullable) => nullable,
                    Atom::Anchor => true,
                });
            }
        };
        self.at += 1;
        let lazy = self.eat(b"?");
        if matches!(self.peek(), Some(b'*' | b'+' | b'?' | b'{')) {
            return None;
        }
        let set = match atom {
            Atom::Anchor => return None,
            Atom::Group(start, nullable) => {
                self.merge = false;
                if max == 0 {
                    self.build.ops.truncate(start);
                    return Some(true);
                }
                if max == ENDLESS && min <= 1 && !lazy && self.flatten(start, min) {
                    return Some(min == 0 || nullable);
                }
                if nullable && max > 1 {
                    return None;
                }
                self.repeat(start, min, max, lazy)?;
                return Some(min == 0 || nullable);
            }
            Atom::Byte(byte) => {
                let mut set = NONE;
                set[usize::from(byte >> 6)] |= 1 << (byte & 63);
                self.number(set)?
            }
            Atom::Set(set) => set,
        };
        if max == 0 {
            return Some(true);
        }
        let how = How { lazy, once: false, end: false };
        self.push(Op::Run { set, min, max, next: 0, how });
        Some(min == 0)
    }

    /// `{n}`, `{n,}`, `{,m}`, `{n,m}` up to, not beyond, the closing brace.
    fn counts(&mut self) -> Option<(u16, u16)> {
        let rest = self.pattern.get(self.at + 1..)?;
        let end = rest.iter().position(|b| *b == b'}')?;
        let body = std::str::from_utf8(rest.get(..end)?).ok()?;
        let number = |text: &str| -> Option<u16> {
            if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            text.parse().ok().filter(|n| *n < ENDLESS)
        };
        let (min, max) = match body.split_once(',') {
            None => (number(body)?, number(body)?),
            Some(("", "")) => (0, ENDLESS),
            Some(("", high)) => (0, number(high)?),
            Some((low, "")) => (number(low)?, ENDLESS),
            Some((low, high)) => (number(low)?, number(high)?),
        };
        self.at += end + 1;
        (min <= max).then_some((min, max))
    }

    /// Writes characters that stand for themselves.
    fn row(&mut self, from: usize, length: usize) -> Option<()> {
        let more = u16::try_from(length).ok()?;
        if self.merge
            && let Some(Op::Literal { len, .. }) = self.build.ops.last_mut()
        {
            *len += more;
        } else {
            let at = u16::try_from(self.build.text.len()).ok()?;
            self.build.ops.push(Op::Literal { at, len: more });
            self.merge = true;
        }
        self.build.text.extend_from_slice(&self.pattern[from..from + length]);
        Some(())
    }

    fn literal(&mut self, byte: u8) -> Option<()> {
        if self.merge
            && let Some(Op::Literal { len, .. }) = self.build.ops.last_mut()
        {
            *len += 1;
        } else {
            let at = u16::try_from(self.build.text.len()).ok()?;
            self.build.ops.push(Op::Literal { at, len: 1 });
            self.merge = true;
        }
        self.build.text.push(byte);
        Some(())
    }

    /// Makes one run of runs that are repeated without end, such as `(a*b*)*` and `(?:a+)*`, which
    /// are exponential as written. False where the steps from `start` on are nothing of the kind.
    fn flatten(&mut self, start: usize, min: u16) -> bool {
        let mut all = NONE;
        let mut least = min;
        let block = &self.build.ops[start..];
        if block.is_empty() {
            return false;
        }
        for op in block {
            let Op::Run { set, min, max: ENDLESS, how: How { lazy: false, .. }, .. } = op else {
                return false;
            };
            if *min > 1 || *min == 1 && block.len() > 1 {
                return false;
            }
            least *= *min;
            let set = lookup(&self.build.sets, *set);
            all = [all[0] | set[0], all[1] | set[1]];
        }
        let Some(set) = self.number(all) else { return false };
        self.build.ops.truncate(start);
        let how = How { lazy: false, once: false, end: false };
        self.push(Op::Run { set, min: least, max: ENDLESS, next: 0, how });
        true
    }

    /// Repeats the steps from `start` on, which match at least one byte.
    fn repeat(&mut self, start: usize, min: u16, max: u16, lazy: bool) -> Option<()> {
        let split = |go: i16, leave: i16| {
            let (prefer, other) = if lazy { (leave, go) } else { (go, leave) };
            Op::Split { prefer, other, a: 0, b: 0, ends: 0 }
        };
        let len = self.build.ops.len() - start;
        let size = i16::try_from(len).ok()?;
        match (min, max) {
            (1, 1) => {}
            (0, ENDLESS) => {
                self.build.ops.insert(start, split(1, size.checked_add(2)?));
                self.push(Op::Jump(-size - 1));
            }
            (1, ENDLESS) => self.push(split(-size, 1)),
            (min, max) => {
                let copies = usize::from(if max == ENDLESS { min } else { max });
                if copies.max(1) * (len + 1) > MOST_COPIES {
                    return None;
                }
                let block: Vec<Op> = self.build.ops.drain(start..).collect();
                for _ in 0..min {
                    self.build.ops.extend_from_slice(&block);
                }
                if max == ENDLESS {
                    self.push(split(-size, 1));
                } else {
                    for left in (1..=max - min).rev() {
                        let leave = i16::try_from(left).ok()?.checked_mul(size + 1)?;
                        self.push(split(1, leave));
                        self.build.ops.extend_from_slice(&block);
                    }
                }
            }
        }
        Some(())
    }

    fn escape(&mut self) -> Option<Atom> {
        let byte = self.next()?;
        Some(match byte {
            b'A' => {
                self.push(Op::Start);
                Atom::Anchor
            }
            b'Z' => {
                self.push(Op::End);
                Atom::Anchor
            }
            b'b' | b'B' => {
                self.push(Op::Boundary(byte == b'B'));
                Atom::Anchor
            }
            byte => match class_number(byte) {
                Some(number) => Atom::Set(number),
                None => Atom::Byte(escaped(byte)?),
            },
        })
    }

    /// The members of `[...]`.
    fn class(&mut self) -> Option<u16> {
        let negated = self.eat(b"^");
        let mut set = NONE;
        let mut begun = false;
        loop {
            let mut low = self.next()?;
            if low == b']' && begun {
                break;
            }
            begun = true;
            if low == b'\\' {
                let byte = self.next()?;
                if let Some(number) = class_number(byte) {
                    let class = lookup(&[], number);
                    set = [set[0] | class[0], set[1] | class[1]];
                    // A range cannot begin with a class; a dash at the end is a dash.
                    if self.peek() == Some(b'-') && self.pattern.get(self.at + 1) != Some(&b']') {
                        return None;
                    }
                    continue;
                }
                low = escaped(byte)?;
            }
            let mut high = low;
            if self.peek() == Some(b'-') && self.pattern.get(self.at + 1).is_some_and(|b| *b != b']') {
                self.at += 1;
                high = self.next()?;
                if high == b'\\' {
                    high = escaped(self.next()?)?;
                }
                if high < low {
                    return None;
                }
            }
            for byte in low..=high {
                set[usize::from(byte >> 6)] |= 1 << (byte & 63);
            }
        }
        self.number(if negated { complement(set) } else { set })
    }

    fn group(&mut self) -> Option<Atom> {
        if self.eat(b"?:") {
            return self.body(self.build.ops.len());
        }
        if self.eat(b"?P<") {
            let rest = self.pattern.get(self.at..)?;
            let end = rest.iter().position(|b| *b == b'>')?;
            let name = std::str::from_utf8(rest.get(..end)?).ok()?;
            let valid = name
                .bytes()
                .enumerate()
                .all(|(i, b)| b == b'_' || b.is_ascii_alphabetic() || i > 0 && b.is_ascii_digit());
            let known = |(from, to): &(u32, u32)| self.pattern.get(*from as usize..*to as usize);
            if name.is_empty()
                || !valid
                || self.build.names.iter().any(|other| known(other) == Some(name.as_bytes()))
            {
                return None;
            }
            let from = self.at as u32;
            self.at += end + 1;
            self.written += 1;
            self.build.names.push((from, from + end as u32));
            let slot = u16::try_from(self.build.names.len()).ok()?.checked_mul(2)?;
            let start = self.build.ops.len();
            self.push(Op::Save(slot));
            let Atom::Group(_, nullable) = self.body(start)? else { return None };
            self.push(Op::Save(slot + 1));
            return Some(Atom::Group(start, nullable));
        }
        let negative = self.eat(b"?!");
        if negative || self.eat(b"?=") {
            let at = self.build.ops.len();
            self.push(Op::Look(negative, 0));
            self.body(at)?;
            self.push(Op::Match);
            self.build.ops[at] = Op::Look(negative, Self::distance(at, self.build.ops.len())?);
            return Some(Atom::Anchor);
        }
        let negative = self.eat(b"?<!");
        if negative || self.eat(b"?<=") {
            let at = self.build.ops.len();
            self.push(Op::Behind(negative, 0, 0));
            let written = self.written;
            self.body(at)?;
            if self.written > written {
                return None;
            }
            let width = self.width(at + 1)?;
            self.push(Op::Match);
            self.build.ops[at] = Op::Behind(negative, width, Self::distance(at, self.build.ops.len())?);
            return Some(Atom::Anchor);
        }
        if self.peek() == Some(b'?') {
            return None;
        }
        self.written += 1;
        self.body(self.build.ops.len())
    }

    /// How many bytes the steps from `start` on match, where that is the same always.
    fn width(&self, start: usize) -> Option<u16> {
        let mut width = 0u16;
        for op in &self.build.ops[start..] {
            width = width.checked_add(match op {
                Op::Literal { len, .. } => *len,
                Op::One(_) => 1,
                Op::Run { min, max, .. } if min == max => *min,
                Op::Start | Op::Dollar | Op::End | Op::Boundary(_) => 0,
                _ => return None,
            })?;
        }
        Some(width)
    }

    fn body(&mut self, start: usize) -> Option<Atom> {
        let nullable = self.alternatives()?;
        self.eat(b")").then_some(Atom::Group(start, nullable))
    }
}

/// The number of `\d` and its like.
const fn class_number(byte: u8) -> Option<u16> {
    Some(match byte {
        b's' => 1,
        b'S' => 2,
        b'd' => 3,
        b'D' => 4,
        b'w' => 5,
        b'W' => 6,
        _ => return None,
    })
}

/// The character of an escape that stands for one; digits, `x`, `u` and errors are not plain.
const fn escaped(byte: u8) -> Option<u8> {
    Some(match byte {
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'f' => 0x0c,
        b'v' => 0x0b,
        b'a' => 0x07,
        byte if byte.is_ascii_alphanumeric() => return None,
        byte => byte,
    })
}

/// Whether a byte does not simply stand for itself.
const fn is_special(byte: u8) -> bool {
    matches!(byte, b'|' | b')' | b'*' | b'+' | b'?' | b'{' | b'.' | b'^' | b'$' | b'[' | b'\\' | b'(')
}

/// Whether what follows a brace could be read as a count.
const fn brace_counts(byte: &u8) -> bool {
    byte.is_ascii_digit() || *byte == b','
}
