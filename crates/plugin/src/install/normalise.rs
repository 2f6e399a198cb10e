//! The part of a descriptor that a signature stands for, in one canonical form.
//!
//! This is OCM's `jsonNormalisation/v4alpha1`: the component without where it lies (access,
//! repository contexts, source references) and without labels that are not meant to be signed, as
//! canonical JSON (RFC 8785). It covers the digest of every resource, so it covers their bytes.

use serde_json::{Map, Value};

use super::digest::Digest;

/// The name of this form in a signature.
pub const ALGORITHM: &str = "jsonNormalisation/v4alpha1";

/// The digest that is signed.
///
/// # Errors
/// The descriptor has a number without a canonical form.
pub fn digest(descriptor: &Value) -> Result<Digest, String> {
    normalised(descriptor).map(|text| Digest::of(text.as_bytes()))
}

/// The canonical text.
///
/// # Errors
/// The descriptor has a number without a canonical form.
pub fn normalised(descriptor: &Value) -> Result<String, String> {
    let mut component = descriptor.get("component").and_then(Value::as_object).cloned().unwrap_or_default();
    component.remove("repositoryContexts");
    let provider = match component.remove("provider") {
        Some(Value::Object(mut provider)) => {
            sign_labels(&mut provider);
            Value::Object(provider)
        }
        Some(Value::String(text)) => match serde_json::from_str::<Map<String, Value>>(&text) {
            Ok(mut provider) => {
                sign_labels(&mut provider);
                Value::Object(provider)
            }
            Err(_) => serde_json::json!({ "name": text }),
        },
        other => serde_json::json!({ "name": other }),
    };
    component.insert("provider".into(), provider);
    sign_labels(&mut component);
    for list in ["resources", "sources", "componentReferences"] {
        let items = match component.remove(list) {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        };
        let items = items.into_iter().map(|item| reduced(list, item)).collect();
        component.insert(list.into(), Value::Array(items));
    }
    let mut out = String::new();
    write(&serde_json::json!({ "component": component }), &mut out)?;
    Ok(out)
}

fn reduced(list: &str, item: Value) -> Value {
    let Value::Object(mut item) = item else { return item };
    if list == "componentReferences" {
        // Their labels are all part of it, whether meant to be signed or not.
        return Value::Object(item);
    }
    let access = item.remove("access");
    let kind = access.as_ref().and_then(|access| access.get("type")).and_then(Value::as_str);
    if list == "resources" {
        item.remove("srcRefs");
        if matches!(kind, Some("none" | "None")) {
            item.remove("digest");
        }
    }
    if item.get("extraIdentity").and_then(Value::as_object).is_some_and(Map::is_empty) {
        item.remove("extraIdentity");
    }
    sign_labels(&mut item);
    Value::Object(item)
}

/// Keeps the labels that are meant to be signed; none of them, no list.
fn sign_labels(holder: &mut Map<String, Value>) {
    let Some(Value::Array(labels)) = holder.remove("labels") else { return };
    let kept: Vec<Value> = labels
        .into_iter()
        .filter(|label| {
            matches!(label.get("signing"), Some(Value::Bool(true)))
                || label.get("signing").and_then(Value::as_str) == Some("true")
        })
        .map(|label| {
            let fields = label.as_object().cloned().unwrap_or_default();
            Value::Object(
                fields
                    .into_iter()
                    .filter(|(name, _)| ["name", "version", "value", "signing"].contains(&name.as_str()))
                    .collect(),
            )
        })
        .collect();
    if !kept.is_empty() {
        holder.insert("labels".into(), Value::Array(kept));
    }
}

/// Canonical JSON: keys ordered by their UTF-16 units, no space, nulls of objects left out.
fn write(value: &Value, out: &mut String) -> Result<(), String> {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().filter(|(_, value)| !value.is_null()).collect();
            fields.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (position, (name, value)) in fields.into_iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                text(name, out);
                out.push(':');
                write(value, out)?;
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write(item, out)?;
            }
            out.push(']');
        }
        Value::String(value) => text(value, out),
        Value::Number(number) => {
            // Exact in every JSON reader; larger or broken numbers would depend on the reader.
            let exact = number.as_i64().filter(|n| n.unsigned_abs() <= 1 << 53);
            let exact = exact.ok_or_else(|| {
                format!("the number {number} has no canonical form: only whole numbers up to 2^53 have")
            })?;
            out.push_str(&exact.to_string());
        }
        Value::Bool(_) | Value::Null => out.push_str(&value.to_string()),
    }
    Ok(())
}

