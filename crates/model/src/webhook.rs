//! Whom to tell when a job has ended.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::fields::Fields;
use crate::secret::MASK;

/// The kind that needs no plugin.
pub const BASIC: &str = "basic";

/// The methods a receiver may be called with.
pub const METHODS: &[&str] = &["GET", "POST", "PUT", "DELETE", "PATCH"];

/// The shapes of the message.
pub const FORMATS: &[&str] = &["standard", "legacy"];

/// Headers that are ours, or the connection's: a request does not set them.
const RESERVED: &[&str] = &[
    "host",
    "connection",
    "content-length",
    "content-type",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
];

/// Bytes that headers and cookies may have together.
const MOST_BYTES: usize = 16 * 1024;

/// Seconds before a retry when the request lists none.
const RETRY_AFTER: f64 = 10.0;

/// A receiver, as a request names it. Serialises whole, for sealing only; prints masked.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct WebHook {
    /// The kind: `basic`, or a plugin's name.
    pub name: String,
    /// Where to. It may carry a token, so nothing but its origin is ever shown.
    pub url: String,
    /// One of [`METHODS`].
    pub method: String,
    /// Headers to send.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Cookies to send.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cookies: BTreeMap<String, String>,
    /// User and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<(String, String)>,
    /// Seconds that one attempt may take.
    pub timeout: f64,
    /// Attempts after the first.
    pub max_retries: u32,
    /// Seconds before each; the last one is used again, none means 10.
    pub retry_intervals: Vec<f64>,
    /// One of [`FORMATS`]; the site's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Key of the signature; the site's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Whatever else a plugin reads.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

impl fmt::Debug for WebHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebHook")
            .field("name", &self.name)
            .field("receiver", &self.origin())
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

impl WebHook {
    /// Reads `webhook` of a request.
    pub(crate) fn read(f: &mut Fields<'_>) -> Option<Self> {
        let from = f.errors_so_far();
        let hook = f.nested("webhook", Self::read_fields);
        // What was given may hold passwords and tokens anywhere.
        f.mask_inputs_since(from);
        hook
    }

    fn read_fields(f: &mut Fields<'_>) -> Self {
        let name = f.string("name").unwrap_or_else(|| BASIC.to_owned());
        let url = f.required_string("url");
        // What an address of another kind looks like, that kind's plugin knows.
        let checked = if name == BASIC { check_url(&url) } else { check_text(&url) };
        if let (false, Err(why)) = (url.is_empty(), checked) {
            f.error("url", "url_parsing", why);
        }
        let headers = texts(f, "headers", check_header);
        let cookies = texts(f, "cookies", check_cookie);
        let size = |map: &BTreeMap<String, String>| map.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
        if size(&headers) + size(&cookies) > MOST_BYTES {
            f.error("headers", "value_error", "Headers and cookies should have at most 16384 bytes together");
        }
        let auth = match f.get("auth") {
            None => None,
            Some(Value::Array(items)) => match items.as_slice() {
                [Value::String(user), Value::String(password)] => Some((user.clone(), password.clone())),
                _ => {
                    f.error("auth", "value_error", "Input should be a list of user and password");
                    None
                }
            },
            Some(_) => {
                f.error("auth", "list_type", "Input should be a list of user and password");
                None
            }
        };
        if auth.is_some() && headers.keys().any(|name| name.eq_ignore_ascii_case("authorization")) {
            f.error("auth", "value_error", "Give `auth` or the header `Authorization`, not both");
        }
        let mut intervals = Vec::new();
        let mut bad = false;
        let given = f.get("retry_intervals").is_some();
        for item in f.list("retry_intervals").map(Vec::as_slice).unwrap_or_default() {
            match item.as_f64().filter(|seconds| (0.0..=86_400.0).contains(seconds)) {
                Some(seconds) => intervals.push(seconds),
                None => bad = true,
            }
        }
        if bad || intervals.len() > 100 {
            f.error(
                "retry_intervals",
                "value_error",
                "Input should be a list of at most 100 seconds from 0 to 86400",
            );
        }
        if !given {
            intervals = vec![10.0, 30.0, 120.0];
        }
        const KNOWN: &[&str] = &[
            "name",
            "url",
            "method",
            "headers",
            "cookies",
            "auth",
            "timeout",
            "max_retries",
            "retry_intervals",
            "format",
            "secret",
        ];
        Self {
            name,
            url,
            method: f.one_of("method", METHODS).unwrap_or("POST").to_owned(),
            headers,
            cookies,
            auth,
            timeout: f.number("timeout", 0.5, 120.0).unwrap_or(5.0),
            max_retries: f.integer("max_retries", 0, 10).and_then(|n| u32::try_from(n).ok()).unwrap_or(3),
            retry_intervals: intervals,
            format: f.one_of("format", FORMATS).map(str::to_owned),
            secret: f.string("secret"),
            extra: f
                .map()
                .iter()
                .filter(|(key, _)| !KNOWN.contains(&key.as_str()))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        }
    }

