//! Component descriptors (schema v2) and the manifests that carry them.

use std::collections::BTreeMap;
use std::io::Read;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::digest::Digest;
use super::error::{InstallError, Result, Trouble};
use super::media;
use super::reference::{check_component, check_version};

/// A component descriptor: what we understand of it, and all of it for the signature.
#[derive(Debug, Clone)]
pub struct Descriptor {
    /// The component.
    pub component: Component,
    /// Its signatures.
    pub signatures: Vec<Signature>,
    /// The whole document.
    pub whole: Value,
}

/// A component version.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What belongs to it.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub resources: Vec<Resource>,
    /// Other components it names.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub component_references: Vec<ComponentReference>,
}

impl Component {
    /// Names that are shown to people must not speak to their terminal.
    fn check_texts(&self) -> Result<()> {
        let resources = self.resources.iter().flat_map(|resource| {
            let identity = resource.extra_identity.iter().flat_map(|(name, value)| [name, value]);
            [&resource.name, &resource.version, &resource.kind].into_iter().chain(identity)
        });
        let references = self
            .component_references
            .iter()
            .flat_map(|reference| [&reference.name, &reference.component_name, &reference.version]);
        match resources.chain(references).find(|text| text.chars().any(char::is_control)) {
            Some(text) => {
                Err(broken(format!("the component descriptor has control characters in a name: {text:?}")))
            }
            None => Ok(()),
        }
    }
}

/// Something that belongs to a component version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// Its name.
    pub name: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// What it is, `ocmPlugin` for example.
    #[serde(rename = "type")]
    pub kind: String,
    /// What tells it from others of its name: `os`, `architecture`.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub extra_identity: BTreeMap<String, String>,
    /// Where its bytes are.
    #[serde(default)]
    pub access: Access,
    /// What its bytes hash to.
    #[serde(default)]
    pub digest: Option<DigestSpec>,
}

impl Resource {
    /// Everything that identifies it: name, version and the rest.
    #[must_use]
    pub fn identity(&self) -> BTreeMap<String, String> {
        let mut identity = self.extra_identity.clone();
        identity.insert("name".into(), self.name.clone());
        identity.insert("version".into(), self.version.clone());
        identity
    }
}

/// Where bytes are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// `localBlob`, `ociArtifact`, ...
    #[serde(rename = "type", default)]
    pub kind: String,
    /// A layer of the component's manifest.
    #[serde(default)]
    pub local_reference: Option<String>,
    /// The type of the bytes.
    #[serde(default)]
    pub media_type: Option<String>,
    /// The same bytes elsewhere.
    #[serde(default)]
    pub global_access: Option<Box<Access>>,
    /// An OCI artifact.
    #[serde(default)]
    pub image_reference: Option<String>,
    /// The repository of a blob.
    #[serde(default, rename = "ref")]
    pub repository: Option<String>,
    /// The digest of that blob.
    #[serde(default)]
    pub digest: Option<String>,
}

/// A digest with how it came about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DigestSpec {
    /// `SHA-256`.
    pub hash_algorithm: String,
    /// `genericBlobDigest/v1` for the bytes as they are.
    pub normalisation_algorithm: String,
    /// Hexadecimal digits.
    pub value: String,
}

/// Another component, as a registry of plugins lists it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentReference {
    /// The name of the reference.
    pub name: String,
    /// The component's name.
    pub component_name: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// More about it.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub labels: Vec<Label>,
}

/// A named value.
#[derive(Debug, Clone, Deserialize)]
pub struct Label {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(default)]
    pub value: Value,
}

/// A signature over the normalised descriptor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Signature {
    /// Its name.
    pub name: String,
    /// What was signed.
    pub digest: DigestSpec,
    /// The signature itself.
    pub signature: SignatureValue,
}

/// The bytes of a signature.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignatureValue {
    /// How it was made.
    pub algorithm: String,
    /// Its text.
    pub value: String,
    /// How the text is to be read.
    #[serde(default)]
    pub media_type: String,
}

fn null_is_empty<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn broken(what: impl Into<String>) -> InstallError {
    InstallError::new(Trouble::BadContent, what)
}

impl Descriptor {
    /// Reads a descriptor layer: JSON, YAML, or a tar with `component-descriptor.yaml`.
    ///
    /// # Errors
    /// It is broken, too large, of another schema, or has no component.
    pub fn decode(bytes: &[u8], media_type: &str, most: u64) -> Result<Self> {
        let archived;
        let text = if media_type.ends_with("+tar") || looks_like_tar(bytes) {
            archived = from_tar(bytes, most)?;
            archived.as_slice()
        } else {
            bytes
        };
        let text =
            std::str::from_utf8(text).map_err(|_| broken("the component descriptor is no UTF-8 text"))?;
        let whole: Value = if media_type.ends_with("+json") {
            serde_json::from_str(text)
                .map_err(|e| broken(format!("the component descriptor is no JSON: {e}")))?
        } else {
            check_depth(text)?;
            yaml_serde::from_str(text)
                .map_err(|e| broken(format!("the component descriptor is no YAML: {e}")))?
        };
        Self::from_value(whole)
    }

