//! `key: value` lines.

use netpulse_plugin_sdk::{Map, Value, json};

/// How to read them.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// What stands between key and value.
    separator: String,
    /// An empty line begins another object; the value is a list of objects then.
    records: bool,
    /// Whole numbers become numbers.
    numbers: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { separator: ":".to_owned(), records: false, numbers: false }
    }
}

impl Options {
    /// The options that a request's `args` say. The host has checked them against [`schema`].
    ///
    /// # Errors
    /// A sentence about the one that is wrong.
    pub fn read(args: &Value) -> Result<Self, String> {
        let mut options = Self::default();
        match &args["separator"] {
            Value::Null => {}
            Value::String(text) if !text.is_empty() => options.separator.clone_from(text),
            _ => return Err("args.separator: Input should be a text that is not empty".to_owned()),
        }
        for (key, flag) in [("records", &mut options.records), ("numbers", &mut options.numbers)] {
            match &args[key] {
                Value::Null => {}
                Value::Bool(on) => *flag = *on,
                _ => return Err(format!("args.{key}: Input should be true or false")),
            }
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
            "separator": {"type": "string", "minLength": 1},
            "records": {"type": "boolean"},
            "numbers": {"type": "boolean"}
        }
    })
}

/// The object, or the list of objects. Lines without the separator say nothing; a key that comes
/// again makes a list of its values.
pub fn parse(text: &str, options: &Options) -> Value {
    let mut records = Vec::new();
    let mut record = Map::new();
    for line in text.lines() {
        if line.trim().is_empty() {
            if options.records && !record.is_empty() {
                records.push(Value::Object(std::mem::take(&mut record)));
            }
            continue;
        }
        let Some((key, value)) = line.split_once(options.separator.as_str()) else { continue };
        let key = key.trim();
        if key.is_empty() {
            continue;
        }
        let value = scalar(value.trim(), options.numbers);
        match record.get_mut(key) {
            None => {
                record.insert(key.to_owned(), value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    if !options.records {
        return Value::Object(record);
    }
    if !record.is_empty() {
        records.push(Value::Object(record));
    }
    Value::Array(records)
}

/// A text, or the whole number that it is.
pub fn scalar(text: &str, numbers: bool) -> Value {
    // `007` is a name, and what does not come back as it was is no number either.
    match text.parse::<i64>() {
        Ok(number) if numbers && number.to_string() == text => Value::from(number),
        _ => Value::from(text),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_become_an_object() {
        let text = "Model Name : MX204\n\nno separator here\nSerial: 0042\nSlots: 2\nTag: a\nTag: b\nTag: c: d\n: x\n";
        let value = parse(text, &Options { numbers: true, ..Options::default() });
        let wanted = json!({"Model Name": "MX204", "Serial": "0042", "Slots": 2, "Tag": ["a", "b", "c: d"]});
        assert_eq!(value, wanted);
        assert_eq!(parse("", &Options::default()), json!({}));
    }

    #[test]
    fn empty_lines_part_records() {
        let options = Options::read(&json!({"records": true, "separator": "="})).unwrap();
        let value = parse("\na=1\nb=2\n\n\n a = 3 \n", &options);
        assert_eq!(value, json!([{"a": "1", "b": "2"}, {"a": "3"}]));
        assert_eq!(parse("", &options), json!([]));
    }

    #[test]
    fn wrong_options_have_a_sentence() {
        for (args, word) in [
            (json!({"separator": ""}), "separator"),
            (json!({"separator": 7}), "separator"),
            (json!({"records": 1}), "records"),
        ] {
            assert!(Options::read(&args).unwrap_err().contains(word));
        }
        assert_eq!(Options::read(&Value::Null).unwrap(), Options::default());
    }
}
