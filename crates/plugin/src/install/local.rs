//! Component versions on this machine: CTF and OCI layout, as a folder, `.tar` or `.tgz`.
//!
//! An archive is never unpacked: its table is read once, and blobs are read where they lie.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Component as Part, Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::descriptor::Manifest;
use super::digest::{self, Digest};
use super::error::{InstallError, Result, Trouble};
use super::media::{self, Limits};
use super::reference::{DESCRIPTORS, tag_of, version_of};

/// The table of a CTF.
pub(crate) const CTF_INDEX: &str = "artifact-index.json";
const LAYOUT_MARK: &str = "oci-layout";
const LAYOUT_INDEX: &str = "index.json";
/// The annotation that carries the tag in an OCI layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The table of a CTF, as it is written.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ArtifactIndex {
    pub schema_version: u32,
    #[serde(default)]
    pub artifacts: Vec<Artifact>,
}

/// One line of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// `component-descriptors/<component>`.
    pub repository: String,
    /// The version as a tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The manifest.
    pub digest: Digest,
    /// The manifest's type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
}

/// An archive of component versions.
#[derive(Debug)]
pub struct Local {
    path: PathBuf,
    place: Place,
    blobs: fn(&Digest) -> String,
    artifacts: Vec<Artifact>,
}

#[derive(Debug)]
enum Place {
    Folder,
    Tar { file: File, table: HashMap<String, (u64, u64)> },
}

/// Bytes of a file from here to there.
#[derive(Debug)]
pub struct Section {
    file: File,
    /// How many.
    pub length: u64,
}

impl Section {
    /// The file, standing at the first byte, and how many belong to it.
    pub(crate) fn into_file(self) -> (File, u64) {
        (self.file, self.length)
    }
}

impl Read for Section {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.length).unwrap_or(usize::MAX).min(into.len());
        let count = self.file.read(into.get_mut(..most).unwrap_or_default())?;
        self.length -= count as u64;
        Ok(count)
    }
}