    /// Understands a descriptor that has been read.
    ///
    /// # Errors
    /// It is of another schema, or a part of it has another shape.
    pub fn from_value(whole: Value) -> Result<Self> {
        let schema = whole.pointer("/meta/schemaVersion").and_then(Value::as_str);
        match schema {
            Some("v2") => {}
            Some(other) => {
                return Err(broken(format!(
                    "the component descriptor has schema `{other}`: only v2 is understood"
                )));
            }
            None => return Err(broken("the component descriptor has no `meta.schemaVersion`")),
        }
        let part = |name: &str| whole.get(name).cloned().unwrap_or(Value::Null);
        let component: Component = serde_json::from_value(part("component"))
            .map_err(|e| broken(format!("the component descriptor's `component` is broken: {e}")))?;
        let signatures: Option<Vec<Signature>> = serde_json::from_value(part("signatures"))
            .map_err(|e| broken(format!("the component descriptor's `signatures` are broken: {e}")))?;
        let named =
            |why: String| broken(format!("the component descriptor's name or version is wrong: {why}"));
        check_component(&component.name).map_err(named)?;
        check_version(&component.version).map_err(named)?;
        component.check_texts()?;
        Ok(Self { component, signatures: signatures.unwrap_or_default(), whole })
    }
}

/// Brackets within brackets cost the YAML reader their depth for every further word: a few MiB of
/// them would keep it busy for hours.
fn check_depth(text: &str) -> Result<()> {
    let mut depth = 0usize;
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth > 1000 {
            return Err(broken(
                "the component descriptor is no YAML that is read here: more than 1000 brackets deep",
            ));
        }
    }
    Ok(())
}

fn looks_like_tar(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}

/// The member `component-descriptor.yaml`, and nothing else.
fn from_tar(bytes: &[u8], most: u64) -> Result<Vec<u8>> {
    let bad = |e: std::io::Error| broken(format!("the component descriptor's archive is broken: {e}"));
    let mut archive = tar::Archive::new(bytes);
    for entry in archive.entries().map_err(bad)?.take(100) {
        let entry = entry.map_err(bad)?;
        let path = entry.path_bytes();
        let name = path.strip_prefix(b"./").unwrap_or(&path);
        if name != b"component-descriptor.yaml" || !entry.header().entry_type().is_file() {
            continue;
        }
        let mut text = Vec::new();
        entry.take(most + 1).read_to_end(&mut text).map_err(bad)?;
        if text.len() as u64 > most {
            return Err(broken(format!("the component descriptor is larger than {most} bytes")));
        }
        return Ok(text);
    }
    Err(broken("the component descriptor's archive has no file `component-descriptor.yaml`"))
}

/// A manifest or an index, whichever came.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Its own type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What kind of artifact it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The config blob; an index has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Blob>,
    /// The layers; an index has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<Blob>>,
    /// The entries of an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifests: Option<Vec<Blob>>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub annotations: Map<String, Value>,
}

impl Manifest {
    /// Reads a manifest or an index.
    ///
    /// # Errors
    /// It is no JSON, has another shape, or neither layers nor manifests.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|e| broken(format!("a manifest is no OCI manifest: {e}")))?;
        if manifest.schema_version != 2 {
            return Err(broken(format!(
                "a manifest has schema {}: only 2 is understood",
                manifest.schema_version
            )));
        }
        if manifest.layers.is_none() && manifest.manifests.is_none() {
            return Err(broken("a manifest has neither `layers` nor `manifests`"));
        }
        Ok(manifest)
    }

    /// Its type, by what it says or by what it has.
    #[must_use]
    pub fn kind(&self) -> &str {
        let by_shape = if self.manifests.is_some() { media::INDEX } else { media::MANIFEST };
        self.media_type.as_deref().unwrap_or(by_shape)
    }

    /// Everything that it names.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.config.iter().chain(self.layers.iter().flatten())
    }
}

/// What a manifest says of a blob or of another manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blob {
    /// The type of its bytes.
    pub media_type: String,
    /// Their digest.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// The platform of a manifest in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Value>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Map<String, Value>>,
}

impl Blob {
    /// What a manifest says of these bytes.
    #[must_use]
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::known(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// What a manifest says of bytes with this digest and size.
    #[must_use]
    pub fn known(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.to_owned(), digest, size, platform: None, annotations: None }
    }
}

