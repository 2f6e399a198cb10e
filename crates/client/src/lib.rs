//! The REST API as typed calls: what the command line, the tests and the device provider use.
//!
//! ```no_run
//! # async fn example() -> Result<(), netpulse_client::ClientError> {
//! use std::time::Duration;
//! use netpulse_client::{Client, Options};
//! use netpulse_model::api::ExecBody;
//!
//! let client = Client::new("http://127.0.0.1:9000", "the-key")?;
//! let mut body = ExecBody { driver: "netmiko".into(), ..ExecBody::default() };
//! body.connection_args.insert("host".into(), "192.0.2.11".into());
//! body.command = Some(netpulse_model::Payload::Text("show clock".into()));
//! let job = client.exec(&body, &Options::wait(Duration::from_secs(30))).await?;
//! assert!(job.status.is_final());
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod error;
mod events;

use std::time::Duration;

use netpulse_model::JobId;
use netpulse_model::api::{
    BulkBody, BulkResponse, CancelResponse, ExecBody, HealthResponse, JobInResponse, NameResponse,
    PluginInfo, StatsResponse, TemplateBody, TestBody, TestResponse, WhyResponse,
};
use netpulse_model::worker::WorkerRecord;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use error::ClientError;
pub use events::{Events, Happened};

/// Longest a call may take beyond the time it was asked to wait.
const PATIENCE: Duration = Duration::from_secs(60);
/// A connection test may take as long as the server lets it.
const TEST_PATIENCE: Duration = Duration::from_secs(200);

/// How to reach a server.
#[derive(Clone)]
pub struct Builder {
    url: String,
    key: String,
    key_name: String,
    ca: Option<Vec<u8>>,
    insecure: bool,
}

impl Builder {
    /// The header that carries the key, where it is not `X-API-KEY`.
    #[must_use]
    pub fn key_name(mut self, name: impl Into<String>) -> Self {
        self.key_name = name.into();
        self
    }

    /// Trusts only certificates that this one (PEM) signed.
    #[must_use]
    pub fn ca(mut self, pem: Vec<u8>) -> Self {
        self.ca = Some(pem);
        self
    }

    /// Trusts any certificate: for a first look at a self-signed server, never for work.
    #[must_use]
    pub fn insecure(mut self, insecure: bool) -> Self {
        self.insecure = insecure;
        self
    }

    /// The client.
    ///
    /// # Errors
    /// [`ClientError::Setup`] for an address, key or certificate that is none.
    pub fn build(self) -> Result<Client, ClientError> {
        let setup = |what: String| ClientError::Setup(what);
        let base = reqwest::Url::parse(&self.url).map_err(|e| {
            setup(format!("`{}` is no address of a server: {e}; give http://host:port", self.url))
        })?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(setup(format!("`{}` is no address of a server: give http://host:port", self.url)));
        }
        let name: HeaderName =
            self.key_name.parse().map_err(|_| setup(format!("`{}` is no header name", self.key_name)))?;
        let mut key = HeaderValue::from_str(&self.key)
            .map_err(|_| setup("the API key holds characters that no header can carry".into()))?;
        key.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert(name, key);
        // The server closes idle connections after 30 s; one is not to be used again just then.
        let mut http = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(Duration::from_secs(10))
            .pool_idle_timeout(Duration::from_secs(20))
            .tcp_nodelay(true)
            .danger_accept_invalid_certs(self.insecure);
        if let Some(pem) = &self.ca {
            let ca = reqwest::Certificate::from_pem(pem)
                .map_err(|e| setup(format!("the CA certificate cannot be used: {e}")))?;
            http = http.tls_certs_only([ca]);
        }
        let http = http.build().map_err(|e| setup(e.to_string()))?;
        Ok(Client { http, base: self.url.trim_end_matches('/').to_owned() })
    }
}

/// A server, seen from outside. Cheap to clone; keeps its connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("base", &self.base).finish_non_exhaustive()
    }
}

/// What may go with a submission.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Hold the answer until the job has ended, at most so long.
    pub wait: Option<Duration>,
    /// The same key gives the same job.
    pub idempotency_key: Option<String>,
}

impl Options {
    /// Hold the answer at most so long.
    #[must_use]
    pub fn wait(time: Duration) -> Self {
        Self { wait: Some(time), idempotency_key: None }
    }
}

/// Which jobs to list; what is not given does not narrow.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// In this queue. Without `state`, a queue or host means what waits there.
    pub queue: Option<String>,
    /// Run by a worker of this node.
    pub node: Option<String>,
    /// For this host.
    pub host: Option<String>,
    /// States by commas, or `all`.
    pub state: Option<String>,
    /// Accepted at or after.
    pub since: Option<String>,
    /// Accepted before.
    pub until: Option<String>,
}

/// Which workers are meant.
#[derive(Debug, Clone, Default)]
pub struct WorkerFilter {
    /// Serving this queue.
    pub queue: Option<String>,
    /// Of this node.
    pub node: Option<String>,
    /// Owning this device.
    pub host: Option<String>,
}

