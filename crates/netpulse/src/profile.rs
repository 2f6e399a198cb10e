//! Which server, with which key: flags, environment, and the profile file that the Python client
//! reads too (`netpulse.yaml` here or `~/.netpulse/config.yaml`: `default` and `profiles`).

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::exit::Failure;

/// The server when nobody says one.
pub const DEFAULT_URL: &str = "http://127.0.0.1:9000";

/// What a profile may say; other keys are the Python client's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profile {
    /// The server.
    pub base_url: Option<String>,
    /// Its key.
    pub api_key: Option<String>,
    /// The header that carries the key.
    pub api_key_name: Option<String>,
    /// The driver when nobody says one.
    pub driver: Option<String>,
    /// Connection arguments when nobody says others.
    pub connection_args: Map<String, Value>,
}

impl Profile {
    /// The profile `name` (or `default`) of the first profile file there is.
    pub fn find(name: Option<&str>) -> Result<Self, Failure> {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let here = ["netpulse.yaml", "netpulse.yml"].map(PathBuf::from);
        let at_home = home
            .into_iter()
            .flat_map(|home| ["config.yaml", "config.yml"].map(|n| home.join(".netpulse").join(n)));
        for path in here.into_iter().chain(at_home) {
            if !path.is_file() {
                continue;
            }
            let text = std::fs::read_to_string(&path)
                .map_err(|e| Failure::local(format!("{} cannot be read: {e}", path.display())))?;
            if let Some(profile) = Self::read(&path, &text, name, |variable| std::env::var(variable).ok())? {
                return Ok(profile);
            }
        }
        match name {
            Some(name) if name != "default" => Err(Failure::usage(format!("there is no profile `{name}`"))
                .hint("profiles stand in ./netpulse.yaml or ~/.netpulse/config.yaml below `profiles:`")),
            _ => Ok(Self::default()),
        }
    }

    /// The profile in `text`; none when the file is a server's configuration.
    fn read(
        path: &Path,
        text: &str,
        name: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, Failure> {
        let bad = |what: String| Failure::usage(format!("{}: {what}", path.display()));
        let document: Value = yaml_serde::from_str(text).map_err(|e| bad(e.to_string()))?;
        let section = |value: Option<&Value>| value.and_then(Value::as_object).cloned();
        let (default, profiles) = (section(document.get("default")), section(document.get("profiles")));
        if default.is_none() && profiles.is_none() {
            return Ok(None);
        }
        let mut merged = default.unwrap_or_default();
        if let Some(name) = name.filter(|name| *name != "default") {
            let profiles = profiles.unwrap_or_default();
            let Some(own) = section(profiles.get(name)) else {
                let names: Vec<&str> = profiles.keys().map(String::as_str).collect();
                return Err(bad(format!("there is no profile `{name}`"))
                    .hint(format!("there are: {}", names.join(", "))));
            };
            for (key, value) in own {
                match (merged.get_mut(&key), value) {
                    (Some(Value::Object(below)), Value::Object(above)) => below.extend(above),
                    (_, value) => {
                        merged.insert(key, value);
                    }
                }
            }
        }
        let expanded = |value: &Value| expand(value, &variable).map_err(&bad);
        let text_of = |key: &str| match merged.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value @ Value::String(_)) => {
                Ok(expanded(value)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned))
            }
            Some(other) => Err(bad(format!("{key}: `{other}` is no text"))),
        };
        Ok(Some(Self {
            base_url: text_of("base_url")?,
            api_key: text_of("api_key")?,
            api_key_name: text_of("api_key_name")?,
            driver: text_of("driver")?,
            connection_args: match merged.get("connection_args") {
                None | Some(Value::Null) => Map::new(),
                Some(value) => match expanded(value)? {
                    Value::Object(map) => map,
                    _ => return Err(bad("connection_args: expected a mapping".to_owned())),
                },
            },
        }))
    }
}

/// `${VAR}` and `${VAR:-default}`; a variable that is not set is empty, as for the Python client.
fn expand(value: &Value, variable: &impl Fn(&str) -> Option<String>) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => {
            let mut out = String::new();
            let mut rest = text.as_str();
            while let Some(at) = rest.find("${") {
                out.push_str(&rest[..at]);
                let end = rest[at..].find('}').ok_or_else(|| "`${` is not closed by `}`".to_owned())?;
                let inside = &rest[at + 2..at + end];
                let (name, default) = inside.split_once(":-").unwrap_or((inside, ""));
                let found = variable(name.trim()).filter(|value| !value.is_empty());
                out.push_str(found.as_deref().unwrap_or(default));
                rest = &rest[at + end + 1..];
            }
            out.push_str(rest);
            Value::String(out)
        }
        Value::Object(map) => Value::Object(
            map.iter().map(|(k, v)| Ok((k.clone(), expand(v, variable)?))).collect::<Result<_, String>>()?,
        ),
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| expand(item, variable)).collect::<Result<_, _>>()?)
        }
        other => other.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const FILE: &str = "default:\n  base_url: http://a:9000\n  api_key: ${KEY}\n  timeout: 30\n  connection_args:\n    \
                        username: ops\n    password: ${PW:-none}\nprofiles:\n  prod:\n    base_url: https://b\n    \
                        connection_args: {username: root}\n";

    fn read(text: &str, name: Option<&str>) -> Result<Option<Profile>, Failure> {
        Profile::read(Path::new("f.yaml"), text, name, |v| (v == "KEY").then(|| "k-1".to_owned()))
    }

    #[test]
    fn a_profile_lies_over_the_default() {
        let default = read(FILE, None).unwrap().unwrap();
        assert_eq!(
            (default.base_url.as_deref(), default.api_key.as_deref()),
            (Some("http://a:9000"), Some("k-1"))
        );
        assert_eq!(Value::Object(default.connection_args), json!({"username": "ops", "password": "none"}));
        let prod = read(FILE, Some("prod")).unwrap().unwrap();
        assert_eq!((prod.base_url.as_deref(), prod.api_key.as_deref()), (Some("https://b"), Some("k-1")));
        assert_eq!(Value::Object(prod.connection_args), json!({"username": "root", "password": "none"}));
    }

    #[test]
    fn a_wrong_name_and_a_servers_file_are_told_apart() {
        assert!(read(FILE, Some("prdo")).unwrap_err().hint.unwrap().contains("prod"));
        assert_eq!(read("server: {port: 1}\n", None).unwrap(), None);
        assert!(read("default: [", None).is_err());
    }
}
