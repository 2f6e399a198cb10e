//! Secrets in files below one folder: `<ref>.yaml`, `.yml`, `.json`, or `.netrc`.
//!
//! YAML and JSON hold one object of fields. A netrc file holds entries by host: the one of the
//! job's device is taken, else `default`; `login` is the field `username`.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use netpulse_model::{ConnectionArgs, CredentialRef};
use netpulse_plugin::{CredentialProvider, Failed, PluginError, SecretValues};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::fields::Fields;
use crate::path;

/// Largest file that is read, bytes.
const LARGEST: u64 = 1024 * 1024;
const ENDINGS: [&str; 4] = ["yaml", "yml", "json", "netrc"];
/// Writable by the group, or open to others in any way.
const TOO_OPEN: u32 = 0o027;
/// As [`TOO_OPEN`], for folders: who may write there may put another file in its place.
const FOLDER_TOO_OPEN: u32 = 0o022;

/// The provider `file`.
pub struct Files {
    dir: PathBuf,
}

impl Files {
    /// Secrets below `dir`.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }
}

/// Refuses what only Vault knows.
pub(crate) fn knows_only_paths(provider: &str, reference: &CredentialRef) -> Result<(), PluginError> {
    let vaults = [
        ("mount", reference.mount.is_some()),
        ("version", reference.version.is_some()),
        ("namespace", reference.namespace.is_some()),
    ];
    match vaults.iter().find(|(_, given)| *given) {
        Some((key, _)) => {
            let sentence = format!("The credential provider `{provider}` knows no `{key}`: leave it out");
            Err(PluginError::new(Failed::BadRequest, sentence))
        }
        None => Ok(()),
    }
}

fn refuse(kind: Failed, path: &Path, why: impl std::fmt::Display) -> PluginError {
    PluginError::new(kind, format!("The secret's file {} {why}", path.display()))
}

#[async_trait]
impl CredentialProvider for Files {
    fn name(&self) -> &str {
        "file"
    }

    fn check(&self, reference: &CredentialRef) -> Result<(), PluginError> {
        knows_only_paths("file", reference)?;
        let parts = path::segments("reference", &reference.reference)?;
        if parts.iter().any(|part| part.starts_with('.') || part.contains('\\')) {
            let sentence =
                format!("The reference `{}` must not have a part that begins with `.`", reference.reference);
            return Err(PluginError::new(Failed::BadRequest, sentence));
        }
        Ok(())
    }

    async fn get(
        &self,
        reference: &CredentialRef,
        args: &ConnectionArgs,
    ) -> Result<SecretValues, PluginError> {
        self.check(reference)?;
        let (dir, name) = (self.dir.clone(), reference.reference.clone());
        let host = args.host().unwrap_or_default().to_owned();
        let read = tokio::task::spawn_blocking(move || read(&dir, &name, &host)).await;
        let fields =
            read.map_err(|_| PluginError::new(Failed::Faulty, "The reader of the secret's file crashed"))??;
        fields.mapped(reference)
    }

    async fn validate(&self) -> Result<Map<String, Value>, PluginError> {
        let dir = self.dir.clone();
        let checked = tokio::task::spawn_blocking(move || {
            let real = std::fs::canonicalize(&dir).map_err(|error| {
                refuse(Failed::Unavailable, &dir, format_args!("cannot be read: {error}"))
            })?;
            folder(&real)
        });
        checked.await.map_err(|_| PluginError::new(Failed::Faulty, "The check of the folder crashed"))??;
        let mut seen = Map::new();
        seen.insert("success".into(), true.into());
        seen.insert("dir".into(), self.dir.display().to_string().into());
        Ok(seen)
    }
}

/// The user that this process runs as.
fn own_user() -> Option<u32> {
    std::fs::metadata("/proc/self").ok().map(|meta| meta.uid())
}

/// Whether an owner's word counts: root's, or our own user's.
fn trusted(owner: u32) -> bool {
    owner == 0 || own_user() == Some(owner)
}

