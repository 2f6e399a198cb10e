//! Secrets written, listed and removed through us, in the configured mount.

use std::collections::BTreeMap;

use async_trait::async_trait;
use netpulse_model::CredentialRef;
use netpulse_plugin::{CredentialManager, Failed, NewSecret, PluginError, SecretValues};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::http::{Answer, Call};
use super::{Shared, VaultKv, error};
use crate::path;

/// Paths that one listing gives.
const MOST: usize = 10_000;
/// Folders that one listing looks into.
const MOST_FOLDERS: usize = 1_000;

#[derive(Serialize)]
struct Written<'a> {
    data: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct Custom<'a> {
    custom_metadata: &'a BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Listed {
    data: Keys,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<String>,
}

#[derive(Deserialize)]
struct MetadataBody {
    data: Map<String, Value>,
}

impl VaultKv {
    /// The place of a secret in our mount, if it may be touched.
    fn place(&self, path: &str) -> Result<String, PluginError> {
        Ok(self.shared.key(&CredentialRef::to(path))?.path)
    }

    fn url(&self, kind: &str, path: &str) -> String {
        Shared::url(&self.shared.mount, kind, path)
    }

    /// Sends a body and expects success.
    async fn write(
        &self,
        method: Method,
        url: &str,
        body: Option<Zeroizing<Vec<u8>>>,
        (what, path): (&str, &str),
    ) -> Result<(), PluginError> {
        let call = || {
            let call = Call::new(method.clone(), url);
            match &body {
                Some(body) => call.json(body.clone()),
                None => call,
            }
        };
        let answer = self.shared.ask(call, &format!("Failed to {what} in Vault")).await?;
        if answer.status.is_success() { Ok(()) } else { Err(refusal(&answer, what, path)) }
    }
}

/// What a status means that is no success.
fn refusal(answer: &Answer, what: &str, path: &str) -> PluginError {
    match answer.status.as_u16() {
        403 => error(Failed::Denied, format!("Vault token lacks permission to {what} path: {path}")),
        404 => error(Failed::NotFound, format!("Secret not found at Vault path: {path}")),
        status => {
            let sentence =
                format!("Vault refused to {what} path {path}: HTTP {status} {}", answer.complaint());
            error(Failed::Faulty, sentence.trim_end())
        }
    }
}

fn json(body: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, PluginError> {
    serde_json::to_vec(body).map(Zeroizing::new).map_err(|why| error(Failed::Faulty, why.to_string()))
}

#[async_trait]
impl CredentialManager for VaultKv {
    async fn create(&self, secret: NewSecret) -> Result<(), PluginError> {
        let path = self.place(&secret.path)?;
        let fields = &secret.fields.0;
        let body = Written { data: fields.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect() };
        let written =
            self.write(Method::POST, &self.url("data", &path), Some(json(&body)?), ("write", &path)).await;
        self.cache.forget(&self.shared.mount, &path);
        written?;
        if secret.metadata.is_empty() {
            return Ok(());
        }
        let body = json(&Custom { custom_metadata: &secret.metadata })?;
        let noted =
            self.write(Method::POST, &self.url("metadata", &path), Some(body), ("describe", &path)).await;
        noted.map_err(|why| {
            PluginError::new(
                why.kind,
                format!("The secret was written, but not its metadata: {}", why.message),
            )
        })
    }

    async fn read(&self, path: &str) -> Result<SecretValues, PluginError> {
        let key = self.shared.key(&CredentialRef::to(path))?;
        // Whoever manages secrets wants to see what is there now.
        let fields = std::sync::Arc::clone(&self.shared).fetch(key).await?;
        Ok(SecretValues(fields.0.clone()))
    }

    async fn delete(&self, path: &str) -> Result<(), PluginError> {
        let path = self.place(path)?;
        // Vault removes what is not there without a word.
        self.metadata(&path).await?;
        let removed = self.write(Method::DELETE, &self.url("metadata", &path), None, ("delete", &path)).await;
        self.cache.forget(&self.shared.mount, &path);
        removed
    }

    async fn list(&self, prefix: &str, recursive: bool) -> Result<Vec<String>, PluginError> {
        let top = prefix.trim_matches('/');
        if !top.is_empty() {
            path::segments("path", top)?;
        }
        let (mount, policy) = (&self.shared.mount, &self.shared.policy);
        let place = |path: &str| format!("{mount}/{path}").trim_end_matches('/').to_owned();
        if !policy.reaches_below(&place(top)) {
            let sentence = format!("Access to Vault path '{}' is not allowed by policy", place(top));
            return Err(error(Failed::Denied, sentence));
        }
        let mut paths = Vec::new();
        let mut folders = vec![top.to_owned()];
        let mut looked = 0;
        while let Some(folder) = folders.pop() {
            looked += 1;
            if paths.len() > MOST || looked > MOST_FOLDERS {
                let sentence = format!(
                    "There are more than {MOST} secrets or {MOST_FOLDERS} folders below `{top}`: list a part of them"
                );
                return Err(error(Failed::BadRequest, sentence));
            }
            let mut url = self.url("metadata", &folder);
            url.push_str("?list=true");
            let call = || Call::new(Method::GET, &url);
            let answer = self.shared.ask(call, "Failed to list secrets in Vault").await?;
            let keys = match answer.status.as_u16() {
                200 => answer.read::<Listed>().map(|listed| listed.data.keys).ok_or_else(|| {
                    error(Failed::Faulty, "Vault answered the listing with something that is no list")
                })?,
                // Nothing is below it.
                404 => Vec::new(),
                _ => return Err(refusal(&answer, "list", &folder)),
            };
            let mut below = Vec::new();
            for key in keys {
                let path = if folder.is_empty() { key } else { format!("{folder}/{key}") };
                match path.strip_suffix('/') {
                    Some(inner) if !policy.reaches_below(&place(inner)) => {}
                    Some(inner) if recursive => below.push(inner.to_owned()),
                    Some(_) => paths.push(path),
                    None if policy.allows(&place(&path)) => paths.push(path),
                    None => {}
                }
            }
            folders.extend(below.into_iter().rev());
        }
        paths.sort();
        Ok(paths)
    }

    async fn metadata(&self, path: &str) -> Result<Map<String, Value>, PluginError> {
        let path = self.place(path)?;
        let url = self.url("metadata", &path);
        let answer =
            self.shared.ask(|| Call::new(Method::GET, &url), "Failed to read metadata from Vault").await?;
        if !answer.status.is_success() {
            return Err(refusal(&answer, "read", &path));
        }
        match answer.read::<MetadataBody>() {
            Some(body) => Ok(body.data),
            None => Err(error(Failed::Faulty, "Vault answered the metadata with something else")),
        }
    }
}
