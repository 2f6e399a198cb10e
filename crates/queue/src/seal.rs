//! Sealing of requests at rest (promise 12): XChaCha20-Poly1305 with the job's id as associated data.
//!
//! A sealed text is `version (1) | key id (4) | nonce (24) | ciphertext and tag`. The key id lets
//! an older key open what it sealed after `seal.key` was replaced: keep the old file beside it as
//! `seal.key.<anything>`.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use netpulse_model::JobId;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const VERSION: u8 = 1;
const NONCE: usize = 24;
const HEAD: usize = 1 + 4 + NONCE;

/// Why sealing or opening failed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file cannot be read or made.
    #[error("the sealing key `{path}`: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The key file has another size.
    #[error(
        "the sealing key `{0}` must hold exactly 32 bytes: put back the file that this store was made with"
    )]
    Size(PathBuf),
    /// What is stored was sealed with a key that is not here.
    #[error("it was sealed with key {0}, which is not in the store's folder")]
    UnknownKey(String),
    /// Damaged, or sealed for another job.
    #[error("it is damaged or was sealed for another job")]
    Damaged,
}

struct OneKey {
    id: [u8; 4],
    cipher: XChaCha20Poly1305,
}

impl OneKey {
    fn new(bytes: &Zeroizing<[u8; 32]>) -> Self {
        let digest = Sha256::digest(bytes.as_slice());
        let mut id = [0; 4];
        id.copy_from_slice(&digest[..4]);
        Self { id, cipher: XChaCha20Poly1305::new(&Key::from(**bytes)) }
    }
}

/// A sealing key that several processes share.
#[derive(Clone)]
pub struct SealKey(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey")
    }
}

impl SealKey {
    /// A key that is kept elsewhere.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key that stands for a passphrase: PBKDF2 with HMAC-SHA-256 and 210,000 rounds, so that
    /// every process that knows the passphrase has the same key. It takes about a tenth of a
    /// second: call it once, where blocking is allowed.
    #[must_use]
    pub fn from_passphrase(passphrase: &str) -> Self {
        let mut key = Zeroizing::new([0_u8; 32]);
        pbkdf2(passphrase.as_bytes(), b"netpulse seal v1", 210_000, &mut key);
        Self(key)
    }
}

/// One block of PBKDF2-HMAC-SHA-256 (RFC 8018).
fn pbkdf2(secret: &[u8], salt: &[u8], rounds: u32, out: &mut [u8; 32]) {
    use hmac::{Hmac, KeyInit as _, Mac};
    let Ok(keyed) = Hmac::<Sha256>::new_from_slice(secret) else {
        // HMAC takes keys of every length.
        return;
    };
    let once = |parts: &[&[u8]]| {
        let mut mac = keyed.clone();
        parts.iter().for_each(|part| mac.update(part));
        <[u8; 32]>::from(mac.finalize().into_bytes())
    };
    let mut block = once(&[salt, &1_u32.to_be_bytes()]);
    *out = block;
    for _ in 1..rounds {
        block = once(&[&block]);
        out.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= byte);
    }
}

/// The keys of one store: the first seals, all open.
pub struct Keyring {
    keys: Vec<OneKey>,
}

