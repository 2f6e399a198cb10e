//! Private keys from text: every common format, encrypted or not.
//!
//! russh reads OpenSSH, PKCS#8 and PuTTY files, and plain PKCS#1 and SEC1. OpenSSL's traditional
//! encryption (`Proc-Type: 4,ENCRYPTED`) it reads only for RSA under AES-128, so that one is
//! undone here: key by MD5 over passphrase and salt (OpenSSL's `EVP_BytesToKey`, one round), CBC,
//! PKCS#7 padding.

use aes::{Aes128, Aes192, Aes256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit};
use des::TdesEde3;
use russh::keys::{PrivateKey, decode_secret_key};
use zeroize::Zeroizing;

/// Why a key was not read; completes "the private key ... ".
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyError {
    #[error("is encrypted: give its `passphrase`")]
    NeedsPassphrase,
    #[error("does not open with the passphrase given")]
    WrongPassphrase,
    #[error("is encrypted with `{0}`, which is not known here: convert it with `ssh-keygen -p -f FILE`")]
    UnknownCipher(String),
    #[error("is of a type that SSH no longer uses (DSA): make a new one")]
    Dsa,
    #[error("is a public key: give the private one")]
    Public,
    #[error("is not a private key in OpenSSH, PKCS#8, PEM or PuTTY form ({0})")]
    Unreadable(String),
}

/// Reads a private key. The passphrase counts only where the key is encrypted.
pub(super) fn read(text: &str, passphrase: Option<&str>) -> Result<PrivateKey, KeyError> {
    let text = tidy(text);
    let passphrase = passphrase.filter(|p| !p.is_empty());
    let first = text.lines().find(|l| l.starts_with("-----BEGIN ") || l.starts_with("PuTTY-")).unwrap_or("");
    if first.contains(" DSA ") {
        return Err(KeyError::Dsa);
    }
    if first.contains("PUBLIC KEY")
        || (first.is_empty() && (text.starts_with("ssh-") || text.starts_with("ecdsa-")))
    {
        return Err(KeyError::Public);
    }
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        let plain = undo_traditional(&text, passphrase.ok_or(KeyError::NeedsPassphrase)?)?;
        return decode_secret_key(&plain, None).map_err(|_| KeyError::WrongPassphrase);
    }
    let decoded = match first {
        // These say by their first line whether they are encrypted; the decoder asks instead
        // whether a passphrase was given.
        "-----BEGIN RSA PRIVATE KEY-----"
        | "-----BEGIN EC PRIVATE KEY-----"
        | "-----BEGIN PRIVATE KEY-----" => {
            return decode_secret_key(&text, None).map_err(|error| KeyError::Unreadable(error.to_string()));
        }
        "-----BEGIN ENCRYPTED PRIVATE KEY-----" if passphrase.is_none() => {
            return Err(KeyError::NeedsPassphrase);
        }
        "-----BEGIN ENCRYPTED PRIVATE KEY-----" => {
            return decode_secret_key(&text, passphrase).map_err(|_| KeyError::WrongPassphrase);
        }
        _ => decode_secret_key(&text, None),
    };
    match (decoded, passphrase) {
        (Ok(key), _) if !key.is_encrypted() => Ok(key),
        (Ok(_) | Err(russh::keys::Error::KeyIsEncrypted), None) => Err(KeyError::NeedsPassphrase),
        (Err(error), None) if is_encrypted_ppk(&text) => {
            tracing::debug!(%error, "encrypted PuTTY key");
            Err(KeyError::NeedsPassphrase)
        }
        (Err(error), None) => Err(KeyError::Unreadable(error.to_string())),
        (first_try, Some(passphrase)) => match decode_secret_key(&text, Some(passphrase)) {
            Ok(key) => Ok(key),
            Err(_)
                if first_try.is_ok() || is_encrypted_ppk(&text) || text.contains("OPENSSH PRIVATE KEY") =>
            {
                Err(KeyError::WrongPassphrase)
            }
            Err(error) => Err(KeyError::Unreadable(error.to_string())),
        },
    }
}

fn is_encrypted_ppk(text: &str) -> bool {
    text.starts_with("PuTTY-") && text.lines().any(|l| l.starts_with("Encryption:") && !l.ends_with("none"))
}

