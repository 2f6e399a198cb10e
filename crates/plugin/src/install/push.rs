//! From an archive to a registry, component version by component version.

use std::sync::Arc;

use serde::Serialize;

use super::descriptor::Manifest;
use super::digest::Digest;
use super::error::{InstallError, Result, Trouble, blocking};
use super::local::Local;
use super::media::Limits;
use super::reference::{Base, DESCRIPTORS, version_of};
use super::registry::{Asking, Registry};
use super::store::Watch;

/// What was stored.
#[derive(Debug, Clone, Serialize)]
pub struct Pushed {
    /// How it is installed from there.
    pub reference: String,
    /// The digest of its manifest.
    pub digest: Digest,
    /// Blobs that were sent; the others were there.
    pub sent: usize,
    /// Blobs that it has.
    pub blobs: usize,
}

/// Stores every component version of an archive below `base`.
///
/// # Errors
/// The archive is broken, or the registry refuses. A tag is set only when everything below it is stored.
pub async fn push(
    local: Local,
    base: Base,
    asking: Asking,
    watch: Arc<dyn Watch>,
    limits: Limits,
) -> Result<Vec<Pushed>> {
    let local = Arc::new(local);
    let registry = Registry::new(base.clone(), asking)?;
    let mut pushed = Vec::new();
    for artifact in local.artifacts() {
        let named = artifact.repository.split_once(DESCRIPTORS).and_then(|(_, name)| name.strip_prefix('/'));
        let (Some(component), Some(tag)) = (named, &artifact.tag) else { continue };
        let repository = base.repository_of(component);
        let sending =
            Sending { local: &local, registry: &registry, repository: &repository, watch: &watch, limits };
        let (sent, blobs) = sending.tree(&artifact.digest, tag).await?;
        pushed.push(Pushed {
            reference: format!("{base}//{component}:{}", version_of(tag)),
            digest: artifact.digest,
            sent,
            blobs,
        });
    }
    if pushed.is_empty() {
        let what = format!("{}: the archive has no component version", local.path().display());
        return Err(InstallError::new(Trouble::NotFound, what));
    }
    Ok(pushed)
}

struct Sending<'a> {
    local: &'a Arc<Local>,
    registry: &'a Registry,
    repository: &'a str,
    watch: &'a Arc<dyn Watch>,
    limits: Limits,
}

impl Sending<'_> {
    async fn tree(&self, digest: &Digest, tag: &str) -> Result<(usize, usize)> {
        let (bytes, top) = self.manifest(digest).await?;
        let (mut sent, mut blobs) = (0, 0);
        for entry in top.manifests.iter().flatten() {
            let (bytes, manifest) = self.manifest(&entry.digest).await?;
            if manifest.manifests.is_some() {
                let what = format!("{}: an index in an index is not understood", entry.digest);
                return Err(InstallError::new(Trouble::BadContent, what));
            }
            let (some, all) = self.blobs(&manifest).await?;
            (sent, blobs) = (sent + some, blobs + all);
            self.registry
                .put_manifest(self.repository, &entry.digest.to_string(), manifest.kind(), bytes)
                .await?;
        }
        let (some, all) = self.blobs(&top).await?;
        self.registry.put_manifest(self.repository, tag, top.kind(), bytes).await?;
        Ok((sent + some, blobs + all))
    }

    async fn manifest(&self, digest: &Digest) -> Result<(Vec<u8>, Manifest)> {
        let (local, digest, most) = (self.local.clone(), *digest, self.limits.manifest);
        let bytes = blocking(move || local.small(&digest, most)).await?;
        let manifest = Manifest::decode(&bytes)?;
        Ok((bytes, manifest))
    }

    async fn blobs(&self, manifest: &Manifest) -> Result<(usize, usize)> {
        let (mut sent, mut all) = (0, 0);
        for blob in manifest.blobs() {
            let section = self.local.blob(&blob.digest)?;
            if section.length != blob.size {
                let what = format!(
                    "blob {} has {} bytes where the manifest says {}",
                    blob.digest, section.length, blob.size
                );
                return Err(InstallError::new(Trouble::Untrusted, what));
            }
            self.watch.begins("upload", blob.size);
            let done = self.registry.put_blob(self.repository, blob, section).await;
            self.watch.moved(blob.size);
            self.watch.ends();
            sent += usize::from(done?);
            all += 1;
        }
        Ok((sent, all))
    }
}