/// The config blob: which layer is the descriptor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentConfig {
    /// The descriptor's layer.
    pub component_descriptor_layer: Option<Blob>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "meta: {schemaVersion: v2}\ncomponent:\n  name: example.org/acme\n  version: 0.2.0\n  provider: example.org\n  repositoryContexts: []\n  sources: []\n  componentReferences: null\n  resources:\n  - {name: acme, version: 0.2.0, type: ocmPlugin, relation: local, extraIdentity: {os: linux}, access: {type: localBlob/v1, localReference: 'sha256:00', mediaType: x}}\n";

    fn decode(bytes: &[u8], suffix: &str) -> Result<Descriptor> {
        Descriptor::decode(bytes, &format!("{}{suffix}", media::DESCRIPTOR), 1024 * 1024)
    }

    #[test]
    fn json_yaml_and_tar_say_the_same() {
        let json = yaml_serde::from_str::<Value>(YAML).unwrap().to_string();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(YAML.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "component-descriptor.yaml", YAML.as_bytes()).unwrap();
        let tar = tar.into_inner().unwrap();
        for (bytes, suffix) in [
            (json.as_bytes(), "+json"),
            (YAML.as_bytes(), "+yaml"),
            (&tar[..], "+yaml+tar"),
            (&tar[..], "+yaml"),
        ] {
            let descriptor = decode(bytes, suffix).unwrap();
            assert_eq!(descriptor.component.resources[0].identity()["os"], "linux", "{suffix}");
            assert!(descriptor.component.component_references.is_empty() && descriptor.signatures.is_empty());
        }
        let legacy =
            Descriptor::decode(&tar, &format!("{}+yaml+tar", media::LEGACY_DESCRIPTOR), 1 << 20).unwrap();
        assert_eq!(legacy.component.version, "0.2.0");
        assert!(Descriptor::decode(&tar, "x+tar", 16).unwrap_err().message.contains("larger than 16 bytes"));
    }

    #[test]
    fn promise_15_a_broken_descriptor_gets_a_sentence() {
        let deep_json = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let deep_yaml = "- ".repeat(20_000);
        let many_brackets = "[".repeat(8 * 1024 * 1024);
        let bomb = format!(
            "a: &a [x, x]\n{}",
            (0..40)
                .map(|i| format!(
                    "b{i}: &b{i} [*{p}, *{p}]\n",
                    p = if i == 0 { "a".into() } else { format!("b{}", i - 1) }
                ))
                .collect::<String>()
        );
        for (text, suffix, said) in [
            ("meta: {schemaVersion: v3alpha1}\n", "+yaml", "schema `v3alpha1`: only v2"),
            ("{}", "+json", "no `meta.schemaVersion`"),
            ("{", "+json", "is no JSON"),
            ("a: [", "+yaml", "is no YAML"),
            (&deep_json, "+json", "is no JSON: recursion limit"),
            (&deep_json, "+yaml", "more than 1000 brackets deep"),
            (&deep_yaml, "+yaml", "is no YAML"),
            (&many_brackets, "+yaml", "more than 1000 brackets deep"),
            (&bomb, "+yaml", "is no YAML"),
            (
                "{\"meta\":{\"schemaVersion\":\"v2\"},\"component\":{\"name\":3}}",
                "+json",
                "`component` is broken",
            ),
            (
                "{\"meta\":{\"schemaVersion\":\"v2\"},\"component\":{\"name\":\"a.bc/d\",\"version\":\"1\",\"resources\":[{\"name\":\"x\"}]}}",
                "+json",
                "missing field `type`",
            ),
            (
                "{\"meta\":{\"schemaVersion\":\"v2\"},\"component\":{\"name\":\"a.bc/d\",\"version\":\"1\"},\"signatures\":[1]}",
                "+json",
                "`signatures` are broken",
            ),
        ] {
            let error = decode(text.as_bytes(), suffix).unwrap_err();
            assert!(error.message.contains(said), "{}: {error}", text.chars().take(60).collect::<String>());
        }
    }

    #[test]
    fn a_manifest_with_a_short_digest_is_refused() {
        let manifest = |digest: &str| {
            format!(
                "{{\"schemaVersion\":2,\"layers\":[{{\"mediaType\":\"x\",\"digest\":\"{digest}\",\"size\":1}}]}}"
            )
        };
        let error = Manifest::decode(manifest("sha256:abcd").as_bytes()).unwrap_err();
        assert!(error.message.contains("has 4 characters where 64"), "{error}");
        assert!(Manifest::decode(manifest(&Digest::of(b"").to_string()).as_bytes()).is_ok());
        assert!(Manifest::decode(b"{\"schemaVersion\":2}").unwrap_err().message.contains("neither"));
        assert!(
            Manifest::decode(b"{\"schemaVersion\":1,\"layers\":[]}")
                .unwrap_err()
                .message
                .contains("schema 1")
        );
    }
}
