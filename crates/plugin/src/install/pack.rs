//! From a constructor file to a CTF: the same input gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::descriptor::{Blob, ComponentConfig, Manifest};
use super::digest::{Digest, Hashing};
use super::error::{InstallError, Result, Trouble};
use super::local::{Artifact, ArtifactIndex, CTF_INDEX};
use super::media::{self, Limits};
use super::reference::{DESCRIPTORS, check_component, check_version, tag_of};
use super::signature::{BLOB_DIGEST, SHA256, sign};
use super::stage::{Partial, write_whole};

/// What to pack, and how.
#[derive(Debug, Clone)]
pub struct Packing {
    /// The constructor file.
    pub constructor: PathBuf,
    /// The version of components that name none.
    pub version: Option<String>,
    /// A folder, or a file when it ends in `.tar`, `.tgz` or `.tar.gz`.
    pub output: PathBuf,
    /// A private key to sign with.
    pub key: Option<PathBuf>,
    /// Whether an archive that is there is replaced.
    pub force: bool,
    /// How large things may be.
    pub limits: Limits,
}

/// What was packed.
#[derive(Debug, Clone, Serialize)]
pub struct Packed {
    /// The component.
    pub component: String,
    /// Its version.
    pub version: String,
    /// The digest of its manifest.
    pub digest: Digest,
    /// How many resources it has.
    pub resources: usize,
    /// What was signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed: Option<Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Component {
    name: String,
    version: Option<String>,
    provider: Provider,
    #[serde(default)]
    labels: Vec<Value>,
    #[serde(default)]
    resources: Vec<Resource>,
    #[serde(default)]
    component_references: Vec<Map<String, Value>>,
    // What is not known is a typing mistake, and would be lost in silence.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Provider {
    Name(String),
    Whole { name: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    version: Option<String>,
    relation: Option<String>,
    #[serde(default)]
    extra_identity: BTreeMap<String, String>,
    #[serde(default)]
    labels: Vec<Value>,
    input: Option<Input>,
    access: Option<Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Input {
    #[serde(rename = "type")]
    kind: String,
    path: PathBuf,
    media_type: Option<String>,
    #[serde(default)]
    compress: bool,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Packs every component of a constructor file into one CTF.
///
/// # Errors
/// The constructor is wrong (the message says where), a file is missing, or the output is in the way.
pub fn pack(packing: &Packing) -> Result<Vec<Packed>> {
    let components = read(packing)?;
    let output = &packing.output;
    if output.exists() && !packing.force {
        let what = format!("{}: it is there already", output.display());
        return Err(InstallError::new(Trouble::InTheWay, what).hint("--force replaces it"));
    }
    let parent = match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let failed = |e: io::Error| InstallError::file("cannot be written", output, &e);
    let scratch = tempfile::Builder::new().prefix(".netpulse-pack-").tempdir_in(parent).map_err(failed)?;
    let folder = scratch.path().join("ctf");
    std::fs::create_dir_all(folder.join("blobs")).map_err(failed)?;
    let mut archive = Archive { folder: folder.clone(), artifacts: Vec::new() };
    let home = packing.constructor.parent().unwrap_or(Path::new("."));
    let packed = components
        .into_iter()
        .map(|component| archive.component(component, home, packing))
        .collect::<Result<Vec<_>>>()?;
    archive.finish()?;
    let name = output.to_string_lossy();
    let zipped = name.ends_with(".tgz") || name.ends_with(".tar.gz");
    if zipped || name.ends_with(".tar") {
        if output.is_dir() {
            let what = format!("{}: a folder is in the way of a file", output.display());
            return Err(InstallError::new(Trouble::InTheWay, what));
        }
        tar_of(&folder, output, parent, zipped)?;
    } else {
        // A folder cannot be swapped at once: the old one steps aside first.
        let aside = scratch.path().join("old");
        if output.exists() {
            if !output.join(CTF_INDEX).is_file() {
                let what = format!("{}: it is no CTF, so it is not replaced", output.display());
                return Err(InstallError::new(Trouble::InTheWay, what));
            }
            std::fs::rename(output, &aside).map_err(failed)?;
        }
        std::fs::rename(&folder, output).map_err(failed)?;
    }
    Ok(packed)
}

fn read(packing: &Packing) -> Result<Vec<Component>> {
    let path = &packing.constructor;
    let text = std::fs::read_to_string(path).map_err(|e| InstallError::file("cannot be read", path, &e))?;
    let wrong = |why: String| InstallError::new(Trouble::BadInput, format!("{}: {why}", path.display()));
    // First as a document, so that a mistake of YAML keeps its line.
    let whole: Value = yaml_serde::from_str(&text).map_err(|e| wrong(format!("no YAML: {e}")))?;
    let one = |value: Value| serde_json::from_value::<Component>(value).map_err(|e| wrong(e.to_string()));
    let mut components = match whole.get("components").and_then(Value::as_array) {
        Some(list) => list.iter().cloned().map(one).collect::<Result<Vec<_>>>()?,
        None => vec![one(whole)?],
    };
    if components.is_empty() {
        return Err(wrong("it names no component".to_owned()));
    }
    for component in &mut components {
        let name = component.name.clone();
        let wrong = |why: String| wrong(format!("component {name}: {why}"));
        check_component(&component.name).map_err(&wrong)?;
        component.version = component.version.take().or_else(|| packing.version.clone());
        match &component.version {
            None => {
                return Err(
                    wrong("it has no version".to_owned()).hint("name it in the file, or with --version")
                );
            }
            Some(version) => check_version(version).map_err(&wrong)?,
        }
        unknown(&component.rest, &["componentVersion", "meta", "sources", "repositoryContexts"], "")
            .map_err(&wrong)?;
        let mut seen = BTreeSet::new();
        for resource in &component.resources {
            let wrong = |why: String| wrong(format!("resource {}: {why}", resource.name));
            unknown(&resource.rest, &["srcRefs"], "").map_err(&wrong)?;
            match (&resource.input, &resource.access) {
                (Some(input), None) => {
                    unknown(&input.rest, &[], "input.").map_err(&wrong)?;
                    if !matches!(input.kind.as_str(), "file" | "file/v1") {
                        return Err(wrong(format!(
                            "input of type `{}` is not understood, only `file`",
                            input.kind
                        )));
                    }
                }
                (None, Some(_)) => {}
                _ => {
                    return Err(wrong(
                        "exactly one of `input` and `access` must say where its bytes are".to_owned(),
                    ));
                }
            }
            if !seen.insert((
                resource.name.clone(),
                resource.version.clone(),
                resource.extra_identity.clone(),
            )) {
                return Err(wrong("another one has the same name, version and extraIdentity".to_owned()));
            }
        }
    }
    Ok(components)
}

fn unknown(rest: &Map<String, Value>, known: &[&str], path: &str) -> std::result::Result<(), String> {
    match rest.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("`{path}{key}` is not understood here")),
        None => Ok(()),
    }
}

/// A CTF under construction, as a folder.
struct Archive {
    folder: PathBuf,
    artifacts: Vec<Artifact>,
}

impl Archive {
    fn put(&self, media_type: &str, bytes: &[u8]) -> Result<Blob> {
        let blob = Blob::of(media_type, bytes);
        write_whole(&self.place(&blob.digest), bytes)?;
        Ok(blob)
    }

