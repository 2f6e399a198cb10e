//! Compiles plain patterns straight from their text, in one walk and without a tree.
//!
//! Nearly every rule of a template is literals, sets, repeats, groups, alternatives and anchors.
//! Those become a short program for [`super::walk`], which runs it on ASCII subjects. Whatever is
//! unusual (flags, references, look-behind, an error) is declined here and read by
//! [`super::syntax`], whose word is final: this module accepts a subset of what that one accepts,
//! with the same meaning.

use std::cell::RefCell;

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
pub(super) const SPACE: Set = [1 << 32 | 0xf << 28 | 0x1f << 9, 0];
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
/// Number of `\S`.
pub(super) const NOT_SPACE: u16 = 2;
/// Number of every byte.
const EVERY: u16 = 7;

/// No upper bound.
pub(super) const ENDLESS: u16 = u16::MAX;

/// One step of a program; jumps are relative, so that a block can be copied.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    /// Bytes of [`Plain::text`].
    Literal {
        at: u16,
        len: u16,
    },
    /// One byte of a set.
    One(u16),
    /// Bytes of a set, as many as possible or as few.
    Run {
        set: u16,
        min: u16,
        max: u16,
        next: u16,
        how: How,
    },
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
    Split {
        prefer: i16,
        other: i16,
        a: u16,
        b: u16,
        ends: u8,
    },
    Jump(i16),
    /// `(?=...)` or, when true, `(?!...)`: the body runs up to a `Match`.
    Look(bool, i16),
    /// `(?<=...)` or, when true, `(?<!...)`: the body, of this many bytes, runs up to a `Match`.
    Behind(bool, u16, i16),
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
    /// Bytes that every match holds.
    pub needs: Set,
    /// Where the names of the named groups are in the pattern; the groups are numbered from 1 in
    /// order of definition.
    pub names: Box<[(u32, u32)]>,
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
        Self::read(pattern, |reader| {
            reader.build.ops.push(Op::Match);
            let first = reader.finish();
            let needs = reader.needs();
            Self {
                ops: reader.build.ops.as_slice().into(),
                text: reader.build.text.as_slice().into(),
                sets: reader.build.sets.as_slice().into(),
                first,
                needs,
                names: reader.build.names.as_slice().into(),
                written: reader.written,
            }
        })
    }

    /// Whether the pattern is plain, and so valid.
    pub fn is_plain(pattern: &str) -> bool {
        Self::read(pattern, |_| ()).is_some()
    }

    fn read<T>(pattern: &str, done: impl FnOnce(&mut Reader<'_>) -> T) -> Option<T> {
        if !pattern.is_ascii() || pattern.len() > MOST_TEXT {
            return None;
        }
        BUILD.with(|build| {
            let mut build = build.try_borrow_mut().ok()?;
            build.ops.clear();
            build.text.clear();
            build.sets.clear();
            build.names.clear();
            let mut reader = Reader {
                pattern: pattern.as_bytes(),
                at: 0,
                build: &mut build,
                written: 0,
                depth: 0,
                merge: false,
            };
            reader.alternatives()?;
            (reader.at == pattern.len()).then(|| done(&mut reader))
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

/// What is being written; kept per thread, since a template compiles many small patterns.
#[derive(Default)]
struct Build {
    ops: Vec<Op>,
    text: Vec<u8>,
    sets: Vec<Set>,
    names: Vec<(u32, u32)>,
}

thread_local! {
    static BUILD: RefCell<Build> = RefCell::default();
}

struct Reader<'p> {
    pattern: &'p [u8],
    at: usize,
    build: &'p mut Build,
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
        self.build.ops.push(op);
        self.merge = false;
    }

    fn number(&mut self, set: Set) -> Option<u16> {
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
    fn fresh(&mut self, set: Set) -> Option<u16> {
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
    fn alternatives(&mut self) -> Option<bool> {
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

    /// Fills in what can follow each choice; returns what the whole can begin with.
    fn finish(&mut self) -> (Set, bool) {
        for at in 0..self.build.ops.len() {
            match self.build.ops[at] {
                Op::Run { set, min, max, how, .. } => {
                    if min == max {
                        let how = How { once: true, ..how };
                        self.build.ops[at] = Op::Run { set, min, max, next: EVERY, how };
                        continue;
                    }
                    let (next, end) = self.first(at + 1);
                    let own = *lookup(&self.build.sets, set);
                    let once = (own[0] & next[0] | own[1] & next[1]) == 0;
                    if once {
                        let how = How { once, ..how };
                        self.build.ops[at] = Op::Run { set, min, max, next: EVERY, how };
                        continue;
                    }
                    // A set that does not fit its number is not used: everything may follow.
                    let (next, end) = self.fresh(next).map_or((EVERY, true), |number| (number, end));
                    self.build.ops[at] =
                        Op::Run { set, min, max, next, how: How { lazy: how.lazy, once, end } };
                }
                Op::Split { prefer, other, .. } => {
                    let (a, a_end) = self.first(at.wrapping_add_signed(isize::from(prefer)));
                    let (b, b_end) = self.first(at.wrapping_add_signed(isize::from(other)));
                    let (a, b) = (self.fresh(a).unwrap_or(EVERY), self.fresh(b).unwrap_or(EVERY));
                    let ends = u8::from(a_end) | u8::from(b_end) << 1;
                    self.build.ops[at] = Op::Split { prefer, other, a, b, ends };
                }
                _ => {}
            }
        }
        self.first(0)
    }

    /// The bytes of literals that no choice can pass over.
    fn needs(&self) -> Set {
        let mut needs = NONE;
        let mut optional = 0;
        for (at, op) in self.build.ops.iter().enumerate() {
            let mut until = |by: i16| optional = optional.max(at.wrapping_add_signed(isize::from(by)));
            match op {
                Op::Split { prefer, other, .. } => {
                    // A jump back repeats what was passed once.
                    if *prefer > 0 && *other > 0 {
                        until(*prefer.max(other));
                    }
                }
                Op::Jump(by) if *by > 0 => until(*by),
                Op::Look(_, skip) | Op::Behind(_, _, skip) => until(*skip),
                Op::Literal { at: from, len } if at >= optional => {
                    let from = usize::from(*from);
                    for byte in &self.build.text[from..from + usize::from(*len)] {
                        needs[usize::from(byte >> 6)] |= 1 << (byte & 63);
                    }
                }
                Op::Run { set, min, .. } if *min > 0 && at >= optional => {
                    let set = lookup(&self.build.sets, *set);
                    if set[0].count_ones() + set[1].count_ones() == 1 {
                        needs = [needs[0] | set[0], needs[1] | set[1]];
                    }
                }
                _ => {}
            }
        }
        needs
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
            match self.build.ops.get(at) {
                None | Some(Op::Match) => return join(&ALL, true),
                Some(Op::Literal { at: text, .. }) => {
                    let byte = self.build.text[usize::from(*text)];
                    let mut set = NONE;
                    set[usize::from(byte >> 6)] |= 1 << (byte & 63);
                    return join(&set, false);
                }
                Some(Op::One(set)) => return join(lookup(&self.build.sets, *set), false),
                Some(Op::Run { set, min, .. }) => {
                    join(lookup(&self.build.sets, *set), false);
                    if *min > 0 {
                        return;
                    }
                    at += 1;
                }
                Some(Op::Dollar) => return join(&NEWLINE, true),
                Some(Op::End) => return join(&NONE, true),
                Some(Op::Save(_) | Op::Start | Op::Boundary(_)) => at += 1,
                Some(Op::Look(_, skip) | Op::Behind(_, _, skip)) => {
                    at = at.wrapping_add_signed(isize::from(*skip))
                }
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

/// Whether a byte does not simply stand for itself.
const fn is_special(byte: u8) -> bool {
    matches!(byte, b'|' | b')' | b'*' | b'+' | b'?' | b'{' | b'.' | b'^' | b'$' | b'[' | b'\\' | b'(')
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
