//! A lean JSON schema check: the keywords of `docs/plugin-contract.md` section 6 and no others.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use netpulse_model::FieldError;
use regex::Regex;
use serde_json::{Map, Value};

/// Keywords that are checked.
pub const CHECKED: &[&str] = &[
    "type",
    "enum",
    "const",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minLength",
    "maxLength",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minProperties",
    "maxProperties",
    "propertyNames",
    "anyOf",
    "oneOf",
    "allOf",
    "not",
    "$ref",
    "$defs",
    "definitions",
];

/// Keywords that change nothing.
pub const NEUTRAL: &[&str] = &[
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "format",
    "$schema",
    "$id",
    "$comment",
    "readOnly",
    "writeOnly",
];

/// How deep schema and value may nest together.
const DEPTH: usize = 64;
/// Mistakes listed at most.
const MISTAKES: usize = 20;

/// A schema that was looked through once.
#[derive(Debug, Clone)]
pub struct Schema {
    root: Value,
    /// Keywords that it uses and that are not checked.
    pub unknown: Vec<String>,
}

impl Schema {
    /// Reads a schema: an object, `true` or `false`, or their JSON text in base64. None when there
    /// is none.
    ///
    /// # Errors
    /// It is no schema, or a pattern in it is none.
    pub fn read(value: &Value) -> Result<Option<Self>, String> {
        let root = match value {
            Value::Null => return Ok(None),
            Value::Object(_) | Value::Bool(_) => value.clone(),
            Value::String(text) if text.trim().is_empty() => return Ok(None),
            Value::String(text) => {
                let json = STANDARD
                    .decode(text.trim())
                    .map_err(|e| format!("the schema is neither an object nor base64: {e}"))?;
                serde_json::from_slice(&json).map_err(|e| format!("the schema in base64 is no JSON: {e}"))?
            }
            _ => return Err("a schema is an object, `true` or `false`".to_owned()),
        };
        let mut unknown = Vec::new();
        look(&root, &mut unknown, 0)?;
        unknown.sort();
        unknown.dedup();
        Ok(Some(Self { root, unknown }))
    }

    /// Everything wrong with `value`, each with its path below `loc`.
    #[must_use]
    pub fn check(&self, value: &Value, loc: &[&str]) -> Vec<FieldError> {
        let mut run = Check { root: &self.root, errors: Vec::new() };
        let loc: Vec<Value> = loc.iter().map(|part| Value::from(*part)).collect();
        run.value(&self.root, value, &loc, 0);
        run.errors
    }

    /// As [`Schema::check`], for an object.
    #[must_use]
    pub fn check_map(&self, map: &Map<String, Value>, loc: &[&str]) -> Vec<FieldError> {
        self.check(&Value::Object(map.clone()), loc)
    }
}

/// Looks through a schema: patterns must compile, unknown keywords are noted.
fn look(schema: &Value, unknown: &mut Vec<String>, depth: usize) -> Result<(), String> {
    let Value::Object(map) = schema else {
        return if schema.is_boolean() { Ok(()) } else { Err(format!("`{schema}` is no schema")) };
    };
    if depth > DEPTH {
        return Err(format!("the schema nests deeper than {DEPTH}"));
    }
    for (key, inner) in map {
        match key.as_str() {
            "properties" | "$defs" | "definitions" => {
                let Value::Object(schemas) = inner else { return Err(format!("`{key}` must be an object")) };
                schemas.values().try_for_each(|schema| look(schema, unknown, depth + 1))?;
            }
            "items" | "additionalProperties" | "propertyNames" | "not" => look(inner, unknown, depth + 1)?,
            "anyOf" | "oneOf" | "allOf" => {
                let Value::Array(schemas) = inner else { return Err(format!("`{key}` must be a list")) };
                schemas.iter().try_for_each(|schema| look(schema, unknown, depth + 1))?;
            }
            "pattern" => {
                let text = inner.as_str().ok_or("`pattern` must be a text")?;
                regex(text).map_err(|e| format!("the pattern `{text}`: {e}"))?;
            }
            known if CHECKED.contains(&known) || NEUTRAL.contains(&known) => {}
            other => unknown.push(other.to_owned()),
        }
    }
    Ok(())
}

fn regex(text: &str) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(text).size_limit(1 << 20).build()
}

struct Check<'a> {
    root: &'a Value,
    errors: Vec<FieldError>,
}