/// One page of jobs.
#[derive(Debug, Clone)]
pub struct JobPage {
    /// The jobs, newest first.
    pub jobs: Vec<JobInResponse>,
    /// Where the next page starts; none on the last.
    pub next: Option<String>,
}

type Query = Vec<(&'static str, String)>;

impl JobFilter {
    fn query(&self) -> Query {
        given([
            ("queue", &self.queue),
            ("node", &self.node),
            ("host", &self.host),
            ("state", &self.state),
            ("since", &self.since),
            ("until", &self.until),
        ])
    }
}

impl WorkerFilter {
    fn query(&self) -> Query {
        given([("queue", &self.queue), ("node", &self.node), ("host", &self.host)])
    }
}

fn given<const N: usize>(pairs: [(&'static str, &Option<String>); N]) -> Query {
    pairs.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
}

impl Client {
    /// A client of the server at `url` (`http://host:port`).
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn new(url: impl Into<String>, key: impl Into<String>) -> Result<Self, ClientError> {
        Self::builder(url, key).build()
    }

    /// A client whose further settings follow.
    #[must_use]
    pub fn builder(url: impl Into<String>, key: impl Into<String>) -> Builder {
        Builder { url: url.into(), key: key.into(), key_name: "X-API-KEY".into(), ca: None, insecure: false }
    }

    /// The server's address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.base
    }

    /// Runs something on one device.
    ///
    /// # Errors
    /// As every call: [`ClientError`].
    pub async fn exec(&self, body: &ExecBody, options: &Options) -> Result<JobInResponse, ClientError> {
        self.submit("/device/exec", body, options).await
    }

    /// Runs something on many devices.
    ///
    /// # Errors
    /// As every call: [`ClientError`]. One device's fault is no error but in `failed`.
    pub async fn bulk(&self, body: &BulkBody, options: &Options) -> Result<BulkResponse, ClientError> {
        self.submit("/device/bulk", body, options).await
    }

    async fn submit<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        options: &Options,
    ) -> Result<T, ClientError> {
        let mut request = self.request(Method::POST, &[path], &waiting(options.wait)).json(body);
        if let Some(wait) = options.wait {
            request = request.timeout(wait + PATIENCE);
        }
        if let Some(key) = &options.idempotency_key {
            let key = HeaderValue::from_str(key).map_err(|_| {
                ClientError::Setup("an idempotency key is 1 to 255 visible ASCII characters".into())
            })?;
            request = request.header("idempotency-key", key);
        }
        self.read(request).await
    }

    /// Connects to a device and looks. A device that refuses is an answer, not an error.
    ///
    /// # Errors
    /// As every call: [`ClientError`].
    pub async fn test(&self, body: &TestBody) -> Result<TestResponse, ClientError> {
        self.read(
            self.request(Method::POST, &["/device/test"], &Vec::new()).json(body).timeout(TEST_PATIENCE),
        )
        .await
    }

    /// One job; with `wait`, as soon as it has ended or that has passed.
    ///
    /// # Errors
    /// As every call: [`ClientError`].
    pub async fn job(&self, id: JobId, wait: Option<Duration>) -> Result<JobInResponse, ClientError> {
        let mut request = self.request(Method::GET, &["/jobs/", &id.to_string()], &waiting(wait));
        if let Some(wait) = wait {
            request = request.timeout(wait + PATIENCE);
        }
        self.read(request).await
    }

    /// One page of jobs: at most `limit` (1 to 1000), from `cursor` on.
    ///
    /// # Errors
    /// As every call: [`ClientError`].
    pub async fn jobs(
        &self,
        filter: &JobFilter,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<JobPage, ClientError> {
        let mut query = filter.query();
        query.push(("limit", limit.to_string()));
        query.extend(cursor.map(|cursor| ("cursor", cursor.to_owned())));
        let response = self.send(self.request(Method::GET, &["/jobs"], &query)).await?;
        let next = response.headers().get("x-next-cursor").and_then(|v| v.to_str().ok()).map(str::to_owned);
        Ok(JobPage { jobs: decoded(response).await?, next })
    }

    /// Why a job waits.
    ///
    /// # Errors
    /// As every call: [`ClientError`].
    pub async fn why(&self, id: JobId) -> Result<WhyResponse, ClientError> {
        self.read(self.request(Method::GET, &["/jobs/", &id.to_string(), "/why"], &Vec::new())).await
    }

    /// Cancels one job, waiting or running.
    ///
    /// # Errors
    /// As every call: [`ClientError`]; 404 when it is over.
    pub async fn cancel(&self, id: JobId) -> Result<CancelResponse, ClientError> {
        self.read(self.request(Method::DELETE, &["/jobs/", &id.to_string()], &Vec::new())).await
    }

    /// Cancels what waits in a queue or for a host.
    ///
    /// # Errors
    /// As every call: [`ClientError`].
    pub async fn cancel_waiting(
        &self,
        queue: Option<&str>,
        host: Option<&str>,
    ) -> Result<Vec<JobId>, ClientError> {
        let query = given([("queue", &queue.map(str::to_owned)), ("host", &host.map(str::to_owned))]);
        self.read(self.request(Method::DELETE, &["/jobs"], &query)).await
    }

    /// The workers.
    ///
    /// # Errors
    /// As every call: [`ClientError`].
    pub async fn workers(&self, filter: &WorkerFilter) -> Result<Vec<WorkerRecord>, ClientError> {
        self.read(self.request(Method::GET, &["/workers"], &filter.query())).await
    }

    /// Asks one worker to end after its current job.
    ///
    /// # Errors
    /// As every call: [`ClientError`]; 404 when there is none of that name.
    pub async fn stop_worker(&self, name: &str) -> Result<NameResponse, ClientError> {
        self.read(self.request(Method::DELETE, &["/workers/", &escaped(name)], &Vec::new())).await
    }

    /// Asks workers to end after their current jobs; nobody without a filter.
    ///
    /// # Errors
    /// As every call: [`ClientError`].
    pub async fn stop_workers(&self, filter: &WorkerFilter) -> Result<Vec<String>, ClientError> {
        self.read(self.request(Method::DELETE, &["/workers"], &filter.query())).await
    }

    /// Renders a template.
    ///
    /// # Errors
    /// As every call: [`ClientError`].
    pub async fn render(&self, body: &TemplateBody) -> Result<String, ClientError> {
        self.read(self.request(Method::POST, &["/template/render"], &Vec::new()).json(body)).await
    }

    /// Parses a text.
    ///
    /// # Errors
    /// As every call: [`ClientError`].
    pub async fn parse(&self, body: &TemplateBody) -> Result<Value, ClientError> {
        self.read(self.request(Method::POST, &["/template/parse"], &Vec::new()).json(body)).await
    }

    /// The plugins of every kind.
    ///
    /// # Errors
    /// As every call: [`ClientError`].
    pub async fn plugins(&self) -> Result<Vec<PluginInfo>, ClientError> {
        self.read(self.request(Method::GET, &["/plugins"], &Vec::new())).await
    }

    /// The plugins of a kind and name: the one that counts first.
    ///
    /// # Errors
    /// As every call: [`ClientError`]; 404 when there is none.
    pub async fn plugin(&self, kind: &str, name: &str) -> Result<Vec<PluginInfo>, ClientError> {
        let path = ["/plugins/", &escaped(kind), "/", &escaped(name)];
        self.read(self.request(Method::GET, &path, &Vec::new())).await
    }

    /// Lets the server look into its plugin folders again.
    ///
    /// # Errors
    /// As every call: [`ClientError`].
    pub async fn reload_plugins(&self) -> Result<Vec<PluginInfo>, ClientError> {
        self.read(self.request(Method::POST, &["/plugins/reload"], &Vec::new())).await
    }

    /// Whether the server is well.
    ///
    /// # Errors
    /// As every call: [`ClientError`]; 503 when its store does not answer.
    pub async fn health(&self) -> Result<HealthResponse, ClientError> {
        self.read(self.request(Method::GET, &["/health"], &Vec::new())).await
    }

    /// The whole system in numbers.
    ///
    /// # Errors
    /// As every call: [`ClientError`].
    pub async fn stats(&self) -> Result<StatsResponse, ClientError> {
        self.read(self.request(Method::GET, &["/system/stats"], &Vec::new())).await
    }

    /// Follows one job, or with `None` everybody, from `after` on (from the oldest event kept when
    /// none). Resumes by itself where a connection broke.
    #[must_use]
    pub fn events(&self, job: Option<JobId>, after: Option<u64>) -> Events {
        Events::new(self.clone(), job, after)
    }

    fn request(&self, method: Method, path: &[&str], query: &Query) -> RequestBuilder {
        let mut url = format!("{}{}", self.base, path.concat());
        for (index, (name, value)) in query.iter().enumerate() {
            url.push(if index == 0 { '?' } else { '&' });
            url.push_str(name);
            url.push('=');
            url.push_str(&escaped(value));
        }
        self.http.request(method, url).timeout(PATIENCE)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| ClientError::transport(&self.base, &error))?;
        if response.status().is_success() { Ok(response) } else { Err(ClientError::answered(response).await) }
    }

    async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        decoded(self.send(request).await?).await
    }
}

async fn decoded<T: DeserializeOwned>(response: Response) -> Result<T, ClientError> {
    let bytes =
        response.bytes().await.map_err(|error| ClientError::Broken(error.without_url().to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| ClientError::Broken(error.to_string()))
}

fn waiting(wait: Option<Duration>) -> Query {
    wait.map(|wait| ("wait", wait.as_secs_f64().to_string())).into_iter().collect()
}

/// A name as one segment of a path.
fn escaped(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
