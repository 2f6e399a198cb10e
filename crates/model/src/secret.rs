//! Keeping secrets out of everything that leaves: masks by key, and lines that carry one.

use serde_json::{Map, Value};

/// What stands where a secret stood.
pub const MASK: &str = "******";

/// Keys whose values are secrets wherever they stand.
const SECRET_KEYS: &[&str] = &[
    "password",
    "passwd",
    "secret",
    "private_key",
    "token",
    "pkey",
    "passphrase",
    "proxy_password",
    "proxy_pkey",
    "proxy_passphrase",
    "sudo_password",
    "secret_id",
    "api_key",
    "enable_password",
    "community",
    "key_data",
];

/// Whether the value under `key` is a secret.
#[must_use]
pub fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRET_KEYS.contains(&key.as_str()) || key.ends_with("_password") || key.ends_with("_secret")
}

/// A copy of `value` with every secret masked, at any depth.
#[must_use]
pub fn masked(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(masked_map(map)),
        Value::Array(items) => Value::Array(items.iter().map(masked).collect()),
        other => other.clone(),
    }
}

/// As [`masked`], for an object.
#[must_use]
pub fn masked_map(map: &Map<String, Value>) -> Map<String, Value> {
    map.iter()
        .map(|(key, value)| {
            let masked_value = match value {
                Value::Null => Value::Null,
                _ if key == "webhook" => crate::webhook::masked(value),
                _ if is_secret_key(key) => Value::from(MASK),
                _ => masked(value),
            };
            (key.clone(), masked_value)
        })
        .collect()
}

/// Every secret text in `value`: what must not appear in anything that leaves.
/// Texts shorter than four characters are left out: masking them would garble ordinary output.
#[must_use]
pub fn collect(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(value, false, &mut found);
    longest_first(found)
}

/// As [`collect`], for an object.
#[must_use]
pub fn collect_map(map: &Map<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    map.iter().for_each(|(key, value)| walk(value, is_secret_key(key), &mut found));
    longest_first(found)
}

fn walk(value: &Value, secret: bool, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(k, v)| walk(v, secret || is_secret_key(k), found)),
        Value::Array(items) => items.iter().for_each(|v| walk(v, secret, found)),
        Value::String(text) if secret && text.len() >= 4 => found.push(text.clone()),
        _ => {}
    }
}

fn longest_first(mut found: Vec<String>) -> Vec<String> {
    found.sort_by_key(|text| std::cmp::Reverse(text.len()));
    found.dedup();
    found
}

/// A copy of `value` with each of `secrets` masked in every text, at any depth; keys stay.
#[must_use]
pub fn scrub_value(value: &Value, secrets: &[String]) -> Value {
    match value {
        Value::String(text) => Value::from(scrub(text, secrets)),
        Value::Array(items) => items.iter().map(|item| scrub_value(item, secrets)).collect(),
        Value::Object(map) => {
            map.iter().map(|(key, value)| (key.clone(), scrub_value(value, secrets))).collect()
        }
        other => other.clone(),
    }
}

/// `text` with each of `secrets` masked.
#[must_use]
pub fn scrub(text: &str, secrets: &[String]) -> String {
    let mut clean = text.to_owned();
    for secret in secrets {
        if clean.contains(secret.as_str()) {
            clean = clean.replace(secret.as_str(), MASK);
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn promise_12_masks_at_any_depth() {
        let value = json!({"a": {"password": "s3cret", "list": [{"Sudo_Password": "t0p!"}]}, "user": "ops"});
        let text = masked(&value).to_string();
        assert!(!text.contains("s3cret") && !text.contains("t0p!") && text.contains("ops"));
        let secrets = collect(&value);
        assert_eq!(secrets, ["s3cret", "t0p!"]);
        assert_eq!(scrub("login s3cret failed", &secrets), "login ****** failed");
        let echoed = json!({"rows": [{"user": "ops", "pw": "it is s3cret"}], "n": 7});
        assert_eq!(
            scrub_value(&echoed, &secrets),
            json!({"rows": [{"user": "ops", "pw": "it is ******"}], "n": 7})
        );
    }
}
