//! A secret's fields, and which connection arguments they fill.

use std::collections::BTreeMap;
use std::fmt;

use netpulse_model::CredentialRef;
use netpulse_plugin::{Failed, PluginError, SecretValues};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor, value};
use zeroize::Zeroizing;

/// What fills which argument when the reference does not say; the last is left out when the secret
/// has no such field.
const DEFAULT: [(&str, &str); 3] = [("username", "username"), ("password", "password"), ("pkey", "pkey")];
const OPTIONAL: &str = "pkey";

/// The fields of one secret as texts. Never shown, zeroed when dropped.
#[derive(Clone, Default)]
pub(crate) struct Fields(pub(crate) BTreeMap<String, Zeroizing<String>>);

impl Fields {
    /// The connection arguments that `reference` takes from these fields.
    ///
    /// # Errors
    /// [`Failed::NotFound`], naming the fields that are missing.
    pub(crate) fn mapped(&self, reference: &CredentialRef) -> Result<SecretValues, PluginError> {
        let pairs: Vec<(&str, &str, bool)> = match &reference.field_mapping {
            Some(mapping) => mapping.iter().map(|(to, from)| (to.as_str(), from.as_str(), true)).collect(),
            None => DEFAULT.iter().map(|(to, from)| (*to, *from, *to != OPTIONAL)).collect(),
        };
        let mut values = SecretValues::default();
        let mut missing = Vec::new();
        for (to, from, required) in pairs {
            match self.0.get(from) {
                Some(value) => {
                    values.0.insert(to.to_owned(), value.clone());
                }
                None if required => missing.push(from),
                None => {}
            }
        }
        if missing.is_empty() {
            return Ok(values);
        }
        missing.sort_unstable();
        missing.dedup();
        let sentence = format!("Missing required secret fields: {}", missing.join(", "));
        Err(PluginError::new(Failed::NotFound, sentence))
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Fields, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, Text(value))) = entries.next_entry::<String, Text>()? {
                    if let Some(value) = value {
                        fields.insert(name, value);
                    }
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// One field: a text, or anything else written as one. None for `null`.
struct Text(Option<Zeroizing<String>>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyText)
    }
}

struct AnyText;

fn text(value: impl ToString) -> Text {
    Text(Some(Zeroizing::new(value.to_string())))
}

impl<'de> Visitor<'de> for AnyText {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }
    fn visit_str<E>(self, value: &str) -> Result<Text, E> {
        Ok(text(value))
    }
    fn visit_string<E>(self, value: String) -> Result<Text, E> {
        Ok(Text(Some(Zeroizing::new(value))))
    }
    fn visit_bool<E>(self, value: bool) -> Result<Text, E> {
        Ok(text(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Text, E> {
        Ok(text(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Text, E> {
        Ok(text(value))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Text, E> {
        Ok(text(value))
    }
    fn visit_unit<E>(self) -> Result<Text, E> {
        Ok(Text(None))
    }
    fn visit_none<E>(self) -> Result<Text, E> {
        Ok(Text(None))
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Text, D::Error> {
        Text::deserialize(deserializer)
    }
    // A field that is itself an object or a list serves as its JSON text.
    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Text, A::Error> {
        let nested = serde_json::Value::deserialize(value::MapAccessDeserializer::new(entries))?;
        Ok(text(nested))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Text, A::Error> {
        let nested = serde_json::Value::deserialize(value::SeqAccessDeserializer::new(items))?;
        Ok(text(nested))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: serde_json::Value) -> Fields {
        serde_json::from_value(value).unwrap()
    }

    fn shown(values: &SecretValues) -> Vec<(&str, &str)> {
        values.0.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect()
    }

    #[test]
    fn the_default_mapping_takes_a_key_when_there_is_one() {
        let plain = fields(json!({"username": "ops", "password": "pw", "note": null}));
        let reference = CredentialRef::to("a");
        assert_eq!(shown(&plain.mapped(&reference).unwrap()), [("password", "pw"), ("username", "ops")]);
        let keyed = fields(json!({"username": "ops", "password": 1234, "pkey": "K"}));
        assert_eq!(
            shown(&keyed.mapped(&reference).unwrap()),
            [("password", "1234"), ("pkey", "K"), ("username", "ops")]
        );
        let error = fields(json!({"user": "ops", "password": null})).mapped(&reference).unwrap_err();
        assert_eq!(error.message, "Missing required secret fields: password, username");
        assert_eq!(error.kind, Failed::NotFound);
    }

    #[test]
    fn a_mapping_of_its_own_fills_any_argument() {
        let secret = fields(json!({"u": "ops", "p": "pw", "en": "lift", "on": true, "set": {"a": 1}}));
        let mapping = [("username", "u"), ("secret", "en"), ("proxy_password", "p"), ("x", "set")];
        let mapping = mapping.map(|(to, from)| (to.to_owned(), from.to_owned()));
        let reference = CredentialRef { field_mapping: Some(mapping.into()), ..CredentialRef::to("a") };
        assert_eq!(
            shown(&secret.mapped(&reference).unwrap()),
            [("proxy_password", "pw"), ("secret", "lift"), ("username", "ops"), ("x", r#"{"a":1}"#)]
        );
    }
}
