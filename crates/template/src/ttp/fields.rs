//! The named values of one match, in order: few, so a list serves better than a map.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde_json::Value;

/// A name, of the template or made by a function, and its value.
pub(crate) type Field<'t> = (Cow<'t, str>, Value);

/// Named values in the order of their first setting, as Python's dict has it. Most lines have one
/// variable, so the first has a place of its own.
#[derive(Debug, Default)]
pub(crate) struct Fields<'t> {
    first: Option<Field<'t>>,
    more: Vec<Field<'t>>,
}

impl<'t> Fields<'t> {
    /// Sets a value; one that is there keeps its place.
    pub fn set(&mut self, name: Cow<'t, str>, value: Value) {
        let Some(first) = &mut self.first else {
            self.first = Some((name, value));
            return;
        };
        match std::iter::once(first).chain(&mut self.more).find(|(n, _)| *n == name) {
            Some((_, old)) => *old = value,
            None => self.more.push((name, value)),
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.first.iter().chain(&self.more).map(|(n, _)| n.as_ref())
    }
}

impl<'t> IntoIterator for Fields<'t> {
    type Item = Field<'t>;
    type IntoIter = std::iter::Chain<std::option::IntoIter<Field<'t>>, std::vec::IntoIter<Field<'t>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.more)
    }
}

impl<'t> From<Fields<'t>> for VecDeque<Field<'t>> {
    fn from(fields: Fields<'t>) -> Self {
        // Room for the lines that will add to a record.
        let mut all = Self::with_capacity(8);
        all.extend(fields);
        all
    }
}
