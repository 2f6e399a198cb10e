//! The built-in credential providers: HashiCorp Vault (`vault_kv`), the environment (`env`), and a
//! folder of files (`file`).
//!
//! Each stands behind `CredentialProvider` of `netpulse-plugin`: the controller asks it to check a
//! reference, the worker asks it for the secret when it connects. Secrets are kept in memory only,
//! are zeroed when dropped, and have no `Debug` that shows them.
//!
//! What this room must not know: jobs, devices, routes.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod env;
mod fields;
mod file;
mod path;
mod vault;

use std::sync::Arc;

use netpulse_config::Credential;
use netpulse_plugin::CredentialProvider;

pub use env::Env;
pub use file::Files;
pub use vault::VaultKv;

/// Why a provider cannot be built from its configuration.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(String);

/// The built-in providers that the configuration names. Needs a Tokio runtime: Vault's token is
/// renewed in the background.
///
/// # Errors
/// The configuration is incomplete, with the key that is missing.
pub fn built_in(config: &Credential) -> Result<Vec<Arc<dyn CredentialProvider>>, SetupError> {
    let mut providers: Vec<Arc<dyn CredentialProvider>> = Vec::new();
    for name in config.names() {
        if providers.iter().any(|provider| provider.name() == name) {
            continue;
        }
        match name {
            "vault_kv" => providers.push(Arc::new(VaultKv::start(config)?)),
            "env" => providers.push(Arc::new(Env)),
            "file" => {
                let dir = config.dir.clone();
                let dir = dir.ok_or_else(|| SetupError("credential.dir: must be set".to_owned()))?;
                providers.push(Arc::new(Files::new(dir)));
            }
            // A plugin's: whoever loads plugins has it.
            _ => {}
        }
    }
    Ok(providers)
}
