//! The store of host keys: which key a device showed when it was first met (promise 13).
//!
//! The file is a subset of OpenSSH's `known_hosts`: one `host keytype base64 [comment]` a line, the
//! host in plain text and written `[host]:port` off port 22. Lines of other forms (hashed hosts,
//! patterns, `@cert-authority`) are kept and ignored; `@revoked` lines refuse their key everywhere.
//! The whole store is held in memory; a new key is appended, by several connections in one write.
//! Other processes may edit the file (`ssh-keygen -R`): before a key is refused the file is read
//! again.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use netpulse_model::ErrorCode;
use parking_lot::Mutex;
use russh::keys::{Algorithm, HashAlg, PublicKey};

use super::tcp::place;
use crate::error::SessionError;

/// What to do with a host key that is not in the store. A key that differs from the stored one is
/// refused by both of the first two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostKeyPolicy {
    /// Store it and go on.
    #[default]
    AcceptNew,
    /// Refuse it.
    Strict,
    /// Take any key, changed ones too, and store nothing.
    Off,
}

/// A stored key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKeyEntry {
    /// The host as stored: `192.0.2.1`, or `[192.0.2.1]:2222`.
    pub host: String,
    /// `ssh-ed25519`, `rsa-sha2-512` and so on.
    pub algorithm: String,
    /// `SHA256:...`
    pub fingerprint: String,
}

/// A store of host keys. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct HostKeys {
    shared: Arc<Shared>,
}

struct Shared {
    path: Option<PathBuf>,
    keys: Mutex<Keys>,
    /// Held while the file is written; whoever waits finds its line written by another.
    writer: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Keys {
    by_host: HashMap<String, Vec<PublicKey>>,
    revoked: Vec<PublicKey>,
    /// Lines that are in memory and not yet in the file.
    unwritten: Vec<String>,
}

impl std::fmt::Debug for HostKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostKeys").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

/// The name that a host and port have in the store.
fn stored_name(host: &str, port: u16) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

fn fingerprint(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))
}

/// What a line of the file says.
enum Line {
    Key(Vec<String>, PublicKey),
    Revoked(PublicKey),
    /// A comment, a blank, or a form that we do not read.
    Other,
}

fn read_line(line: &str) -> Line {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Line::Other;
    }
    let (revoked, line) = match line.strip_prefix("@revoked") {
        Some(rest) => (true, rest.trim_start()),
        None => (false, line),
    };
    let Some((hosts, key)) = line.split_once(char::is_whitespace) else { return Line::Other };
    let Ok(mut key) = PublicKey::from_openssh(key.trim()) else { return Line::Other };
    key.set_comment("");
    if revoked {
        return Line::Revoked(key);
    }
    if hosts.starts_with(['@', '|']) || hosts.contains(['*', '?', '!']) {
        return Line::Other;
    }
    Line::Key(hosts.split(',').map(str::to_ascii_lowercase).collect(), key)
}

fn read_all(text: &str) -> Keys {
    let mut keys = Keys::default();
    for line in text.lines() {
        match read_line(line) {
            Line::Key(hosts, key) => {
                for host in hosts {
                    keys.by_host.entry(host).or_default().push(key.clone());
                }
            }
            Line::Revoked(key) => keys.revoked.push(key),
            Line::Other => {}
        }
    }
    keys
}