impl Local {
    /// Opens an archive or a folder.
    ///
    /// # Errors
    /// There is none, it is neither CTF nor OCI layout, or it is broken or too large.
    pub fn open(path: &Path, limits: Limits) -> Result<Self> {
        let about = std::fs::metadata(path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                InstallError::new(Trouble::NotFound, format!("{}: no such file or folder", path.display()))
            }
            _ => InstallError::file("cannot be read", path, &e),
        })?;
        let place = if about.is_dir() { Place::Folder } else { Place::tar(path, limits)? };
        let mut local = Self {
            path: path.to_owned(),
            place,
            blobs: |digest| format!("blobs/sha256.{}", digest.hex()),
            artifacts: Vec::new(),
        };
        if let Some(index) = local.text(CTF_INDEX, limits.manifest)? {
            local.artifacts = local.ctf(&index)?;
        } else if local.text(LAYOUT_MARK, limits.manifest)?.is_some() {
            let index = local.text(LAYOUT_INDEX, limits.manifest)?;
            let index = index.ok_or_else(|| local.broken(&format!("it has no {LAYOUT_INDEX}")))?;
            local.blobs = |digest| format!("blobs/sha256/{}", digest.hex());
            local.artifacts = layout(&Manifest::decode(&index)?);
        } else {
            return Err(
                local.broken(&format!("it has neither {CTF_INDEX} (CTF) nor {LAYOUT_MARK} (OCI layout)"))
            );
        }
        Ok(local)
    }

    fn ctf(&self, index: &[u8]) -> Result<Vec<Artifact>> {
        let index: ArtifactIndex =
            serde_json::from_slice(index).map_err(|e| self.broken(&format!("{CTF_INDEX} is broken: {e}")))?;
        if index.schema_version != 1 {
            return Err(self
                .broken(&format!("{CTF_INDEX} has schema {}: only 1 is understood", index.schema_version)));
        }
        Ok(index.artifacts)
    }

    fn broken(&self, why: &str) -> InstallError {
        InstallError::new(
            Trouble::BadContent,
            format!("{}: no archive of component versions: {why}", self.path.display()),
        )
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything that its table lists.
    #[must_use]
    pub fn artifacts(&self) -> &[Artifact] {
        &self.artifacts
    }

    /// Names and versions of its components.
    pub fn components(&self) -> impl Iterator<Item = (&str, String)> {
        self.artifacts.iter().filter_map(|artifact| {
            let (_, name) = artifact.repository.split_once(DESCRIPTORS)?;
            Some((name.strip_prefix('/')?, version_of(artifact.tag.as_deref()?)))
        })
    }

    /// The manifest of a component's version.
    #[must_use]
    pub fn find(&self, component: &str, version: &str) -> Option<&Artifact> {
        let repository = format!("{DESCRIPTORS}/{component}");
        let is_it = |artifact: &&Artifact| {
            let place = artifact.repository.as_str();
            place == repository || place.ends_with(&format!("/{repository}")) || place.is_empty()
        };
        let tag = tag_of(version);
        self.artifacts.iter().filter(is_it).find(|artifact| artifact.tag.as_ref() == Some(&tag))
    }

    /// A blob of this digest.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub fn blob(&self, digest: &Digest) -> Result<Section> {
        let name = (self.blobs)(digest);
        self.section(&name)?.ok_or_else(|| {
            InstallError::new(
                Trouble::BadContent,
                format!("{}: it has no blob {digest}", self.path.display()),
            )
        })
    }

    /// A whole small blob, its digest checked.
    ///
    /// # Errors
    /// It is not there, larger than `most` bytes, or its bytes have another digest.
    pub fn small(&self, digest: &Digest, most: u64) -> Result<Vec<u8>> {
        let section = self.blob(digest)?;
        let bytes = self.whole(section, most)?;
        check(&self.path.display().to_string(), digest, &Digest::of(&bytes))?;
        Ok(bytes)
    }

    fn text(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
        self.section(name)?.map(|section| self.whole(section, most)).transpose()
    }

    fn whole(&self, section: Section, most: u64) -> Result<Vec<u8>> {
        if section.length > most {
            return Err(
                self.broken(&format!("a part of {} bytes is larger than the {most} allowed", section.length))
            );
        }
        let mut bytes = Vec::new();
        section
            .take(most)
            .read_to_end(&mut bytes)
            .map_err(|e| InstallError::file("cannot be read", &self.path, &e))?;
        Ok(bytes)
    }

    fn section(&self, name: &str) -> Result<Option<Section>> {
        match &self.place {
            Place::Folder => {
                let path = self.path.join(name);
                let failed = |e: io::Error| InstallError::file("cannot be read", &path, &e);
                let about = match std::fs::symlink_metadata(&path) {
                    Ok(about) => about,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(e) => return Err(failed(e)),
                };
                // A link could lead anywhere, a pipe would never end.
                if !about.is_file() {
                    return Err(self.broken(&format!("{name} is no plain file")));
                }
                let file = File::open(&path).map_err(failed)?;
                Ok(Some(Section { file, length: about.len() }))
            }
            Place::Tar { file, table } => {
                let Some((start, length)) = table.get(name) else { return Ok(None) };
                let failed = |e: io::Error| InstallError::file("cannot be read", &self.path, &e);
                let mut file = file.try_clone().map_err(failed)?;
                file.seek(SeekFrom::Start(*start)).map_err(failed)?;
                Ok(Some(Section { file, length: *length }))
            }
        }
    }
}

impl Place {
    fn tar(path: &Path, limits: Limits) -> Result<Self> {
        let failed = |e: io::Error| InstallError::file("cannot be read", path, &e);
        let mut file = File::open(path).map_err(failed)?;
        let mut magic = [0; 2];
        let count = file.read(&mut magic).map_err(failed)?;
        file.rewind().map_err(failed)?;
        if count == 2 && magic == [0x1f, 0x8b] {
            file = decompressed(file, path, limits.archive)?;
        }
        let table = table(&mut file, path, limits)?;
        Ok(Self::Tar { file, table })
    }
}

/// The same without gzip, in a file that has no name and goes with the process.
fn decompressed(file: File, path: &Path, most: u64) -> Result<File> {
    let scratch = |e: io::Error| InstallError::file("cannot be unpacked", &std::env::temp_dir(), &e);
    let mut plain = tempfile::tempfile().map_err(scratch)?;
    let mut reader = flate2::read::MultiGzDecoder::new(io::BufReader::new(file)).take(most + 1);
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0;
    loop {
        let count = reader.read(&mut buffer).map_err(|e| {
            InstallError::new(Trouble::BadContent, format!("{}: broken gzip: {e}", path.display()))
        })?;
        if count == 0 {
            break;
        }
        total += count as u64;
        if total > most {
            let what = format!("{}: unpacks to more than the {most} bytes allowed", path.display());
            return Err(InstallError::new(Trouble::BadContent, what));
        }
        plain.write_all(buffer.get(..count).unwrap_or_default()).map_err(scratch)?;
    }
    plain.rewind().map_err(scratch)?;
    Ok(plain)
}