impl Check<'_> {
    fn wrong(&mut self, loc: &[Value], kind: &str, msg: impl Into<String>, input: &Value) {
        if self.errors.len() < MISTAKES {
            self.errors.push(FieldError {
                kind: kind.into(),
                loc: loc.to_vec(),
                msg: msg.into(),
                input: input.clone(),
            });
        }
    }

    /// Whether a value fits, without noting why not.
    fn fits(&self, schema: &Value, value: &Value, loc: &[Value], depth: usize) -> Vec<FieldError> {
        let mut inner = Check { root: self.root, errors: Vec::new() };
        inner.value(schema, value, loc, depth + 1);
        inner.errors
    }

    fn value(&mut self, schema: &Value, value: &Value, loc: &[Value], depth: usize) {
        if depth > DEPTH {
            return self.wrong(loc, "too_deep", format!("nests deeper than {DEPTH}"), &Value::Null);
        }
        let map = match schema {
            Value::Bool(true) => return,
            Value::Object(map) => map,
            _ => return self.wrong(loc, "extra_forbidden", "Nothing may stand here", value),
        };
        if let Some(target) = map.get("$ref").and_then(Value::as_str) {
            match target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)) {
                Some(target) => self.value(target, value, loc, depth + 1),
                None => self.wrong(
                    loc,
                    "schema",
                    format!("the plugin's schema refers to `{target}`, which is not there"),
                    &Value::Null,
                ),
            }
        }
        if let Some(kinds) = map.get("type") {
            let names: Vec<&str> = match kinds {
                Value::String(name) => vec![name],
                Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
                _ => Vec::new(),
            };
            if !names.iter().any(|name| is(value, name)) {
                return self.wrong(loc, "type", format!("Input should be {}", names.join(" or ")), value);
            }
        }
        if let Some(Value::Array(allowed)) = map.get("enum")
            && !allowed.contains(value)
        {
            let list: Vec<String> = allowed.iter().map(Value::to_string).collect();
            self.wrong(loc, "enum", format!("Input should be {}", list.join(" or ")), value);
        }
        if let Some(only) = map.get("const")
            && only != value
        {
            self.wrong(loc, "const", format!("Input should be {only}"), value);
        }
        match value {
            Value::Object(fields) => self.object(map, fields, loc, depth),
            Value::Array(items) => self.array(map, items, value, loc, depth),
            Value::String(text) => self.text(map, text, value, loc),
            Value::Number(number) => self.number(map, number, value, loc),
            _ => {}
        }
        self.combined(map, value, loc, depth);
    }

    fn object(
        &mut self,
        schema: &Map<String, Value>,
        fields: &Map<String, Value>,
        loc: &[Value],
        depth: usize,
    ) {
        let below = |key: &str| loc.iter().cloned().chain([Value::from(key)]).collect::<Vec<_>>();
        for name in
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
        {
            if !fields.contains_key(name) {
                self.wrong(&below(name), "missing", "Field required", &Value::Null);
            }
        }
        let count = fields.len();
        if let Some(least) = size(schema, "minProperties").filter(|least| count < *least) {
            self.wrong(loc, "too_short", format!("Input should have at least {least} fields"), &Value::Null);
        }
        if let Some(most) = size(schema, "maxProperties").filter(|most| count > *most) {
            self.wrong(loc, "too_long", format!("Input should have at most {most} fields"), &Value::Null);
        }
        let known = schema.get("properties").and_then(Value::as_object);
        for (key, value) in fields {
            if let Some(names) = schema.get("propertyNames") {
                self.value(names, &Value::from(key.as_str()), &below(key), depth + 1);
            }
            match (known.and_then(|known| known.get(key)), schema.get("additionalProperties")) {
                (Some(inner), _) => self.value(inner, value, &below(key), depth + 1),
                (None, Some(Value::Bool(false))) => {
                    self.wrong(&below(key), "extra_forbidden", "Extra inputs are not permitted", value);
                }
                (None, Some(other)) => self.value(other, value, &below(key), depth + 1),
                (None, None) => {}
            }
        }
    }

    fn array(
        &mut self,
        schema: &Map<String, Value>,
        items: &[Value],
        whole: &Value,
        loc: &[Value],
        depth: usize,
    ) {
        if let Some(least) = size(schema, "minItems").filter(|least| items.len() < *least) {
            self.wrong(loc, "too_short", format!("Input should have at least {least} items"), whole);
        }
        if let Some(most) = size(schema, "maxItems").filter(|most| items.len() > *most) {
            self.wrong(loc, "too_long", format!("Input should have at most {most} items"), whole);
        }
        if schema.get("uniqueItems") == Some(&Value::Bool(true)) {
            let mut seen = std::collections::HashSet::new();
            if !items.iter().all(|item| seen.insert(item.to_string())) {
                self.wrong(loc, "unique", "Input should not hold an item twice", whole);
            }
        }
        if let Some(inner) = schema.get("items") {
            for (index, item) in items.iter().enumerate() {
                let place: Vec<Value> = loc.iter().cloned().chain([Value::from(index)]).collect();
                self.value(inner, item, &place, depth + 1);
            }
        }
    }

    fn text(&mut self, schema: &Map<String, Value>, text: &str, whole: &Value, loc: &[Value]) {
        let length = text.chars().count();
        if let Some(least) = size(schema, "minLength").filter(|least| length < *least) {
            self.wrong(
                loc,
                "string_too_short",
                format!("Input should have at least {least} characters"),
                whole,
            );
        }
        if let Some(most) = size(schema, "maxLength").filter(|most| length > *most) {
            self.wrong(loc, "string_too_long", format!("Input should have at most {most} characters"), whole);
        }
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
            && !regex(pattern).is_ok_and(|regex| regex.is_match(text))
        {
            self.wrong(loc, "string_pattern_mismatch", format!("Input should match `{pattern}`"), whole);
        }
    }

    fn number(
        &mut self,
        schema: &Map<String, Value>,
        number: &serde_json::Number,
        whole: &Value,
        loc: &[Value],
    ) {
        let Some(number) = number.as_f64() else { return };
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        if let Some(least) = bound("minimum").filter(|least| number < *least) {
            self.wrong(
                loc,
                "greater_than_equal",
                format!("Input should be greater than or equal to {least}"),
                whole,
            );
        }
        if let Some(most) = bound("maximum").filter(|most| number > *most) {
            self.wrong(
                loc,
                "less_than_equal",
                format!("Input should be less than or equal to {most}"),
                whole,
            );
        }
        if let Some(above) = bound("exclusiveMinimum").filter(|above| number <= *above) {
            self.wrong(loc, "greater_than", format!("Input should be greater than {above}"), whole);
        }
        if let Some(below) = bound("exclusiveMaximum").filter(|below| number >= *below) {
            self.wrong(loc, "less_than", format!("Input should be less than {below}"), whole);
        }
        if let Some(step) = bound("multipleOf").filter(|step| *step > 0.0) {
            let ratio = number / step;
            if (ratio - ratio.round()).abs() > 1e-9 {
                self.wrong(loc, "multiple_of", format!("Input should be a multiple of {step}"), whole);
            }
        }
    }

    fn combined(&mut self, schema: &Map<String, Value>, value: &Value, loc: &[Value], depth: usize) {
        let list = |key: &str| schema.get(key).and_then(Value::as_array);
        for inner in list("allOf").into_iter().flatten() {
            self.value(inner, value, loc, depth + 1);
        }
        if let Some(choices) = list("anyOf") {
            let tried: Vec<Vec<FieldError>> =
                choices.iter().map(|c| self.fits(c, value, loc, depth)).collect();
            if !tried.iter().any(Vec::is_empty) {
                self.none_fits(tried, value, loc);
            }
        }
        if let Some(choices) = list("oneOf") {
            let tried: Vec<Vec<FieldError>> =
                choices.iter().map(|c| self.fits(c, value, loc, depth)).collect();
            match tried.iter().filter(|errors| errors.is_empty()).count() {
                1 => {}
                0 => self.none_fits(tried, value, loc),
                n => self.wrong(
                    loc,
                    "one_of",
                    format!("Input fits {n} forms and should fit exactly one"),
                    value,
                ),
            }
        }
        if let Some(not) = schema.get("not")
            && self.fits(not, value, loc, depth).is_empty()
        {
            self.wrong(loc, "not", "Input has a form that is not allowed", value);
        }
    }

    /// The mistakes of the form that comes nearest.
    fn none_fits(&mut self, tried: Vec<Vec<FieldError>>, value: &Value, loc: &[Value]) {
        match tried.into_iter().min_by_key(Vec::len) {
            Some(nearest) => self.errors.extend(nearest.into_iter().take(MISTAKES)),
            None => self.wrong(loc, "any_of", "Nothing may stand here", value),
        }
    }
}