fn text(value: &str, out: &mut String) {
    // The JSON writer escapes as RFC 8785 wants: the short forms, lower-case \u00xx, nothing else.
    out.push_str(&Value::from(value).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The form that OCM's own tools give for this descriptor.
    #[test]
    fn the_form_is_that_of_ocm() {
        let yaml = "
component:
  componentReferences: null
  name: github.com/acme/introspect
  provider: internal
  repositoryContexts: [{baseUrl: ghcr.io/acme, type: ociRegistry}]
  resources:
  - access: {localReference: 'sha256:7f', mediaType: x, type: localBlob}
    digest: {hashAlgorithm: SHA-256, normalisationAlgorithm: ociArtifactDigest/v1, value: 6a}
    labels: [{name: label1, value: foo}, {name: label2, value: bar, signing: true, mergeAlgorithm: test}]
    name: image
    relation: local
    srcRefs: [{identitySelector: {name: x}}]
    type: ociImage
    version: 1.0.0
  - {name: none, access: {type: none}, digest: {value: gone}, extraIdentity: {}, labels: [{name: a, value: 1}], relation: external, type: x, version: '2'}
  sources: [{access: {repository: r, type: git}, name: introspect, type: git, version: 1.0.0}]
  version: 1.0.0
meta: {schemaVersion: v2}
signatures: [{name: x}]
";
        let descriptor: Value = yaml_serde::from_str(yaml).unwrap();
        let expected = concat!(
            r#"{"component":{"componentReferences":[],"name":"github.com/acme/introspect","provider":{"name":"internal"},"#,
            r#""resources":[{"digest":{"hashAlgorithm":"SHA-256","normalisationAlgorithm":"ociArtifactDigest/v1","value":"6a"},"#,
            r#""labels":[{"name":"label2","signing":true,"value":"bar"}],"name":"image","relation":"local","type":"ociImage","version":"1.0.0"},"#,
            r#"{"name":"none","relation":"external","type":"x","version":"2"}],"#,
            r#""sources":[{"name":"introspect","type":"git","version":"1.0.0"}],"version":"1.0.0"}}"#
        );
        assert_eq!(normalised(&descriptor).unwrap(), expected);
    }

    #[test]
    fn what_is_signed_changes_with_a_digest_and_not_with_a_place() {
        let base = serde_json::json!({"component": {"name": "a.b/c", "version": "1", "provider": {"name": "x"}, "resources": [
            {"name": "r", "access": {"type": "localBlob", "localReference": "sha256:aa"}, "digest": {"value": "1"}}]}});
        let mut moved = base.clone();
        moved["component"]["resources"][0]["access"]["localReference"] = "sha256:bb".into();
        moved["component"]["repositoryContexts"] = serde_json::json!([{"type": "x"}]);
        let mut changed = base.clone();
        changed["component"]["resources"][0]["digest"]["value"] = "2".into();
        assert_eq!(digest(&base), digest(&moved));
        assert_ne!(digest(&base), digest(&changed));
    }

    #[test]
    fn numbers_keys_and_texts_are_canonical() {
        let descriptor = serde_json::json!({"component": {"provider": "p", "z": 12, "\u{20ac}": "é\n\u{1}\"/", "A": [null, true], "n": null}});
        let text = normalised(&descriptor).unwrap();
        assert!(text.ends_with("\"z\":12,\"\u{20ac}\":\"é\\n\\u0001\\\"/\"}}"), "{text}");
        assert!(text.contains("\"A\":[null,true]") && !text.contains("\"n\""), "{text}");
        let error = normalised(&serde_json::json!({"component": {"x": 1.5}})).unwrap_err();
        assert!(error.contains("1.5"), "{error}");
    }
}
