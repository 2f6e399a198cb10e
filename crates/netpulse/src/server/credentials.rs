//! Where secrets come from that requests only refer to.

use std::sync::Arc;
use std::time::Duration;

use netpulse_config::Config;
use netpulse_plugin::{Credentials, Implementation, Kind, Plugins};

use crate::exit::Failure;

/// Longest look at one credential provider when the server starts.
const PROVIDER_CHECK: Duration = Duration::from_secs(30);

/// The credential providers. What is missing in the configuration stops the start; one that cannot
/// be reached is a warning, since it may come back.
pub(super) async fn open(config: &Config, plugins: &Plugins) -> Result<Credentials, Failure> {
    let section = &config.credential;
    if !section.enabled {
        return Ok(Credentials::default());
    }
    let built_in = netpulse_credential::built_in(section).map_err(|e| Failure::usage(e.to_string()))?;
    for provider in &built_in {
        let implementation = Implementation::Credential(Arc::clone(provider));
        plugins.register(Kind::Credential, provider.name(), "Secrets for references", implementation);
    }
    let default = section.name.as_deref().unwrap_or_default();
    let credentials = Credentials::with_plugins(default, &section.providers, built_in, plugins.clone());
    if !credentials.missing().is_empty() {
        // The configuration names a plugin: what it lacks is said now, not by the first job.
        plugins.discovered().await;
    }
    for name in credentials.missing() {
        tracing::warn!("no credential provider is named `{name}`: references to it are refused");
    }
    let looked_at = credentials.clone();
    tokio::spawn(async move {
        for provider in looked_at.providers() {
            let name = provider.name();
            match tokio::time::timeout(PROVIDER_CHECK, provider.validate()).await {
                Ok(Ok(_)) => tracing::info!("credential provider `{name}` is ready"),
                Ok(Err(error)) => tracing::warn!("credential provider `{name}` is not ready: {error}"),
                Err(_elapsed) => {
                    tracing::warn!("credential provider `{name}` is not ready: it does not answer")
                }
            }
        }
    });
    Ok(credentials)
}
