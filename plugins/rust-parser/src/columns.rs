//! Tables whose columns stand below their headings.

use netpulse_plugin_sdk::{Map, Value, json};

use crate::kv::scalar;

/// How to read a table.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The headings, where they are not single words; also how the header is found.
    columns: Vec<String>,
    /// Whole numbers become numbers.
    numbers: bool,
}

impl Options {
    /// The options that a request's `args` say. The host has checked them against [`schema`].
    ///
    /// # Errors
    /// A sentence about the one that is wrong.
    pub fn read(args: &Value) -> Result<Self, String> {
        let mut options = Self::default();
        match &args["columns"] {
            Value::Null => {}
            Value::Array(names) => {
                for name in names {
                    match name.as_str().map(str::trim) {
                        Some(name) if !name.is_empty() => options.columns.push(name.to_owned()),
                        _ => return Err("args.columns: Input should be a list of headings".to_owned()),
                    }
                }
            }
            _ => return Err("args.columns: Input should be a list of headings".to_owned()),
        }
        match &args["numbers"] {
            Value::Null => {}
            Value::Bool(on) => options.numbers = *on,
            _ => return Err("args.numbers: Input should be true or false".to_owned()),
        }
        Ok(options)
    }
}

/// What `args` may hold.
pub fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "columns": {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
            "numbers": {"type": "boolean"}
        }
    })
}

/// The rows as objects, up to the first empty line.
///
/// # Errors
/// There is no header.
pub fn parse(text: &str, options: &Options) -> Result<Value, String> {
    let mut lines = text.lines();
    let headings = loop {
        let Some(line) = lines.next() else {
            return Err(match options.columns.as_slice() {
                [] => "the text is empty: there is no header".to_owned(),
                names => format!("no line of the text has the headings {}", names.join(", ")),
            });
        };
        let found = if options.columns.is_empty() { words(line) } else { find(line, &options.columns) };
        if !found.is_empty() {
            break found;
        }
    };
    let mut rows = Vec::new();
    for line in lines {
        if line.trim().is_empty() {
            if rows.is_empty() {
                continue;
            }
            break;
        }
        // A line that underlines the headings.
        if line.chars().all(|c| matches!(c, '-' | '=' | '+' | '|' | ' ')) {
            continue;
        }
        rows.push(row(line, &headings, options.numbers));
    }
    Ok(Value::Array(rows))
}

/// A heading and the character where it begins.
type Heading = (usize, String);

/// Every word of a line is a heading.
fn words(line: &str) -> Vec<Heading> {
    let mut found: Vec<Heading> = Vec::new();
    let mut inside = false;
    for (at, c) in line.chars().enumerate() {
        if c.is_whitespace() {
            inside = false;
            continue;
        }
        if !inside {
            found.push((at, String::new()));
            inside = true;
        }
        if let Some((_, name)) = found.last_mut() {
            name.push(c);
        }
    }
    found
}

/// Where the headings stand in a line; none unless all are there, in order.
fn find(line: &str, names: &[String]) -> Vec<Heading> {
    let mut found = Vec::new();
    let mut from = 0;
    for name in names {
        let Some(at) = line.get(from..).and_then(|rest| rest.find(name.as_str())) else { return Vec::new() };
        let byte = from + at;
        found.push((line.get(..byte).map_or(0, |before| before.chars().count()), name.clone()));
        from = byte + name.len();
    }
    found
}

fn row(line: &str, headings: &[Heading], numbers: bool) -> Value {
    let characters: Vec<char> = line.chars().collect();
    let mut object = Map::new();
    let mut start = 0;
    for (index, (_, name)) in headings.iter().enumerate() {
        let end = match headings.get(index + 1) {
            Some((next, _)) => boundary(&characters, start, *next),
            None => characters.len(),
        };
        let text: String = characters.get(start..end).unwrap_or_default().iter().collect();
        object.insert(name.clone(), scalar(text.trim(), numbers));
        start = end;
    }
    Value::Object(object)
}

/// Where a column begins in this line: below its heading, unless a word runs across that place. A
/// word that the column on the left (from `start`) begins with was too long for it; any other goes
/// to the side where more of it stands, as right-aligned numbers do.
fn boundary(line: &[char], start: usize, heading: usize) -> usize {
    let at = heading.clamp(start, line.len().max(start)).min(line.len());
    let blank = |index: usize| line.get(index).is_none_or(|c| c.is_whitespace());
    if at <= start || blank(at) || blank(at - 1) {
        return at.max(start);
    }
    let mut begin = at;
    while begin > start && !blank(begin - 1) {
        begin -= 1;
    }
    let mut end = at;
    while !blank(end) {
        end += 1;
    }
    let first = (start..begin).all(blank);
    if first || at - begin > end - at { end } else { begin }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_table_becomes_rows() {
        let text = "sw1# show ip interface brief\n\
            Interface              IP-Address      OK? Method Status                Protocol\n\
            Vlan1                  unassigned      YES NVRAM  administratively down down\n\
            GigabitEthernet1/0/1   192.0.2.1       YES manual up                    up\n\
            \n\
            Total: 2\n";
        let options = Options::read(
            &json!({"columns": ["Interface", "IP-Address", "OK?", "Method", "Status", "Protocol"]}),
        )
        .unwrap();
        let rows = parse(text, &options).unwrap();
        assert_eq!(rows.as_array().unwrap().len(), 2);
        assert_eq!(rows[0]["Status"], "administratively down");
        assert_eq!(rows[0]["Protocol"], "down");
        assert_eq!(rows[1]["Interface"], "GigabitEthernet1/0/1");
        assert_eq!(rows[1]["IP-Address"], "192.0.2.1");
    }

    #[test]
    fn single_words_need_no_names_and_underlines_are_left_out() {
        let text = "Port   Vlan  Name\n----   ----  ----\nGi0/1  10    office\nGi0/2        \n";
        let rows = parse(text, &Options { numbers: true, ..Options::default() }).unwrap();
        assert_eq!(
            rows,
            json!([{"Port": "Gi0/1", "Vlan": 10, "Name": "office"}, {"Port": "Gi0/2", "Vlan": "", "Name": ""}])
        );
    }

    #[test]
    fn values_that_do_not_fit_keep_their_column() {
        let text = "Name Address    State\nedge-switch-11 192.0.2.1 up\nü    10.0.0.1   down\n";
        let rows = parse(text, &Options::default()).unwrap();
        assert_eq!(rows[1], json!({"Name": "ü", "Address": "10.0.0.1", "State": "down"}));
        assert_eq!(rows[0], json!({"Name": "edge-switch-11", "Address": "192.0.2.1", "State": "up"}));
        let counters = parse("Port   In  Out\nGi1  12345   2\n", &Options::default()).unwrap();
        assert_eq!(counters[0], json!({"Port": "Gi1", "In": "12345", "Out": "2"}));
    }

    #[test]
    fn a_text_without_the_header_is_refused() {
        assert!(parse("", &Options::default()).unwrap_err().contains("no header"));
        let options = Options { columns: vec!["Port".into()], ..Options::default() };
        assert!(parse("nothing here", &options).unwrap_err().contains("Port"));
        assert!(Options::read(&json!({"columns": [""]})).unwrap_err().contains("columns"));
    }
}
