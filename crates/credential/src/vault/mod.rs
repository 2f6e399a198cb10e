//! HashiCorp Vault, key-value engine version 2 (`vault_kv`).
//!
//! Wire facts: Vault's HTTP API documentation (KV v2, AppRole, tokens, `sys/health`).

mod cache;
mod http;
mod manage;
mod token;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use netpulse_config::Credential;
use netpulse_model::{ConnectionArgs, CredentialRef};
use netpulse_plugin::{CredentialManager, CredentialProvider, Failed, PluginError, SecretValues};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::task::AbortHandle;

use crate::SetupError;
use crate::fields::Fields;
use crate::path::{self, Policy};
use cache::{Cache, Key};
use http::{Answer, Call, Http};
use token::Auth;

/// The provider `vault_kv`.
pub struct VaultKv {
    shared: Arc<Shared>,
    cache: Arc<Cache>,
    keeper: AbortHandle,
}

/// What a read needs, also when whoever asked for it has gone.
struct Shared {
    http: Arc<Http>,
    auth: Auth,
    mount: String,
    namespace: Option<String>,
    policy: Policy,
}

#[derive(Deserialize)]
struct ReadBody {
    data: Option<ReadData>,
}

#[derive(Deserialize)]
struct ReadData {
    data: Option<Fields>,
    metadata: Option<VersionMetadata>,
}

#[derive(Deserialize)]
struct VersionMetadata {
    #[serde(default)]
    version: u64,
    #[serde(default)]
    deletion_time: String,
    #[serde(default)]
    destroyed: bool,
}

impl VaultKv {
    /// A provider that renews its token in the background for as long as it lives. Asks nothing yet.
    ///
    /// # Errors
    /// The configuration is incomplete or names a CA file that cannot be read.
    pub fn start(config: &Credential) -> Result<Self, SetupError> {
        let http = Arc::new(Http::new(config)?);
        let auth = Auth::new(Arc::clone(&http), config);
        if !auth.configured() {
            return Err(SetupError("Vault auth requires token or AppRole (role_id + secret_id)".to_owned()));
        }
        let mount = config.mount.trim().trim_matches('/').to_owned();
        path::segments("mount", &mount).map_err(|error| SetupError(format!("credential.mount: {error}")))?;
        let shared = Arc::new(Shared {
            http,
            auth,
            mount,
            namespace: config.namespace.clone().map(|ns| ns.trim_matches('/').to_owned()),
            policy: Policy::new(&config.allowed_paths),
        });
        let kept = Arc::clone(&shared);
        let keeper = tokio::spawn(async move { kept.auth.keep_alive().await }).abort_handle();
        let cache = Arc::new(Cache::new(Duration::from_secs(config.cache_ttl)));
        Ok(Self { shared, cache, keeper })
    }
}

impl Drop for VaultKv {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

fn error(kind: Failed, sentence: impl Into<String>) -> PluginError {
    PluginError::new(kind, sentence)
}

impl Shared {
    /// Which secret a reference means, if it may be read.
    fn key(&self, reference: &CredentialRef) -> Result<Key, PluginError> {
        path::segments("reference", &reference.reference)?;
        let mount = match &reference.mount {
            Some(mount) => {
                path::segments("mount", mount)?;
                mount.clone()
            }
            None => self.mount.clone(),
        };
        let namespace = match reference.namespace.as_deref().map(|ns| ns.trim_matches('/')) {
            Some(namespace) if Some(namespace) != self.namespace.as_deref() => {
                path::segments("namespace", namespace)?;
                // It ends the namespace in an allowed path.
                if namespace.contains(':') || mount.contains(':') {
                    return Err(error(Failed::BadRequest, "Namespace and mount must not contain `:`"));
                }
                Some(namespace.to_owned())
            }
            _ => None,
        };
        let place = format!("{mount}/{}", reference.reference);
        let judged = namespace.as_ref().map_or_else(|| place.clone(), |ns| format!("{ns}:{place}"));
        if !self.policy.allows(&judged) {
            let sentence = format!("Access to Vault path '{judged}' is not allowed by policy");
            return Err(error(Failed::Denied, sentence));
        }
        Ok(Key { namespace, mount, path: reference.reference.clone(), version: reference.version })
    }

    /// `<mount>/<kind>/<path>` for a URL.
    fn url(mount: &str, kind: &str, path: &str) -> String {
        let mount: Vec<&str> = mount.split('/').collect();
        let path: Vec<&str> = path.split('/').collect();
        format!("{}/{kind}/{}", path::encoded(&mount), path::encoded(&path))
    }