fn read_file(path: &Path) -> io::Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// Other processes on the same store wait for one another on a file beside it: the store itself
/// is replaced when lines are removed.
fn lock(path: &Path) -> io::Result<File> {
    let file = private().create(true).truncate(false).write(true).open(path.with_extension("lock"))?;
    file.lock()?;
    Ok(file)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn append(path: &Path, lines: &[String]) -> io::Result<()> {
    let _lock = lock(path)?;
    // An editor may have left a last line without its end.
    let broken_end = fs::read(path).is_ok_and(|text| text.last().is_some_and(|byte| *byte != b'\n'));
    let mut text = if broken_end { "\n".to_owned() } else { String::new() };
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    let mut file = private().create(true).append(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()
}

/// Rewrites the file without the lines that name `host`; how many keys went.
fn rewrite_without(path: &Path, host: &str) -> io::Result<usize> {
    let _lock = lock(path)?;
    let text = read_file(path)?;
    let mut kept = String::with_capacity(text.len());
    let mut gone = 0;
    for line in text.lines() {
        if let Line::Key(hosts, _) = read_line(line)
            && hosts.iter().any(|h| h == host)
        {
            gone += 1;
            let others: Vec<&str> = hosts.iter().map(String::as_str).filter(|h| *h != host).collect();
            if let (false, Some((_, key))) = (others.is_empty(), line.trim().split_once(char::is_whitespace))
            {
                kept.push_str(&format!("{} {key}\n", others.join(",")));
            }
            continue;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    if gone > 0 {
        let temporary = path.with_extension("new");
        let mut file = private().create(true).truncate(true).write(true).open(&temporary)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(kept.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
    }
    Ok(gone)
}

impl HostKeys {
    /// The store in the file at `path`, which need not exist yet. Reads the file: call it at start.
    ///
    /// # Errors
    /// `Internal`, when the file exists and cannot be read.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, SessionError> {
        let path = path.into();
        let text = read_file(&path).map_err(|error| {
            SessionError::new(
                ErrorCode::Internal,
                format!("the host-key store {} cannot be read: {error}", path.display()),
            )
        })?;
        Ok(Self::with(Some(path), read_all(&text)))
    }

    /// A store that is forgotten with the process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::with(None, Keys::default())
    }

    fn with(path: Option<PathBuf>, keys: Keys) -> Self {
        Self {
            shared: Arc::new(Shared { path, keys: Mutex::new(keys), writer: tokio::sync::Mutex::new(()) }),
        }
    }

    /// The file, when there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.shared.path.as_deref()
    }

    /// Every stored key, sorted by host.
    #[must_use]
    pub fn list(&self) -> Vec<HostKeyEntry> {
        let keys = self.shared.keys.lock();
        let mut entries: Vec<HostKeyEntry> = keys
            .by_host
            .iter()
            .flat_map(|(host, keys)| {
                keys.iter().map(|key| HostKeyEntry {
                    host: host.clone(),
                    algorithm: key.algorithm().to_string(),
                    fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
                })
            })
            .collect();
        entries.sort_by(|a, b| (&a.host, &a.algorithm).cmp(&(&b.host, &b.algorithm)));
        entries
    }

    /// Forgets every key of `host` on `port`; how many there were.
    ///
    /// # Errors
    /// `Internal`, when the file cannot be rewritten; nothing is forgotten then.
    pub async fn remove(&self, host: &str, port: u16) -> Result<usize, SessionError> {
        let name = stored_name(host, port);
        let _writer = self.shared.writer.lock().await;
        let mut gone = 0;
        if let Some(path) = self.shared.path.clone() {
            let name = name.clone();
            gone = self.file_work(move || rewrite_without(&path, &name)).await?;
        }
        let mut keys = self.shared.keys.lock();
        let held = keys.by_host.remove(&name).map_or(0, |keys| keys.len());
        keys.unwritten.retain(|line| line.split(' ').next() != Some(&name));
        Ok(gone.max(held))
    }

    /// Runs file work off the async threads.
    async fn file_work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, SessionError> {
        let place = self.shared.path.as_deref().unwrap_or(Path::new("")).display().to_string();
        let told = |error: String| {
            SessionError::new(
                ErrorCode::Internal,
                format!("the host-key store {place} cannot be written: {error}"),
            )
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(told(error.to_string())),
            Err(error) => Err(told(error.to_string())),
        }
    }

    /// The algorithms of the keys stored for a host: a client asks for these first, so that a
    /// device with several keys shows the one we know.
    #[must_use]
    pub(super) fn algorithms(&self, host: &str, port: u16) -> Vec<Algorithm> {
        let keys = self.shared.keys.lock();
        keys.by_host
            .get(&stored_name(host, port))
            .map(|keys| keys.iter().map(PublicKey::algorithm).collect())
            .unwrap_or_default()
    }

    /// Judges the key that a host showed; under `accept-new` an unknown one is stored before this
    /// returns.
    ///
    /// # Errors
    /// `HostKeyChanged` or `HostKeyUnknown`, saying how to accept the key; `Internal` when a new
    /// key cannot be stored.
    pub async fn check(
        &self,
        host: &str,
        port: u16,
        key: &PublicKey,
        policy: HostKeyPolicy,
    ) -> Result<(), SessionError> {
        if policy == HostKeyPolicy::Off {
            return Ok(());
        }
        let name = stored_name(host, port);
        let mut judgement = self.judge(&name, key, policy);
        if !matches!(judgement, Judgement::Known | Judgement::Stored) && self.reread().await? {
            judgement = self.judge(&name, key, policy);
        }
        match judgement {
            Judgement::Known => Ok(()),
            Judgement::Stored => self.write_out().await,
            refused => Err(self.refusal(refused, host, port, key)),
        }
    }

    fn judge(&self, name: &str, key: &PublicKey, policy: HostKeyPolicy) -> Judgement {
        let mut keys = self.shared.keys.lock();
        if keys.revoked.iter().any(|revoked| revoked.key_data() == key.key_data()) {
            return Judgement::Revoked;
        }
        match keys.by_host.get(name) {
            Some(stored) if stored.iter().any(|known| known.key_data() == key.key_data()) => Judgement::Known,
            Some(stored) => Judgement::Changed(stored.iter().map(fingerprint).collect()),
            None if policy == HostKeyPolicy::Strict => Judgement::Unknown,
            None => {
                // Stored while the lock is held: of two first meetings at once, one decides.
                let mut key = key.clone();
                key.set_comment("");
                if let (Some(_), Ok(text)) = (&self.shared.path, key.to_openssh()) {
                    keys.unwritten.push(format!("{name} {}", text.trim_end()));
                }
                keys.by_host.insert(name.to_owned(), vec![key]);
                Judgement::Stored
            }
        }
    }

    /// Takes what the file says now; false when there is no file.
    async fn reread(&self) -> Result<bool, SessionError> {
        let Some(path) = self.shared.path.clone() else { return Ok(false) };
        let _writer = self.shared.writer.lock().await;
        let fresh = self.file_work(move || read_file(&path).map(|text| read_all(&text))).await?;
        let mut keys = self.shared.keys.lock();
        let unwritten = std::mem::take(&mut keys.unwritten);
        let waiting = read_all(&unwritten.join("\n"));
        *keys = fresh;
        for (host, waiting) in waiting.by_host {
            keys.by_host.entry(host).or_insert(waiting);
        }
        keys.unwritten = unwritten;
        Ok(true)
    }

    async fn write_out(&self) -> Result<(), SessionError> {
        let Some(path) = self.shared.path.clone() else { return Ok(()) };
        let _writer = self.shared.writer.lock().await;
        let lines = std::mem::take(&mut self.shared.keys.lock().unwritten);
        if lines.is_empty() {
            return Ok(());
        }
        let kept = lines.clone();
        let written = self.file_work(move || append(&path, &lines)).await;
        if written.is_err() {
            // Still owed: the next connection tries again.
            self.shared.keys.lock().unwritten.extend(kept);
        }
        written
    }

    fn refusal(&self, judgement: Judgement, host: &str, port: u16, key: &PublicKey) -> SessionError {
        let place = place(host, port);
        let shown = fingerprint(key);
        let name = stored_name(host, port);
        let store = match &self.shared.path {
            Some(path) => path.display().to_string(),
            None => "the host-key store in memory".to_owned(),
        };
        match judgement {
            Judgement::Changed(stored) => SessionError::new(
                ErrorCode::HostKeyChanged,
                format!(
                    "the host key of {place} is not the one stored: the device showed {shown}, {store} holds {}. \
                     Either the device was replaced or reset, or somebody stands between. Compare the fingerprint at \
                     the device itself; if it is right, forget the old key with `ssh-keygen -R '{name}' -f {store}` \
                     and try again",
                    stored.join(", ")
                ),
            ),
            Judgement::Revoked => SessionError::new(
                ErrorCode::HostKeyChanged,
                format!(
                    "{place} showed the key {shown}, which {store} marks as revoked: do not use this device until its key is replaced"
                ),
            ),
            _ => SessionError::new(
                ErrorCode::HostKeyUnknown,
                format!(
                    "{place} showed the key {shown}, which is not in {store}, and the policy is `strict`: compare the \
                     fingerprint at the device itself, then add the line `{name} {}` to the store, or connect once \
                     with the policy `accept-new`",
                    key.to_openssh().unwrap_or_default().trim_end()
                ),
            ),
        }
    }
}

enum Judgement {
    Known,
    Stored,
    Unknown,
    Changed(Vec<String>),
    Revoked,
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY_A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const KEY_B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2pr+Bfus1hvPof4Wb/plZCzSbqadHH0u+/f4ODtKnE";

    fn key(text: &str) -> PublicKey {
        PublicKey::from_openssh(text).unwrap()
    }

    #[tokio::test]
    async fn promise_13_first_key_is_kept_and_another_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known_hosts");
        let store = HostKeys::open(&path).unwrap();
        store.check("SW1", 22, &key(KEY_A), HostKeyPolicy::AcceptNew).await.unwrap();
        store.check("sw1", 2222, &key(KEY_B), HostKeyPolicy::AcceptNew).await.unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("sw1 {KEY_A}\n[sw1]:2222 {KEY_B}\n"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let again = HostKeys::open(&path).unwrap();
        again.check("sw1", 22, &key(KEY_A), HostKeyPolicy::Strict).await.unwrap();
        let error = again.check("sw1", 22, &key(KEY_B), HostKeyPolicy::AcceptNew).await.unwrap_err();
        assert_eq!(error.kind, ErrorCode::HostKeyChanged);
        assert!(error.message.contains(&format!("ssh-keygen -R 'sw1' -f {}", path.display())), "{error}");
        let error = again.check("sw9", 22, &key(KEY_B), HostKeyPolicy::Strict).await.unwrap_err();
        assert_eq!(error.kind, ErrorCode::HostKeyUnknown);
        again.check("sw1", 22, &key(KEY_B), HostKeyPolicy::Off).await.unwrap();
        assert_eq!(again.list().len(), 2);
    }

    #[tokio::test]
    async fn the_advice_in_the_message_works_without_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known_hosts");
        let store = HostKeys::open(&path).unwrap();
        store.check("sw1", 2222, &key(KEY_A), HostKeyPolicy::AcceptNew).await.unwrap();
        store.check("sw2", 22, &key(KEY_A), HostKeyPolicy::AcceptNew).await.unwrap();
        let done = std::process::Command::new("ssh-keygen")
            .args(["-R", "[sw1]:2222", "-f"])
            .arg(&path)
            .output()
            .unwrap();
        assert!(done.status.success());
        store.check("sw1", 2222, &key(KEY_B), HostKeyPolicy::AcceptNew).await.unwrap();
        assert!(store.check("sw2", 22, &key(KEY_B), HostKeyPolicy::AcceptNew).await.is_err());
        assert_eq!(HostKeys::open(&path).unwrap().list(), store.list());
    }

    #[tokio::test]
    async fn removing_keeps_what_is_not_ours_to_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known_hosts");
        let hashed = format!("|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= {KEY_A}");
        fs::write(&path, format!("# ours\n{hashed}\na,b {KEY_A} lab\n@revoked * {KEY_B}\nnonsense")).unwrap();
        let store = HostKeys::open(&path).unwrap();
        assert_eq!(store.list().len(), 2);
        assert!(
            store
                .check("new", 22, &key(KEY_B), HostKeyPolicy::AcceptNew)
                .await
                .unwrap_err()
                .message
                .contains("revoked")
        );
        store.check("c", 22, &key(KEY_A), HostKeyPolicy::AcceptNew).await.unwrap();
        assert_eq!(store.remove("a", 22).await.unwrap(), 1);
        assert_eq!(store.remove("a", 22).await.unwrap(), 0);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            format!("# ours\n{hashed}\nb {KEY_A} lab\n@revoked * {KEY_B}\nnonsense\nc {KEY_A}\n")
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_many_first_meetings_at_once_one_key_wins_and_all_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known_hosts");
        let store = HostKeys::open(&path).unwrap();
        let meetings: Vec<_> = (0..200)
            .map(|n| {
                let store = store.clone();
                let shown = key(if n % 2 == 0 { KEY_A } else { KEY_B });
                tokio::spawn(async move {
                    let first = store.check("contested", 22, &shown, HostKeyPolicy::AcceptNew).await.is_ok();
                    store.check(&format!("sw{n}"), 22, &shown, HostKeyPolicy::AcceptNew).await.unwrap();
                    let second = store.check("contested", 22, &shown, HostKeyPolicy::AcceptNew).await.is_ok();
                    assert_eq!(first, second);
                    second
                })
            })
            .collect();
        let mut accepted = 0;
        for meeting in meetings {
            accepted += usize::from(meeting.await.unwrap());
        }
        assert_eq!(accepted, 100);
        assert_eq!(HostKeys::open(&path).unwrap().list(), store.list());
        assert_eq!(store.list().len(), 201);
    }
}
