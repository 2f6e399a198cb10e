//! Media types, and how large the things of these types may be.

/// OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// What is asked for as a manifest.
pub const MANIFESTS: &[&str] = &[
    MANIFEST,
    INDEX,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
/// The config blob of a component version.
pub const COMPONENT_CONFIG: &str = "application/vnd.ocm.software.component.config.v1+json";
/// A component descriptor; `+json`, `+yaml` or `+yaml+tar` follows where it is a layer.
pub const DESCRIPTOR: &str = "application/vnd.ocm.software.component-descriptor.v2";
/// The same as older tools named it.
pub const LEGACY_DESCRIPTOR: &str = "application/vnd.gardener.cloud.cnudie.component-descriptor.v2";
/// The annotation that carries `name:version`.
pub const COMPONENT_VERSION: &str = "software.ocm.componentversion";
/// Bytes without a type.
pub const OCTETS: &str = "application/octet-stream";

/// Whether a layer of this type is a component descriptor.
#[must_use]
pub fn is_descriptor(media_type: &str) -> bool {
    [DESCRIPTOR, LEGACY_DESCRIPTOR].iter().any(|known| {
        media_type
            .strip_prefix(known)
            .is_some_and(|rest| matches!(rest, "+json" | "+yaml" | "+yaml+tar" | "+tar" | ""))
    })
}

const MIB: u64 = 1024 * 1024;

/// How large what comes from elsewhere may be, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A manifest, an index, a config blob.
    pub manifest: u64,
    /// A component descriptor.
    pub descriptor: u64,
    /// A blob as it is stored.
    pub blob: u64,
    /// A whole archive of component versions.
    pub archive: u64,
    /// A program after unpacking.
    pub program: u64,
    /// Entries of an archive.
    pub entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest: 4 * MIB,
            descriptor: 8 * MIB,
            blob: 1024 * MIB,
            archive: 8 * 1024 * MIB,
            program: 1024 * MIB,
            entries: 10_000,
        }
    }
}
