//! Arguments that change nothing, named so that nobody relies on them.

use serde_json::{Map, Value};

/// Says of each argument in `given` that is none of `known` that it was not used, and what was
/// probably meant. `refused` are names that are known to mean something else elsewhere, with what
/// to do instead. `null`, `false` and empty texts ask for nothing.
pub(crate) fn warnings(
    given: &Map<String, Value>,
    section: &str,
    known: &[&str],
    refused: &[(&str, &str)],
) -> Vec<String> {
    let asks = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    };
    let mut said = Vec::new();
    for (key, value) in given {
        if let Some((_, why)) = refused.iter().find(|(name, _)| name == key) {
            if asks(value) {
                said.push(format!("`{section}.{key}` was not used: {why}"));
            }
        } else if !known.contains(&key.as_str()) {
            let shown: String = key.chars().filter(|c| !c.is_control()).take(60).collect();
            let near = nearest(key, known).map(|n| format!(" (did you mean `{n}`?)")).unwrap_or_default();
            said.push(format!("`{section}.{shown}` was not used: there is no such argument{near}"));
        }
    }
    said
}

/// The name that looks most like `typed`, when one is close.
pub(crate) fn nearest<'k>(typed: &str, known: &[&'k str]) -> Option<&'k str> {
    // Typing errors are few; short names are close to everything.
    let most = if typed.chars().count() <= 4 { 1 } else { 2 };
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&typed.to_ascii_lowercase(), name), *name))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_unknown_is_named_with_what_was_probably_meant() {
        let given =
            json!({"foo": 1, "read_timout": 5, "read_timeout": 5, "use_genie": true, "use_ttp": false});
        let said = warnings(
            given.as_object().unwrap(),
            "driver_args",
            &["read_timeout", "expect_string"],
            &[("use_genie", "use `parsing`"), ("use_ttp", "use `parsing`")],
        );
        assert_eq!(
            said,
            [
                "`driver_args.foo` was not used: there is no such argument",
                "`driver_args.read_timout` was not used: there is no such argument (did you mean `read_timeout`?)",
                "`driver_args.use_genie` was not used: use `parsing`",
            ]
        );
    }
}
