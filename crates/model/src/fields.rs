//! Reading a JSON object field by field, collecting every mistake with its path.
//!
//! The messages and type words are those of the field's validation library that upstream's
//! clients already know (`missing`, `Field required`, `int_parsing`, ...), and coercion is as lax:
//! `"300"` is an integer, `"true"` a boolean.

use serde::Serialize;
use serde_json::{Map, Value};

/// One wrong field.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldError {
    /// What kind of mistake: `missing`, `int_parsing`, `literal_error`, `value_error`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// Where: object keys and list positions from the outside in.
    pub loc: Vec<Value>,
    /// What was wrong and what would be right.
    pub msg: String,
    /// What was given (masked when the field holds a secret).
    pub input: Value,
}

impl FieldError {
    /// An error at `loc`; `value_error` unless changed.
    pub fn new(loc: &[&str], msg: impl Into<String>) -> Self {
        Self {
            kind: "value_error".to_owned(),
            loc: loc.iter().map(|s| Value::from(*s)).collect(),
            msg: msg.into(),
            input: Value::Null,
        }
    }

    /// The path as text: `devices.3.port`.
    #[must_use]
    pub fn path(&self) -> String {
        let parts: Vec<String> = self
            .loc
            .iter()
            .map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned))
            .collect();
        parts.join(".")
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.loc.is_empty() { f.write_str(&self.msg) } else { write!(f, "{}: {}", self.path(), self.msg) }
    }
}

/// Several mistakes as one sentence.
#[must_use]
pub fn sentence(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A JSON object being read, and where it stands.
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    loc: Vec<Value>,
    errors: &'a mut Vec<FieldError>,
}

impl<'a> Fields<'a> {
    /// Reads `value` as an object at `loc`; an error when it is something else.
    pub fn of(value: &'a Value, loc: Vec<Value>, errors: &'a mut Vec<FieldError>) -> Option<Self> {
        if let Value::Object(map) = value {
            Some(Self { map, loc, errors })
        } else {
            errors.push(FieldError {
                kind: "dict_type".into(),
                loc,
                msg: "Input should be a valid dictionary".into(),
                input: value.clone(),
            });
            None
        }
    }

