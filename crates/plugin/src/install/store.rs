//! One face for registries and archives: a component version is found, its blobs are fetched.

use std::io::{Read, Write};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;

use super::descriptor::{Access, Blob, ComponentConfig, Descriptor, Manifest};
use super::digest::{Digest, Hashing};
use super::error::{InstallError, Result, Trouble, blocking};
use super::local::{Local, check};
use super::media::{self, Limits};
use super::reference::{Base, Reference, Repository, newest, tag_of, version_of};
use super::registry::{Asking, Registry};
use super::stage::Partial;

/// Who follows a transfer.
pub trait Watch: Send + Sync + std::fmt::Debug {
    /// A transfer of so many bytes begins.
    fn begins(&self, what: &str, total: u64);
    /// So many more have passed.
    fn moved(&self, bytes: u64);
    /// It ended, well or not.
    fn ends(&self);
}

/// Nobody looks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn begins(&self, _: &str, _: u64) {}
    fn moved(&self, _: u64) {}
    fn ends(&self) {}
}

/// Where component versions are.
#[derive(Debug, Clone)]
pub enum Store {
    /// On this machine.
    Local(Arc<Local>),
    /// In a registry.
    Registry(Arc<Registry>),
}

/// A component version that was found, everything about it checked.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where it is, with its version.
    pub reference: Reference,
    /// Its descriptor.
    pub descriptor: Descriptor,
    repository: String,
    manifest: Manifest,
    index: Option<Manifest>,
}

/// Where the bytes of a resource are.
#[derive(Debug, Clone)]
pub struct Located {
    store: Store,
    repository: String,
    /// The blob itself.
    pub blob: Blob,
    /// The type of its bytes.
    pub media_type: String,
    /// The manifest of the artifact it is the layer of.
    pub artifact: Option<Digest>,
}

fn broken(what: impl Into<String>) -> InstallError {
    InstallError::new(Trouble::BadContent, what)
}

impl Store {
    /// Opens it. A registry is not asked yet.
    ///
    /// # Errors
    /// The archive is not there or broken.
    pub async fn open(repository: &Repository, asking: &Asking, limits: Limits) -> Result<Self> {
        match repository {
            Repository::Registry(base) => {
                Ok(Self::Registry(Arc::new(Registry::new(base.clone(), asking.clone())?)))
            }
            Repository::Archive(path) => {
                let path = path.clone();
                blocking(move || Local::open(&path, limits)).await.map(|local| Self::Local(Arc::new(local)))
            }
        }
    }

    fn repository_of(&self, component: &str) -> String {
        match self {
            Self::Registry(registry) => registry.base().repository_of(component),
            Self::Local(_) => component.to_owned(),
        }
    }

    /// The versions of a component.
    ///
    /// # Errors
    /// There is no such component.
    pub async fn versions(&self, component: &str, limits: Limits) -> Result<Vec<String>> {
        match self {
            Self::Registry(registry) => {
                let tags = registry.tags(&self.repository_of(component), limits).await?;
                Ok(tags.iter().map(|tag| version_of(tag)).collect())
            }
            Self::Local(local) => {
                let all = local.components().filter(|(name, _)| *name == component);
                let versions: Vec<String> = all.map(|(_, version)| version).collect();
                if versions.is_empty() {
                    let there: Vec<String> =
                        local.components().map(|(name, version)| format!("{name}:{version}")).collect();
                    let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
                    let what =
                        format!("{}: no component {component}; there is: {there}", local.path().display());
                    return Err(InstallError::new(Trouble::NotFound, what));
                }
                Ok(versions)
            }
        }
    }

