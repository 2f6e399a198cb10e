//! `sha256:<hex>`, checked as it is read, and a reader that hashes what passes.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest, the only kind that is trusted here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// From 64 hexadecimal digits, as descriptors write the digest of a resource.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn from_hex(text: &str) -> Result<Self, String> {
        if text.len() != 64 {
            return Err(format!(
                "`{}` has {} characters where 64 hexadecimal digits belong",
                shown(text),
                text.len()
            ));
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digit = |c: u8| (c as char).to_digit(16).and_then(|d| u8::try_from(d).ok());
            match (pair.first().copied().and_then(digit), pair.get(1).copied().and_then(digit)) {
                (Some(high), Some(low)) => *byte = high << 4 | low,
                _ => return Err(format!("`{}` is not hexadecimal", shown(text))),
            }
        }
        Ok(Self(bytes))
    }

    /// The 64 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        hex(&self.0)
    }

    /// The bytes themselves.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Hexadecimal digits as bytes.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    digits?.chunks(2).map(|pair| u8::try_from(pair.first()? << 4 | pair.get(1)?).ok()).collect()
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("sha256", digits)) => Self::from_hex(digits),
            Some((kind, _)) => {
                Err(format!("digests of kind `{}` are not understood, only sha256:<64 digits>", shown(kind)))
            }
            None => Err(format!("`{}` is no digest: sha256:<64 hexadecimal digits> is one", shown(text))),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes and counts what is written through it.
pub(crate) struct Hashing<W> {
    inner: W,
    hash: Sha256,
    written: u64,
}

impl<W: Write> Hashing<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), written: 0 }
    }

    pub(crate) fn finish(self) -> (W, Digest, u64) {
        (self.inner, Digest(self.hash.finalize().into()), self.written)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..count).unwrap_or_default());
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The digest and length of everything that a reader gives.
pub(crate) fn of_reader(mut reader: impl Read) -> io::Result<(Digest, u64)> {
    let mut sink = Hashing::new(io::sink());
    io::copy(&mut reader, &mut sink)?;
    let (_, digest, length) = sink.finish();
    Ok((digest, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_64_hexadecimal_digits_of_sha256() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").hex(), empty);
        assert_eq!(format!("sha256:{empty}").parse(), Ok(Digest::of(b"")));
        assert_eq!(of_reader(&b"abc"[..]).unwrap(), (Digest::of(b"abc"), 3));
        for (wrong, said) in [
            (&empty[..63], "is no digest"),
            ("sha256:abc", "has 3 characters where 64"),
            ("sha512:00", "digests of kind `sha512`"),
            (&format!("sha256:{}g", &empty[..63]) as &str, "is not hexadecimal"),
            (&format!("sha256:{}ä", &empty[..62]), "is not hexadecimal"),
        ] {
            let error = wrong.parse::<Digest>().unwrap_err();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }

    #[test]
    fn hexadecimal_goes_there_and_back() {
        assert_eq!(from_hex(&hex(&[0, 1, 254, 255])), Some(vec![0, 1, 254, 255]));
        assert_eq!((from_hex("abc"), from_hex("zz")), (None, None));
    }
}
