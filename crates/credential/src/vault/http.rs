//! Calls to Vault's HTTP API: one deadline per answer, tries again where Vault asks for it, answers
//! bounded and zeroed.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use netpulse_config::Credential;
use reqwest::header::{HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::SetupError;

/// Largest answer that is read, bytes.
const LARGEST: usize = 4 * 1024 * 1024;
/// Tries of one call in all.
const TRIES: u32 = 3;
/// Longest wait that Vault may ask for between two of them.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Standby nodes that may point to one another.
const REDIRECTS: u32 = 2;

pub(super) struct Http {
    client: reqwest::Client,
    base: String,
    namespace: Option<String>,
    timeout: Duration,
}

/// One call. Prints nothing of its token or body.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// Below `/v1/`, percent-encoded, with its query.
    pub(super) path: &'a str,
    pub(super) token: Option<&'a str>,
    /// Instead of the configured one; empty for the root namespace.
    pub(super) namespace: Option<&'a str>,
    pub(super) body: Option<Bytes>,
}

impl<'a> Call<'a> {
    pub(super) fn new(method: Method, path: &'a str) -> Self {
        Self { method, path, token: None, namespace: None, body: None }
    }

    pub(super) fn token(mut self, token: &'a str) -> Self {
        self.token = Some(token);
        self
    }

    pub(super) fn namespace(mut self, namespace: Option<&'a str>) -> Self {
        self.namespace = namespace;
        self
    }

    /// With `body` as JSON; its bytes are zeroed when they are no longer needed.
    pub(super) fn json(mut self, body: Zeroizing<Vec<u8>>) -> Self {
        self.body = Some(Bytes::from_owner(body));
        self
    }

    /// Whether asking twice does no more than asking once.
    fn repeatable(&self) -> bool {
        self.method == Method::GET || self.method.as_str() == "LIST"
    }
}

/// What Vault said. The body may hold a secret.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    body: Zeroizing<Vec<u8>>,
    retry_after: Option<Duration>,
}

#[derive(Deserialize, Default)]
struct Complaints {
    #[serde(default)]
    errors: Vec<String>,
    #[serde(default)]
    warnings: Option<Vec<String>>,
}

impl Answer {
    /// The body as `T`; none when it is something else.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// What Vault complains of, in its own words; empty when it says nothing.
    pub(super) fn complaint(&self) -> String {
        let said = self.read::<Complaints>().unwrap_or_default();
        let mut words = said.errors;
        words.extend(said.warnings.unwrap_or_default());
        // Vault wraps its list as "1 error occurred:\n\t* permission denied\n\n".
        let mut text = words.join("; ").split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((at, _)) = text.char_indices().nth(300) {
            text.truncate(at);
        }
        text
    }

    /// Whether Vault, or a load balancer before it, asks to come again.
    fn transient(&self) -> bool {
        let standby = self.status == StatusCode::INTERNAL_SERVER_ERROR && self.complaint().contains("active");
        match self.status.as_u16() {
            412 | 429 | 502 | 504 => true,
            503 => !self.sealed(),
            _ => standby,
        }
    }

    fn sealed(&self) -> bool {
        self.complaint().to_ascii_lowercase().contains("sealed")
    }

    /// Why this status means that there is no answer to be had now; none when it is an answer.
    pub(super) fn outage(&self) -> Option<String> {
        let complaint = self.complaint();
        let said = if complaint.is_empty() { String::new() } else { format!(": {complaint}") };
        match self.status.as_u16() {
            429 => Some(format!("Vault limits requests (HTTP 429{said}); try again later")),
            503 if self.sealed() => Some("Vault is sealed: somebody must unseal it".to_owned()),
            412 | 500..=599 => Some(format!("Vault answered HTTP {}{said}", self.status.as_u16())),
            300..=399 => Some(format!("Vault answered HTTP {} and sends us elsewhere", self.status.as_u16())),
            _ => None,
        }
    }
}

