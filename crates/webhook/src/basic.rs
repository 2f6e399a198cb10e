//! The kind `basic`: one HTTP request per attempt.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use netpulse_model::webhook::BASIC;
use netpulse_model::{FieldError, Timestamp, WebHook};
use netpulse_plugin::{Failed, PluginError, Webhook, WebhookCall};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use reqwest::{Client, Method, RequestBuilder, Response, Url};
use serde_json::Value;

use crate::address::{Addresses, BadAddress};
use crate::signature::{SIGNATURE, sign};

/// Bytes of an answer that are read, so that the connection can serve again; longer ones close it.
const MOST_ANSWER: usize = 64 * 1024;

/// How the site wants its receivers called.
#[derive(Debug, Clone, Default)]
pub struct BasicOptions {
    /// Networks, addresses and hosts that may be called though they are not public.
    pub allow_private: Vec<String>,
    /// Key of the signature for requests that bring none.
    pub secret: Option<String>,
    /// Certificates (PEM) to trust besides the system's.
    pub ca: Option<PathBuf>,
}

/// Why the kind cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BasicError {
    /// An entry of the allowed addresses.
    #[error("webhook.allow_private: {0}")]
    Address(#[from] BadAddress),
    /// The file of certificates.
    #[error("webhook.ca: {path}: {why}")]
    Ca {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The HTTP client.
    #[error("no HTTP client for webhooks: {0}")]
    Client(reqwest::Error),
}

/// The built-in kind.
pub struct Basic {
    client: Client,
    addresses: Arc<Addresses>,
    secret: Option<String>,
}

impl Basic {
    /// Makes the client that all attempts share.
    ///
    /// # Errors
    /// An entry of `allow_private` that is none, or a file of certificates that cannot be read.
    pub fn new(options: BasicOptions) -> Result<Self, BasicError> {
        let addresses = Arc::new(Addresses::new(&options.allow_private)?);
        let mut builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            // A proxy would resolve names by itself, past the addresses that are allowed.
            .no_proxy()
            .dns_resolver(Checked(Arc::clone(&addresses)))
            .pool_max_idle_per_host(8)
            .pool_idle_timeout(Duration::from_secs(30))
            .tcp_nodelay(true);
        if let Some(path) = options.ca {
            let bad = |why: String| BasicError::Ca { path: path.clone(), why };
            let pem = std::fs::read(&path).map_err(|error| bad(error.to_string()))?;
            let found =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| bad(error.to_string()))?;
            if found.is_empty() {
                return Err(bad("there is no certificate in it".into()));
            }
            builder = builder.tls_certs_merge(found);
        }
        let client = builder.build().map_err(BasicError::Client)?;
        Ok(Self { client, addresses, secret: options.secret.filter(|secret| !secret.is_empty()) })
    }

    /// What is wrong with the address itself, without asking for a name's.
    fn check(&self, url: &str) -> Result<Url, Refused> {
        let parsed = Url::parse(url).map_err(|error| Refused(format!("it is no URL: {error}")))?;
        let host = parsed.host_str().ok_or_else(|| Refused("it has no host".into()))?;
        // The parser has turned every way to write an address (0x7f.1, 2130706433) into the usual one.
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        if let Ok(ip) = literal
            && !self.addresses.allow(host, ip)
        {
            return Err(Refused::private(host, ip));
        }
        Ok(parsed)
    }

    fn request(&self, hook: &WebHook, url: Url, call: &WebhookCall<'_>) -> Result<RequestBuilder, Refused> {
        let bad = |what: &str| Refused(format!("its {what} cannot be sent"));
        let method = Method::from_bytes(hook.method.as_bytes()).map_err(|_| bad("method"))?;
        let body = serde_json::to_vec(call.payload).map_err(|_| bad("message"))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &hook.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("headers"))?;
            let mut value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| bad("headers"))?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        if !hook.cookies.is_empty() {
            headers.insert(COOKIE, secret_value(&cookies(&hook.cookies)).ok_or_else(|| bad("cookies"))?);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if !headers.contains_key(USER_AGENT) {
            headers.insert(
                USER_AGENT,
                HeaderValue::from_static(concat!("NetPulse/", env!("CARGO_PKG_VERSION"))),
            );
        }
        let event = call.payload.get("event_type").and_then(Value::as_str).unwrap_or("job.ended");
        for (name, text) in [
            ("x-netpulse-delivery", call.delivery.to_string()),
            ("x-netpulse-event", event.to_owned()),
            ("x-netpulse-attempt", call.attempt.to_string()),
        ] {
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::from_str(&text).map_err(|_| bad("headers"))?,
            );
        }
        if let Some(secret) = hook.secret.as_ref().or(self.secret.as_ref()) {
            let seconds = Timestamp::now().0 / 1_000_000;
            let signature = HeaderValue::from_str(&sign(secret, seconds, &body));
            headers.insert(
                HeaderName::from_bytes(SIGNATURE.as_bytes()).map_err(|_| bad("signature"))?,
                signature.map_err(|_| bad("signature"))?,
            );
        }
        let mut request = self
            .client
            .request(method, url)
            .timeout(Duration::from_secs_f64(hook.timeout.clamp(0.5, 120.0)))
            .headers(headers)
            .body(body);
        if let Some((user, password)) = &hook.auth {
            request = request.basic_auth(user, Some(password));
        }
        Ok(request)
    }
}