    fn place(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs").join(format!("sha256.{}", digest.hex()))
    }

    fn file(&self, input: &Input, home: &Path, limits: Limits) -> Result<Blob> {
        let path = home.join(&input.path);
        let read = |e: &io::Error| InstallError::file("cannot be read", &path, e);
        let file = File::open(&path).map_err(|e| read(&e))?;
        let about = file.metadata().map_err(|e| read(&e))?;
        if !about.is_file() || about.len() > limits.blob {
            let what =
                format!("{}: a plain file of at most {} bytes is expected", path.display(), limits.blob);
            return Err(InstallError::new(Trouble::BadInput, what));
        }
        let mut partial = Partial::new(&self.folder.join("blobs"), "input")?;
        let mut sink = Hashing::new(BufWriter::new(partial.file()?));
        let mut reader = file.take(limits.blob);
        let media_type = input.media_type.clone().unwrap_or_else(|| media::OCTETS.to_owned());
        let (copied, media_type) = if input.compress {
            // No time and no system in the head: the same file gives the same bytes.
            let builder = flate2::GzBuilder::new().mtime(0).operating_system(255);
            let mut encoder = builder.write(&mut sink, flate2::Compression::new(6));
            let copied = io::copy(&mut reader, &mut encoder).and_then(|_| encoder.finish().map(|_| ()));
            let zipped = if media_type.ends_with("gzip") { media_type } else { format!("{media_type}+gzip") };
            (copied, zipped)
        } else {
            (io::copy(&mut reader, &mut sink).map(|_| ()), media_type)
        };
        let copied = copied.and_then(|()| sink.flush());
        let (_, digest, length) = sink.finish();
        if let Err(error) = copied {
            return Err(partial.failed(&error));
        }
        partial.finish(&self.place(&digest))?;
        Ok(Blob::known(&media_type, digest, length))
    }

