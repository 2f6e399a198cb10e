//! `plugins.lock`: what each installed file was when it was put there, and where it came from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use netpulse_model::Timestamp;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::error::{InstallError, Result, Trouble};
use super::local::digest_of_file;
use super::stage::write_whole;

/// The file's name, in the folder of the plugins.
pub const FILE: &str = "plugins.lock";

/// What is known of the files in one folder.
#[derive(Debug, Clone, Default)]
pub struct Lock {
    folder: PathBuf,
    entries: BTreeMap<String, Entry>,
}

/// One installed file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The digest of the file.
    pub sha256: Digest,
    /// The reference or path that it came from.
    pub source: String,
    /// The component's version; empty for a plain file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// The resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<PinnedResource>,
    /// When it was put there.
    pub installed_at: Timestamp,
    /// Whose signature was found good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// Whether a person accepted the bytes as they were found.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accepted: bool,
}

/// The resource that a file is from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedResource {
    /// The component.
    pub component: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// What tells it from others.
    pub identity: BTreeMap<String, String>,
    /// The blob as it was stored.
    pub blob: Digest,
}

/// What the lock says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// As it was installed.
    Unchanged,
    /// Not as it was installed: it must not be run.
    Changed {
        /// What was installed.
        expected: Digest,
        /// What is there.
        found: Digest,
    },
    /// Nobody installed it; it was put there by hand.
    Unlisted,
    /// It was installed and is gone.
    Missing,
    /// It is there and cannot be read: it must not be run.
    Unreadable {
        /// A sentence that says why.
        why: String,
    },
}

impl Verdict {
    /// One word for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Changed { .. } => "changed",
            Self::Unlisted => "unlisted",
            Self::Missing => "missing",
            Self::Unreadable { .. } => "unreadable",
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    plugins: BTreeMap<String, Entry>,
}