fn folder(dir: &Path) -> Result<(), PluginError> {
    let meta = std::fs::metadata(dir)
        .map_err(|error| refuse(Failed::Unavailable, dir, format_args!("cannot be read: {error}")))?;
    if !trusted(meta.uid()) {
        let why = format_args!("lies in a folder of another user (uid {}): change its owner", meta.uid());
        return Err(refuse(Failed::Denied, dir, why));
    }
    if meta.mode() & FOLDER_TOO_OPEN != 0 {
        let why = format_args!(
            "lies in a folder that others may write to (mode {:o}): chmod go-w it",
            meta.mode() & 0o777
        );
        return Err(refuse(Failed::Denied, dir, why));
    }
    Ok(())
}

/// Reads the file of a reference whose parts have been checked.
fn read(dir: &Path, name: &str, host: &str) -> Result<Fields, PluginError> {
    let top = std::fs::canonicalize(dir)
        .map_err(|error| refuse(Failed::Unavailable, dir, format_args!("cannot be read: {error}")))?;
    let found = ENDINGS.iter().find_map(|ending| {
        let path = top.join(format!("{name}.{ending}"));
        std::fs::canonicalize(&path).ok().map(|real| (*ending, path, real))
    });
    let Some((ending, path, real)) = found else {
        let sentence = format!(
            "Secret not found: there is no file `{name}` ending in .yaml, .yml, .json or .netrc below \
             `credential.dir`"
        );
        return Err(PluginError::new(Failed::NotFound, sentence));
    };
    // A link may lead to another place in the folder (as Kubernetes does), never out of it.
    if !real.starts_with(&top) {
        return Err(refuse(Failed::Denied, &path, "leads out of `credential.dir`"));
    }
    for parent in real.ancestors().skip(1).take_while(|parent| parent.starts_with(&top)) {
        folder(parent)?;
    }
    let unreadable =
        |error: std::io::Error| refuse(Failed::Unavailable, &path, format_args!("cannot be read: {error}"));
    let mut file = std::fs::File::open(&real).map_err(unreadable)?;
    // Of the open file: what was checked is what is read.
    let meta = file.metadata().map_err(unreadable)?;
    if !meta.is_file() {
        return Err(refuse(Failed::Denied, &path, "is no regular file"));
    }
    if !trusted(meta.uid()) {
        let why = format_args!("belongs to another user (uid {}): change its owner", meta.uid());
        return Err(refuse(Failed::Denied, &path, why));
    }
    if meta.mode() & TOO_OPEN != 0 {
        let why = format_args!("can be read by others (mode {:o}): chmod 600 it", meta.mode() & 0o777);
        return Err(refuse(Failed::Denied, &path, why));
    }
    if meta.len() > LARGEST {
        return Err(refuse(Failed::NotFound, &path, "is larger than 1 MiB"));
    }
    let size = usize::try_from(meta.len()).unwrap_or_default();
    // Large enough from the start: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size + 1));
    file.by_ref().take(LARGEST).read_to_end(&mut bytes).map_err(unreadable)?;
    let text =
        std::str::from_utf8(&bytes).map_err(|_| refuse(Failed::NotFound, &path, "is not valid UTF-8"))?;
    match ending {
        // The parsers' own words may quote the text: they are not passed on.
        "json" => serde_json::from_str(text).map_err(|error| {
            refuse(Failed::NotFound, &path, format_args!("is no JSON object (line {})", error.line()))
        }),
        "netrc" => netrc(text, host).ok_or_else(|| {
            refuse(Failed::NotFound, &path, format_args!("has no entry for `{host}` and no `default`"))
        }),
        _ => yaml_serde::from_str(text).map_err(|error| {
            let line = error.location().map(|at| format!(" (line {})", at.line())).unwrap_or_default();
            refuse(Failed::NotFound, &path, format_args!("is no YAML mapping{line}"))
        }),
    }
}