    /// Asks with our token, and once more with another one when it was refused.
    async fn ask<'c>(&self, call: impl Fn() -> Call<'c>, failed: &str) -> Result<Answer, PluginError> {
        let down = |why: String| error(Failed::Unavailable, format!("{failed}: {why}"));
        let mut session = self.auth.session().await?;
        let mut again = true;
        loop {
            let call = call();
            let call = Call { token: Some(session.token.as_str()), ..call };
            let answer = self.http.send(&call).await.map_err(down)?;
            if let Some(outage) = answer.outage() {
                return Err(down(outage));
            }
            if answer.status.as_u16() == 403 && std::mem::take(&mut again) {
                match self.auth.after_refusal(&session).await? {
                    Some(newer) => {
                        session = newer;
                        continue;
                    }
                    None => return Ok(answer),
                }
            }
            return Ok(answer);
        }
    }

    async fn fetch(self: Arc<Self>, key: Key) -> cache::Answer {
        let mut url = Self::url(&key.mount, "data", &key.path);
        if let Some(version) = key.version {
            url.push_str(&format!("?version={version}"));
        }
        let call = || Call::new(Method::GET, &url).namespace(key.namespace.as_deref());
        let answer = self.ask(call, "Failed to read secret from Vault").await?;
        let path = &key.path;
        match answer.status.as_u16() {
            200 => {
                let fields = answer.read::<ReadBody>().and_then(|body| body.data?.data);
                match fields.filter(|fields| !fields.0.is_empty()) {
                    Some(fields) => Ok(Arc::new(fields)),
                    None => Err(error(Failed::NotFound, "Secret payload is empty or invalid")),
                }
            }
            403 => Err(error(Failed::Denied, format!("Vault token lacks permission to read path: {path}"))),
            404 => {
                let mut sentence = format!("Secret not found at Vault path: {path}");
                let version = answer.read::<ReadBody>().and_then(|body| body.data?.metadata);
                if let Some(gone) = version.filter(|v| v.destroyed || !v.deletion_time.is_empty()) {
                    let how = if gone.destroyed { "destroyed" } else { "deleted" };
                    sentence.push_str(&format!(" (version {} was {how})", gone.version));
                } else if answer.complaint().contains("versioned") {
                    sentence.push_str(&format!(" (the mount `{}` is no KV version 2 engine)", key.mount));
                }
                Err(error(Failed::NotFound, sentence))
            }
            status => {
                let said = answer.complaint();
                let sentence = format!("Failed to read secret from Vault: HTTP {status} {said}");
                Err(error(Failed::Faulty, sentence.trim_end()))
            }
        }
    }

    /// What Vault says of itself, whatever state it is in.
    async fn health(&self) -> Result<Health, PluginError> {
        // Every state is an answer here, none a status of its own.
        const HEALTH: &str = "sys/health?standbyok=true&perfstandbyok=true&sealedcode=200&uninitcode=200&\
                              drsecondarycode=200";
        // It answers in the root namespace only.
        let call = Call::new(Method::GET, HEALTH).namespace(Some(""));
        let answer = self.http.send(&call).await.map_err(|why| error(Failed::Unavailable, why))?;
        match answer.read::<Health>() {
            Some(health) => Ok(health),
            None => {
                let sentence = format!(
                    "What answers at {} is no Vault (HTTP {})",
                    self.http.base(),
                    answer.status.as_u16()
                );
                Err(error(Failed::Unavailable, answer.outage().unwrap_or(sentence)))
            }
        }
    }
}

#[derive(Deserialize)]
struct Health {
    initialized: bool,
    sealed: bool,
    standby: bool,
    #[serde(default)]
    version: String,
}

#[async_trait]
impl CredentialProvider for VaultKv {
    fn name(&self) -> &str {
        "vault_kv"
    }

    fn check(&self, reference: &CredentialRef) -> Result<(), PluginError> {
        self.shared.key(reference).map(drop)
    }

    async fn get(&self, reference: &CredentialRef, _: &ConnectionArgs) -> Result<SecretValues, PluginError> {
        let key = self.shared.key(reference)?;
        let fetch = Arc::clone(&self.shared).fetch(key.clone());
        self.cache.get(&key, fetch).await?.mapped(reference)
    }

    async fn validate(&self) -> Result<Map<String, Value>, PluginError> {
        let health = self.shared.health().await?;
        if !health.initialized {
            return Err(error(Failed::Unavailable, "Vault is not initialised"));
        }
        if health.sealed {
            return Err(error(Failed::Unavailable, "Vault is sealed: somebody must unseal it"));
        }
        self.shared.auth.accepted().await?;
        let mut seen = Map::new();
        seen.insert("success".into(), true.into());
        seen.insert("vault_version".into(), health.version.into());
        seen.insert("sealed".into(), health.sealed.into());
        seen.insert("standby".into(), health.standby.into());
        seen.insert("url".into(), self.shared.http.base().into());
        seen.insert("mount_point".into(), self.shared.mount.as_str().into());
        Ok(seen)
    }

    fn refused(&self, reference: &CredentialRef) {
        if let Ok(key) = self.shared.key(reference) {
            self.cache.forget(&key.mount, &key.path);
        }
    }

    fn manager(&self) -> Option<&dyn CredentialManager> {
        Some(self)
    }
}
