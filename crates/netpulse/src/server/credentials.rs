//! Where secrets come from that requests only refer to.

use std::time::Duration;

use netpulse_config::Config;
use netpulse_plugin::Credentials;

use crate::exit::Failure;

/// Longest look at one credential provider when the server starts.
const PROVIDER_CHECK: Duration = Duration::from_secs(30);

/// The credential providers. What is missing in the configuration stops the start; one that cannot
/// be reached is a warning, since it may come back.
pub(super) fn open(config: &Config) -> Result<Credentials, Failure> {
    let section = &config.credential;
    if !section.enabled {
        return Ok(Credentials::default());
    }
    let built_in = netpulse_credential::built_in(section).map_err(|e| Failure::usage(e.to_string()))?;
    let credentials =
        Credentials::new(section.name.as_deref().unwrap_or_default(), &section.providers, built_in);
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
