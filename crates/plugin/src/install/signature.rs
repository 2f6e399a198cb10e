//! Who vouches for a component: ed25519 over the digest of its normalised descriptor.

use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde_json::Value;

use super::descriptor::{Descriptor, DigestSpec, Resource, Signature, SignatureValue};
use super::digest::{self, Digest};
use super::error::{InstallError, Result, Trouble};
use super::normalise;

/// The name of the hash in digests.
pub const SHA256: &str = "SHA-256";
/// The digest of a blob's bytes as they are.
pub const BLOB_DIGEST: &str = "genericBlobDigest/v1";
/// The digest of an artifact's manifest.
pub const ARTIFACT_DIGEST: &str = "ociArtifactDigest/v1";
/// The algorithm's name in a signature.
pub const ALGORITHM: &str = "Ed25519";
/// How the text of a signature is read: hexadecimal digits.
pub const MEDIA_TYPE: &str = "application/vnd.netpulse.signature.ed25519";

/// Whom to believe.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    keys: Vec<(String, VerifyingKey)>,
    required: bool,
}

impl Trust {
    /// Reads public keys (PEM, as `openssl pkey -pubout` writes them); a key is called as its file.
    ///
    /// # Errors
    /// A file cannot be read or holds no ed25519 key; or a signature is required and there is no key.
    pub fn read(files: &[PathBuf], required: bool) -> Result<Self> {
        if required && files.is_empty() {
            let what =
                "plugin.require_signature is on and plugin.keys names no key, so nothing could be installed";
            return Err(InstallError::new(Trouble::BadInput, what)
                .hint("name public keys (PEM files) in plugin.keys"));
        }
        let mut keys = Vec::new();
        for file in files {
            let text = std::fs::read_to_string(file)
                .map_err(|e| InstallError::file("the key cannot be read", file, &e))?;
            let key = VerifyingKey::from_public_key_pem(text.trim()).map_err(|_| {
                let what = format!("{}: no ed25519 public key in PEM form", file.display());
                InstallError::new(Trouble::BadInput, what)
                    .hint("`openssl pkey -in key.pem -pubout` prints the public key of a private one")
            })?;
            let name = file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
            keys.push((name, key));
        }
        Ok(Self { keys, required })
    }

    /// Whether something unsigned is refused.
    #[must_use]
    pub fn required(&self) -> bool {
        self.required
    }

    /// Who of those we believe signed this component, and vouches for this resource's bytes.
    ///
    /// # Errors
    /// The descriptor was changed after it was signed, or a signature is required and none counts.
    pub fn check(
        &self,
        descriptor: &Descriptor,
        resource: &Resource,
    ) -> Result<(Option<String>, Vec<String>)> {
        let name = format!("{}:{}", descriptor.component.name, descriptor.component.version);
        let mut signer = None;
        if !descriptor.signatures.is_empty() {
            let found = normalise::digest(&descriptor.whole).map_err(|why| {
                InstallError::new(
                    Trouble::BadContent,
                    format!("{name}: its signatures cannot be checked: {why}"),
                )
            })?;
            for signature in &descriptor.signatures {
                if let Some(key) = self.counts(signature, &found, &name)? {
                    signer = signer.or(Some(key));
                }
            }
        }
        // The signature covers bytes only by their digest in the descriptor.
        let covered = resource.digest.as_ref().is_some_and(|digest| {
            digest.hash_algorithm == SHA256
                && [BLOB_DIGEST, ARTIFACT_DIGEST].contains(&digest.normalisation_algorithm.as_str())
        });
        let why = match (&signer, covered) {
            (Some(_), true) => return Ok((signer, Vec::new())),
            (Some(_), false) => format!(
                "{name} is signed, but its resource {} has no digest that the signature covers",
                resource.name
            ),
            (None, _) if descriptor.signatures.is_empty() => format!("{name} is not signed"),
            (None, _) => format!("{name} is signed by none of the keys in plugin.keys"),
        };
        if self.required {
            return Err(InstallError::new(
                Trouble::Untrusted,
                format!("{why}, and plugin.require_signature is on"),
            ));
        }
        let warnings = if self.keys.is_empty() { Vec::new() } else { vec![why] };
        Ok((None, warnings))
    }

