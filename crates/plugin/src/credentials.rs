//! The credential providers by name, and what is asked of them: the controller checks a reference,
//! the worker resolves it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use netpulse_model::{ConnectionArgs, CredentialRef, ErrorCode, ErrorInfo};

use crate::{
    CredentialManager, CredentialProvider, Failed, Implementation, Kind, PluginError, Plugins, SecretValues,
};

/// What clients of the early API call the provider for HashiCorp Vault.
const VAULT_ALIAS: (&str, &str) = ("vault", "vault_kv");

/// The credential providers of this server. The default has none and says that credentials are off.
#[derive(Clone, Default)]
pub struct Credentials {
    inner: Option<Arc<Inner>>,
}

struct Inner {
    default: String,
    /// The names that references may use, the default among them.
    names: Vec<String>,
    by_name: BTreeMap<String, Arc<dyn CredentialProvider>>,
    /// Where names that are none of these may be known.
    plugins: Plugins,
}

impl Inner {
    fn get(&self, name: &str) -> Option<Arc<dyn CredentialProvider>> {
        if let Some(provider) = self.by_name.get(name) {
            return Some(Arc::clone(provider));
        }
        match self.plugins.get(Kind::Credential, name)? {
            Implementation::Credential(provider) => Some(provider),
            _ => None,
        }
    }
}

impl Credentials {
    /// Providers of which references may use those in `names` and `default`; `default` serves
    /// references that name none.
    #[must_use]
    pub fn new(default: &str, names: &[String], providers: Vec<Arc<dyn CredentialProvider>>) -> Self {
        Self::with_plugins(default, names, providers, Plugins::default())
    }

    /// As [`Credentials::new`]; names that are none of these are looked for among the plugins.
    #[must_use]
    pub fn with_plugins(
        default: &str,
        names: &[String],
        providers: Vec<Arc<dyn CredentialProvider>>,
        plugins: Plugins,
    ) -> Self {
        let mut allowed: Vec<String> = Vec::new();
        for name in std::iter::once(default).chain(names.iter().map(String::as_str)).map(canonical) {
            if !allowed.contains(&name) {
                allowed.push(name);
            }
        }
        let by_name = providers.into_iter().map(|p| (p.name().to_owned(), p)).collect();
        Self {
            inner: Some(Arc::new(Inner { default: canonical(default), names: allowed, by_name, plugins })),
        }
    }

    /// Whether references are served at all.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.inner.is_some()
    }

    /// Configured names that no provider bears.
    #[must_use]
    pub fn missing(&self) -> Vec<&str> {
        let inner = self.inner.iter();
        inner
            .flat_map(|inner| inner.names.iter().filter(|name| inner.get(name).is_none()))
            .map(String::as_str)
            .collect()
    }

    /// The providers that references may use.
    #[must_use]
    pub fn providers(&self) -> Vec<Arc<dyn CredentialProvider>> {
        let inner = self.inner.iter();
        inner.flat_map(|inner| inner.names.iter().filter_map(|name| inner.get(name))).collect()
    }

    fn provider(&self, reference: &CredentialRef) -> Result<Arc<dyn CredentialProvider>, PluginError> {
        let Some(inner) = &self.inner else {
            let sentence = "Credential support is disabled in server configuration";
            return Err(PluginError::new(Failed::BadRequest, sentence));
        };
        let asked = reference.name.as_deref().map(canonical);
        let name = asked.as_ref().unwrap_or(&inner.default);
        if !inner.names.contains(name) {
            let given = reference.name.as_deref().unwrap_or(name);
            let sentence = format!("Unsupported credential provider: {given}");
            return Err(PluginError::new(Failed::BadRequest, sentence));
        }
        inner.get(name).ok_or_else(|| {
            PluginError::new(Failed::BadRequest, format!("Credential provider not found: {name}"))
        })
    }

    /// Everything wrong with a reference that can be seen without asking for its secret.
    ///
    /// # Errors
    /// Credentials are off, no such provider, or what the provider finds wrong.
    pub fn check(&self, reference: &CredentialRef) -> Result<(), PluginError> {
        self.provider(reference)?.check(reference)
    }

    /// The connection arguments that a reference stands for. Asked by whoever connects, at that time.
    ///
    /// # Errors
    /// `credential_denied`, `credential_not_found`, `credential_unavailable` (also when there is no
    /// answer `within`), `bad_request`, `plugin_failed`.
    pub async fn resolve(
        &self,
        reference: &CredentialRef,
        args: &ConnectionArgs,
        within: Duration,
    ) -> Result<SecretValues, ErrorInfo> {
        let job_error = |error: PluginError| {
            let code = match error.kind {
                Failed::BadRequest => ErrorCode::BadRequest,
                Failed::Denied => ErrorCode::CredentialDenied,
                Failed::NotFound => ErrorCode::CredentialNotFound,
                Failed::Unavailable => ErrorCode::CredentialUnavailable,
                Failed::Faulty => ErrorCode::PluginFailed,
            };
            ErrorInfo::new(code, error.message)
        };
        let provider = self.provider(reference).map_err(job_error)?;
        provider.check(reference).map_err(job_error)?;
        match tokio::time::timeout(within, provider.get(reference, args)).await {
            Ok(answer) => answer.map_err(job_error),
            Err(_elapsed) => Err(ErrorInfo::new(
                ErrorCode::CredentialUnavailable,
                format!(
                    "The credential provider `{}` gave no answer for `{}` within {:.0} s",
                    provider.name(),
                    reference.reference,
                    within.as_secs_f64()
                ),
            )),
        }
    }

    /// A device refused what the reference gave: the next job gets it fresh.
    pub fn refused(&self, reference: &CredentialRef) {
        if let Ok(provider) = self.provider(reference) {
            provider.refused(reference);
        }
    }

    /// The provider that manages secrets: the default one, else the first that does.
    #[must_use]
    pub fn managing(&self) -> Option<(&Arc<dyn CredentialProvider>, &dyn CredentialManager)> {
        let inner = self.inner.as_ref()?;
        let built_in = inner.names.iter().filter_map(|name| inner.by_name.get(name));
        built_in.into_iter().find_map(|provider| Some((provider, provider.manager()?)))
    }
}

