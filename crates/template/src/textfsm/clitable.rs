//! CliTable: the `index` file that maps platform and command to templates, and the merge of the
//! tables of several templates on their Key values.

use std::collections::HashMap;
use std::sync::Arc;

use super::table::{Cell, Table};
use crate::error::{TemplateError, code};
use crate::pyre::{Regex, Scratch};

/// Bytes of a platform or command.
const MAX_ATTRIBUTE: usize = 4096;

/// A parsed `index` file.
#[derive(Debug)]
pub struct Index {
    columns: Vec<String>,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    /// One pattern for each column; none where the field is empty or the Template column.
    patterns: Vec<Option<Regex>>,
    templates: Vec<String>,
    line: usize,
}

impl Index {
    /// Reads the text of an `index` file: comma-separated, `#` begins a comment line, rows with
    /// the wrong number of fields are dropped, `[[ ]]` in Command is completed.
    ///
    /// # Errors
    /// `template_syntax` with the line, for a missing Template column or a bad pattern.
    ///
    /// ```
    /// use netpulse_template::textfsm::Index;
    /// let index = Index::parse(
    ///     "Template, Hostname, Platform, Command\n\
    ///      a.textfsm:b.textfsm, .*, cisco_ios, sh[[ow]] ver[[sion]]\n",
    /// )?;
    /// let names = index.find(&[("Platform", "cisco_ios"), ("Command", "show vers")])?;
    /// assert_eq!(names.unwrap(), ["a.textfsm", "b.textfsm"]);
    /// # Ok::<(), netpulse_template::TemplateError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let error =
            |message: String, line: usize| TemplateError::new("textfsm", code::SYNTAX, message).at(line);
        let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
        let mut columns: Vec<String> = Vec::new();
        for (_, line) in lines.by_ref() {
            let line = line.split('#').next().unwrap_or("").trim();
            if !line.is_empty() {
                columns = line.split(',').map(|c| c.trim().to_owned()).collect();
                break;
            }
        }
        let Some(template) = columns.iter().position(|c| c == "Template") else {
            return Err(error("Index file does not have 'Template' column.".to_owned(), 1));
        };
        let mut rows = Vec::new();
        for (number, line) in lines {
            if line.starts_with('#') {
                continue;
            }
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            if fields.len() != columns.len() {
                continue;
            }
            let mut patterns = Vec::with_capacity(fields.len());
            for (i, (column, field)) in columns.iter().zip(&fields).enumerate() {
                if i == template || field.is_empty() {
                    patterns.push(None);
                    continue;
                }
                let pattern = if column == "Command" { complete(field) } else { (*field).to_owned() };
                patterns.push(Some(Regex::new(&pattern).map_err(|why| {
                    error(format!("the index has a bad {column} '{field}' on line {number}: {why}"), number)
                })?));
            }
            let templates = fields[template].split(':').map(str::to_owned).collect();
            rows.push(Row { patterns, templates, line: number });
        }
        Ok(Self { columns, rows })
    }

    /// The templates of the first row all of whose patterns match the attributes that the index
    /// knows; attributes without a column are ignored.
    ///
    /// # Errors
    /// `template_limit` when a pattern of the index takes too long on an attribute; it names the
    /// line of the index.
    pub fn find(&self, attributes: &[(&str, &str)]) -> Result<Option<&[String]>, TemplateError> {
        let wanted: Vec<(usize, &str)> = attributes
            .iter()
            .filter_map(|(name, value)| {
                self.columns.iter().position(|c| c == name).map(|column| (column, *value))
            })
            .collect();
        if let Some((name, value)) = attributes.iter().find(|(_, value)| value.len() > MAX_ATTRIBUTE) {
            return Err(TemplateError::new(
                "textfsm",
                code::LIMIT,
                format!("{name} has {} bytes, at most {MAX_ATTRIBUTE} are looked up", value.len()),
            ));
        }
        let mut scratch = Scratch::default();
        'rows: for row in &self.rows {
            for (column, value) in &wanted {
                let Some(pattern) = &row.patterns[*column] else { continue };
                let hit = pattern.matches(value, value.is_ascii(), &mut scratch).map_err(|why| {
                    TemplateError::new(
                        "textfsm",
                        code::LIMIT,
                        format!(
                            "the index gave up on {} '{value}' on line {}: {why}. Simplify its pattern",
                            self.columns[*column], row.line
                        ),
                    )
                    .at(row.line)
                })?;
                if !hit {
                    continue 'rows;
                }
            }
            return Ok(Some(&row.templates[..]));
        }
        Ok(None)
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// `sh[[ow]]` becomes `sh(o(w)?)?`.
fn complete(command: &str) -> String {
    let mut out = String::with_capacity(command.len() * 2);
    let mut rest = command;
    while let Some(at) = rest.find("[[") {
        // At least one character stands between the brackets.
        let body = &rest[at + 2..];
        let skip = body.chars().next().map_or(0, char::len_utf8);
        let Some(end) = body.get(skip..).and_then(|b| b.find("]]")).map(|e| e + skip) else {
            break;
        };
        out.push_str(&rest[..at]);
        let word = &body[..end];
        for c in word.chars() {
            out.push('(');
            out.push(c);
        }
        for _ in word.chars() {
            out.push_str(")?");
        }
        rest = &body[end + 2..];
    }
    out.push_str(rest);
    out
}

