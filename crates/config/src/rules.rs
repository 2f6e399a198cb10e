//! From what an operator wrote to a value of the key's type within its bounds.

use std::path::Path;

use serde_json::{Map, Value};

use crate::table::{Key, Kind, Rule};

/// `raw` as the type of `key`; null means not set.
///
/// # Errors
/// What was wrong and what would be right. Never the value of a secret.
pub(crate) fn coerce(key: &Key, raw: &Value) -> Result<Value, String> {
    let shown = || if key.is_secret() { "the value".to_owned() } else { format!("`{}`", plain(raw)) };
    match key.kind {
        Kind::Text => match raw {
            Value::Null => Ok(Value::Null),
            Value::String(text) if text.is_empty() && key.optional => Ok(Value::Null),
            Value::String(_) => Ok(raw.clone()),
            // `api_key: 123456` is meant as text.
            Value::Number(_) | Value::Bool(_) => Ok(Value::String(raw.to_string())),
            Value::Array(_) | Value::Object(_) => Err(format!("{} is no text", shown())),
        },
        Kind::Number => match raw {
            Value::Null => Ok(Value::Null),
            Value::Number(number) if number.is_u64() => Ok(raw.clone()),
            Value::String(text) => match text.trim().replace('_', "").parse::<u64>() {
                Ok(number) => Ok(number.into()),
                Err(_) => Err(format!("{} is no whole number{}", shown(), bounds(key))),
            },
            _ => Err(format!("{} is no whole number{}", shown(), bounds(key))),
        },
        Kind::Switch => match raw {
            Value::Null | Value::Bool(_) => Ok(raw.clone()),
            other => match plain(other).trim().to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Ok(Value::Bool(true)),
                "false" | "no" | "off" | "0" => Ok(Value::Bool(false)),
                _ => Err(format!("{} is neither true nor false", shown())),
            },
        },
        Kind::Path => match raw {
            Value::Null => Ok(Value::Null),
            Value::String(text) if text.trim().is_empty() && key.optional => Ok(Value::Null),
            Value::String(text) => Ok(Value::String(at_home(text))),
            _ => Err(format!("{} is no path", shown())),
        },
        Kind::List | Kind::Paths => list(raw)
            .map(|items| {
                items.map(|items| {
                    let path = |text: String| if key.kind == Kind::Paths { at_home(&text) } else { text };
                    Value::Array(items.into_iter().map(|text| Value::String(path(text))).collect())
                })
            })
            .map(|items| items.unwrap_or(Value::Null))
            .map_err(|item| {
                format!("{item} is no list of texts: write [a, b], or a,b in an environment variable")
            }),
        Kind::Mapping => mapping(raw).ok_or_else(|| {
            format!(
                "{} is no mapping: write {{name: value}}, or name=value,... in an environment variable",
                shown()
            )
        }),
    }
}

/// A text of the environment that stands for a list or mapping: JSON, or separated by commas.
fn list(raw: &Value) -> Result<Option<Vec<String>>, String> {
    match raw {
        Value::Null => Ok(None),
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::String(text) => Ok(text.clone()),
                Value::Number(_) | Value::Bool(_) => Ok(item.to_string()),
                other => Err(format!("`{}`", plain(other))),
            })
            .collect::<Result<Vec<_>, _>>()
            .map(Some),
        Value::String(text) if text.trim_start().starts_with('[') => match serde_json::from_str(text) {
            Ok(parsed @ Value::Array(_)) => list(&parsed),
            _ => Err(format!("`{text}`")),
        },
        Value::String(text) => {
            Ok(Some(text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect()))
        }
        other => Err(format!("`{}`", plain(other))),
    }
}

fn mapping(raw: &Value) -> Option<Value> {
    match raw {
        Value::Null => Some(Value::Null),
        Value::Object(entries) => {
            let mut map = Map::new();
            for (name, value) in entries {
                match value {
                    Value::String(_) => map.insert(name.clone(), value.clone()),
                    Value::Number(_) | Value::Bool(_) => {
                        map.insert(name.clone(), Value::String(value.to_string()))
                    }
                    _ => return None,
                };
            }
            Some(Value::Object(map))
        }
        Value::String(text) if text.trim_start().starts_with('{') => {
            serde_json::from_str(text).ok().filter(Value::is_object).and_then(|parsed| mapping(&parsed))
        }
        Value::String(text) => {
            let mut map = Map::new();
            for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
                let (name, value) = entry.split_once('=')?;
                map.insert(name.trim().to_owned(), Value::String(value.trim().to_owned()));
            }
            Some(Value::Object(map))
        }
        _ => None,
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "nothing".to_owned(),
        other => other.to_string(),
    }
}