    /// Finds a component version and checks it as far as its descriptor.
    ///
    /// # Errors
    /// It is not there, broken, or not what its digests say.
    pub async fn find(&self, reference: &Reference, limits: Limits) -> Result<Found> {
        let component = reference.component.clone();
        let repository = self.repository_of(&component);
        let mut reference = reference.clone();
        if reference.version.is_none() && reference.digest.is_none() {
            let versions = self.versions(&component, limits).await?;
            let newest = newest(versions.iter().map(String::as_str));
            let newest = newest.ok_or_else(|| {
                InstallError::new(
                    Trouble::NotFound,
                    format!("{}//{component}: it has no versions", reference.repository),
                )
            })?;
            reference.version = Some(newest.to_owned());
        }
        let (bytes, digest) = self.top(&repository, &reference, limits).await?;
        if let Some(pinned) = &reference.digest {
            check(&reference.to_string(), pinned, &digest)?;
        }
        let top = Manifest::decode(&bytes)?;
        let (manifest, index) = match top.manifests.as_deref() {
            None => (top, None),
            Some([]) => return Err(broken(format!("{reference}: its index is empty"))),
            Some([first, ..]) => {
                let bytes = self.manifest(&repository, &first.digest, limits).await?;
                (Manifest::decode(&bytes)?, Some(top))
            }
        };
        let descriptor = self.descriptor(&repository, &manifest, limits).await?;
        let found = &descriptor.component;
        let version_differs = reference.version.as_ref().is_some_and(|version| *version != found.version);
        if found.name != component || version_differs {
            return Err(InstallError::new(
                Trouble::Untrusted,
                format!("{reference}: what is stored there calls itself {}:{}", found.name, found.version),
            ));
        }
        reference.version = Some(found.version.clone());
        Ok(Found { reference, descriptor, repository, manifest, index })
    }

    /// What the reference names first: a manifest or an index.
    async fn top(
        &self,
        repository: &str,
        reference: &Reference,
        limits: Limits,
    ) -> Result<(Vec<u8>, Digest)> {
        let version = reference.version.as_deref();
        match self {
            Self::Registry(registry) => {
                let wanted = match (&reference.digest, version) {
                    (Some(digest), _) => digest.to_string(),
                    (None, version) => tag_of(version.unwrap_or_default()),
                };
                registry.manifest(repository, &wanted, limits).await.map_err(|error| match error.trouble {
                    Trouble::NotFound => InstallError::new(
                        Trouble::NotFound,
                        format!("{reference}: no such component version ({})", error.message),
                    ),
                    _ => error,
                })
            }
            Self::Local(local) => {
                let digest = match (reference.digest, version) {
                    (_, Some(version)) => match local.find(&reference.component, version) {
                        Some(artifact) => artifact.digest,
                        None => {
                            let versions = self.versions(&reference.component, limits).await?;
                            let what =
                                format!("{reference}: no such version; there is: {}", versions.join(", "));
                            return Err(InstallError::new(Trouble::NotFound, what));
                        }
                    },
                    (Some(digest), None) => digest,
                    (None, None) => return Err(broken(format!("{reference}: it has no versions"))),
                };
                Ok((self.manifest(repository, &digest, limits).await?, digest))
            }
        }
    }

    async fn manifest(&self, repository: &str, digest: &Digest, limits: Limits) -> Result<Vec<u8>> {
        match self {
            Self::Registry(registry) => {
                Ok(registry.manifest(repository, &digest.to_string(), limits).await?.0)
            }
            Self::Local(local) => {
                let (local, digest) = (local.clone(), *digest);
                blocking(move || local.small(&digest, limits.manifest)).await
            }
        }
    }

    async fn small(&self, repository: &str, blob: &Blob, most: u64) -> Result<Vec<u8>> {
        match self {
            Self::Registry(registry) => registry.small(repository, blob, most).await,
            Self::Local(local) => {
                let (local, digest) = (local.clone(), blob.digest);
                blocking(move || local.small(&digest, most)).await
            }
        }
    }

    async fn descriptor(&self, repository: &str, manifest: &Manifest, limits: Limits) -> Result<Descriptor> {
        let layers = manifest.layers.as_deref().unwrap_or_default();
        let named = match &manifest.config {
            Some(config) if config.media_type.contains("component.config") => {
                let bytes = self.small(repository, config, limits.manifest).await?;
                let config: ComponentConfig = serde_json::from_slice(&bytes).map_err(|e| {
                    broken(format!("the config blob of the component version is broken: {e}"))
                })?;
                config.component_descriptor_layer
            }
            _ => None,
        };
        let layer = match &named {
            Some(named) => layers.iter().find(|layer| layer.digest == named.digest).ok_or_else(|| {
                broken(format!(
                    "the config blob names the descriptor {}, which is no layer of the manifest",
                    named.digest
                ))
            })?,
            None => layers.iter().find(|layer| media::is_descriptor(&layer.media_type)).ok_or_else(|| {
                let types: Vec<&str> =
                    layers.iter().map(|layer| layer.media_type.as_str()).take(10).collect();
                broken(format!("no layer is a component descriptor; there is: {}", types.join(", ")))
                    .hint("this is an OCI artifact, but no component version")
            })?,
        };
        if layer.size > limits.descriptor {
            return Err(broken(format!(
                "the component descriptor has {} bytes, more than the {} allowed",
                layer.size, limits.descriptor
            )));
        }
        let bytes = self.small(repository, layer, limits.descriptor).await?;
        let media_type = layer.media_type.clone();
        blocking(move || Descriptor::decode(&bytes, &media_type, limits.descriptor)).await
    }