impl Lock {
    /// Reads a folder's lock; a folder without one has an empty one.
    ///
    /// # Errors
    /// It cannot be read or is broken.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self { folder: folder.to_owned(), entries: BTreeMap::new() });
            }
            Err(e) => return Err(InstallError::file("cannot be read", &path, &e)),
        };
        let broken = |why: String| {
            InstallError::new(Trouble::BadContent, format!("{}: the lock is broken: {why}", path.display()))
                .hint("restore it, or remove it and accept the files that are there with `netpulse plugin verify --accept`")
        };
        let document: Document = serde_json::from_slice(&bytes).map_err(|e| broken(e.to_string()))?;
        if document.version != 1 {
            return Err(broken(format!("its version is {}, only 1 is understood", document.version)));
        }
        Ok(Self { folder: folder.to_owned(), entries: document.plugins })
    }

    /// Writes it whole, or leaves the old one.
    ///
    /// # Errors
    /// The folder does not take it.
    pub fn write(&self) -> Result<()> {
        let document = Document { version: 1, plugins: self.entries.clone() };
        let mut text = serde_json::to_string_pretty(&document)
            .map_err(|e| InstallError::new(Trouble::Local, format!("the lock cannot be written: {e}")))?;
        text.push('\n');
        write_whole(&self.folder.join(FILE), text.as_bytes())
    }

    /// What it says of a file of its folder, or of a folder below. Reads and hashes the whole file:
    /// not for an asynchronous thread.
    #[must_use]
    pub fn check(&self, path: &Path) -> Verdict {
        let entry = self.name_of(path).and_then(|name| self.entries.get(&name));
        let Some(entry) = entry else { return Verdict::Unlisted };
        if !path.exists() {
            return Verdict::Missing;
        }
        match digest_of_file(path) {
            Ok((found, _)) if found == entry.sha256 => Verdict::Unchanged,
            Ok((found, _)) => Verdict::Changed { expected: entry.sha256, found },
            Err(error) => Verdict::Unreadable { why: error.message },
        }
    }

    /// The name of a file in this lock: its path below the folder.
    fn name_of(&self, path: &Path) -> Option<String> {
        let relative = match path.strip_prefix(&self.folder) {
            Ok(relative) => relative.to_owned(),
            // The same folder by another name, through a link for example.
            Err(_) => {
                let parent = path.parent()?.canonicalize().ok()?;
                let folder = self.folder.canonicalize().ok()?;
                parent.strip_prefix(folder).ok()?.join(path.file_name()?)
            }
        };
        relative.to_str().map(str::to_owned)
    }

    /// The entry of a file.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// Every entry by name.
    #[must_use]
    pub fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Notes a file.
    pub fn insert(&mut self, name: &str, entry: Entry) {
        self.entries.insert(name.to_owned(), entry);
    }

    /// Forgets a file.
    pub fn remove(&mut self, name: &str) -> Option<Entry> {
        self.entries.remove(name)
    }

    /// Every file that is noted, or lies in the folder as a plugin would, and what is said of it.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn check_all(&self) -> Result<Vec<(String, Verdict)>> {
        let mut names: std::collections::BTreeSet<String> = self.entries.keys().cloned().collect();
        let failed = |e: std::io::Error| InstallError::file("cannot be read", &self.folder, &e);
        let listing = match std::fs::read_dir(&self.folder) {
            Ok(listing) => listing.collect::<std::io::Result<Vec<_>>>().map_err(failed)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(failed(e)),
        };
        for entry in listing {
            let path = entry.path();
            // A plugin is a file without extension.
            let plain = entry.file_type().map_err(failed)?.is_file() && path.extension().is_none();
            if let Some(name) = entry.file_name().to_str().filter(|name| plain && !name.starts_with('.')) {
                names.insert(name.to_owned());
            }
        }
        let said = |name: String| {
            let verdict = self.check(&self.folder.join(&name));
            (name, verdict)
        };
        Ok(names.into_iter().map(said).collect())
    }

    /// Takes files as they are now. A signature no longer speaks for a file that was changed.
    ///
    /// # Errors
    /// A name is neither noted nor a file, or a file cannot be read.
    pub fn accept(&mut self, names: &[String]) -> Result<Vec<String>> {
        let mut taken = Vec::new();
        for name in names {
            let path = self.folder.join(name);
            let safe =
                Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
            if !safe || !path.is_file() {
                let what = format!("{}: there is no file `{name}` to accept", self.folder.display());
                return Err(InstallError::new(Trouble::NotFound, what));
            }
            let (found, _) = digest_of_file(&path)?;
            if self.entries.get(name).is_some_and(|entry| entry.sha256 == found) {
                continue;
            }
            let old = self.entries.remove(name);
            let entry = Entry {
                sha256: found,
                source: old
                    .as_ref()
                    .map_or_else(|| "a file put there by hand".to_owned(), |old| old.source.clone()),
                version: old.as_ref().map(|old| old.version.clone()).unwrap_or_default(),
                resource: old.and_then(|old| old.resource),
                installed_at: Timestamp::now(),
                signer: None,
                accepted: true,
            };
            self.entries.insert(name.clone(), entry);
            taken.push(name.clone());
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_told_until_somebody_accepts_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("acme");
        std::fs::write(&file, "one").unwrap();
        std::fs::write(folder.path().join("notes.txt"), "no plugin").unwrap();
        let mut lock = Lock::read(folder.path()).unwrap();
        assert_eq!(lock.check(&file), Verdict::Unlisted);
        lock.insert(
            "acme",
            Entry {
                sha256: Digest::of(b"one"),
                source: "x".into(),
                version: "1".into(),
                resource: None,
                installed_at: Timestamp::now(),
                signer: Some("me".into()),
                accepted: false,
            },
        );
        lock.insert(
            "gone",
            Entry {
                sha256: Digest::of(b""),
                source: "x".into(),
                version: String::new(),
                resource: None,
                installed_at: Timestamp::now(),
                signer: None,
                accepted: false,
            },
        );
        lock.write().unwrap();
        let mut lock = Lock::read(folder.path()).unwrap();
        assert_eq!(lock.check(&file), Verdict::Unchanged);
        std::fs::write(&file, "two").unwrap();
        let changed = Verdict::Changed { expected: Digest::of(b"one"), found: Digest::of(b"two") };
        assert_eq!(
            lock.check_all().unwrap(),
            [("acme".to_owned(), changed), ("gone".to_owned(), Verdict::Missing)]
        );
        assert_eq!(lock.accept(&["acme".to_owned()]).unwrap(), ["acme"]);
        assert_eq!(lock.check(&file), Verdict::Unchanged);
        let entry = lock.get("acme").unwrap();
        assert!(entry.accepted && entry.signer.is_none() && entry.version == "1", "{entry:?}");
        assert!(lock.accept(&["gone".to_owned()]).is_err() && lock.accept(&["../x".to_owned()]).is_err());
        assert!(lock.accept(&["acme".to_owned()]).unwrap().is_empty());
    }

    #[test]
    fn a_folder_by_another_name_is_the_same_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        std::fs::write(real.join("acme"), "one").unwrap();
        let mut lock = Lock::read(&link).unwrap();
        lock.accept(&["acme".to_owned()]).unwrap();
        assert_eq!(lock.check(&real.join("acme")), Verdict::Unchanged);
    }

    #[test]
    fn a_broken_lock_is_told() {
        let folder = tempfile::tempdir().unwrap();
        for (text, said) in
            [("{", "the lock is broken"), ("{\"version\":2,\"plugins\":{}}", "its version is 2")]
        {
            std::fs::write(folder.path().join(FILE), text).unwrap();
            let error = Lock::read(folder.path()).unwrap_err();
            assert!(error.message.contains(said) && error.hint.is_some(), "{error}");
        }
    }
}