    /// Scheme, host and port: what may be shown of the address. Of one that has no host, the scheme.
    #[must_use]
    pub fn origin(&self) -> &str {
        let Some(rest) = self.url.find("://").map(|at| at + 3) else {
            return self.url.find(':').map_or("", |at| &self.url[..=at]);
        };
        let end = self.url[rest..].find(['/', '?', '#']).map_or(self.url.len(), |at| rest + at);
        &self.url[..end]
    }

    /// As its kind reads it: what else the request gave stands beside the known fields again.
    #[must_use]
    pub fn given(&self) -> Value {
        let mut given = match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            _ => return Value::Null,
        };
        given.shift_remove("extra");
        given.extend(self.extra.clone());
        Value::Object(given)
    }

    /// Seconds to wait after attempt number `attempt` (from 1), or none when it was the last.
    #[must_use]
    pub fn retry_after(&self, attempt: u32) -> Option<f64> {
        if attempt > self.max_retries {
            return None;
        }
        let index = attempt.saturating_sub(1) as usize;
        let interval = self.retry_intervals.get(index).or(self.retry_intervals.last());
        Some(interval.copied().unwrap_or(RETRY_AFTER))
    }
}

/// What the outbox keeps beside the job: whom to tell, and what the job itself does not know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// The receiver.
    pub webhook: WebHook,
    /// The platform's name as the request gave it.
    #[serde(default)]
    pub device_type: Option<String>,
}

fn check_url(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let Some(rest) = rest else {
        return Err("Input should be a URL that begins with http:// or https://".into());
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("Give user and password as `auth`, not in the URL".into());
    }
    if authority.is_empty() || authority.starts_with(':') {
        return Err("Input should be a URL with a host".into());
    }
    check_text(url)
}

/// What holds for the address of any kind.
fn check_text(url: &str) -> Result<(), String> {
    if url.len() > 8192 || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("Input should be a URL of at most 8192 characters without blanks".into());
    }
    let authority = url.split_once("://").and_then(|(_, rest)| rest.split(['/', '?', '#']).next());
    if authority.is_some_and(|authority| authority.contains('@')) {
        return Err("Give user and password as `auth`, not in the URL".into());
    }
    Ok(())
}

fn is_token(text: &str) -> bool {
    let mark = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(mark)
}

fn check_header(name: &str, value: &str) -> Result<(), String> {
    let lower = name.to_ascii_lowercase();
    if RESERVED.contains(&lower.as_str()) || lower.starts_with("x-netpulse-") {
        return Err(format!("The header `{name}` is set by NetPulse itself"));
    }
    if !is_token(name) {
        return Err("Names of headers should be of letters, digits and dashes".into());
    }
    if value.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f) {
        return Err(format!("The header `{name}` should be one line of visible characters"));
    }
    Ok(())
}

fn check_cookie(name: &str, value: &str) -> Result<(), String> {
    let plain = |b: u8| (b > b' ' && b < 0x7f) && !b"\",;\\".contains(&b);
    if !is_token(name) || !value.bytes().all(plain) {
        return Err("Cookies should have names of letters, digits and dashes, and values without blanks, \
                    quotes, commas, semicolons and backslashes"
            .into());
    }
    Ok(())
}

/// An object of texts.
fn texts(
    f: &mut Fields<'_>,
    key: &str,
    check: impl Fn(&str, &str) -> Result<(), String>,
) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    for (name, value) in f.object(key).unwrap_or_default() {
        let text = match value {
            Value::String(text) => text,
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => {
                f.error(key, "string_type", format!("`{name}` should be a valid string"));
                continue;
            }
        };
        match check(&name, &text) {
            Ok(()) => drop(texts.insert(name, text)),
            Err(why) => f.error(key, "value_error", why),
        }
    }
    texts
}

