//! Component versions written by hand, in the shapes that OCM's own tools produce, and a registry.

#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use netpulse_plugin::install::{Base, Digest, InstallError, Installed, Order, Target, Unwatched, install};
use serde_json::{Value, json};

pub const COMPONENT: &str = "example.org/drivers/acme";
pub const REPOSITORY: &str = "component-descriptors/example.org/drivers/acme";
pub const DESCRIPTOR: &str = "application/vnd.ocm.software.component-descriptor.v2";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A program that answers `capabilities` as a plugin does.
pub fn script(version: &str) -> Vec<u8> {
    format!(
        "#!/bin/sh\n[ \"$1\" = capabilities ] || exit 2\necho '{{\"contract\":\"netpulse.plugin/v1\",\"id\":\"example.org/driver/acme/v1\",\"version\":\"{version}\",\"type\":{{\"acme\":[\"driver\"]}},\"capabilities\":[{{\"type\":\"driver\",\"name\":\"acme\"}}]}}'\n"
    )
    .into_bytes()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// The names of Go for this machine.
pub fn platform() -> (&'static str, &'static str) {
    (netpulse_plugin::install::platform::os(), netpulse_plugin::install::platform::architecture())
}

pub fn resource(bytes: &[u8], media_type: &str) -> Value {
    let (os, architecture) = platform();
    json!({"name": "acme", "version": "0.2.0", "type": "ocmPlugin", "relation": "local",
        "extraIdentity": {"os": os, "architecture": architecture},
        "access": {"type": "localBlob", "localReference": Digest::of(bytes).to_string(), "mediaType": media_type},
        "digest": {"hashAlgorithm": "SHA-256", "normalisationAlgorithm": "genericBlobDigest/v1", "value": Digest::of(bytes).hex()}})
}

pub fn descriptor(resources: Vec<Value>) -> Value {
    json!({"meta": {"schemaVersion": "v2"}, "component": {"name": COMPONENT, "version": "0.2.0", "provider": "example.org",
        "repositoryContexts": [], "sources": [], "componentReferences": [], "resources": resources}})
}

/// Everything that a store keeps: blobs by digest, and tags.
#[derive(Default, Clone)]
pub struct Content {
    pub blobs: BTreeMap<String, Vec<u8>>,
    pub tags: Vec<(String, String, String, String)>,
}

impl Content {
    pub fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        self.blobs.insert(Digest::of(bytes).hex(), bytes.to_vec());
        json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
    }

    /// A component's manifest as `ocm` writes it.
    pub fn manifest(&mut self, descriptor: &[u8], descriptor_type: &str, layers: &[(&str, &[u8])]) -> Value {
        let layer = self.blob(descriptor_type, descriptor);
        let config = json!({"componentDescriptorLayer": layer}).to_string();
        let config = self.blob("application/vnd.ocm.software.component.config.v1+json", config.as_bytes());
        let mut all = vec![layer];
        all.extend(layers.iter().map(|(media_type, bytes)| self.blob(media_type, bytes)));
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": DESCRIPTOR, "config": config, "layers": all,
            "annotations": {"software.ocm.componentversion": format!("{COMPONENT}:0.2.0")}});
        self.blob(MANIFEST, manifest.to_string().as_bytes())
    }

    pub fn tag(&mut self, blob: &Value) {
        self.tag_as(REPOSITORY, "0.2.0", blob);
    }

    pub fn tag_as(&mut self, repository: &str, tag: &str, blob: &Value) {
        let text = |name: &str| blob[name].as_str().unwrap().to_owned();
        self.tags.push((repository.into(), tag.into(), text("digest"), text("mediaType")));
    }

    /// The usual: one resource, the descriptor in JSON.
    pub fn usual(program: &[u8], media_type: &str) -> Self {
        Self::with(&descriptor(vec![resource(program, media_type)]), &[(media_type, program)])
    }

    pub fn with(descriptor: &Value, layers: &[(&str, &[u8])]) -> Self {
        let mut content = Self::default();
        let manifest =
            content.manifest(descriptor.to_string().as_bytes(), &format!("{DESCRIPTOR}+json"), layers);
        content.tag(&manifest);
        content
    }

    fn ctf_files(&self) -> Vec<(String, Vec<u8>)> {
        let artifacts: Vec<Value> = self
            .tags
            .iter()
            .map(|(repository, tag, digest, media_type)| {
                json!({"repository": repository, "tag": tag, "digest": digest, "mediaType": media_type})
            })
            .collect();
        let index = json!({"schemaVersion": 1, "artifacts": artifacts}).to_string().into_bytes();
        let blobs = self.blobs.iter().map(|(hex, bytes)| (format!("blobs/sha256.{hex}"), bytes.clone()));
        std::iter::once(("artifact-index.json".to_owned(), index)).chain(blobs).collect()
    }

    fn layout_files(&self) -> Vec<(String, Vec<u8>)> {
        let manifests: Vec<Value> = self
            .tags
            .iter()
            .map(|(repository, tag, digest, media_type)| {
                let hex = digest.strip_prefix("sha256:").unwrap();
                json!({"mediaType": media_type, "digest": digest, "size": self.blobs[hex].len(),
                    "annotations": {"org.opencontainers.image.ref.name": format!("{repository}:{tag}")}})
            })
            .collect();
        let index =
            json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string().into_bytes();
        let blobs = self.blobs.iter().map(|(hex, bytes)| (format!("blobs/sha256/{hex}"), bytes.clone()));
        let mark = ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        [mark, ("index.json".to_owned(), index)].into_iter().chain(blobs).collect()
    }

    pub fn ctf(&self, place: &Path) -> PathBuf {
        write(place, self.ctf_files())
    }

    pub fn layout(&self, place: &Path) -> PathBuf {
        write(place, self.layout_files())
    }
}