fn size(schema: &Map<String, Value>, key: &str) -> Option<usize> {
    schema.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok())
}

fn is(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => {
            value.as_i64().is_some()
                || value.as_u64().is_some()
                || value.as_f64().is_some_and(|f| f.fract() == 0.0)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn errors(schema: Value, value: Value) -> Vec<String> {
        Schema::read(&schema)
            .unwrap()
            .unwrap()
            .check(&value, &["args"])
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn each_keyword_takes_what_is_right_and_names_what_is_wrong() {
        let cases = [
            (json!({"type": "integer"}), json!(5), json!("5"), "args: Input should be integer"),
            (
                json!({"type": ["string", "null"]}),
                json!(null),
                json!(1),
                "args: Input should be string or null",
            ),
            (json!({"enum": ["a", 1]}), json!(1), json!("b"), "args: Input should be \"a\" or 1"),
            (json!({"const": true}), json!(true), json!(false), "args: Input should be true"),
            (json!({"required": ["host"]}), json!({"host": 1}), json!({}), "args.host: Field required"),
            (
                json!({"properties": {"p": {"minimum": 1}}}),
                json!({"p": 1}),
                json!({"p": 0}),
                "args.p: Input should be greater than or equal to 1",
            ),
            (
                json!({"additionalProperties": false, "properties": {"a": true}}),
                json!({"a": 1}),
                json!({"b": 1}),
                "args.b: Extra inputs are not permitted",
            ),
            (
                json!({"additionalProperties": {"type": "string"}}),
                json!({"a": ""}),
                json!({"b": 1}),
                "args.b: Input should be string",
            ),
            (
                json!({"items": {"maxLength": 2}}),
                json!(["ab"]),
                json!(["a", "abc"]),
                "args.1: Input should have at most 2 characters",
            ),
            (json!({"minItems": 1}), json!([1]), json!([]), "args: Input should have at least 1 items"),
            (json!({"maxItems": 1}), json!([1]), json!([1, 2]), "args: Input should have at most 1 items"),
            (
                json!({"uniqueItems": true}),
                json!([1, 2]),
                json!([1, 1]),
                "args: Input should not hold an item twice",
            ),
            (
                json!({"minLength": 2}),
                json!("ab"),
                json!("a"),
                "args: Input should have at least 2 characters",
            ),
            (json!({"pattern": "^a+$"}), json!("aa"), json!("ab"), "args: Input should match `^a+$`"),
            (json!({"exclusiveMinimum": 0}), json!(1), json!(0), "args: Input should be greater than 0"),
            (json!({"exclusiveMaximum": 9}), json!(8), json!(9), "args: Input should be less than 9"),
            (json!({"maximum": 9}), json!(9), json!(10), "args: Input should be less than or equal to 9"),
            (json!({"multipleOf": 0.5}), json!(1.5), json!(1.2), "args: Input should be a multiple of 0.5"),
            (
                json!({"minProperties": 1}),
                json!({"a": 1}),
                json!({}),
                "args: Input should have at least 1 fields",
            ),
            (
                json!({"maxProperties": 0}),
                json!({}),
                json!({"a": 1}),
                "args: Input should have at most 0 fields",
            ),
            (
                json!({"propertyNames": {"pattern": "^x"}}),
                json!({"x": 1}),
                json!({"y": 1}),
                "args.y: Input should match `^x`",
            ),
            (
                json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
                json!("a"),
                json!(1),
                "args: Input should be string",
            ),
            (
                json!({"oneOf": [{"minimum": 1}, {"maximum": 5}]}),
                json!(0),
                json!(3),
                "args: Input fits 2 forms and should fit exactly one",
            ),
            (
                json!({"allOf": [{"minimum": 1}, {"maximum": 5}]}),
                json!(3),
                json!(9),
                "args: Input should be less than or equal to 5",
            ),
            (
                json!({"not": {"type": "string"}}),
                json!(1),
                json!("a"),
                "args: Input has a form that is not allowed",
            ),
            (
                json!({"$ref": "#/$defs/p", "$defs": {"p": {"type": "null"}}}),
                json!(null),
                json!(1),
                "args: Input should be null",
            ),
            (json!(false), json!(null), json!(1), "args: Nothing may stand here"),
        ];
        for (schema, good, bad, sentence) in cases {
            if schema != json!(false) {
                assert_eq!(errors(schema.clone(), good), Vec::<String>::new(), "{schema}");
            }
            assert_eq!(errors(schema.clone(), bad), [sentence], "{schema}");
        }
    }

    #[test]
    fn base64_is_read_and_unknown_keywords_are_noted() {
        let text = STANDARD.encode(r#"{"type":"object","patternProperties":{}}"#);
        let schema = Schema::read(&json!(text)).unwrap().unwrap();
        assert_eq!(schema.unknown, ["patternProperties"]);
        assert!(Schema::read(&json!(null)).unwrap().is_none());
        assert!(Schema::read(&json!({"pattern": "("})).unwrap_err().contains("pattern"));
        assert!(Schema::read(&json!("not base64 !")).is_err());
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        let found = errors(json!({"$ref": "#"}), json!(1));
        assert!(found.iter().any(|e| e.contains("nests deeper")), "{found:?}");
    }
}