/// A webhook as it may be shown: no value of a header or cookie, no password, no path of the URL.
#[must_use]
pub fn masked(webhook: &Value) -> Value {
    let Value::Object(map) = webhook else { return Value::from(MASK) };
    let shown = |key: &str, value: &Value| match (key, value) {
        ("name" | "method" | "timeout" | "max_retries" | "retry_intervals" | "format", value) => {
            value.clone()
        }
        ("url", Value::String(url)) if !url.contains("://") => {
            Value::from(url.find(':').map_or_else(|| MASK.to_owned(), |at| format!("{}{MASK}", &url[..=at])))
        }
        ("url", Value::String(url)) => {
            let rest = url.find("://").map_or(0, |at| at + 3);
            let end = url[rest..].find(['/', '?', '#']).map_or(url.len(), |at| rest + at);
            let host = url[rest..end].rsplit('@').next().unwrap_or_default();
            let tail = if end < url.len() { format!("/{MASK}") } else { String::new() };
            Value::from(format!("{}{host}{tail}", &url[..rest]))
        }
        (_, Value::Null) => Value::Null,
        ("headers" | "cookies", Value::Object(map)) => {
            Value::Object(map.keys().map(|name| (name.clone(), Value::from(MASK))).collect())
        }
        _ => Value::from(MASK),
    };
    Value::Object(map.iter().map(|(key, value)| (key.clone(), shown(key, value))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(webhook: Value) -> Result<WebHook, Vec<crate::FieldError>> {
        let mut errors = Vec::new();
        let body = json!({ "webhook": webhook });
        let hook = Fields::of(&body, vec![], &mut errors).and_then(|mut f| WebHook::read(&mut f));
        match hook {
            Some(hook) if errors.is_empty() => Ok(hook),
            _ => Err(errors),
        }
    }

    #[test]
    fn defaults_are_upstreams() {
        let hook = read(json!({"url": "https://hook.example.net/np"})).unwrap();
        assert_eq!((hook.name.as_str(), hook.method.as_str(), hook.timeout), ("basic", "POST", 5.0));
        let waits: Vec<Option<f64>> = (1..6).map(|n| hook.retry_after(n)).collect();
        assert_eq!(waits, [Some(10.0), Some(30.0), Some(120.0), None, None]);
        let hook =
            read(json!({"url": "http://h", "retry_intervals": [], "max_retries": 1, "auth": ["u", "p"]}))
                .unwrap();
        assert_eq!((hook.retry_after(1), hook.retry_after(2)), (Some(10.0), None));
        let hook = read(json!({"url": "http://h", "retry_intervals": [5, 15], "max_retries": 10})).unwrap();
        assert_eq!(hook.retry_after(7), Some(15.0), "the last one is used again");
    }

    #[test]
    fn promise_15_each_mistake_names_its_field_and_promise_12_shows_no_secret() {
        let errors = read(json!({
            "url": "ftp://h/t0ken-in-path", "method": "HEAD", "timeout": 121, "max_retries": 11,
            "retry_intervals": [-1], "auth": ["only-user-s3cret"], "headers": {"Host": "x", "Ok": "a\nb-s3cret"},
            "cookies": {"a b": "s3cret"}, "format": "xml", "name": 7,
        }))
        .unwrap_err();
        let paths: Vec<String> = errors.iter().map(crate::FieldError::path).collect();
        for field in [
            "url",
            "method",
            "timeout",
            "max_retries",
            "retry_intervals",
            "auth",
            "headers",
            "cookies",
            "format",
        ] {
            assert!(paths.contains(&format!("webhook.{field}")), "{field}: {paths:?}");
        }
        let text = serde_json::to_string(&errors).unwrap();
        assert!(!text.contains("s3cret") && !text.contains("t0ken"), "{text}");
        let missing = read(json!({"auth": ["u", "s3cret"], "headers": {"X-Key": "s3cret"}})).unwrap_err();
        assert_eq!(missing[0].path(), "webhook.url");
        assert!(!serde_json::to_string(&missing).unwrap().contains("s3cret"), "{missing:?}");
        let with_user = read(json!({"url": "https://u:s3cret@h/"})).unwrap_err();
        assert!(with_user[0].msg.contains("`auth`"), "{with_user:?}");
        assert!(!format!("{with_user:?}").contains("s3cret"));
        assert_eq!(read(json!("http://h")).unwrap_err()[0].path(), "webhook");
    }

    #[test]
    fn a_plugins_address_is_its_own_and_promise_12_shows_no_more_of_it() {
        let read_as = |name: &str, url: &str| read(json!({"name": name, "url": url}));
        let shown = |url: &str| read_as("pager", url).unwrap().origin().to_owned();
        assert_eq!(shown("udp://192.0.2.5:514"), "udp://192.0.2.5:514");
        assert_eq!(shown("pager:s3cret-room"), "pager:");
        assert_eq!(shown("s3cret-room"), "");
        for url in ["pager:s3cret-room", "s3cret-room", "udp://h/s3cret"] {
            let shown = masked(&json!({"name": "pager", "url": url})).to_string();
            assert!(!shown.contains("s3cret"), "{shown}");
        }
        let more =
            read(json!({"name": "pager", "url": "pager:x", "page": 7, "to": {"a": [1]}})).unwrap().given();
        assert_eq!((&more["page"], &more["to"]), (&json!(7), &json!({"a": [1]})), "as the request gave it");
        assert!(more.get("extra").is_none(), "{more}");
        assert!(read_as("basic", "udp://192.0.2.5").is_err());
        assert!(read_as("pager", "udp://u:p@h").is_err() && read_as("pager", "two words").is_err());
    }

    #[test]
    fn promise_12_prints_nothing_but_the_origin() {
        let hook = json!({"url": "https://h:8443/T0/s3cret?k=s3cret", "headers": {"X-Key": "s3cret"},
            "cookies": {"c": "s3cret"}, "auth": ["u", "s3cret"], "secret": "s3cret", "other": {"a": "s3cret"}});
        let read = read(hook.clone()).unwrap();
        assert_eq!(read.origin(), "https://h:8443");
        let notice = Notice { webhook: read, device_type: None };
        assert!(!format!("{notice:?}").contains("s3cret"));
        let shown = masked(&hook).to_string();
        assert!(!shown.contains("s3cret") && shown.contains("https://h:8443/******"), "{shown}");
    }
}