    /// Finds the bytes of a resource.
    ///
    /// # Errors
    /// Its access is of a kind that is not understood, or leads nowhere.
    pub async fn locate(
        &self,
        found: &Found,
        access: &Access,
        platform: (&str, &str),
        limits: Limits,
    ) -> Result<Located> {
        let kind = access.kind.strip_suffix("/v1").unwrap_or(&access.kind);
        match kind.to_ascii_lowercase().as_str() {
            "localblob" => self.local_blob(found, access, platform, limits).await,
            "ociartifact" | "ociregistry" | "ociimage" => {
                let image = access.image_reference.as_deref().filter(|image| !image.is_empty());
                let image =
                    image.ok_or_else(|| broken("the access of the resource has no `imageReference`"))?;
                let (store, repository, reference) = self.elsewhere(image)?;
                store.single_layer(&repository, &reference, platform, limits).await
            }
            "ociblob" | "ociimagelayer" => {
                let missing = |what: &str| broken(format!("the access of the resource has no `{what}`"));
                let place = access.repository.as_deref().ok_or_else(|| missing("ref"))?;
                let digest = access.digest.as_deref().ok_or_else(|| missing("digest"))?;
                let digest: Digest = digest.parse().map_err(broken)?;
                let (store, repository, _) = self.elsewhere(place)?;
                let media_type = access.media_type.clone().unwrap_or_else(|| media::OCTETS.to_owned());
                let Self::Registry(registry) = &store else { return Err(missing("ref")) };
                let size = registry.blob_size(&repository, &digest).await?;
                Ok(Located {
                    blob: Blob::known(&media_type, digest, size),
                    store,
                    repository,
                    media_type,
                    artifact: None,
                })
            }
            _ => Err(broken(format!(
                "the access `{}` of the resource is not understood: localBlob, ociArtifact and ociBlob are",
                access.kind
            ))),
        }
    }

    async fn local_blob(
        &self,
        found: &Found,
        access: &Access,
        platform: (&str, &str),
        limits: Limits,
    ) -> Result<Located> {
        let text = access.local_reference.as_deref().unwrap_or_default();
        let digest: Digest = text
            .parse()
            .map_err(|why| broken(format!("the `localReference` of the resource is wrong: {why}")))?;
        let layers = found.manifest.layers.iter().flatten();
        if let Some(blob) = layers.into_iter().find(|layer| layer.digest == digest) {
            let media_type = access
                .media_type
                .clone()
                .filter(|t| !t.is_empty())
                .unwrap_or_else(|| blob.media_type.clone());
            return Ok(Located {
                store: self.clone(),
                repository: found.repository.clone(),
                blob: blob.clone(),
                media_type,
                artifact: None,
            });
        }
        // In the index form a resource may be a whole artifact beside the component's manifest.
        let entries = found.index.iter().flat_map(|index| index.manifests.iter().flatten());
        if entries.into_iter().any(|entry| entry.digest == digest) {
            return self.single_layer(&found.repository, &digest.to_string(), platform, limits).await;
        }
        match &access.global_access {
            // One step only: a global access is never local again.
            Some(global) if !global.kind.to_ascii_lowercase().starts_with("localblob") => {
                Box::pin(self.locate(found, global, platform, limits)).await
            }
            _ => Err(broken(format!(
                "the resource is the local blob {digest}, which the manifest does not have"
            ))),
        }
    }

    /// The store of an image reference: this registry, or another one asked the same way.
    fn elsewhere(&self, image: &str) -> Result<(Self, String, String)> {
        let place = ImageReference::parse(image)?;
        let asking = match self {
            Self::Registry(registry) if registry.base().host == place.host => {
                return Ok((self.clone(), place.repository, place.reference));
            }
            Self::Registry(registry) => registry.asking().clone(),
            Self::Local(_) => Asking::default(),
        };
        let base = Base { plain_http: place.plain_http, host: place.host, path: String::new() };
        Ok((Self::Registry(Arc::new(Registry::new(base, asking)?)), place.repository, place.reference))
    }

