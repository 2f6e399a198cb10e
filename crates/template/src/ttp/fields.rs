//! The named values of one match, in order: few, so a list serves better than a map.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde_json::Value;

/// A name, of the template or made by a function, and its value.
pub(crate) type Field<'t> = (Cow<'t, str>, Value);

/// Named values in the order of their first setting, as Python's dict has it.
#[derive(Debug, Default)]
pub(crate) struct Fields<'t>(Vec<Field<'t>>);

impl<'t> Fields<'t> {
    /// Sets a value; one that is there keeps its place.
    pub fn set(&mut self, name: Cow<'t, str>, value: Value) {
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(n, _)| n.as_ref())
    }
}

impl<'t> IntoIterator for Fields<'t> {
    type Item = Field<'t>;
    type IntoIter = std::vec::IntoIter<Field<'t>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'t> From<Fields<'t>> for VecDeque<Field<'t>> {
    fn from(fields: Fields<'t>) -> Self {
        fields.0.into()
    }
}