fn canonical(name: &str) -> String {
    if name == VAULT_ALIAS.0 { VAULT_ALIAS.1.to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use serde_json::{Map, Value};

    struct Hanging(&'static str);

    #[async_trait]
    impl CredentialProvider for Hanging {
        fn name(&self) -> &str {
            self.0
        }
        fn check(&self, reference: &CredentialRef) -> Result<(), PluginError> {
            match reference.reference.as_str() {
                "closed" => Err(PluginError::new(Failed::Denied, "not that one")),
                _ => Ok(()),
            }
        }
        async fn get(&self, _: &CredentialRef, _: &ConnectionArgs) -> Result<SecretValues, PluginError> {
            std::future::pending().await
        }
        async fn validate(&self) -> Result<Map<String, Value>, PluginError> {
            Ok(Map::new())
        }
    }

    fn named(name: &str, path: &str) -> CredentialRef {
        CredentialRef { name: Some(name.into()), ..CredentialRef::to(path) }
    }

    #[test]
    fn a_reference_goes_to_the_provider_it_names() {
        let names = ["vault".to_owned(), "lost".to_owned()];
        let all =
            Credentials::new("env", &names, vec![Arc::new(Hanging("env")), Arc::new(Hanging("vault_kv"))]);
        let said = |reference: &CredentialRef| all.check(reference).map_err(|e| e.message);
        assert_eq!(said(&CredentialRef::to("a")), Ok(()));
        assert_eq!(said(&named("vault", "a")), Ok(()));
        assert_eq!(said(&named("vault_kv", "a")), Ok(()));
        assert_eq!(said(&named("file", "a")), Err("Unsupported credential provider: file".into()));
        assert_eq!(said(&named("lost", "a")), Err("Credential provider not found: lost".into()));
        assert_eq!(said(&named("env", "closed")), Err("not that one".into()));
        assert_eq!(all.missing(), ["lost"]);
        let off = Credentials::default().check(&CredentialRef::to("a")).unwrap_err();
        assert_eq!(off.message, "Credential support is disabled in server configuration");
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_hangs_is_unavailable() {
        let all = Credentials::new("env", &[], vec![Arc::new(Hanging("env"))]);
        let args = ConnectionArgs::default();
        let error = all.resolve(&CredentialRef::to("a"), &args, Duration::from_secs(9)).await.err().unwrap();
        assert_eq!(error.code, ErrorCode::CredentialUnavailable);
        assert!(error.message.contains("`env` gave no answer for `a` within 9 s"), "{}", error.message);
    }
}