#[async_trait]
impl Webhook for Basic {
    fn name(&self) -> &str {
        BASIC
    }

    fn validate(&self, webhook: &Value) -> Vec<FieldError> {
        let url = webhook.get("url").and_then(Value::as_str).unwrap_or_default();
        match self.check(url) {
            Ok(_) => Vec::new(),
            Err(refused) => vec![FieldError::new(
                &["url"],
                format!("Input should be a URL that may be called: {refused}"),
            )],
        }
    }

    async fn call(&self, call: WebhookCall<'_>) -> Result<(), PluginError> {
        let hook: WebHook = serde_json::from_value(call.webhook.clone())
            .map_err(|_| PluginError::new(Failed::BadRequest, "the stored webhook cannot be read"))?;
        let denied = |refused: Refused| {
            PluginError::new(Failed::Denied, format!("{} may not be called: {refused}", hook.origin()))
        };
        let url = self.check(&hook.url).map_err(denied)?;
        let request = self.request(&hook, url, &call).map_err(denied)?;
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return Err(told(&hook, &error)),
        };
        let status = answer.status();
        drain(answer).await;
        if status.is_success() {
            return Ok(());
        }
        let note = if status.is_redirection() { "; redirects are not followed" } else { "" };
        Err(PluginError::new(Failed::Unavailable, format!("{} answered {status}{note}", hook.origin())))
    }
}

fn cookies(cookies: &BTreeMap<String, String>) -> String {
    cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
}

fn secret_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Reads the rest of a short answer, so that its connection can be used again. What it says does
/// not matter, nor whether it ends well: the status has been read.
async fn drain(mut answer: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = answer.chunk().await {
        read += chunk.len();
        if read > MOST_ANSWER {
            return;
        }
    }
}

/// A transport's failure in one sentence, without the URL, which may carry a token.
fn told(hook: &WebHook, error: &reqwest::Error) -> PluginError {
    let mut inner: Option<&(dyn Error + 'static)> = error.source();
    let mut last = None;
    while let Some(error) = inner {
        if let Some(refused) = error.downcast_ref::<Refused>() {
            let text = format!("{} may not be called: {refused}", hook.origin());
            return PluginError::new(Failed::Denied, text);
        }
        last = Some(error.to_string());
        inner = error.source();
    }
    let what = if error.is_timeout() {
        format!("did not answer within {} s", hook.timeout)
    } else if error.is_connect() {
        format!("cannot be connected to: {}", last.unwrap_or_else(|| "no reason given".into()))
    } else {
        format!("broke off: {}", last.unwrap_or_else(|| "no reason given".into()))
    };
    PluginError::new(Failed::Unavailable, format!("{} {what}", hook.origin()))
}

/// A receiver that may not be called, and why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

impl Refused {
    fn private(host: &str, ip: IpAddr) -> Self {
        let which = if host.parse::<IpAddr>().is_ok() || host.starts_with('[') {
            format!("{ip} is no public address")
        } else {
            format!("{host} has the address {ip}, which is not public")
        };
        Self(format!("{which}; the server's configuration allows others by `webhook.allow_private`"))
    }
}

/// Resolves names once, and gives only allowed addresses: the very ones that are connected to, so
/// that a name that answers differently the second time gains nothing.
struct Checked(Arc<Addresses>);

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let addresses = Arc::clone(&self.0);
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            let mut allowed = Vec::new();
            let mut refused = None;
            for address in found {
                if addresses.allow(&host, address.ip()) {
                    allowed.push(address);
                } else {
                    refused.get_or_insert(Refused::private(&host, address.ip()));
                }
            }
            match (allowed.is_empty(), refused) {
                (true, Some(refused)) => Err(refused.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}