/// Keys come through JSON and forms: line ends of every kind, indented, or escaped twice.
fn tidy(text: &str) -> Zeroizing<String> {
    let unescaped =
        if text.contains('\n') { text.to_owned() } else { text.replace("\\r", "").replace("\\n", "\n") };
    let unescaped = Zeroizing::new(unescaped);
    let mut tidy = Zeroizing::new(String::with_capacity(unescaped.len() + 1));
    for line in unescaped.trim().lines() {
        tidy.push_str(line.trim());
        tidy.push('\n');
    }
    tidy
}

/// Decrypts a traditional PEM and writes it again without encryption.
fn undo_traditional(text: &str, passphrase: &str) -> Result<Zeroizing<String>, KeyError> {
    let broken = |what: &str| KeyError::Unreadable(what.to_owned());
    let mut lines = text.lines().skip_while(|l| !l.starts_with("-----BEGIN "));
    let begin = lines.next().ok_or_else(|| broken("no BEGIN line"))?;
    let mut info = None;
    let mut body = String::new();
    let mut end = None;
    for line in lines {
        if line.starts_with("-----END ") {
            end = Some(line);
            break;
        } else if let Some(value) = line.strip_prefix("DEK-Info:") {
            info = value.trim().split_once(',');
        } else if !line.contains(':') {
            body.push_str(line);
        }
    }
    let (cipher, iv) = info.ok_or_else(|| broken("no DEK-Info line"))?;
    let end = end.ok_or_else(|| broken("no END line"))?;
    let iv = hex(iv.trim()).ok_or_else(|| broken("its DEK-Info line holds no hexadecimal IV"))?;
    let sealed = STANDARD.decode(&body).map_err(|_| broken("its body is not base64"))?;
    let salt = iv.get(..8).ok_or_else(|| broken("its IV is too short"))?;
    let derive = |length: usize| derive_key(passphrase.as_bytes(), salt, length);
    let opened = match cipher.trim().to_ascii_uppercase().as_str() {
        "AES-128-CBC" => decrypt::<cbc::Decryptor<Aes128>>(&derive(16), &iv, &sealed),
        "AES-192-CBC" => decrypt::<cbc::Decryptor<Aes192>>(&derive(24), &iv, &sealed),
        "AES-256-CBC" => decrypt::<cbc::Decryptor<Aes256>>(&derive(32), &iv, &sealed),
        "DES-EDE3-CBC" => decrypt::<cbc::Decryptor<TdesEde3>>(&derive(24), &iv, &sealed),
        other => return Err(KeyError::UnknownCipher(other.to_owned())),
    }
    .ok_or(KeyError::WrongPassphrase)?;
    Ok(Zeroizing::new(format!("{begin}\n{}\n{end}\n", STANDARD.encode(&*opened))))
}

fn decrypt<D: BlockModeDecrypt + KeyIvInit>(
    key: &[u8],
    iv: &[u8],
    sealed: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let mut buffer = Zeroizing::new(sealed.to_vec());
    let length = D::new_from_slices(key, iv).ok()?.decrypt_padded::<Pkcs7>(&mut buffer).ok()?.len();
    buffer.truncate(length);
    Some(buffer)
}

