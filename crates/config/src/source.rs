//! Where values come from: YAML with line numbers, `.env` files, `${VAR}`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: the default.
    Default,
    /// In the YAML file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1, when known.
        line: Option<usize>,
    },
    /// In a `.env` file.
    DotEnv {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The variable.
        variable: String,
    },
    /// In the environment of the process.
    Env {
        /// The variable.
        variable: String,
    },
    /// On the command line.
    Flag {
        /// The flag, with its dashes.
        flag: String,
    },
}

impl Origin {
    /// The line of the file; what stands in no file comes after all lines.
    pub(crate) fn line(&self) -> usize {
        match self {
            Self::File { line, .. } => line.unwrap_or(0),
            Self::DotEnv { .. } | Self::Env { .. } | Self::Flag { .. } => usize::MAX,
            Self::Default => 0,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::DotEnv { path, line, variable } => write!(f, "{}:{line} ({variable})", path.display()),
            Self::Env { variable } => write!(f, "environment variable {variable}"),
            Self::Flag { flag } => write!(f, "flag {flag}"),
        }
    }
}

/// A YAML document as JSON. Twice the same key and keys that are no text are mistakes.
///
/// # Errors
/// The line (when known) and what is wrong there.
pub(crate) fn parse_yaml(text: &str) -> Result<Value, (Option<usize>, String)> {
    let value: yaml_serde::Value = yaml_serde::from_str(text).map_err(|error| {
        let line = error.location().map(|at| at.line());
        // The library ends its sentence with the place, which we name in front.
        let mut message = error.to_string();
        if let Some(at) = message.find(" at line ") {
            message.truncate(at);
        }
        (line, message)
    })?;
    to_json(value).map_err(|message| (None, message))
}

fn to_json(value: yaml_serde::Value) -> Result<Value, String> {
    use yaml_serde::Value as Yaml;
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(switch) => Value::Bool(switch),
        Yaml::String(text) => Value::String(text),
        Yaml::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(n), _, _) => n.into(),
            (_, Some(n), _) => n.into(),
            (_, _, Some(n)) => serde_json::Number::from_f64(n).map_or(Value::Null, Value::Number),
            (None, None, None) => Value::Null,
        },
        Yaml::Sequence(items) => Value::Array(items.into_iter().map(to_json).collect::<Result<_, _>>()?),
        Yaml::Mapping(entries) => {
            let mut map = Map::new();
            for (key, value) in entries {
                let key = match key {
                    Yaml::String(text) => text,
                    Yaml::Number(number) => number.to_string(),
                    Yaml::Bool(switch) => switch.to_string(),
                    other => return Err(format!("a key must be text, not {other:?}")),
                };
                map.insert(key, to_json(value)?);
            }
            Value::Object(map)
        }
        Yaml::Tagged(tagged) => return Err(format!("the tag `{}` means nothing here", tagged.tag)),
    })
}

/// The line (from 1) on which the key at `path` stands in a YAML document.
///
/// The document is read again by the real parser, which is stopped at the wanted key: the place of
/// the error is the place of the key. Good for every style of YAML, and needed a few times only.
pub(crate) fn line_of(text: &str, path: &[&str]) -> Option<usize> {
    let walk = Walk { path };
    match walk.deserialize(yaml_serde::Deserializer::from_str(text)) {
        Ok(()) => None,
        Err(error) => error.location().map(|at| at.line()),
    }
}

struct Walk<'p> {
    path: &'p [&'p str],
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! nothing_here {
    ($($visit:ident: $ty:ty),+) => {
        $(fn $visit<E: serde::de::Error>(self, _: $ty) -> Result<(), E> { Ok(()) })+
    };
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    nothing_here!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Some((wanted, below)) = self.path.split_first() else {
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        while let Some(found) = entries.next_key_seed(Wanted { key: wanted, stop: below.is_empty() })? {
            if found {
                entries.next_value_seed(Walk { path: below })?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Compares a key; stops the parser when it is the last one of the path.
struct Wanted<'p> {
    key: &'p str,
    stop: bool,
}

impl<'de> DeserializeSeed<'de> for Wanted<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Wanted<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        match key == self.key {
            true if self.stop => Err(E::custom("here")),
            same => Ok(same),
        }
    }
}

/// A variable's name, its value, and the line (from 1) that sets it.
pub(crate) type Variable = (String, String, usize);

/// The variables of a `.env` file with their lines.
///
/// `NAME=value`, `export NAME=value`, `#` comments; a value in single quotes is taken as it stands,
/// in double quotes `\n`, `\"` and `\\` are undone; outside quotes ` #` begins a comment.
///
/// Comes with the lines that are neither, and what is wrong with them.
pub(crate) fn parse_dotenv(text: &str) -> (Vec<Variable>, Vec<(usize, String)>) {
    let (mut variables, mut mistakes) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else {
            mistakes.push((line_number, "expected NAME=value".to_owned()));
            continue;
        };
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            mistakes.push((line_number, format!("`{name}` is no name of a variable")));
            continue;
        }
        match dotenv_value(value) {
            Some(value) => variables.push((name.to_owned(), value, line_number)),
            None => mistakes.push((line_number, format!("the quote of {name} is not closed"))),
        }
    }
    (variables, mistakes)
}

