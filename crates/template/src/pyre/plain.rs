//! Compiles plain patterns straight from their text, in one walk and without a tree.
//!
//! Nearly every rule of a template is literals, sets, repeats, groups, alternatives and anchors.
//! Those become a short program for [`super::walk`], which runs it on ASCII subjects. Whatever is
//! unusual (flags, references, look-behind, an error) is declined here and read by
//! [`super::syntax`], whose word is final: this module accepts a subset of what that one accepts,
//! with the same meaning.

/// A set of ASCII bytes.
pub(super) type Set = [u64; 2];

/// Whether an ASCII byte is in a set.
#[inline]
pub(super) const fn has(set: &Set, byte: u8) -> bool {
    set[(byte >> 6 & 1) as usize] >> (byte & 63) & 1 != 0
}

const fn complement(set: Set) -> Set {
    [!set[0], !set[1]]
}

const NONE: Set = [0, 0];
const ALL: Set = [u64::MAX, u64::MAX];
const DIGIT: Set = [0x3ff << 48, 0];
const WORD: Set = [0x3ff << 48, 0x07ff_fffe_87ff_fffe];
/// Python counts the information separators 0x1c to 0x1f as white space.
const SPACE: Set = [1 << 32 | 0xf << 28 | 0x1f << 9, 0];
const NEWLINE: Set = [1 << 10, 0];

/// Sets that need no table of their own; their numbers come first.
const KNOWN: [Set; 9] = [
    complement(NEWLINE),
    SPACE,
    complement(SPACE),
    DIGIT,
    complement(DIGIT),
    WORD,
    complement(WORD),
    ALL,
    NONE,
];
/// Number of `.`.
pub(super) const DOT: u16 = 0;

/// No upper bound.
pub(super) const ENDLESS: u16 = u16::MAX;

/// One step of a program; jumps are relative, so that a block can be copied.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    /// Bytes of [`Plain::text`].
    Literal { at: u16, len: u16 },
    /// One byte of a set.
    One(u16),
    /// Bytes of a set, as many as possible or as few.
    Run { set: u16, min: u16, max: u16, next: u16, how: How },
    /// Remembers the position.
    Save(u16),
    /// `^`, `\A`
    Start,
    /// `$`: the end, or before a newline that ends the subject.
    Dollar,
    /// `\Z`
    End,
    /// `\b`, or `\B` when true.
    Boundary(bool),
    /// Goes on at `prefer`, then at `other`; sets and ends say where that can succeed.
    Split { prefer: i16, other: i16, a: u16, b: u16, ends: u8 },
    Jump(i16),
    /// `(?=...)` or, when true, `(?!...)`: the body runs up to a `Match`.
    Look(bool, i16),
    Match,
}

/// How a run gives back what it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct How {
    pub lazy: bool,
    /// What follows can begin with no byte of the set: there is one way only.
    pub once: bool,
    /// What follows can match at the end of the subject.
    pub end: bool,
}

/// A compiled plain pattern.
pub(super) struct Plain {
    pub ops: Box<[Op]>,
    pub text: Box<[u8]>,
    sets: Box<[Set]>,
    /// What a match can begin with, and whether it can be empty at the end of the subject.
    pub first: (Set, bool),
    /// Named groups, numbered from 1 in order of definition.
    pub names: Box<[Box<str>]>,
    /// All groups that capture.
    pub written: u32,
}

/// Programs and literals beyond this are left to PCRE2.
const MOST_OPS: usize = 2_000;
const MOST_TEXT: usize = 30_000;
const MOST_DEPTH: u32 = 40;
/// Most steps that a counted group is written out to.
const MOST_COPIES: usize = 512;
/// Steps that one look for a beginning may take.
const FIRST_FUEL: u32 = 64;

impl Plain {
    /// The program, or `None` where the pattern is not plain (or not valid).
    pub fn new(pattern: &str) -> Option<Self> {
        if !pattern.is_ascii() || pattern.len() > MOST_TEXT {
            return None;
        }
        let mut reader = Reader {
            pattern: pattern.as_bytes(),
            at: 0,
            ops: Vec::with_capacity(16 + pattern.len() / 4),
            text: Vec::with_capacity(pattern.len()),
            sets: Vec::new(),
            names: Vec::new(),
            written: 0,
            depth: 0,
            merge: false,
        };
        reader.alternatives()?;
        if reader.at < reader.pattern.len() {
            return None;
        }
        reader.ops.push(Op::Match);
        let first = reader.finish();
        Some(Self {
            ops: reader.ops.into(),
            text: reader.text.into(),
            sets: reader.sets.into(),
            first,
            names: reader.names.into(),
            written: reader.written,
        })
    }

    #[inline]
    pub fn set(&self, number: u16) -> &Set {
        lookup(&self.sets, number)
    }
}