    /// The name of the key that made this signature, if it is one of ours.
    fn counts(&self, signature: &Signature, found: &Digest, name: &str) -> Result<Option<String>> {
        let spec = &signature.digest;
        if spec.hash_algorithm != SHA256 || spec.normalisation_algorithm != normalise::ALGORITHM {
            return Ok(None);
        }
        let changed = |why: String| {
            InstallError::new(
                Trouble::Untrusted,
                format!("{name}: it is not what was signed as `{}`: {why}", signature.name),
            )
            .hint("nothing was installed; somebody or something changed it: ask who published it")
        };
        let signed = Digest::from_hex(&spec.value).map_err(&changed)?;
        if signed != *found {
            return Err(changed(format!(
                "its normalised digest is {}, signed was {}",
                found.hex(),
                signed.hex()
            )));
        }
        if !signature.signature.algorithm.eq_ignore_ascii_case(ALGORITHM) {
            return Ok(None);
        }
        let bytes: Option<[u8; 64]> =
            digest::from_hex(signature.signature.value.trim()).and_then(|bytes| bytes.try_into().ok());
        let bytes = bytes.ok_or_else(|| changed("the signature is not 128 hexadecimal digits".to_owned()))?;
        let signature = ed25519_dalek::Signature::from_bytes(&bytes);
        let key = self.keys.iter().find(|(_, key)| key.verify_strict(found.bytes(), &signature).is_ok());
        Ok(key.map(|(name, _)| name.clone()))
    }
}