/// Writes files into a folder, or a `.tar` or `.tgz`.
pub fn write(place: &Path, files: Vec<(String, Vec<u8>)>) -> PathBuf {
    let name = place.to_string_lossy().into_owned();
    if name.ends_with(".tar") || name.ends_with(".tgz") {
        let members: Vec<(&str, &[u8])> =
            files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        let bytes = tar(&members);
        std::fs::write(place, if name.ends_with(".tgz") { gzip(&bytes) } else { bytes }).unwrap();
    } else {
        for (file, bytes) in files {
            let path = place.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
    place.to_owned()
}

pub fn order(reference: &str, folder: &Path) -> Order {
    Order::new(Target::parse(reference).unwrap(), folder.join("plugins"))
}

pub async fn run(order: &Order) -> Result<Installed, InstallError> {
    install(order, Arc::new(Unwatched)).await
}

/// Names in the folder of plugins, without the file that only guards it.
pub fn left(folder: &Path) -> Vec<String> {
    let Ok(listing) = std::fs::read_dir(folder.join("plugins")) else { return Vec::new() };
    let mut names: Vec<String> =
        listing.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != ".install.lock");
    names.sort();
    names
}

/// Debian's registry on a free port, ended with this value.
pub struct Registry {
    child: Child,
    pub address: String,
    _folder: tempfile::TempDir,
}

/// `user:pass-word` as htpasswd writes it.
const HTPASSWD: &str = "user:$2b$04$nOPPBAUyGuLfbkGcgYNJfOdqRBs23vD5yhoX6Z3qk5uFdR8EoKHB.\n";

impl Registry {
    pub fn start(login: bool) -> Self {
        Self::start_with(login, tempfile::tempdir().unwrap(), "")
    }

    /// With more lines below `http:`.
    pub fn start_with(login: bool, folder: tempfile::TempDir, http: &str) -> Self {
        let at = folder.path().display();
        let auth = if login {
            std::fs::write(folder.path().join("htpasswd"), HTPASSWD).unwrap();
            format!("auth: {{htpasswd: {{realm: test, path: {at}/htpasswd}}}}\n")
        } else {
            String::new()
        };
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {at}/data}}}}\nhttp: {{addr: '127.0.0.1:0'{http}}}\n{auth}"
        );
        std::fs::write(folder.path().join("config.yml"), config).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(folder.path().join("config.yml"))
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is installed (Debian's package of that name)");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("the registry says where it listens").unwrap();
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split(['"', ' ', ',']).next().unwrap().to_owned();
            }
        };
        // Its log must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address, _folder: folder }
    }

    pub fn base(&self, path: &str) -> Base {
        Base::parse(&format!("http://{}/{path}", self.address)).unwrap()
    }

    pub fn reference(&self, path: &str) -> String {
        format!("http://{}/{path}//{COMPONENT}:0.2.0", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A file of credentials in docker's form.
pub fn docker_config(folder: &Path, host: &str, user: &str, password: &str) -> PathBuf {
    use base64::Engine;
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    let path = folder.join("config.json");
    std::fs::write(&path, json!({"auths": {host: {"auth": auth}}}).to_string()).unwrap();
    path
}