    /// The one layer of an artifact; of an index, of the entry for the platform.
    async fn single_layer(
        &self,
        repository: &str,
        reference: &str,
        platform: (&str, &str),
        limits: Limits,
    ) -> Result<Located> {
        let (mut bytes, mut artifact) = match self {
            Self::Registry(registry) => registry.manifest(repository, reference, limits).await?,
            Self::Local(_) => {
                let digest: Digest = reference.parse().map_err(broken)?;
                (self.manifest(repository, &digest, limits).await?, digest)
            }
        };
        let mut manifest = Manifest::decode(&bytes)?;
        if let Some(entries) = &manifest.manifests {
            let is = |entry: &&Blob| {
                let said =
                    |name: &str| entry.platform.as_ref().and_then(|p| p.get(name)).and_then(Value::as_str);
                said("os") == Some(platform.0) && said("architecture") == Some(platform.1)
            };
            let entry = match entries.as_slice() {
                [only] => only,
                several => several.iter().find(is).ok_or_else(|| {
                    let what =
                        format!("the artifact {repository} has nothing for {}/{}", platform.0, platform.1);
                    InstallError::new(Trouble::NotFound, what)
                })?,
            };
            artifact = entry.digest;
            bytes = self.manifest(repository, &artifact, limits).await?;
            manifest = Manifest::decode(&bytes)?;
        }
        match manifest.layers.as_deref() {
            Some([layer]) => Ok(Located {
                store: self.clone(),
                repository: repository.to_owned(),
                media_type: layer.media_type.clone(),
                blob: layer.clone(),
                artifact: Some(artifact),
            }),
            layers => Err(broken(format!(
                "the artifact {repository} has {} layers where a plugin is exactly one",
                layers.map_or(0, <[_]>::len)
            ))),
        }
    }
}

impl Located {
    /// Fetches the bytes into a file, checking digest and length.
    ///
    /// # Errors
    /// They do not come, are other bytes than announced, or there is no space.
    pub async fn fetch(&self, into: Partial, watch: Arc<dyn Watch>, limits: Limits) -> Result<Partial> {
        let blob = &self.blob;
        if blob.size > limits.blob {
            return Err(broken(format!(
                "the blob has {} bytes, more than the {} allowed",
                blob.size, limits.blob
            )));
        }
        watch.begins("download", blob.size);
        let result = match &self.store {
            Store::Local(local) => {
                let (local, blob, watch) = (local.clone(), blob.clone(), watch.clone());
                blocking(move || {
                    let mut section = local.blob(&blob.digest)?;
                    // A folder's file may have any length: one byte more tells.
                    section.length = section.length.min(blob.size.saturating_add(1));
                    let place = local.path().to_owned();
                    let read = |error: &std::io::Error| InstallError::file("cannot be read", &place, error);
                    let mut buffer = vec![0; 256 * 1024];
                    write(into, |sink| {
                        loop {
                            let count = section.read(&mut buffer).map_err(|e| read(&e))?;
                            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                                return Ok(());
                            };
                            sink(bytes)?;
                            watch.moved(count as u64);
                        }
                    })
                })
                .await
            }
            Store::Registry(registry) => {
                let mut reply = registry.blob(&self.repository, blob).await?;
                let (sender, mut receiver) = mpsc::channel::<bytes::Bytes>(16);
                let writer = blocking(move || {
                    write(into, |sink| {
                        while let Some(bytes) = receiver.blocking_recv() {
                            sink(&bytes)?;
                        }
                        Ok(())
                    })
                });
                let reader = async {
                    let mut total = 0;
                    while let Some(bytes) = reply.chunk().await.map_err(|e| registry.unreachable(&e))? {
                        total += bytes.len() as u64;
                        if total > blob.size {
                            break;
                        }
                        watch.moved(bytes.len() as u64);
                        // The writer ends early only with an error of its own.
                        if sender.send(bytes).await.is_err() {
                            break;
                        }
                    }
                    drop(sender);
                    Ok(total)
                };
                let (written, read) = tokio::join!(writer, reader);
                match (written, read) {
                    (written, Ok(total)) if total <= blob.size => written,
                    (written, Ok(total)) => written.map(|(file, digest, _)| (file, digest, total)),
                    (_, Err(error)) => Err(error),
                }
            }
        };
        watch.ends();
        let (file, digest, length) = result?;
        if length != blob.size {
            let more = if length > blob.size { "more" } else { "fewer" };
            return Err(InstallError::new(
                Trouble::Untrusted,
                format!(
                    "blob {}: {more} bytes came than the {} that the manifest says",
                    blob.digest, blob.size
                ),
            ));
        }
        check(&self.repository, &blob.digest, &digest)?;
        Ok(file)
    }
}

