//! The signature by which a receiver knows that a message is ours.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The header that carries it.
pub const SIGNATURE: &str = "X-NetPulse-Signature";

/// `t=<Unix seconds>,v1=<hex>`: HMAC-SHA256 with the receiver's secret over the seconds as text, a
/// dot, and the body as it was sent. A receiver that refuses old seconds cannot be fooled with a
/// message recorded earlier.
#[must_use]
pub fn sign(secret: &str, seconds: i64, body: &[u8]) -> String {
    // HMAC takes a key of any length: the error type is the trait's, not this algorithm's.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(format!("{seconds}.").as_bytes());
    mac.update(body);
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={seconds},v1={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_what_the_algorithm_says() {
        // printf '1770091506.{"a":1}' | openssl dgst -sha256 -hmac whsec
        let expected = "t=1770091506,v1=c691824ea2870bb875668d6e6871679e8c0945ec0b960359706367ee2be21924";
        assert_eq!(sign("whsec", 1_770_091_506, br#"{"a":1}"#), expected);
    }
}