/// Signs a descriptor with a private key (PKCS#8 PEM, as `openssl genpkey -algorithm ed25519` writes it).
///
/// # Errors
/// The file holds no such key, or the descriptor has no canonical form.
pub fn sign(descriptor: &mut Value, key: &Path) -> Result<Digest> {
    let text =
        std::fs::read_to_string(key).map_err(|e| InstallError::file("the key cannot be read", key, &e))?;
    let text = zeroize::Zeroizing::new(text);
    let signing = SigningKey::from_pkcs8_pem(text.trim()).map_err(|_| {
        InstallError::new(
            Trouble::BadInput,
            format!("{}: no ed25519 private key in PKCS#8 PEM form", key.display()),
        )
        .hint(
            "`openssl genpkey -algorithm ed25519 -out key.pem` makes one; one with a passphrase is not read",
        )
    })?;
    let digest = normalise::digest(descriptor).map_err(|why| {
        InstallError::new(Trouble::BadInput, format!("the component cannot be signed: {why}"))
    })?;
    let name =
        key.file_stem().map_or_else(|| "netpulse".to_owned(), |stem| stem.to_string_lossy().into_owned());
    let signature = Signature {
        name,
        digest: DigestSpec {
            hash_algorithm: SHA256.into(),
            normalisation_algorithm: normalise::ALGORITHM.into(),
            value: digest.hex(),
        },
        signature: SignatureValue {
            algorithm: ALGORITHM.into(),
            value: digest::hex(&signing.sign(digest.bytes()).to_bytes()),
            media_type: MEDIA_TYPE.into(),
        },
    };
    let signature = serde_json::to_value(signature).unwrap_or_default();
    if let Some(whole) = descriptor.as_object_mut() {
        let list = whole.entry("signatures").or_insert_with(|| Value::Array(Vec::new()));
        if let Some(list) = list.as_array_mut() {
            list.push(signature);
        }
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys as openssl writes them.
    fn keys(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (private, public) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}-pub.pem")));
        let run = |args: &[&str]| {
            let status = std::process::Command::new("openssl").args(args).status().unwrap();
            assert!(status.success());
        };
        run(&["genpkey", "-algorithm", "ed25519", "-out", private.to_str().unwrap()]);
        run(&["pkey", "-in", private.to_str().unwrap(), "-pubout", "-out", public.to_str().unwrap()]);
        (private, public)
    }

    fn document() -> Value {
        serde_json::json!({"meta": {"schemaVersion": "v2"}, "component": {
            "name": "example.org/acme", "version": "1.0.0", "provider": "example.org",
            "resources": [{"name": "acme", "type": "ocmPlugin", "version": "1.0.0", "access": {"type": "localBlob", "localReference": "x"},
                "digest": {"hashAlgorithm": "SHA-256", "normalisationAlgorithm": "genericBlobDigest/v1", "value": Digest::of(b"x").hex()}}]}})
    }

    fn check(trust: &Trust, document: Value) -> Result<(Option<String>, Vec<String>)> {
        let descriptor = Descriptor::from_value(document).unwrap();
        trust.check(&descriptor, &descriptor.component.resources[0])
    }

    #[test]
    fn a_signature_counts_only_by_a_known_key_over_what_was_signed() {
        let folder = tempfile::tempdir().unwrap();
        let (private, public) = keys(folder.path(), "ours");
        let (other, _) = keys(folder.path(), "theirs");
        let ours = Trust::read(std::slice::from_ref(&public), true).unwrap();
        let lax = Trust::read(&[public], false).unwrap();
        let mut signed = document();
        sign(&mut signed, &private).unwrap();
        assert_eq!(check(&ours, signed.clone()).unwrap(), (Some("ours-pub".into()), vec![]));

        let mut foreign = document();
        sign(&mut foreign, &other).unwrap();
        let error = check(&ours, foreign.clone()).unwrap_err();
        assert!(error.message.contains("signed by none of the keys"), "{error}");
        assert!(check(&lax, foreign).unwrap().1[0].contains("signed by none"));

        let error = check(&ours, document()).unwrap_err();
        assert!(error.message.contains("is not signed, and plugin.require_signature is on"), "{error}");
        assert_eq!(
            check(&lax, document()).unwrap(),
            (None, vec!["example.org/acme:1.0.0 is not signed".into()])
        );
        assert_eq!(check(&Trust::default(), document()).unwrap(), (None, vec![]));

        // Another program under the same signature: refused by whoever looks, keys or not.
        let mut changed = signed.clone();
        changed["component"]["resources"][0]["digest"]["value"] = Digest::of(b"evil").hex().into();
        for trust in [&ours, &lax, &Trust::default()] {
            let error = check(trust, changed.clone()).unwrap_err();
            assert!(
                error.trouble == Trouble::Untrusted
                    && error.message.contains("not what was signed as `ours`"),
                "{error}"
            );
        }
        // The digest adjusted too: the signature does not fit it.
        let mut adjusted = changed.clone();
        adjusted["signatures"][0]["digest"]["value"] = normalise::digest(&changed).unwrap().hex().into();
        assert!(check(&ours, adjusted).unwrap_err().message.contains("signed by none"));
        // Where the bytes lie is not signed.
        let mut moved = signed;
        moved["component"]["resources"][0]["access"] =
            serde_json::json!({"type": "ociArtifact", "imageReference": "a.b/c:1"});
        assert!(check(&ours, moved).is_ok());
    }

    #[test]
    fn a_signature_that_covers_no_bytes_counts_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (private, public) = keys(folder.path(), "ours");
        let mut signed = document();
        signed["component"]["resources"][0].as_object_mut().unwrap().remove("digest");
        sign(&mut signed, &private).unwrap();
        let error = check(&Trust::read(&[public], true).unwrap(), signed).unwrap_err();
        assert!(error.message.contains("has no digest that the signature covers"), "{error}");
    }

    #[test]
    fn keys_that_are_none_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let (private, public) = keys(folder.path(), "ours");
        assert!(
            Trust::read(std::slice::from_ref(&private), false)
                .unwrap_err()
                .message
                .contains("no ed25519 public key")
        );
        assert!(sign(&mut document(), &public).unwrap_err().message.contains("no ed25519 private key"));
        assert!(Trust::read(&[], true).unwrap_err().message.contains("plugin.keys names no key"));
        assert!(
            Trust::read(&[folder.path().join("none.pem")], false)
                .unwrap_err()
                .message
                .contains("no such file")
        );
    }
}
