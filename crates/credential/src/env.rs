//! Secrets in the environment of the server: `NETPULSE_CREDENTIAL_<REF>_<FIELD>`.
//!
//! `sites/hq` and the field `password` are `NETPULSE_CREDENTIAL_SITES_HQ_PASSWORD`: `/` and `-`
//! become `_`, letters become capitals. A field is one word of letters and digits, so that it is
//! always the part behind the last `_`, and a reference never reaches another one's variables.

use async_trait::async_trait;
use netpulse_model::{ConnectionArgs, CredentialRef};
use netpulse_plugin::{CredentialProvider, Failed, PluginError, SecretValues};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::fields::Fields;
use crate::path;

const PREFIX: &str = "NETPULSE_CREDENTIAL_";

/// The provider `env`.
pub struct Env;

/// The part of the variables' names that a reference stands for.
fn stem(reference: &str) -> Result<String, PluginError> {
    let parts = path::segments("reference", reference)?;
    let words = parts.iter().flat_map(|part| part.split(['-', '_']));
    let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric());
    if !words.clone().all(word) {
        let sentence = format!(
            "The reference `{reference}` cannot be the name of a variable: use letters and digits, with single `/`, \
             `-` or `_` between"
        );
        return Err(PluginError::new(Failed::BadRequest, sentence));
    }
    Ok(words.map(str::to_ascii_uppercase).collect::<Vec<_>>().join("_"))
}

#[async_trait]
impl CredentialProvider for Env {
    fn name(&self) -> &str {
        "env"
    }

    fn check(&self, reference: &CredentialRef) -> Result<(), PluginError> {
        crate::file::knows_only_paths("env", reference)?;
        stem(&reference.reference)?;
        let fields = reference.field_mapping.iter().flat_map(|mapping| mapping.values());
        for field in fields {
            if field.is_empty() || !field.bytes().all(|b| b.is_ascii_alphanumeric()) {
                let sentence = format!(
                    "The field `{field}` cannot be the end of a variable's name: use letters and digits only"
                );
                return Err(PluginError::new(Failed::BadRequest, sentence));
            }
        }
        Ok(())
    }

    async fn get(&self, reference: &CredentialRef, _: &ConnectionArgs) -> Result<SecretValues, PluginError> {
        self.check(reference)?;
        let stem = stem(&reference.reference)?;
        let fields = match &reference.field_mapping {
            Some(mapping) => mapping.values().cloned().collect(),
            None => ["username", "password", "pkey"].map(str::to_owned).to_vec(),
        };
        let mut found = Fields::default();
        for field in fields {
            let variable = format!("{PREFIX}{stem}_{}", field.to_ascii_uppercase());
            if let Some(value) = std::env::var_os(&variable) {
                match value.into_string() {
                    Ok(text) => found.0.insert(field, Zeroizing::new(text)),
                    Err(_) => {
                        let sentence = format!("The variable {variable} is not valid UTF-8");
                        return Err(PluginError::new(Failed::NotFound, sentence));
                    }
                };
            }
        }
        if found.0.is_empty() {
            let sentence = format!("No variable {PREFIX}{stem}_... is set in the server's environment");
            return Err(PluginError::new(Failed::NotFound, sentence));
        }
        found.mapped(reference)
    }

    async fn validate(&self) -> Result<Map<String, Value>, PluginError> {
        let set = std::env::vars_os()
            .filter(|(name, _)| {
                // Two underscores make it a configuration key of the section `credential`.
                name.to_str()
                    .and_then(|name| name.strip_prefix(PREFIX))
                    .is_some_and(|rest| !rest.starts_with('_'))
            })
            .count();
        let mut seen = Map::new();
        seen.insert("success".into(), true.into());
        seen.insert("variables".into(), set.into());
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(path: &str, to: &str, from: &str) -> CredentialRef {
        let mapping = [(to.to_owned(), from.to_owned())].into();
        CredentialRef { field_mapping: Some(mapping), ..CredentialRef::to(path) }
    }

    #[test]
    fn a_reference_reaches_its_own_variables_only() {
        assert_eq!(stem("sites/hq-1_a").unwrap(), "SITES_HQ_1_A");
        for bad in ["", "_TOKEN", "a__b", "a-/b", "a/../b", "PATH=", "a b"] {
            assert!(Env.check(&CredentialRef::to(bad)).is_err(), "{bad}");
        }
        // `a` with the field `b_password` would be the password of `a/b`.
        let error = Env.check(&mapped("a", "password", "b_password")).unwrap_err();
        assert!(error.message.contains("cannot be the end"), "{error}");
        assert!(Env.check(&mapped("a", "proxy_password", "jump")).is_ok());
        let versioned = CredentialRef { version: Some(1), ..CredentialRef::to("a") };
        assert!(Env.check(&versioned).unwrap_err().message.contains("`version`"));
    }

    #[tokio::test]
    async fn what_is_not_set_is_not_found() {
        let args = ConnectionArgs::default();
        let error = Env.get(&CredentialRef::to("never/set"), &args).await.err().unwrap();
        assert_eq!(error.kind, Failed::NotFound);
        assert!(error.message.contains("NETPULSE_CREDENTIAL_NEVER_SET_"), "{error}");
    }
}