    /// The object itself.
    #[must_use]
    pub fn map(&self) -> &'a Map<String, Value> {
        self.map
    }

    /// Notes a mistake at `key`.
    pub fn error(&mut self, key: &str, kind: &str, msg: impl Into<String>) {
        let mut loc = self.loc.clone();
        if !key.is_empty() {
            loc.push(Value::from(key));
        }
        let input = self.map.get(key).cloned().unwrap_or(Value::Null);
        let input = if crate::secret::is_secret_key(key) && !input.is_null() {
            Value::from(crate::secret::MASK)
        } else {
            input
        };
        self.errors.push(FieldError { kind: kind.into(), loc, msg: msg.into(), input });
    }

    /// Notes that `key` is absent though required.
    pub fn missing(&mut self, key: &str) {
        let mut loc = self.loc.clone();
        loc.push(Value::from(key));
        let input = crate::secret::masked(&Value::Object(self.map.clone()));
        self.errors.push(FieldError { kind: "missing".into(), loc, msg: "Field required".into(), input });
    }

    /// The value at `key`; absent and `null` are the same.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// A text.
    pub fn string(&mut self, key: &str) -> Option<String> {
        match self.get(key)? {
            Value::String(text) => Some(text.clone()),
            _ => {
                self.error(key, "string_type", "Input should be a valid string");
                None
            }
        }
    }

    /// A text that must be there.
    pub fn required_string(&mut self, key: &str) -> String {
        if self.get(key).is_none() {
            self.missing(key);
            return String::new();
        }
        self.string(key).unwrap_or_default()
    }

    /// An integer within bounds, both included. Texts of digits count, as do whole floats.
    pub fn integer(&mut self, key: &str, low: i64, high: i64) -> Option<i64> {
        let number = match self.get(key)? {
            Value::Number(n) => n
                .as_i64()
                .or_else(|| n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15).map(float_to_int)),
            Value::String(text) => match text.trim().parse::<i64>() {
                Ok(n) => Some(n),
                Err(_) => {
                    self.error(
                        key,
                        "int_parsing",
                        "Input should be a valid integer, unable to parse string as an integer",
                    );
                    return None;
                }
            },
            _ => None,
        };
        let Some(number) = number else {
            self.error(key, "int_type", "Input should be a valid integer");
            return None;
        };
        if number < low {
            self.error(key, "greater_than_equal", format!("Input should be greater than or equal to {low}"));
            None
        } else if number > high {
            self.error(key, "less_than_equal", format!("Input should be less than or equal to {high}"));
            None
        } else {
            Some(number)
        }
    }

    /// A number within bounds, both included.
    pub fn number(&mut self, key: &str, low: f64, high: f64) -> Option<f64> {
        let number = match self.get(key)? {
            Value::Number(n) => n.as_f64(),
            Value::String(text) => text.trim().parse::<f64>().ok().filter(|n| n.is_finite()),
            _ => None,
        };
        match number {
            None => {
                self.error(key, "float_type", "Input should be a valid number");
                None
            }
            Some(n) if n < low => {
                self.error(
                    key,
                    "greater_than_equal",
                    format!("Input should be greater than or equal to {low}"),
                );
                None
            }
            Some(n) if n > high => {
                self.error(key, "less_than_equal", format!("Input should be less than or equal to {high}"));
                None
            }
            some => some,
        }
    }

    /// A boolean; the usual words and 0 and 1 count.
    pub fn boolean(&mut self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Value::Bool(b) => Some(*b),
            Value::Number(n) if n.as_i64() == Some(0) => Some(false),
            Value::Number(n) if n.as_i64() == Some(1) => Some(true),
            Value::String(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
                "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
                _ => {
                    self.error(
                        key,
                        "bool_parsing",
                        "Input should be a valid boolean, unable to interpret input",
                    );
                    None
                }
            },
            _ => {
                self.error(key, "bool_type", "Input should be a valid boolean");
                None
            }
        }
    }

    /// One word out of a list.
    pub fn one_of(&mut self, key: &str, words: &[&'static str]) -> Option<&'static str> {
        let value = self.get(key)?;
        if let Some(word) = value.as_str().and_then(|text| words.iter().find(|w| **w == text)) {
            return Some(word);
        }
        let quoted: Vec<String> = words.iter().map(|w| format!("'{w}'")).collect();
        let list = match quoted.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => quoted.join(""),
        };
        self.error(key, "literal_error", format!("Input should be {list}"));
        None
    }

    /// An object.
    pub fn object(&mut self, key: &str) -> Option<Map<String, Value>> {
        match self.get(key)? {
            Value::Object(map) => Some(map.clone()),
            _ => {
                self.error(key, "dict_type", "Input should be a valid dictionary");
                None
            }
        }
    }

    /// A list.
    pub fn list(&mut self, key: &str) -> Option<&'a Vec<Value>> {
        match self.get(key)? {
            Value::Array(items) => Some(items),
            _ => {
                self.error(key, "list_type", "Input should be a valid list");
                None
            }
        }
    }

    /// Reads the object at `key` with `read`, one level down.
    pub fn nested<T>(&mut self, key: &str, read: impl FnOnce(&mut Fields<'_>) -> T) -> Option<T> {
        let value = self.get(key)?;
        let mut loc = self.loc.clone();
        loc.push(Value::from(key));
        Fields::of(value, loc, self.errors).map(|mut inner| read(&mut inner))
    }

    /// How many mistakes were noted so far.
    pub(crate) fn errors_so_far(&self) -> usize {
        self.errors.len()
    }

    /// Hides what was given in the mistakes noted since: it may hold secrets under any name.
    pub(crate) fn mask_inputs_since(&mut self, from: usize) {
        for error in self.errors.iter_mut().skip(from).filter(|error| !error.input.is_null()) {
            error.input = Value::from(crate::secret::MASK);
        }
    }

    /// Whether any mistake was noted so far, anywhere.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }
}

#[allow(clippy::cast_possible_truncation)]
fn float_to_int(f: f64) -> i64 {
    f as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn promise_15_names_each_wrong_field() {
        let value = json!({"ttl": "soon", "save": [], "q": "lifo", "n": 0, "password": 7});
        let mut errors = Vec::new();
        let mut fields = Fields::of(&value, vec![Value::from("body")], &mut errors).unwrap();
        fields.required_string("driver");
        fields.integer("ttl", 1, 10);
        fields.boolean("save");
        fields.one_of("q", &["fifo", "pinned"]);
        fields.integer("n", 1, 5);
        fields.string("password");
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            all,
            [
                "body.driver: Field required",
                "body.ttl: Input should be a valid integer, unable to parse string as an integer",
                "body.save: Input should be a valid boolean",
                "body.q: Input should be 'fifo' or 'pinned'",
                "body.n: Input should be greater than or equal to 1",
                "body.password: Input should be a valid string",
            ]
        );
        assert!(!serde_json::to_string(&errors).unwrap().contains(":7"), "a secret came back");
    }

    #[test]
    fn coerces_as_laxly_as_upstream() {
        let value = json!({"a": "300", "b": 5.0, "c": "yes", "d": 0});
        let mut errors = Vec::new();
        let mut fields = Fields::of(&value, vec![], &mut errors).unwrap();
        assert_eq!(fields.integer("a", 1, 999), Some(300));
        assert_eq!(fields.integer("b", 1, 999), Some(5));
        assert_eq!(fields.boolean("c"), Some(true));
        assert_eq!(fields.boolean("d"), Some(false));
        assert!(errors.is_empty());
    }
}
