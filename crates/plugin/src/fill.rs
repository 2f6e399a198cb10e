//! A secret's values put into connection arguments, and taken out of memory again.

use netpulse_model::{ConnectionArgs, CredentialRef};
use serde_json::Value;
use zeroize::Zeroize;

use crate::SecretValues;

/// Arguments that are no secrets though they come out of one: masking a user's name would garble
/// ordinary output.
const PLAIN: &[&str] = &["username", "user", "proxy_username"];
/// Shorter values are not masked, for the same reason.
const SHORTEST: usize = 4;

/// What a secret put into connection arguments.
#[derive(Debug, Default)]
pub struct Fill {
    /// The arguments that came out of the secret.
    filled: Vec<String>,
    /// Those of them that had been given as well.
    overruled: Vec<String>,
}

impl Fill {
    /// Puts `values` into `args`; they win over what is there.
    pub fn apply(mut values: SecretValues, args: &mut ConnectionArgs) -> Self {
        let mut fill = Self::default();
        for (key, value) in std::mem::take(&mut values.0) {
            let given = args.0.insert(key.clone(), Value::from(value.as_str()));
            if given.is_some_and(|given| !given.is_null() && given.as_str() != Some("")) {
                fill.overruled.push(key.clone());
            }
            fill.filled.push(key);
        }
        fill
    }

    /// The values that must not leave, out of the arguments that they were put into.
    #[must_use]
    pub fn secrets(&self, args: &ConnectionArgs) -> Vec<String> {
        let hidden = self.filled.iter().filter(|key| !PLAIN.contains(&key.as_str()));
        let texts = hidden.filter_map(|key| args.text(key)).filter(|text| text.len() >= SHORTEST);
        texts.map(str::to_owned).collect()
    }

    /// Which given arguments `reference` overruled, as a sentence.
    #[must_use]
    pub fn warning(&self, reference: &CredentialRef) -> Option<String> {
        let given: Vec<String> = self.overruled.iter().map(|key| format!("`{key}`")).collect();
        (!given.is_empty()).then(|| {
            format!(
                "{} of the request {} not used: the credential `{}` wins",
                given.join(" and "),
                if given.len() == 1 { "was" } else { "were" },
                reference.reference
            )
        })
    }

    /// Zeroes the values where they were put.
    pub fn wipe(&self, args: &mut ConnectionArgs) {
        for key in &self.filled {
            if let Some(Value::String(text)) = args.0.get_mut(key) {
                text.zeroize();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use zeroize::Zeroizing;

    #[test]
    fn promise_12_a_secret_wins_is_masked_and_is_wiped() {
        let mut args = ConnectionArgs(
            json!({"host": "h", "username": "me", "password": "mine"}).as_object().unwrap().clone(),
        );
        let values = [("username", "admin"), ("password", "s3cret"), ("secret", "lift"), ("pin", "12")];
        let values = values.map(|(k, v)| (k.to_owned(), Zeroizing::new(v.to_owned())));
        let fill = Fill::apply(SecretValues(values.into()), &mut args);
        assert_eq!((args.text("username"), args.text("password")), (Some("admin"), Some("s3cret")));
        assert_eq!(fill.secrets(&args), ["s3cret", "lift"]);
        assert_eq!(
            fill.warning(&CredentialRef::to("a/b")).unwrap(),
            "`password` and `username` of the request were not used: the credential `a/b` wins"
        );
        fill.wipe(&mut args);
        assert_eq!((args.text("password"), args.text("secret"), args.host()), (None, None, Some("h")));
    }
}