impl Http {
    pub(super) fn new(config: &Credential) -> Result<Self, SetupError> {
        let wrong = |key: &str, why: String| SetupError(format!("credential.{key}: {why}"));
        let addr = config.addr.as_deref().map(|addr| addr.trim().trim_end_matches('/')).unwrap_or_default();
        if addr.is_empty() {
            return Err(wrong(
                "addr",
                "must be set: the provider vault_kv needs the address of Vault".into(),
            ));
        }
        let base: Url = addr.parse().map_err(|error| wrong("addr", format!("`{addr}`: {error}")))?;
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(config.timeout.max(1)));
        builder = match config.verify.as_str() {
            "true" => builder,
            "false" => builder.tls_danger_accept_invalid_certs(true),
            file => {
                let pem = std::fs::read(file)
                    .map_err(|error| wrong("verify", format!("`{file}` cannot be read: {error}")))?;
                let roots = reqwest::Certificate::from_pem_bundle(&pem)
                    .ok()
                    .filter(|roots| !roots.is_empty())
                    .ok_or_else(|| wrong("verify", format!("`{file}` holds no certificate in PEM")))?;
                builder.tls_certs_only(roots)
            }
        };
        let client = builder
            .build()
            .map_err(|error| wrong("addr", format!("no HTTP client can be made: {}", reason(&error))))?;
        Ok(Self {
            client,
            base: base.as_str().trim_end_matches('/').to_owned(),
            namespace: config.namespace.clone().filter(|namespace| !namespace.is_empty()),
            timeout: Duration::from_secs(config.timeout.max(1)),
        })
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Asks, again where that may help, and gives the answer of whatever status.
    ///
    /// # Errors
    /// No answer came: a sentence with the address.
    pub(super) async fn send(&self, call: &Call<'_>) -> Result<Answer, String> {
        let mut tries = 1;
        loop {
            let answered = self.follow(call).await;
            let wait = match &answered {
                // What limits or forwards requests has not carried out this one.
                Ok(answer) if answer.transient() && (call.repeatable() || answer.status == 429) => {
                    answer.retry_after.unwrap_or(Duration::from_millis(100) * tries * tries)
                }
                Err(Unanswered { again: true, .. }) => Duration::from_millis(50) * tries * tries,
                _ => Duration::MAX,
            };
            if tries == TRIES || wait > LONGEST_WAIT {
                return answered.map_err(|failure| failure.sentence);
            }
            tokio::time::sleep(wait).await;
            tries += 1;
        }
    }

    /// Goes where a standby node points, without ever giving up encryption.
    async fn follow(&self, call: &Call<'_>) -> Result<Answer, Unanswered> {
        let mut url = format!("{}/v1/{}", self.base, call.path);
        let mut redirects = 0;
        loop {
            let (answer, headers) = self.once(call, &url).await?;
            let elsewhere = matches!(answer.status.as_u16(), 307 | 308)
                .then(|| headers.get(LOCATION)?.to_str().ok())
                .flatten()
                .and_then(|to| Url::parse(&url).ok()?.join(to).ok());
            match elsewhere {
                Some(to)
                    if redirects < REDIRECTS
                        && (to.scheme() == "https" || !self.base.starts_with("https")) =>
                {
                    redirects += 1;
                    url = to.into();
                }
                _ => return Ok(answer),
            }
        }
    }

    async fn once(&self, call: &Call<'_>, url: &str) -> Result<(Answer, HeaderMap), Unanswered> {
        let mut request = self
            .client
            .request(call.method.clone(), url)
            .timeout(self.timeout)
            .header("X-Vault-Request", "true");
        if let Some(token) = call.token {
            let mut value = HeaderValue::from_str(token).map_err(|_| Unanswered {
                sentence: "The Vault token has characters that no header can carry".to_owned(),
                again: false,
            })?;
            value.set_sensitive(true);
            request = request.header("X-Vault-Token", value);
        }
        let namespace = call.namespace.or(self.namespace.as_deref());
        if let Some(namespace) = namespace.filter(|namespace| !namespace.is_empty()) {
            request = request.header("X-Vault-Namespace", namespace);
        }
        if let Some(body) = &call.body {
            request = request.header("Content-Type", "application/json").body(body.clone());
        }
        let unanswered = |error: reqwest::Error| {
            let why = if error.is_timeout() {
                format!("did not answer within {} s", self.timeout.as_secs())
            } else {
                format!("does not answer: {}", reason(&error))
            };
            Unanswered {
                sentence: format!("Vault at {} {why}", self.base),
                again: !error.is_timeout() && (error.is_connect() || call.repeatable()),
            }
        };
        let response = request.send().await.map_err(unanswered)?;
        let (status, headers) = (response.status(), response.headers().clone());
        // Large enough for most at once: a buffer that grows leaves copies behind.
        let announced = response.content_length().and_then(|n| usize::try_from(n).ok()).unwrap_or(16 * 1024);
        let mut body = Zeroizing::new(Vec::with_capacity(announced.min(LARGEST)));
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(unanswered)?;
            if body.len() + chunk.len() > LARGEST {
                let sentence = format!("Vault at {} sent more than {} MiB", self.base, LARGEST >> 20);
                return Err(Unanswered { sentence, again: false });
            }
            body.extend_from_slice(&chunk);
        }
        let retry_after = headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs);
        Ok((Answer { status, body, retry_after }, headers))
    }
}

/// No answer came.
struct Unanswered {
    sentence: String,
    /// Whether another try may help and does no harm.
    again: bool,
}

/// The innermost reason of an error, which names neither address nor header.
fn reason(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