#[inline]
fn lookup(sets: &[Set], number: u16) -> &Set {
    let number = usize::from(number);
    KNOWN.get(number).or_else(|| sets.get(number - KNOWN.len())).unwrap_or(&NONE)
}

struct Reader<'p> {
    pattern: &'p [u8],
    at: usize,
    ops: Vec<Op>,
    text: Vec<u8>,
    sets: Vec<Set>,
    names: Vec<Box<str>>,
    written: u32,
    depth: u32,
    /// Whether the next character may join the literal before it.
    merge: bool,
}

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

    fn push(&mut self, op: Op) {
        self.ops.push(op);
        self.merge = false;
    }

    fn number(&mut self, set: Set) -> Option<u16> {
        if let Some(at) = KNOWN.iter().position(|known| *known == set) {
            return u16::try_from(at).ok();
        }
        let at = self.sets.iter().position(|known| *known == set).unwrap_or_else(|| {
            self.sets.push(set);
            self.sets.len() - 1
        });
        u16::try_from(at + KNOWN.len()).ok()
    }

    fn distance(from: usize, to: usize) -> Option<i16> {
        i16::try_from(to as i64 - from as i64).ok()
    }

    /// Reads up to `)` or the end; true when nothing can be matched.
    fn alternatives(&mut self) -> Option<bool> {
        self.depth += 1;
        if self.depth > MOST_DEPTH || self.ops.len() > MOST_OPS {
            return None;
        }
        self.merge = false;
        let mut branch = self.ops.len();
        let mut jumps: Vec<usize> = Vec::new();
        let mut nullable = self.sequence()?;
        while self.eat(b"|") {
            let other = Self::distance(branch, self.ops.len() + 2)?;
            self.ops.insert(branch, Op::Split { prefer: 1, other, a: 0, b: 0, ends: 0 });
            jumps.push(self.ops.len());
            self.push(Op::Jump(0));
            branch = self.ops.len();
            nullable |= self.sequence()?;
        }
        for jump in jumps {
            self.ops[jump] = Op::Jump(Self::distance(jump, self.ops.len())?);
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
                b'[' => {
                    self.at += 1;
                    Atom::Set(self.class()?)
                }
                b'\\' => {
                    self.at += 1;
                    self.escape()?
                }
                b'(' => {
                    self.at += 1;
                    self.group()?
                }
                byte => {
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
                if nullable {
                    return None;
                }
                self.repeat(start, min, max, lazy)?;
                self.merge = false;
                return Some(min == 0);
            }
            Atom::Byte(byte) => {
                let mut set = NONE;
                set[usize::from(byte >> 6)] |= 1 << (byte & 63);
                self.number(set)?
            }
            Atom::Set(set) => set,
        };
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
        (max > 0 && min <= max).then_some((min, max))
    }

    fn literal(&mut self, byte: u8) -> Option<()> {
        if self.merge
            && let Some(Op::Literal { len, .. }) = self.ops.last_mut()
        {
            *len += 1;
        } else {
            let at = u16::try_from(self.text.len()).ok()?;
            self.ops.push(Op::Literal { at, len: 1 });
            self.merge = true;
        }
        self.text.push(byte);
        Some(())
    }

    /// Repeats the steps from `start` on, which match at least one byte.
    fn repeat(&mut self, start: usize, min: u16, max: u16, lazy: bool) -> Option<()> {
        let split = |go: i16, leave: i16| {
            let (prefer, other) = if lazy { (leave, go) } else { (go, leave) };
            Op::Split { prefer, other, a: 0, b: 0, ends: 0 }
        };
        let len = self.ops.len() - start;
        let size = i16::try_from(len).ok()?;
        match (min, max) {
            (1, 1) => {}
            (0, ENDLESS) => {
                self.ops.insert(start, split(1, size.checked_add(2)?));
                self.push(Op::Jump(-size - 1));
            }
            (1, ENDLESS) => self.push(split(-size, 1)),
            (min, max) => {
                let copies = usize::from(if max == ENDLESS { min } else { max });
                if copies.max(1) * (len + 1) > MOST_COPIES {
                    return None;
                }
                let block: Vec<Op> = self.ops.drain(start..).collect();
                for _ in 0..min {
                    self.ops.extend_from_slice(&block);
                }
                if max == ENDLESS {
                    self.push(split(-size, 1));
                } else {
                    for left in (1..=max - min).rev() {
                        let leave = i16::try_from(left).ok()?.checked_mul(size + 1)?;
                        self.push(split(1, leave));
                        self.ops.extend_from_slice(&block);
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
            return self.body(self.ops.len());
        }
        if self.eat(b"?P<") {
            let rest = self.pattern.get(self.at..)?;
            let end = rest.iter().position(|b| *b == b'>')?;
            let name = std::str::from_utf8(rest.get(..end)?).ok()?;
            let valid = name.bytes().enumerate().all(|(i, b)| {
                b == b'_' || b.is_ascii_alphabetic() || i > 0 && b.is_ascii_digit()
            });
            if name.is_empty() || !valid || self.names.iter().any(|n| **n == *name) {
                return None;
            }
            self.at += end + 1;
            self.written += 1;
            self.names.push(name.into());
            let slot = u16::try_from(self.names.len()).ok()?.checked_mul(2)?;
            let start = self.ops.len();
            self.push(Op::Save(slot));
            let Atom::Group(_, nullable) = self.body(start)? else { return None };
            self.push(Op::Save(slot + 1));
            return Some(Atom::Group(start, nullable));
        }
        let negative = self.eat(b"?!");
        if negative || self.eat(b"?=") {
            let at = self.ops.len();
            self.push(Op::Look(negative, 0));
            self.body(at)?;
            self.push(Op::Match);
            self.ops[at] = Op::Look(negative, Self::distance(at, self.ops.len())?);
            return Some(Atom::Anchor);
        }
        if self.peek() == Some(b'?') {
            return None;
        }
        self.written += 1;
        self.body(self.ops.len())
    }

    fn body(&mut self, start: usize) -> Option<Atom> {
        let nullable = self.alternatives()?;
        self.eat(b")").then_some(Atom::Group(start, nullable))
    }

    /// Fills in what can follow each choice; returns what the whole can begin with.
    fn finish(&mut self) -> (Set, bool) {
        for at in 0..self.ops.len() {
            match self.ops[at] {
                Op::Run { set, min, max, how, .. } => {
                    let (next, end) = self.first(at + 1);
                    let own = *lookup(&self.sets, set);
                    let once = min == max || (own[0] & next[0] | own[1] & next[1]) == 0;
                    // A set that does not fit its number is not used: everything may follow.
                    let (next, end) = self.number(next).map_or((7, true), |number| (number, end));
                    self.ops[at] = Op::Run { set, min, max, next, how: How { lazy: how.lazy, once, end } };
                }
                Op::Split { prefer, other, .. } => {
                    let (a, a_end) = self.first(at.wrapping_add_signed(isize::from(prefer)));
                    let (b, b_end) = self.first(at.wrapping_add_signed(isize::from(other)));
                    let (a, b) = (self.number(a).unwrap_or(7), self.number(b).unwrap_or(7));
                    let ends = u8::from(a_end) | u8::from(b_end) << 1;
                    self.ops[at] = Op::Split { prefer, other, a, b, ends };
                }
                _ => {}
            }
        }
        self.first(0)
    }

    fn first(&self, at: usize) -> (Set, bool) {
        let mut fuel = FIRST_FUEL;
        let mut out = (NONE, false);
        self.first_into(at, &mut out, &mut fuel);
        if fuel == 0 { (ALL, true) } else { out }
    }

    fn first_into(&self, mut at: usize, out: &mut (Set, bool), fuel: &mut u32) {
        let mut join = |set: &Set, end: bool| {
            out.0[0] |= set[0];
            out.0[1] |= set[1];
            out.1 |= end;
        };
        loop {
            if *fuel == 0 {
                return;
            }
            *fuel -= 1;
            match self.ops.get(at) {
                None | Some(Op::Match) => return join(&ALL, true),
                Some(Op::Literal { at: text, .. }) => {
                    let byte = self.text[usize::from(*text)];
                    let mut set = NONE;
                    set[usize::from(byte >> 6)] |= 1 << (byte & 63);
                    return join(&set, false);
                }
                Some(Op::One(set)) => return join(lookup(&self.sets, *set), false),
                Some(Op::Run { set, min, .. }) => {
                    join(lookup(&self.sets, *set), false);
                    if *min > 0 {
                        return;
                    }
                    at += 1;
                }
                Some(Op::Dollar) => return join(&NEWLINE, true),
                Some(Op::End) => return join(&NONE, true),
                Some(Op::Save(_) | Op::Start | Op::Boundary(_)) => at += 1,
                Some(Op::Look(_, skip)) => at = at.wrapping_add_signed(isize::from(*skip)),
                Some(Op::Jump(by)) => at = at.wrapping_add_signed(isize::from(*by)),
                Some(Op::Split { prefer, other, .. }) => {
                    self.first_into(at.wrapping_add_signed(isize::from(*prefer)), out, fuel);
                    at = at.wrapping_add_signed(isize::from(*other));
                    return self.first_into(at, out, fuel);
                }
            }
        }
    }
}

/// Whether what follows a brace could be read as a count.
const fn brace_counts(byte: &u8) -> bool {
    byte.is_ascii_digit() || *byte == b','
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
