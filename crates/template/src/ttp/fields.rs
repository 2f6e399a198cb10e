//! The named values of matches: few for each, so that a list serves better than a map.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::Value;

/// A name, of the template or made by a function, and its value.
pub(crate) type Field<'t> = (Cow<'t, str>, Value);

/// The values of one match: a part of [`Fields`].
pub(crate) type Part = Range<u32>;

/// The values of all matches, one after the other, each in the order of its first setting.
#[derive(Debug)]
pub(crate) struct Fields<'t>(Vec<Field<'t>>);

impl<'t> Fields<'t> {
    /// With room for some, in a block that allocators have at hand.
    pub fn new() -> Self {
        Self(Vec::with_capacity(9))
    }

    /// Where the values of a new match begin.
    pub const fn begin(&self) -> usize {
        self.0.len()
    }

    /// Sets a value of the last match, which began at `begin`; one that is there keeps its place.
    pub fn set(&mut self, begin: usize, name: Cow<'t, str>, value: Value) {
        match self.0.get_mut(begin..).unwrap_or_default().iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// Drops the values of the last match.
    pub fn forget(&mut self, begin: usize) {
        self.0.truncate(begin);
    }

    /// The values of the last match.
    pub fn part(&self, begin: usize) -> Part {
        begin as u32..self.0.len() as u32
    }

    pub fn names(&self, part: &Part) -> impl Iterator<Item = &str> {
        let at = part.start as usize..part.end as usize;
        self.0.get(at).unwrap_or_default().iter().map(|(n, _)| n.as_ref())
    }

    /// Takes the values of a match out.
    pub fn take(&mut self, part: Part) -> impl DoubleEndedIterator<Item = Field<'t>> {
        let at = part.start as usize..part.end as usize;
        self.0
            .get_mut(at)
            .unwrap_or_default()
            .iter_mut()
            .map(|(name, value)| (std::mem::take(name), std::mem::take(value)))
    }
}