    fn component(&mut self, component: Component, home: &Path, packing: &Packing) -> Result<Packed> {
        let version = component.version.clone().unwrap_or_default();
        let mut layers: Vec<Blob> = Vec::new();
        let mut resources = Vec::new();
        for resource in &component.resources {
            let local = resource.input.is_some();
            let mut out = Map::new();
            out.insert("name".into(), resource.name.clone().into());
            out.insert("version".into(), resource.version.clone().unwrap_or_else(|| version.clone()).into());
            out.insert("type".into(), resource.kind.clone().into());
            let relation = resource.relation.clone();
            out.insert(
                "relation".into(),
                relation.unwrap_or_else(|| if local { "local" } else { "external" }.into()).into(),
            );
            if !resource.extra_identity.is_empty() {
                out.insert("extraIdentity".into(), json!(resource.extra_identity));
            }
            if !resource.labels.is_empty() {
                out.insert("labels".into(), Value::Array(resource.labels.clone()));
            }
            if let Some(input) = &resource.input {
                let blob = self.file(input, home, packing.limits)?;
                out.insert(
                    "access".into(),
                    json!({"type": "localBlob/v1", "localReference": blob.digest, "mediaType": blob.media_type}),
                );
                out.insert(
                    "digest".into(),
                    json!({"hashAlgorithm": SHA256, "normalisationAlgorithm": BLOB_DIGEST, "value": blob.digest.hex()}),
                );
                if !layers.iter().any(|layer| layer.digest == blob.digest) {
                    layers.push(blob);
                }
            } else if let Some(access) = &resource.access {
                out.insert("access".into(), access.clone());
            }
            resources.push(Value::Object(out));
        }
        let provider = match &component.provider {
            Provider::Name(name) | Provider::Whole { name } => name.clone(),
        };
        let mut body = Map::new();
        body.insert("name".into(), component.name.clone().into());
        body.insert("version".into(), version.clone().into());
        body.insert("provider".into(), provider.into());
        if !component.labels.is_empty() {
            body.insert("labels".into(), Value::Array(component.labels.clone()));
        }
        body.insert("repositoryContexts".into(), json!([]));
        let count = resources.len();
        body.insert("resources".into(), Value::Array(resources));
        body.insert("sources".into(), json!([]));
        body.insert("componentReferences".into(), json!(component.component_references));
        let mut descriptor = json!({"meta": {"schemaVersion": "v2"}, "component": body});
        let signed = packing.key.as_deref().map(|key| sign(&mut descriptor, key)).transpose()?;

        let layer = self.put(&format!("{}+json", media::DESCRIPTOR), &bytes_of(&descriptor)?)?;
        let config = ComponentConfig { component_descriptor_layer: Some(layer.clone()) };
        let config = self.put(media::COMPONENT_CONFIG, &bytes_of(&config)?)?;
        layers.insert(0, layer);
        let mut annotations = Map::new();
        annotations.insert(media::COMPONENT_VERSION.into(), format!("{}:{version}", component.name).into());
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media::MANIFEST.into()),
            artifact_type: Some(media::DESCRIPTOR.into()),
            config: Some(config),
            layers: Some(layers),
            manifests: None,
            annotations,
        };
        let manifest = self.put(media::MANIFEST, &bytes_of(&manifest)?)?;
        self.artifacts.push(Artifact {
            repository: format!("{DESCRIPTORS}/{}", component.name),
            tag: Some(tag_of(&version)),
            digest: manifest.digest,
            media_type: Some(media::MANIFEST.into()),
        });
        Ok(Packed { component: component.name, version, digest: manifest.digest, resources: count, signed })
    }

    fn finish(mut self) -> Result<()> {
        self.artifacts.sort_by(|a, b| (&a.repository, &a.tag).cmp(&(&b.repository, &b.tag)));
        let index = ArtifactIndex { schema_version: 1, artifacts: self.artifacts };
        write_whole(&self.folder.join(CTF_INDEX), &bytes_of(&index)?)
    }
}

fn bytes_of(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|e| InstallError::new(Trouble::Local, format!("a document cannot be written: {e}")))
}

/// A CTF as one file: sorted, without times and owners.
fn tar_of(folder: &Path, output: &Path, parent: &Path, zipped: bool) -> Result<()> {
    let read = |e: io::Error| InstallError::file("cannot be read", folder, &e);
    let mut names: Vec<String> = std::fs::read_dir(folder.join("blobs"))
        .map_err(read)?
        .map(|entry| entry.map(|entry| format!("blobs/{}", entry.file_name().to_string_lossy())))
        .collect::<io::Result<_>>()
        .map_err(read)?;
    names.sort();
    names.insert(0, CTF_INDEX.to_owned());
    let mut partial = Partial::new(parent, "pack")?;
    let file = BufWriter::new(partial.file()?.try_clone().map_err(read)?);
    let written = if zipped {
        let builder = flate2::GzBuilder::new().mtime(0).operating_system(255);
        append(builder.write(file, flate2::Compression::new(6)), folder, &names)
            .and_then(flate2::write::GzEncoder::finish)
    } else {
        append(file, folder, &names)
    };
    if let Err(error) = written.and_then(|mut file| file.flush()) {
        return Err(partial.failed(&error));
    }
    partial.finish(output)
}

fn append<W: Write>(out: W, folder: &Path, names: &[String]) -> io::Result<W> {
    let mut builder = tar::Builder::new(out);
    for name in names {
        let file = File::open(folder.join(name))?;
        let mut header = tar::Header::new_ustar();
        header.set_size(file.metadata()?.len());
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_cksum();
        builder.append_data(&mut header, name, file)?;
    }
    builder.into_inner()
}