/// The entry of `host` in a netrc file, else `default`.
fn netrc(text: &str, host: &str) -> Option<Fields> {
    let mut words = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace)
        .peekable();
    let mut default = None;
    while let Some(word) = words.next() {
        let mine = match word {
            "machine" => words.next().is_some_and(|name| name.eq_ignore_ascii_case(host)),
            "default" => true,
            _ => continue,
        };
        let mut fields = Fields::default();
        while let Some(key) = words.next_if(|word| !matches!(*word, "machine" | "default")) {
            let field = if key == "login" { "username" } else { key };
            if let Some(value) = words.next() {
                fields.0.insert(field.to_owned(), Zeroizing::new(value.to_owned()));
            }
        }
        match (word, mine) {
            ("machine", true) => return Some(fields),
            ("default", _) => {
                default.get_or_insert(fields);
            }
            _ => {}
        }
    }
    default
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn put(&self, name: &str, text: &str, mode: u32) {
            let path = self.0.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        }

        async fn get(&self, reference: &str, host: &str) -> Result<Vec<String>, PluginError> {
            let mut args = ConnectionArgs::default();
            args.0.insert("host".into(), host.into());
            let values =
                Files::new(self.0.path().to_owned()).get(&CredentialRef::to(reference), &args).await?;
            Ok(values.0.iter().map(|(k, v)| format!("{k}={}", v.as_str())).collect())
        }

        async fn refusal(&self, reference: &str) -> (Failed, String) {
            let error = self.get(reference, "h").await.unwrap_err();
            (error.kind, error.message)
        }
    }

    #[tokio::test]
    async fn each_kind_of_file_is_read() {
        let folder = Folder::new();
        folder.put("sites/hq.yaml", "username: ops\npassword: 'p w'\nnote: null\n", 0o600);
        folder.put("lab.json", r#"{"username": "lab", "password": 42}"#, 0o400);
        folder.put(
            "all.netrc",
            "# devices\nmachine sw1 login a password b\ndefault\n  login d password e\nmachine sw2 login x",
            0o640,
        );
        assert_eq!(folder.get("sites/hq", "h").await.unwrap(), ["password=p w", "username=ops"]);
        assert_eq!(folder.get("lab", "h").await.unwrap(), ["password=42", "username=lab"]);
        assert_eq!(folder.get("all", "SW1").await.unwrap(), ["password=b", "username=a"]);
        assert_eq!(folder.get("all", "sw9").await.unwrap(), ["password=e", "username=d"]);
        let incomplete = folder.get("all", "sw2").await.unwrap_err();
        assert_eq!(incomplete.message, "Missing required secret fields: password");
    }

    #[tokio::test]
    async fn files_that_others_may_read_or_replace_are_refused() {
        let folder = Folder::new();
        let text = "username: ops\npassword: s3cret-word\n";
        for mode in [0o644, 0o604, 0o666, 0o620] {
            folder.put("a.yaml", text, mode);
            let (kind, message) = folder.refusal("a").await;
            assert_eq!(kind, Failed::Denied, "{mode:o}");
            assert!(message.contains("chmod 600") && !message.contains("s3cret"), "{message}");
        }
        folder.put("open/a.yaml", text, 0o600);
        let open = folder.0.path().join("open");
        std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(folder.refusal("open/a").await.1.contains("others may write"), "a folder of everybody");
    }

    #[tokio::test]
    async fn nothing_outside_the_folder_is_read() {
        let (folder, outside) = (Folder::new(), Folder::new());
        outside.put("a.yaml", "username: u\npassword: p\n", 0o600);
        symlink(outside.0.path().join("a.yaml"), folder.0.path().join("link.yaml")).unwrap();
        let (kind, message) = folder.refusal("link").await;
        assert!(kind == Failed::Denied && message.contains("leads out"), "{message}");
        folder.put("..data/b.yaml", "username: u\npassword: p\n", 0o600);
        symlink(folder.0.path().join("..data/b.yaml"), folder.0.path().join("b.yaml")).unwrap();
        assert!(folder.get("b", "h").await.is_ok(), "a link within the folder, as Kubernetes makes them");
        for climbing in ["../a", "a/../../b", "/etc/passwd", ".hidden", "..data/b"] {
            assert_eq!(folder.refusal(climbing).await.0, Failed::BadRequest, "{climbing}");
        }
        assert_eq!(folder.refusal("none").await.0, Failed::NotFound);
    }

    #[tokio::test]
    async fn promise_12_a_broken_file_is_not_quoted() {
        let folder = Folder::new();
        folder.put("a.yaml", "s3cret-word", 0o600);
        folder.put("b.json", r#"{"password": s3cret-word}"#, 0o600);
        folder.put("c.yaml", "password: [s3cret-word\nx: {", 0o600);
        for name in ["a", "b", "c"] {
            let (kind, message) = folder.refusal(name).await;
            assert!(kind == Failed::NotFound && !message.contains("s3cret"), "{message}");
        }
    }
}
