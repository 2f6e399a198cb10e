//! Which SSH algorithms are offered, and to whom.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::{Preferred, cipher, compression, kex, mac};

/// Which algorithms a connection may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// `Modern`, and when the device has nothing in common with it, `Legacy`.
    #[default]
    Auto,
    /// What current OpenSSH would negotiate: no SHA-1, no CBC.
    Modern,
    /// Modern first, then SHA-1 key exchanges, CBC ciphers, 3DES and `ssh-rsa` for old gear.
    Legacy,
}

/// Algorithms that must not be offered, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disabled {
    /// Key exchanges.
    pub kex: Vec<String>,
    /// Host-key types.
    pub keys: Vec<String>,
    /// Signature types of our own key (`rsa-sha2-512`, ...).
    pub pubkeys: Vec<String>,
    /// Ciphers.
    pub ciphers: Vec<String>,
    /// Message authentication codes.
    pub macs: Vec<String>,
}

/// Devices that needed [`Profile::Legacy`] lately, so that only their first connection tries in
/// vain. Clones share.
#[derive(Debug, Clone, Default)]
pub struct LegacyDevices(Arc<Mutex<HashSet<String>>>);

/// Devices remembered; when there are more, all are forgotten, which costs each one try.
const MAX_REMEMBERED: usize = 65_536;

impl LegacyDevices {
    pub(super) fn has(&self, place: &str) -> bool {
        self.0.lock().contains(place)
    }

    pub(super) fn remember(&self, place: &str) {
        let mut places = self.0.lock();
        if places.len() >= MAX_REMEMBERED {
            places.clear();
        }
        places.insert(place.to_owned());
    }

    pub(super) fn forget(&self, place: &str) {
        self.0.lock().remove(place);
    }
}

const MODERN_KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::DH_G14_SHA256,
    kex::DH_GEX_SHA256,
    kex::DH_G16_SHA512,
    kex::DH_G18_SHA512,
];

// Fixed groups before group exchange: devices that exchange groups at all often know only 1024-bit
// ones, which russh refuses.
const LEGACY_KEX: &[kex::Name] = &[kex::DH_G14_SHA1, kex::DH_G1_SHA1, kex::DH_GEX_SHA1];

const MARKERS: &[kex::Name] =
    &[kex::EXTENSION_SUPPORT_AS_CLIENT, kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT];

const MODERN_CIPHERS: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_128_CTR,
    cipher::AES_192_CTR,
    cipher::AES_256_CTR,
];

const LEGACY_CIPHERS: &[cipher::Name] =
    &[cipher::AES_128_CBC, cipher::AES_192_CBC, cipher::AES_256_CBC, cipher::TRIPLE_DES_CBC];

const MODERN_MACS: &[mac::Name] =
    &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM, mac::HMAC_SHA256, mac::HMAC_SHA512];

const LEGACY_MACS: &[mac::Name] = &[mac::HMAC_SHA1_ETM, mac::HMAC_SHA1];

fn host_keys(legacy: bool) -> Vec<Algorithm> {
    let mut keys = vec![
        Algorithm::Ed25519,
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    ];
    if legacy {
        keys.push(Algorithm::Rsa { hash: None });
    }
    keys
}

fn same_family(a: &Algorithm, b: &Algorithm) -> bool {
    a == b || matches!((a, b), (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }))
}

/// The offer: a profile's algorithms without the disabled ones, with the types of the keys that we
/// hold for the device first.
pub(super) fn offer(legacy: bool, disabled: &Disabled, known: &[Algorithm], compress: bool) -> Preferred {
    fn pick<T: Copy + AsRef<str>>(lists: &[&[T]], disabled: &[String]) -> Vec<T> {
        lists
            .iter()
            .flat_map(|l| l.iter())
            .copied()
            .filter(|n| !disabled.iter().any(|d| d == n.as_ref()))
            .collect()
    }
    let (old_kex, old_ciphers, old_macs): (&[_], &[_], &[_]) =
        if legacy { (LEGACY_KEX, LEGACY_CIPHERS, LEGACY_MACS) } else { (&[], &[], &[]) };
    let mut key = host_keys(legacy);
    key.retain(|k| !disabled.keys.iter().any(|d| *d == k.to_string()));
    // A stable sort: known types keep their order, and come before the others.
    key.sort_by_key(|k| !known.iter().any(|known| same_family(known, k)));
    Preferred {
        kex: Cow::Owned(pick(&[MODERN_KEX, old_kex, MARKERS], &disabled.kex)),
        key: Cow::Owned(key),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: Cow::Owned(pick(&[MODERN_CIPHERS, old_ciphers], &disabled.ciphers)),
        mac: Cow::Owned(pick(&[MODERN_MACS, old_macs], &disabled.macs)),
        compression: if compress {
            Cow::Borrowed(&[compression::ZLIB_LEGACY, compression::ZLIB, compression::NONE])
        } else {
            Cow::Borrowed(&[compression::NONE])
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modern_offers_nothing_weak_and_legacy_offers_it_last() {
        let names = |p: &Preferred| {
            let mut all: Vec<String> = p.kex.iter().map(|n| n.as_ref().to_owned()).collect();
            all.extend(p.cipher.iter().map(|n| n.as_ref().to_owned()));
            all.extend(p.mac.iter().map(|n| n.as_ref().to_owned()));
            all.extend(p.key.iter().map(ToString::to_string));
            all
        };
        let weak = |n: &String| n.contains("sha1") || n.contains("cbc") || n == "ssh-rsa";
        let modern = names(&offer(false, &Disabled::default(), &[], false));
        assert!(!modern.iter().any(weak), "{modern:?}");
        let legacy = names(&offer(true, &Disabled::default(), &[], false));
        assert!(modern.iter().all(|n| legacy.contains(n)));
        assert_eq!(legacy.iter().filter(|n| weak(n)).count(), 10);
    }

    #[test]
    fn known_key_types_come_first_and_disabled_ones_not_at_all() {
        let disabled = Disabled {
            keys: vec!["rsa-sha2-512".into()],
            kex: vec!["mlkem768x25519-sha256".into()],
            ..Disabled::default()
        };
        let offer = offer(false, &disabled, &[Algorithm::Rsa { hash: None }], false);
        let keys: Vec<String> = offer.key.iter().map(ToString::to_string).collect();
        assert_eq!(keys[..2], ["rsa-sha2-256", "ssh-ed25519"]);
        assert_eq!(offer.kex[0].as_ref(), "curve25519-sha256");
    }
}