fn derive_key(passphrase: &[u8], salt: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    let mut key: Zeroizing<Vec<u8>> = Zeroizing::new(Vec::with_capacity(48));
    let mut last: Option<[u8; 16]> = None;
    while key.len() < length {
        let mut hash = md5::Context::new();
        if let Some(last) = &last {
            hash.consume(last);
        }
        hash.consume(passphrase);
        hash.consume(salt);
        let digest = hash.finalize().0;
        key.extend_from_slice(&digest);
        last = Some(digest);
    }
    key.truncate(length);
    key
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Command;

    fn run(dir: &Path, program: &str, args: &[&str]) {
        let done = Command::new(program).args(args).current_dir(dir).output().unwrap();
        assert!(done.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Every key must have the public half that `ssh-keygen` or `openssl` sees in it.
    fn opens(dir: &Path, file: &str, passphrase: Option<&str>, public_of: &str) {
        let text = std::fs::read_to_string(dir.join(file)).unwrap();
        let key = read(&text, passphrase).unwrap_or_else(|error| panic!("{file}: {error}"));
        let public = std::fs::read_to_string(dir.join(public_of)).unwrap();
        let shown = key.public_key().to_openssh().unwrap();
        assert_eq!(
            shown.split(' ').take(2).collect::<Vec<_>>(),
            public.split_whitespace().take(2).collect::<Vec<_>>(),
            "{file}"
        );
        if passphrase.is_some() {
            assert_eq!(read(&text, None).unwrap_err(), KeyError::NeedsPassphrase, "{file}");
            assert_eq!(read(&text, Some("wrong")).unwrap_err(), KeyError::WrongPassphrase, "{file}");
        } else {
            // A passphrase that is not needed does no harm.
            assert!(read(&text, Some("needless")).is_ok(), "{file}");
        }
        // As it arrives through a form that escaped it twice.
        assert!(read(&text.replace('\n', "\\n"), passphrase).is_ok(), "{file}");
    }

    #[test]
    fn every_format_that_ssh_keygen_and_openssl_write() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for (name, kind) in [
            ("rsa", &["-t", "rsa", "-b", "2048"][..]),
            ("ec", &["-t", "ecdsa", "-b", "256"]),
            ("ec384", &["-t", "ecdsa", "-b", "384"]),
            ("ed", &["-t", "ed25519"]),
        ] {
            for (suffix, pass) in [("", ""), (".enc", "open sesame")] {
                let file = format!("{name}{suffix}");
                run(dir, "ssh-keygen", &[kind, &["-q", "-N", pass, "-f", &file]].concat());
                opens(dir, &file, Some(pass).filter(|p| !p.is_empty()), &format!("{file}.pub"));
            }
        }
        for name in ["rsa", "ec", "ec384"] {
            // Traditional PEM: as ssh-keygen writes it, then under each of OpenSSL's ciphers.
            let pem = format!("{name}.pem");
            std::fs::copy(dir.join(name), dir.join(&pem)).unwrap();
            run(dir, "ssh-keygen", &["-q", "-p", "-m", "PEM", "-N", "", "-f", &pem]);
            let public = format!("{name}.pub");
            opens(dir, &pem, None, &public);
            for cipher in ["aes128", "aes192", "aes256", "des3"] {
                let file = format!("{name}.{cipher}");
                let tool = if name == "rsa" { "rsa" } else { "ec" };
                let cipher = format!("-{cipher}");
                let mut args =
                    vec![tool, &cipher, "-in", &pem, "-out", &file, "-passout", "pass:open sesame"];
                if tool == "rsa" {
                    args.push("-traditional");
                }
                run(dir, "openssl", &args);
                assert!(std::fs::read_to_string(dir.join(&file)).unwrap().contains("DEK-Info"), "{file}");
                opens(dir, &file, Some("open sesame"), &public);
            }
            // PKCS#8.
            let plain = format!("{name}.p8");
            run(dir, "openssl", &["pkcs8", "-topk8", "-nocrypt", "-in", &pem, "-out", &plain]);
            opens(dir, &plain, None, &public);
            for (suffix, cipher) in [("p8a", "aes-256-cbc"), ("p8b", "aes-128-cbc")] {
                let sealed = format!("{name}.{suffix}");
                run(
                    dir,
                    "openssl",
                    &[
                        "pkcs8",
                        "-topk8",
                        "-v2",
                        cipher,
                        "-in",
                        &pem,
                        "-out",
                        &sealed,
                        "-passout",
                        "pass:open sesame",
                    ],
                );
                opens(dir, &sealed, Some("open sesame"), &public);
            }
        }
        run(dir, "openssl", &["genpkey", "-algorithm", "ed25519", "-out", "ed.p8"]);
        assert!(read(&std::fs::read_to_string(dir.join("ed.p8")).unwrap(), None).is_ok());
    }

    #[test]
    fn what_is_no_private_key_gets_a_sentence() {
        assert_eq!(read("ssh-ed25519 AAAA me", None).unwrap_err(), KeyError::Public);
        assert_eq!(read("-----BEGIN DSA PRIVATE KEY-----\nAA\n", None).unwrap_err(), KeyError::Dsa);
        assert!(matches!(read("", None).unwrap_err(), KeyError::Unreadable(_)));
        assert!(matches!(
            read("-----BEGIN RSA PRIVATE KEY-----\n!!\n-----END", None).unwrap_err(),
            KeyError::Unreadable(_)
        ));
        let odd = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: RC4,0011223344556677\n\nAAAA\n-----END RSA PRIVATE KEY-----";
        assert_eq!(read(odd, Some("x")).unwrap_err(), KeyError::UnknownCipher("RC4".into()));
        for dek in ["AES-128-CBC,zz", "AES-128-CBC,00", "AES-128-CBC", "AES-128-CBC,é0112233445566778899"] {
            let text = odd.replace("RC4,0011223344556677", dek);
            assert!(read(&text, Some("x")).is_err(), "{dek}");
        }
    }
}