/// `~/x` as shells read it.
fn at_home(text: &str) -> String {
    match (text.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest).display().to_string(),
        _ => text.to_owned(),
    }
}

fn bounds(key: &Key) -> String {
    key.rules
        .iter()
        .find_map(|rule| match rule {
            Rule::Range(low, high) => Some(format!(": expected {low} to {high}")),
            _ => None,
        })
        .unwrap_or_default()
}

/// What is wrong with a value that has the right type already.
pub(crate) fn mistakes(key: &Key, value: &Value) -> Vec<String> {
    key.rules.iter().filter_map(|rule| mistake(key, *rule, value)).collect()
}

fn mistake(key: &Key, rule: Rule, value: &Value) -> Option<String> {
    let text = value.as_str();
    match rule {
        Rule::Range(low, high) => {
            let number = value.as_u64()?;
            (!(low..=high).contains(&number))
                .then(|| format!("{number} is out of bounds: expected {low} to {high}"))
        }
        Rule::OneOf(words) => text.filter(|t| !words.contains(t)).map(|t| not_one_of(t, words)),
        Rule::ValuesOneOf(words) => value.as_object()?.iter().find_map(|(name, value)| {
            value.as_str().filter(|t| !words.contains(t)).map(|t| format!("{name}: {}", not_one_of(t, words)))
        }),
        Rule::Required => text.unwrap_or_default().trim().is_empty().then(|| {
            format!("must be set: clients prove themselves with it. Set {} or `{}`", key.env(), key.path())
        }),
        Rule::NotEmpty => text.filter(|t| t.trim().is_empty()).map(|_| "must not be empty".to_owned()),
        Rule::ExistingFile => paths(value)
            .into_iter()
            .find(|t| !Path::new(t).is_file())
            .map(|t| format!("there is no file `{t}` that can be read")),
        Rule::ExistingFolder => paths(value)
            .into_iter()
            .find(|f| !Path::new(f).is_dir())
            .map(|f| format!("there is no folder `{f}`")),
        Rule::Url => text
            .filter(|t| !is_url(t))
            .map(|t| format!("`{t}` is no address: expected http://name[:port] or https://name[:port]")),
        Rule::Networks => value
            .as_array()?
            .iter()
            .filter_map(Value::as_str)
            .find(|item| !is_network(item))
            .map(|item| format!("`{item}` is no network (10.0.0.0/8), address or host name")),
        Rule::HeaderName => text.filter(|t| !is_header_name(t)).map(|t| {
            format!("`{t}` cannot be the name of a header: use letters, digits and dashes, as in X-API-KEY")
        }),
        Rule::LogFilter => text.and_then(log_mistake),
        Rule::Secret => None,
    }
}

fn not_one_of(word: &str, words: &[&str]) -> String {
    let guess =
        nearest(word, words.iter().copied()).map(|w| format!(" (did you mean `{w}`?)")).unwrap_or_default();
    format!("`{word}` is not known: expected one of {}{guess}", words.join(", "))
}

fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| {
        !rest.is_empty()
            && !rest.starts_with(['/', ':'])
            && !rest.contains(|c: char| c.is_whitespace() || c == '@')
    })
}

fn is_network(text: &str) -> bool {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse::<u32>())),
        None => (text, None),
    };
    match (address.parse::<std::net::IpAddr>(), prefix) {
        (Ok(_), None) => true,
        (Ok(address), Some(Ok(prefix))) => prefix <= if address.is_ipv4() { 32 } else { 128 },
        (Err(_), None) => {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        }
        _ => false,
    }
}

fn is_header_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

const LEVELS: &[&str] = &["off", "trace", "debug", "info", "warn", "warning", "error", "critical"];

/// One path, or each of a list.
fn paths(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => value.as_str().into_iter().collect(),
    }
}

fn log_mistake(filter: &str) -> Option<String> {
    let wrong = filter.split(',').map(str::trim).find(|part| {
        let level = part.rsplit_once('=').map_or(*part, |(_, level)| level);
        !LEVELS.contains(&level.trim().to_ascii_lowercase().as_str())
    })?;
    Some(format!(
        "`{wrong}` is no log level: expected DEBUG, INFO, WARNING or ERROR, or a filter like \
         info,netpulse_session=debug"
    ))
}

/// The word that `typed` most likely means, if any is near enough.
pub(crate) fn nearest<'w>(typed: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let typed = typed.to_ascii_lowercase();
    words
        .map(|word| (strsim::damerau_levenshtein(&typed, &word.to_ascii_lowercase()), word))
        .min()
        .filter(|(distance, word)| *distance <= 1 + word.len().min(typed.len()) / 4)
        .map(|(_, word)| word)
}
