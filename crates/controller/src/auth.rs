//! Who may ask: one key, in a header, a query parameter or a cookie.

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::app::App;
use crate::query;

/// The parameter's and cookie's other name, from the early documentation.
const ALIAS: &str = "api_key";

/// Paths that need no key.
pub(crate) fn is_open(path: &str) -> bool {
    // Probes cannot keep a secret, and learn nothing but a state.
    matches!(path, "/openapi.json" | "/docs" | "/redoc" | "/health/live" | "/health/ready")
}

/// Whether one of the places holds the key. Compares digests, so that neither the key's content
/// nor its length shows in the time it takes.
pub(crate) fn allowed(app: &App, headers: &HeaderMap, query_string: Option<&str>) -> bool {
    let Some(expected) = &app.key_digest else { return false };
    let right = |given: &[u8]| {
        let digest: [u8; 32] = Sha256::digest(given).into();
        bool::from(digest.ct_eq(expected))
    };
    let name = app.config.server.api_key_name.as_str();
    if let Some(header_name) = &app.key_header
        && headers.get_all(header_name).iter().any(|value| right(value.as_bytes()))
    {
        return true;
    }
    if let Some(query_string) = query_string
        && query::pairs(query_string).any(|(k, v)| (k == name || k == ALIAS) && right(v.as_bytes()))
    {
        return true;
    }
    headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok()).any(|line| {
        line.split(';').filter_map(|pair| pair.trim().split_once('=')).any(|(k, v)| {
            let v = v.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(v);
            (k == name || k == ALIAS) && right(v.as_bytes())
        })
    })
}

/// The query string as logs may show it (S7): the key's value, and any other secret's, masked.
pub(crate) fn scrubbed(app: &App, query_string: &str) -> String {
    let name = app.config.server.api_key_name.as_str();
    let parts: Vec<String> = query_string
        .split('&')
        .map(|part| match query::pairs(part).next() {
            Some((k, _)) if k.eq_ignore_ascii_case(name) || netpulse_model::secret::is_secret_key(&k) => {
                format!("{}={}", part.split('=').next().unwrap_or_default(), netpulse_model::secret::MASK)
            }
            _ => part.to_owned(),
        })
        .collect();
    parts.join("&")
}
