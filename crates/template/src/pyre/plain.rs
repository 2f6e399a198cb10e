//! Compiles plain patterns straight from their text, in one walk and without a tree.
//!
//! Nearly every rule of a template is literals, sets, repeats, groups, alternatives and anchors.
//! Those become a short program for [`super::walk`], which runs it on ASCII subjects. Whatever is
//! unusual (flags, references, look-behind, an error) is declined here and read by
//! [`super::syntax`], whose word is final: this module accepts a subset of what that one accepts,
//! with the same meaning.

use super::read::{BUILD, Reader};

/// A set of ASCII bytes.
pub(super) type Set = [u64; 2];

/// Whether an ASCII byte is in a set.
#[inline]
pub(super) const fn has(set: &Set, byte: u8) -> bool {
    set[(byte >> 6 & 1) as usize] >> (byte & 63) & 1 != 0
}

pub(super) const fn complement(set: Set) -> Set {
    [!set[0], !set[1]]
}

pub(super) const NONE: Set = [0, 0];
pub(super) const ALL: Set = [u64::MAX, u64::MAX];
const DIGIT: Set = [0x3ff << 48, 0];
const WORD: Set = [0x3ff << 48, 0x07ff_fffe_87ff_fffe];
/// Python counts the information separators 0x1c to 0x1f as white space.
pub(super) const SPACE: Set = [1 << 32 | 0xf << 28 | 0x1f << 9, 0];
pub(super) const NEWLINE: Set = [1 << 10, 0];
/// What the end of a line, blanks before it included, can begin with.
pub(super) const LINE_END: Set = [1 << 32 | 1 << 13 | 1 << 10 | 1 << 9, 0];

/// Sets that need no table of their own; their numbers come first.
pub(super) const KNOWN: [Set; 9] = [
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
pub(super) const EVERY: u16 = 7;

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
    /// Words with one blank between them (or, when `many`, any number), as few as can be but two
    /// at least: TTP's `(\S+ {1})+?\S+` and `(\S+ +)+?\S+`.
    Phrase {
        many: bool,
        next: u16,
        how: How,
    },
    /// Blanks and tabs up to the end of the line: TTP's `[\t ]*(?=\n|\r\n)`.
    LineEnd,
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
    /// Of a pattern that begins with a newline: what a match has next.
    pub second: Set,
    /// Bytes that every match holds.
    pub needs: Set,
    /// Where the names of the named groups are in the pattern; the groups are numbered from 1 in
    /// order of definition.
    pub names: Box<[(u32, u32)]>,
    /// All groups that capture.
    pub written: u32,
}

/// Programs and literals beyond this are left to PCRE2.
pub(super) const MOST_OPS: usize = 2_000;
const MOST_TEXT: usize = 30_000;
pub(super) const MOST_DEPTH: u32 = 40;
/// Most steps that a counted group is written out to.
pub(super) const MOST_COPIES: usize = 512;
/// Steps that one look for a beginning may take.
pub(super) const FIRST_FUEL: u32 = 64;

impl Plain {
    /// The program, or `None` where the pattern is not plain (or not valid).
    pub fn new(pattern: &str) -> Option<Self> {
        Self::read(pattern, |reader| {
            reader.build.ops.push(Op::Match);
            let first = reader.finish();
            let second = reader.second();
            let needs = reader.needs();
            Self {
                ops: reader.build.ops.as_slice().into(),
                text: reader.build.text.as_slice().into(),
                sets: reader.build.sets.as_slice().into(),
                first,
                second,
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

    /// Whether nothing but the first byte can match a newline.
    pub fn stays_on_line(&self) -> bool {
        self.ops.iter().enumerate().all(|(i, op)| match op {
            Op::Literal { at, len } => {
                let from = usize::from(*at) + usize::from(i == 0);
                let to = usize::from(*at) + usize::from(*len);
                !self.text.get(from..to).is_some_and(|text| text.contains(&b'\n'))
            }
            Op::One(set) | Op::Run { set, .. } => !has(self.set(*set), b'\n'),
            _ => true,
        })
    }

    #[inline]
    pub fn set(&self, number: u16) -> &Set {
        lookup(&self.sets, number)
    }
}

#[inline]
pub(super) fn lookup(sets: &[Set], number: u16) -> &Set {
    let number = usize::from(number);
    KNOWN.get(number).or_else(|| sets.get(number - KNOWN.len())).unwrap_or(&NONE)
}