/// Extends the first table by the columns of the others where the key columns agree; by row
/// number when no template has a Key.
///
/// # Errors
/// `template_parse` when a key is not a column of the first table.
pub fn merge<'t>(tables: Vec<(Table<'t>, Vec<&str>)>) -> Result<Option<Table<'t>>, TemplateError> {
    let mut tables = tables.into_iter();
    let Some((mut table, mut keys)) = tables.next() else { return Ok(None) };
    for (other, other_keys) in tables {
        if keys.is_empty() {
            keys = other_keys;
        }
        table = extend(&table, &other, &keys)?;
    }
    Ok(Some(table))
}

fn extend<'t>(table: &Table<'t>, other: &Table<'t>, keys: &[&str]) -> Result<Table<'t>, TemplateError> {
    let column = |table: &Table<'_>, name: &str| table.header.iter().position(|h| **h == *name);
    let mut pairs = Vec::with_capacity(keys.len());
    for key in keys {
        let Some(mine) = column(table, key) else {
            return Err(TemplateError::new(
                "textfsm",
                code::PARSE,
                format!("Unknown key: '{key}': the first template of the row has no such Value"),
            ));
        };
        let Some(theirs) = column(other, key) else {
            return Err(TemplateError::new(
                "textfsm",
                code::PARSE,
                format!("Unknown key: '{key}': a later template of the row has no such Value"),
            ));
        };
        pairs.push((mine, theirs));
    }
    let added: Vec<usize> = other
        .header
        .iter()
        .enumerate()
        .filter(|(_, name)| column(table, name).is_none())
        .map(|(i, _)| i)
        .collect();
    if added.is_empty() {
        return Ok(table.clone());
    }
    let header: Arc<[Arc<str>]> =
        table.header.iter().chain(added.iter().map(|i| &other.header[*i])).map(Arc::clone).collect();
    let mut cells = Vec::with_capacity(table.len() * header.len());
    let mut by_number = other.rows();
    // The first row of each key counts.
    let mut by_key: HashMap<Vec<&Cell<'t>>, &[Cell<'t>]> = HashMap::with_capacity(other.len());
    if !pairs.is_empty() {
        for theirs in other.rows() {
            by_key.entry(pairs.iter().map(|(_, b)| &theirs[*b]).collect()).or_insert(theirs);
        }
    }
    for row in table.rows() {
        let twin = if pairs.is_empty() {
            by_number.next()
        } else {
            let key: Vec<&Cell<'t>> = pairs.iter().map(|(a, _)| &row[*a]).collect();
            by_key.get(&key).copied()
        };
        cells.extend_from_slice(row);
        cells.extend(added.iter().map(|i| twin.map_or(Cell::Text(""), |theirs| theirs[*i].clone())));
    }
    Ok(Table { header, cells })
}
