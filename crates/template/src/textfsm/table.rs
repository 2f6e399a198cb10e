//! What a TextFSM template makes of a text.

use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// One item of a List value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Item<'t> {
    /// The group did not take part in the match (Python's `None`).
    Null,
    /// What the group matched.
    Text(&'t str),
    /// Nested named groups.
    Map(Vec<(Arc<str>, Option<&'t str>)>),
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cell<'t> {
    /// Text; empty where nothing was matched.
    Text(&'t str),
    /// A List value.
    List(Vec<Item<'t>>),
}

impl Cell<'_> {
    pub(super) fn truthy(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::List(items) => !items.is_empty(),
        }
    }
}

/// Rows over a header; texts are slices of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table<'t> {
    pub(super) header: Arc<[Arc<str>]>,
    pub(super) cells: Vec<Cell<'t>>,
}

impl<'t> Table<'t> {
    /// Names of the columns.
    pub fn header(&self) -> &[Arc<str>] {
        &self.header
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.cells.len().checked_div(self.header.len()).unwrap_or(0)
    }

    /// Whether no record was made.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The rows (Python's `ParseText`).
    pub fn rows(&self) -> std::slice::ChunksExact<'_, Cell<'t>> {
        self.cells.chunks_exact(self.header.len().max(1))
    }

    /// A list of maps (Python's `ParseTextToDicts`): keys as written, nulls stay null.
    pub fn to_value(&self) -> serde_json::Value {
        self.maps(&self.header, |item| match item {
            Item::Null => serde_json::Value::Null,
            Item::Text(text) => (*text).into(),
            Item::Map(pairs) => {
                serde_json::Value::Object(pairs.iter().map(|(k, v)| (k.to_string(), (*v).into())).collect())
            }
        })
    }

    /// A list of maps as Netmiko hands it out after CliTable: keys in lower case, and every item
    /// of a list as text, so that null is `None`.
    pub fn to_ntc_value(&self) -> serde_json::Value {
        let header: Vec<Arc<str>> = self.header.iter().map(|name| name.to_lowercase().into()).collect();
        self.maps(&header, |item| item.to_python().into())
    }

    fn maps(&self, header: &[Arc<str>], item: impl Fn(&Item<'_>) -> serde_json::Value) -> serde_json::Value {
        self.rows()
            .map(|row| {
                let mut map = serde_json::Map::with_capacity(header.len());
                for (name, cell) in header.iter().zip(row) {
                    let value = match cell {
                        Cell::Text(text) => (*text).into(),
                        Cell::List(items) => serde_json::Value::Array(items.iter().map(&item).collect()),
                    };
                    map.insert(name.to_string(), value);
                }
                serde_json::Value::Object(map)
            })
            .collect()
    }
}

impl Item<'_> {
    /// What Python's `str()` gives.
    pub fn to_python(&self) -> String {
        match self {
            Item::Null => "None".to_owned(),
            Item::Text(text) => (*text).to_owned(),
            Item::Map(pairs) => {
                let mut out = String::from("{");
                for (i, (key, value)) in pairs.iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    crate::python::repr(key, &mut out);
                    out.push_str(": ");
                    match value {
                        Some(text) => crate::python::repr(text, &mut out),
                        None => out.push_str("None"),
                    }
                }
                out.push('}');
                out
            }
        }
    }
}

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Item::Null => serializer.serialize_none(),
            Item::Text(text) => serializer.serialize_str(text),
            Item::Map(pairs) => {
                let mut map = serializer.serialize_map(Some(pairs.len()))?;
                for (key, value) in pairs {
                    map.serialize_entry(&**key, value)?;
                }
                map.end()
            }
        }
    }
}

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Cell::Text(text) => serializer.serialize_str(text),
            Cell::List(items) => serializer.collect_seq(items),
        }
    }
}

/// A list of maps, written without building a value first.
impl Serialize for Table<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Row<'a, 't>(&'a [Arc<str>], &'a [Cell<'t>]);
        impl Serialize for Row<'_, '_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(Some(self.0.len()))?;
                for (name, cell) in self.0.iter().zip(self.1) {
                    map.serialize_entry(&**name, cell)?;
                }
                map.end()
            }
        }
        let mut seq = serializer.serialize_seq(Some(self.len()))?;
        for row in self.rows() {
            seq.serialize_element(&Row(&self.header, row))?;
        }
        seq.end()
    }
}
