//! Query strings, and the times and counts in them.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::{HeaderMap, Uri};
use netpulse_model::Timestamp;

use crate::app::App;
use crate::error::ApiError;

/// The pairs of a query string, decoded.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query.split('&').filter(|part| !part.is_empty()).map(|part| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        (decoded(key), decoded(value))
    })
}

/// Undoes percent-encoding and `+`. What is no encoding stays as it is.
pub(crate) fn decoded(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = |i: usize| bytes.get(i).and_then(|b| char::from(*b).to_digit(16));
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                at += 3;
            }
            (b'+', ..) => {
                out.push(b' ');
                at += 1;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// The parameters of one request. Empty ones count as absent.
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    pub(crate) fn of(uri: &Uri) -> Self {
        let pairs = pairs(uri.query().unwrap_or_default());
        Self(pairs.filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.into_owned(), v.into_owned())).collect())
    }

    /// The last value given for `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// A value parsed, or 422 with the parameter's name.
    pub(crate) fn parsed<T, E: std::fmt::Display>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        parse(text).map(Some).map_err(|error| ApiError::query(name, error.to_string(), text))
    }

    /// A whole number within bounds.
    pub(crate) fn integer(&self, name: &str, low: u64, high: u64) -> Result<Option<u64>, ApiError> {
        self.parsed(name, |text| match text.parse::<u64>() {
            Ok(n) if (low..=high).contains(&n) => Ok(n),
            Ok(_) => Err(format!("Input should be a whole number from {low} to {high}")),
            Err(_) => Err(format!("Input should be a valid integer from {low} to {high}")),
        })
    }

    /// A point in time.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        // An offset's `+` that was not encoded has become a space.
        self.parsed(name, |text| Timestamp::parse(&text.replace(' ', "+")))
    }
}

/// How long a request may be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wait {
    /// So long.
    pub(crate) time: Duration,
    /// It was asked for by `Prefer`, which wants an answer of its own.
    pub(crate) preferred: bool,
}

impl Wait {
    /// `?wait=N`, else `Prefer: wait=N`, else `default`; never more than `server.max_wait`.
    pub(crate) fn of(
        app: &App,
        params: &Params,
        headers: &HeaderMap,
        default: Duration,
    ) -> Result<Self, ApiError> {
        let cap = Duration::from_secs(app.config.server.max_wait);
        if let Some(time) = params.parsed("wait", seconds)? {
            return Ok(Self { time: time.min(cap), preferred: false });
        }
        // A preference that cannot be read is no preference (RFC 7240, section 2).
        if let Some(time) = preferred(headers) {
            return Ok(Self { time: time.min(cap), preferred: true });
        }
        Ok(Self { time: default.min(cap), preferred: false })
    }
}

/// Seconds, whole or not.
pub(crate) fn seconds(text: &str) -> Result<Duration, &'static str> {
    text.parse::<f64>()
        .ok()
        .filter(|n| (0.0..=86_400.0).contains(n))
        .map(Duration::from_secs_f64)
        .ok_or("Input should be a number of seconds from 0 to 86400")
}

fn preferred(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|line| line.split(','))
        .find_map(|part| {
            let (name, value) = part.split(';').next()?.split_once('=')?;
            if !name.trim().eq_ignore_ascii_case("wait") {
                return None;
            }
            seconds(value.trim().trim_matches('"')).ok()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_what_is_encoded_and_keeps_the_rest() {
        let all: Vec<_> =
            pairs("a=1&b=x%20y+z&&c&d=%zz%4&e=%C3%A9").map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(all, ["a=1", "b=x y z", "c=", "d=%zz%4", "e=é"]);
    }

    #[test]
    fn prefer_is_read_among_others() {
        let mut headers = HeaderMap::new();
        headers.insert("prefer", "respond-async, wait=7; x=y".parse().unwrap());
        assert_eq!(preferred(&headers), Some(Duration::from_secs(7)));
        headers.insert("prefer", "wait=soon".parse().unwrap());
        assert_eq!(preferred(&headers), None);
    }
}