/// Writes what `from` gives into the file, hashing it.
fn write(
    mut into: Partial,
    from: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
) -> Result<(Partial, Digest, u64)> {
    let place = into.path().parent().unwrap_or(into.path()).to_owned();
    let mut sink = Hashing::new(into.file()?);
    from(&mut |bytes| {
        sink.write_all(bytes).map_err(|e| InstallError::file("cannot be written", &place, &e))
    })?;
    let (_, digest, length) = sink.finish();
    Ok((into, digest, length))
}

/// `[http://]host/repository[:tag][@digest]`, as image references are written.
#[derive(Debug, PartialEq, Eq)]
struct ImageReference {
    plain_http: bool,
    host: String,
    repository: String,
    reference: String,
}

impl ImageReference {
    fn parse(text: &str) -> Result<Self> {
        let plain = text.strip_prefix("http://");
        let rest = plain
            .or_else(|| text.strip_prefix("https://"))
            .or_else(|| text.strip_prefix("oci://"))
            .unwrap_or(text);
        let (rest, digest) = rest.split_once('@').map_or((rest, None), |(rest, digest)| (rest, Some(digest)));
        let (rest, tag) = match rest.rsplit_once(':') {
            Some((rest, tag)) if !tag.contains('/') => (rest, Some(tag)),
            _ => (rest, None),
        };
        // As everywhere: without a host it is Docker's own registry.
        let (host, repository) = match rest.split_once('/') {
            Some((host, repository)) if host.contains(['.', ':']) || host == "localhost" => {
                (host, repository.to_owned())
            }
            Some(_) => ("registry-1.docker.io", rest.to_owned()),
            None => ("registry-1.docker.io", format!("library/{rest}")),
        };
        let host = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let wrong =
            |why: &str| broken(format!("the image reference `{text}` of the resource is wrong: {why}"));
        let base = Base::parse(&format!("{host}/{repository}")).map_err(|why| wrong(&why))?;
        if let Some(digest) = digest {
            digest.parse::<Digest>().map_err(|why| wrong(&why))?;
        }
        let reference = digest.or(tag).unwrap_or("latest").to_owned();
        let tag_ok = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
        if reference.is_empty() || !reference.chars().all(tag_ok) {
            return Err(wrong(&format!("`{reference}` is no tag")));
        }
        Ok(Self { plain_http: plain.is_some(), host: base.host, repository: base.path, reference })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_references_are_read() {
        let digest = Digest::of(b"").to_string();
        for (text, expected) in [
            ("ghcr.io/a/b:1.0", (false, "ghcr.io", "a/b", "1.0")),
            ("http://127.0.0.1:5000/a/b", (true, "127.0.0.1:5000", "a/b", "latest")),
            (&format!("localhost:5000/b:1@{digest}"), (false, "localhost:5000", "b", digest.as_str())),
            ("acme/b:1", (false, "registry-1.docker.io", "acme/b", "1")),
            ("docker.io/acme/b", (false, "registry-1.docker.io", "acme/b", "latest")),
            ("b", (false, "registry-1.docker.io", "library/b", "latest")),
        ] {
            let found = ImageReference::parse(text).unwrap();
            let (plain_http, host, repository, reference) = expected;
            let expected = ImageReference {
                plain_http,
                host: host.into(),
                repository: repository.into(),
                reference: reference.into(),
            };
            assert_eq!(found, expected, "{text}");
        }
        for wrong in
            ["ghcr.io/A/b", "ghcr.io/a/b:", "ghcr.io/a/b@sha256:1", "ghcr.io/a/../b", "ghcr.io/a/b:1?x=y"]
        {
            assert!(ImageReference::parse(wrong).is_err(), "{wrong}");
        }
    }
}
