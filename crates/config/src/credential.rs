//! What can only be judged by looking at the whole of `credential`.

use std::path::Path;

use crate::keys::{Config, Credential};

impl Credential {
    /// The names that references may use, the default first; `vault` is `vault_kv`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let all = self.name.iter().chain(&self.providers).map(String::as_str);
        all.map(|name| if name == "vault" { "vault_kv" } else { name })
    }
}

/// Tells `wrong` each key that is missing or does not fit, once credentials are on.
pub(crate) fn check(config: &Config, mut wrong: impl FnMut(&str, String)) {
    let credential = &config.credential;
    if !credential.enabled {
        return;
    }
    if credential.name.is_none() {
        wrong(
            "credential.name",
            "must be set while `credential.enabled` is true: vault_kv, env, file, or a plugin's name".into(),
        );
    }
    let uses = |name: &str| credential.names().any(|used| used == name);
    if uses("vault_kv") {
        if credential.addr.is_none() {
            wrong("credential.addr", "must be set: the provider vault_kv needs the address of Vault".into());
        }
        let approle = credential.role_id.is_some() && credential.secret_id.is_some();
        if credential.token.is_none() && !approle {
            wrong("credential.token", "Vault auth requires token or AppRole (role_id + secret_id)".into());
        }
        let verify = credential.verify.as_str();
        if !matches!(verify, "true" | "false") && !Path::new(verify).is_file() {
            let message =
                format!("expected true, false, or the path of a PEM file: there is no file `{verify}`");
            wrong("credential.verify", message);
        }
        for entry in &credential.allowed_paths {
            let path = entry.trim().trim_matches('/').trim_end_matches('*').trim_end_matches('/');
            if path.split('/').any(|part| matches!(part, "." | "..") || part.is_empty() && !path.is_empty()) {
                let message = format!(
                    "`{entry}` can match nothing: expected `<mount>/<path>` without `.`, `..` or empty parts"
                );
                wrong("credential.allowed_paths", message);
            }
        }
    }
    if uses("file") && credential.dir.is_none() {
        wrong("credential.dir", "must be set: the provider file needs the folder of its files".into());
    }
}

/// What an operator should know about a sound section.
pub(crate) fn caution(config: &Config) -> Option<String> {
    let credential = &config.credential;
    let addr = credential.addr.as_deref().filter(|_| credential.enabled)?;
    (credential.verify == "false" && addr.starts_with("https:")).then(|| {
        "Vault's certificate is not checked: whoever stands between reads its token and every secret. Name the CA's \
         PEM file instead"
            .to_owned()
    })
}