fn dotenv_value(value: &str) -> Option<String> {
    if let Some(rest) = value.strip_prefix('\'') {
        return rest.split_once('\'').map(|(inside, _)| inside.to_owned());
    }
    if let Some(rest) = value.strip_prefix('"') {
        let mut inside = String::new();
        let mut chars = rest.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => return Some(inside),
                '\\' => match chars.next()? {
                    'n' => inside.push('\n'),
                    escaped => inside.push(escaped),
                },
                other => inside.push(other),
            }
        }
        return None;
    }
    let end = value.find(" #").unwrap_or(value.len());
    Some(value[..end].trim_end().to_owned())
}

/// `text` with `${VAR}` and `${VAR:-default}` replaced; `$${` stands for `${`.
///
/// # Errors
/// The name that is set nowhere and has no default, or a brace that is not closed.
pub(crate) fn expand(text: &str, variables: &BTreeMap<String, String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at]);
            out.push('{');
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let Some(end) = rest[at..].find('}') else {
            return Err("`${` is not closed by `}` (write `$${` for the characters themselves)".to_owned());
        };
        let inside = &rest[at + 2..at + end];
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        match (variables.get(name.trim()).filter(|value| !value.is_empty()), default) {
            (Some(value), _) => out.push_str(value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => {
                return Err(format!(
                    "the environment variable {} is not set: set it, or give a default as `${{{}:-...}}`",
                    name.trim(),
                    name.trim()
                ));
            }
        }
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_in_every_style_of_yaml() {
        let text = "# head\nserver:\n  host: a\n\n  port: 1\nworker: {lease: 3,\n  node: x}\n\"log\":\n  ? level\n  : INFO\n";
        for (path, line) in [
            (&["server"][..], 2),
            (&["server", "host"], 3),
            (&["server", "port"], 5),
            (&["worker", "lease"], 6),
            (&["worker", "node"], 7),
            (&["log"], 8),
            (&["log", "level"], 9),
        ] {
            assert_eq!(line_of(text, path), Some(line), "{path:?}");
        }
        assert_eq!(line_of(text, &["worker", "host"]), None);
    }

    #[test]
    fn dotenv_files_read_as_shells_do() {
        let (variables, mistakes) = parse_dotenv(
            "# c\nA=1\nexport B='x # y' # note\nC=\"a\\\"b\\n\"\nD=v # note\nnonsense\nE='open\nF=\n",
        );
        let pairs: Vec<(&str, &str, usize)> =
            variables.iter().map(|(n, v, l)| (n.as_str(), v.as_str(), *l)).collect();
        assert_eq!(
            pairs,
            [("A", "1", 2), ("B", "x # y", 3), ("C", "a\"b\n", 4), ("D", "v", 5), ("F", "", 8)]
        );
        assert_eq!(mistakes.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [6, 7]);
    }

    #[test]
    fn variables_expand_with_defaults_and_can_be_escaped() {
        let env = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("E".to_owned(), String::new())]);
        for (text, expanded) in [
            ("x${A}y", "x1y"),
            ("${B:-2}", "2"),
            ("${E:-3}", "3"),
            ("$${A}", "${A}"),
            ("a$b", "a$b"),
            ("${B:-}", ""),
        ] {
            assert_eq!(expand(text, &env).unwrap(), expanded);
        }
        assert!(expand("${B}", &env).unwrap_err().contains("variable B is not set"));
        assert!(expand("${A", &env).unwrap_err().contains("not closed"));
    }
}