impl Keyring {
    /// Reads `seal.key` (and older `seal.key.*`) in `folder`; makes it, readable by its owner
    /// only, when there is none.
    ///
    /// # Errors
    /// When a file cannot be read or made, or does not hold 32 bytes.
    pub fn open(folder: &Path) -> Result<Self, SealError> {
        let path = folder.join("seal.key");
        let first = match read_key(&path) {
            Err(SealError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => make_key(&path)?,
            other => other?,
        };
        let mut keys = vec![OneKey::new(&first)];
        let entries = fs::read_dir(folder).map_err(|source| SealError::Io { path: folder.into(), source })?;
        for entry in entries.flatten() {
            let old = entry.file_name().to_str().is_some_and(|name| name.starts_with("seal.key."));
            if old {
                keys.push(OneKey::new(&read_key(&entry.path())?));
            }
        }
        Ok(Self { keys })
    }

    /// The keys of a store that several processes share; none seals and opens nothing.
    #[must_use]
    pub fn shared(keys: &[SealKey]) -> Self {
        Self { keys: keys.iter().map(|key| OneKey::new(&key.0)).collect() }
    }

    /// Seals `text` for `job`.
    ///
    /// # Errors
    /// Only when the text is longer than the cipher allows (256 GiB).
    pub fn seal(&self, job: JobId, text: &[u8]) -> Result<Vec<u8>, SealError> {
        let key = self.keys.first().ok_or(SealError::Damaged)?;
        let mut nonce = [0_u8; NONCE];
        rand::fill(&mut nonce[..]);
        let payload = Payload { msg: text, aad: job.0.as_bytes() };
        let sealed = key.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::Damaged)?;
        let mut out = Vec::with_capacity(HEAD + sealed.len());
        out.push(VERSION);
        out.extend_from_slice(&key.id);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Opens what was sealed for `job`.
    ///
    /// # Errors
    /// When the key is missing, or the text is damaged or belongs to another job.
    pub fn open_sealed(&self, job: JobId, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (head, text) = sealed.split_at_checked(HEAD).ok_or(SealError::Damaged)?;
        if head[0] != VERSION {
            return Err(SealError::Damaged);
        }
        let id = &head[1..5];
        let mut nonce = [0_u8; NONCE];
        nonce.copy_from_slice(&head[5..]);
        let key = self.keys.iter().find(|key| key.id == id).ok_or_else(|| {
            SealError::UnknownKey(id.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        })?;
        let payload = Payload { msg: text, aad: job.0.as_bytes() };
        key.cipher.decrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::Damaged)
    }
}

fn read_key(path: &Path) -> Result<Zeroizing<[u8; 32]>, SealError> {
    let io = |source| SealError::Io { path: path.into(), source };
    let mut file = fs::File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if metadata.len() != 32 {
        return Err(SealError::Size(path.into()));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(io)?;
        tracing::warn!(path = %path.display(), "the sealing key was readable by others: now 0600");
    }
    let mut key = Zeroizing::new([0_u8; 32]);
    file.read_exact(key.as_mut_slice()).map_err(io)?;
    Ok(key)
}

/// Written beside its place and renamed, so that a crash leaves no half key.
fn make_key(path: &Path) -> Result<Zeroizing<[u8; 32]>, SealError> {
    let io = |source| SealError::Io { path: path.into(), source };
    let mut key = Zeroizing::new([0_u8; 32]);
    rand::fill(key.as_mut_slice());
    let new = path.with_file_name("new-seal.key");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(io)?;
    file.write_all(key.as_slice()).map_err(io)?;
    file.sync_all().map_err(io)?;
    fs::rename(&new, path).map_err(io)?;
    if let Some(folder) = path.parent() {
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promise_12_opens_only_for_its_job_and_never_shows_the_text() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keyring::open(folder.path()).unwrap();
        let job = JobId::random();
        let sealed = keys.seal(job, b"password=hunter2").unwrap();
        assert!(!sealed.windows(7).any(|w| w == b"hunter2"));
        assert_ne!(sealed, keys.seal(job, b"password=hunter2").unwrap(), "a nonce of its own each");
        let again = Keyring::open(folder.path()).unwrap();
        assert_eq!(again.open_sealed(job, &sealed).unwrap(), b"password=hunter2");
        assert!(matches!(again.open_sealed(JobId::random(), &sealed), Err(SealError::Damaged)));
        for at in [0, 2, 10, sealed.len() - 1] {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(again.open_sealed(job, &damaged).is_err(), "byte {at}");
        }
        assert!(again.open_sealed(job, &[]).is_err());
        let mode = fs::metadata(folder.path().join("seal.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_passphrase_gives_the_same_key_everywhere() {
        // RFC 7914, section 11, gives this block for PBKDF2-HMAC-SHA-256.
        let mut key = [0; 32];
        pbkdf2(b"passwd", b"salt", 1, &mut key);
        assert_eq!(key[..8], [0x55, 0xac, 0x04, 0x6e, 0x56, 0xe3, 0x08, 0x9f]);
        let job = JobId::random();
        let one = Keyring::shared(&[SealKey::from_passphrase("correct horse")]);
        let two = Keyring::shared(&[SealKey::new([7; 32]), SealKey::from_passphrase("correct horse")]);
        let sealed = one.seal(job, b"x").unwrap();
        assert_eq!(two.open_sealed(job, &sealed).unwrap(), b"x", "the older of two keys still opens");
        assert!(one.open_sealed(job, &two.seal(job, b"x").unwrap()).is_err());
    }

    #[test]
    fn a_replaced_key_still_opens_what_it_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let job = JobId::random();
        let sealed = Keyring::open(folder.path()).unwrap().seal(job, b"x").unwrap();
        let path = folder.path().join("seal.key");
        fs::rename(&path, folder.path().join("seal.key.2026")).unwrap();
        let rotated = Keyring::open(folder.path()).unwrap();
        assert_eq!(rotated.open_sealed(job, &sealed).unwrap(), b"x");
        fs::remove_file(folder.path().join("seal.key.2026")).unwrap();
        let lost = Keyring::open(folder.path()).unwrap();
        assert!(matches!(lost.open_sealed(job, &sealed), Err(SealError::UnknownKey(_))));
    }
}