/// Where each file of a tar lies.
fn table(file: &mut File, path: &Path, limits: Limits) -> Result<HashMap<String, (u64, u64)>> {
    let broken = |why: String| {
        InstallError::new(Trouble::BadContent, format!("{}: broken archive: {why}", path.display()))
    };
    let mut table = HashMap::new();
    let length = file.metadata().map_err(|e| InstallError::file("cannot be read", path, &e))?.len();
    let mut archive = tar::Archive::new(file);
    for (count, entry) in archive.entries_with_seek().map_err(|e| broken(e.to_string()))?.enumerate() {
        if count >= limits.entries {
            return Err(broken(format!("it has more than {} entries", limits.entries)));
        }
        let entry = entry.map_err(|e| broken(e.to_string()))?;
        let Some(name) = checked_name(&entry).map_err(&broken)? else { continue };
        let (start, size) = (entry.raw_file_position(), entry.size());
        if start.checked_add(size).is_none_or(|end| end > length) {
            return Err(broken(format!("`{name}` is cut off")));
        }
        if table.insert(name.clone(), (start, size)).is_some() {
            return Err(broken(format!("`{name}` is in it twice")));
        }
    }
    Ok(table)
}

/// The name of a plain file in an archive; none for folders and notes.
///
/// # Errors
/// It is a link or device, or its name leads out of the archive.
pub(crate) fn checked_name<R: Read>(
    entry: &tar::Entry<'_, R>,
) -> std::result::Result<Option<String>, String> {
    let kind = entry.header().entry_type();
    let name = entry.path().map_err(|e| e.to_string())?.into_owned();
    let shown = name.display().to_string();
    let mut parts = Vec::new();
    for part in name.components() {
        match part {
            Part::CurDir => {}
            Part::Normal(part) => {
                parts.push(part.to_str().ok_or_else(|| format!("the name `{shown}` is no UTF-8"))?)
            }
            Part::ParentDir | Part::RootDir | Part::Prefix(_) => {
                return Err(format!("`{shown}` leads out of the archive"));
            }
        }
    }
    match kind {
        tar::EntryType::Regular | tar::EntryType::Continuous => Ok(Some(parts.join("/"))),
        tar::EntryType::Directory | tar::EntryType::XGlobalHeader => Ok(None),
        _ => Err(format!("`{shown}` is a link or device; only plain files are taken")),
    }
}

fn layout(index: &Manifest) -> Vec<Artifact> {
    let said = |annotations: &Option<Map<String, Value>>, name: &str| {
        annotations.as_ref().and_then(|a| a.get(name)).and_then(Value::as_str).map(str::to_owned)
    };
    let entries = index.manifests.iter().flatten();
    entries
        .map(|entry| {
            let name = said(&entry.annotations, REF_NAME);
            let component = said(&entry.annotations, media::COMPONENT_VERSION);
            // `repository:tag`, only the tag, or neither; the component may stand beside it.
            let (repository, tag) =
                match (name.as_deref(), component.as_deref().and_then(|c| c.rsplit_once(':'))) {
                    (Some(name), _) if name.contains('/') => match name.rsplit_once(':') {
                        Some((repository, tag)) => (repository.to_owned(), Some(tag.to_owned())),
                        None => (name.to_owned(), None),
                    },
                    (tag, Some((component, version))) => (
                        format!("{DESCRIPTORS}/{component}"),
                        Some(tag.map_or_else(|| tag_of(version), str::to_owned)),
                    ),
                    (tag, None) => (String::new(), tag.map(str::to_owned)),
                };
            Artifact { repository, tag, digest: entry.digest, media_type: Some(entry.media_type.clone()) }
        })
        .collect()
}

/// Whether bytes are what they should be.
pub(crate) fn check(place: &str, expected: &Digest, found: &Digest) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(InstallError::new(
        Trouble::Untrusted,
        format!("{place}: the bytes are not what their digest says: {expected} was announced, {found} came"),
    )
    .hint("nothing was installed; somebody or something changed them: ask who published it"))
}

/// The digest and length of a file.
///
/// # Errors
/// It cannot be read.
pub(crate) fn digest_of_file(path: &Path) -> Result<(Digest, u64)> {
    let failed = |e: io::Error| InstallError::file("cannot be read", path, &e);
    digest::of_reader(io::BufReader::with_capacity(256 * 1024, File::open(path).map_err(failed)?))
        .map_err(failed)
}
