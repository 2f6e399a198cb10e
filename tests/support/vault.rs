//! A fake of HashiCorp Vault: KV version 2, tokens, AppRole, health, over real sockets, with faults.
//!
//! It answers as Vault's HTTP API documentation says; `tests/credentials.rs` and the tests of
//! `netpulse-credential` have the real Python client `hvac` speak to it.

#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, Uri};
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

pub const ROOT: &str = "hvs.r00t-token-of-the-fake";
pub const ROLE: &str = "role-7f3a";
pub const SECRET_ID: &str = "s3cret-id-of-the-role";
const WHEN: &str = "2026-02-03T04:05:06.789012Z";

/// How it misbehaves.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    pub sealed: bool,
    pub standby: bool,
    /// Before each answer.
    pub delay: Duration,
    /// The next so many requests get this status.
    pub next: Option<(u16, usize)>,
    /// Secrets are answered with these words instead.
    pub nonsense: Option<&'static str>,
    /// The next so many answers break off in the middle.
    pub halves: usize,
    /// Tokens may not touch paths that begin so (below `/v1/`).
    pub denied: Vec<String>,
    /// Answers 307 to this address.
    pub redirect: Option<String>,
}

struct Version {
    data: Option<Value>,
    deleted: bool,
    destroyed: bool,
}

#[derive(Default)]
struct Secret {
    versions: Vec<Version>,
    custom: Value,
}

struct Token {
    expires: Option<Instant>,
    ttl: u64,
    renewable: bool,
}

#[derive(Default)]
struct Inner {
    /// By namespace, mount and path.
    secrets: BTreeMap<(String, String, String), Secret>,
    mounts: BTreeSet<String>,
    tokens: HashMap<String, Token>,
    roles: HashMap<String, String>,
    login_ttl: u64,
    logins: u64,
    faults: Faults,
    journal: Vec<Seen>,
}

/// A request that came in.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `GET kv/data/a?version=1`, without `/v1/`.
    pub line: String,
    pub token: String,
    pub namespace: String,
}

type Shared = Arc<Mutex<Inner>>;

pub struct Vault {
    state: Shared,
    inside: SocketAddr,
    port: u16,
    gate: Option<AbortHandle>,
    server: AbortHandle,
}

impl Drop for Vault {
    fn drop(&mut self) {
        self.down();
        self.server.abort();
    }
}

impl Vault {
    pub async fn start() -> Self {
        let mut inner = Inner { login_ttl: 3600, ..Inner::default() };
        inner.mounts = ["kv", "secret", "deep/mount"].map(str::to_owned).into();
        inner.tokens.insert(ROOT.into(), Token { expires: None, ttl: 0, renewable: false });
        inner.roles.insert(ROLE.into(), SECRET_ID.into());
        let state: Shared = Arc::new(Mutex::new(inner));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let inside = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(state.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }).abort_handle();
        let mut vault = Self { state, inside, port: 0, gate: None, server };
        vault.up().await;
        vault
    }

    /// Where it answers without encryption, also while [`Vault::down`] holds.
    pub fn inside(&self) -> SocketAddr {
        self.inside
    }

    pub fn addr(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Nobody listens, and every connection is cut.
    pub fn down(&mut self) {
        if let Some(gate) = self.gate.take() {
            gate.abort();
        }
    }

    /// Listens (again) on its port.
    pub async fn up(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        self.port = listener.local_addr().unwrap().port();
        let inside = self.inside;
        let gate = tokio::spawn(async move {
            // Ends its connections when it is aborted.
            let mut connections = JoinSet::new();
            while let Ok((mut outer, _)) = listener.accept().await {
                connections.spawn(async move {
                    if let Ok(mut inner) = TcpStream::connect(inside).await {
                        let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
                    }
                });
            }
        });
        self.gate = Some(gate.abort_handle());
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.state.lock().unwrap())
    }

    pub fn faults(&self, set: impl FnOnce(&mut Faults)) {
        self.with(|inner| set(&mut inner.faults));
    }

    /// Writes a version of a secret: `kv`, `sites/hq`.
    pub fn put(&self, mount: &str, path: &str, fields: Value) {
        self.with(|inner| inner.write("", mount, path, fields));
    }

    pub fn put_in(&self, namespace: &str, mount: &str, path: &str, fields: Value) {
        self.with(|inner| inner.write(namespace, mount, path, fields));
    }

    /// A token that ends after so many seconds (0: never).
    pub fn token(&self, token: &str, ttl: u64, renewable: bool) {
        let expires = (ttl > 0).then(|| Instant::now() + Duration::from_secs(ttl));
        self.with(|inner| inner.tokens.insert(token.into(), Token { expires, ttl, renewable }));
    }

    /// Every token is dead at once.
    pub fn revoke_all(&self) {
        self.with(|inner| inner.tokens.clear());
    }

    /// Logins give tokens of so many seconds.
    pub fn login_ttl(&self, seconds: u64) {
        self.with(|inner| inner.login_ttl = seconds);
    }

    /// The role has another secret id from now on.
    pub fn role(&self, role: &str, secret_id: &str) {
        self.with(|inner| inner.roles.insert(role.into(), secret_id.into()));
    }

    pub fn journal(&self) -> Vec<Seen> {
        self.with(|inner| inner.journal.clone())
    }

    /// How many requests began so.
    pub fn count(&self, line: &str) -> usize {
        self.with(|inner| inner.journal.iter().filter(|seen| seen.line.starts_with(line)).count())
    }

    pub fn forget_journal(&self) {
        self.with(|inner| inner.journal.clear());
    }
}

fn reply(status: u16, body: Value) -> Response<Body> {
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    Response::builder()
        .status(status)
        .header("Content-Type", "application/json")
        .header("Cache-Control", "no-store")
        .body(body)
        .unwrap()
}

fn refused(status: u16, words: &str) -> Response<Body> {
    let words: Vec<&str> = if words.is_empty() { vec![] } else { vec![words] };
    reply(status, json!({"errors": words}))
}

fn wrapped(data: Value, auth: Value) -> Value {
    json!({"request_id": "5a6e", "lease_id": "", "renewable": false, "lease_duration": 0, "data": data,
        "wrap_info": null, "warnings": null, "auth": auth})
}

async fn answer(
    State(state): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let header = |name: &str| headers.get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
    let path = decoded(uri.path().strip_prefix("/v1/").unwrap_or_default());
    let query = uri.query().unwrap_or_default().to_owned();
    let (token, namespace) =
        (header("x-vault-token"), header("x-vault-namespace").trim_matches('/').to_owned());
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (delay, mut given, half) = {
        let mut inner = state.lock().unwrap();
        let line = format!("{method} {path}{}{query}", if query.is_empty() { "" } else { "?" });
        inner.journal.push(Seen { line, token: token.clone(), namespace: namespace.clone() });
        let given = inner.serve(&method, &path, &query, &token, &namespace, &body);
        let half = inner.faults.halves > 0;
        inner.faults.halves = inner.faults.halves.saturating_sub(1);
        (inner.faults.delay, given, half)
    };
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    if half {
        let broken = futures_util::stream::iter([
            Ok(Bytes::from_static(b"{\"data\":{\"data\":{\"pass")),
            Err(std::io::Error::other("broken off")),
        ]);
        given = Response::builder().header("Content-Length", "4096").body(Body::from_stream(broken)).unwrap();
    }
    given
}

fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let hex = std::str::from_utf8(&tail[..2]).unwrap();
            bytes.push(u8::from_str_radix(hex, 16).unwrap());
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).unwrap()
}

impl Inner {
    fn serve(
        &mut self,
        method: &Method,
        path: &str,
        query: &str,
        token: &str,
        namespace: &str,
        body: &Value,
    ) -> Response<Body> {
        if path == "sys/health" {
            return self.health(query);
        }
        if let Some((status, left)) = self.faults.next.take() {
            self.faults.next = (left > 1).then_some((status, left - 1));
            return refused(status, "the fake was told so");
        }
        if let Some(to) = &self.faults.redirect {
            let location = format!("{to}/v1/{path}{}{query}", if query.is_empty() { "" } else { "?" });
            return Response::builder().status(307).header("Location", location).body(Body::empty()).unwrap();
        }
        if path == "sys/seal-status" {
            return reply(
                200,
                json!({"sealed": self.faults.sealed, "initialized": true, "version": "1.99.0-fake"}),
            );
        }
        if self.faults.sealed {
            return refused(503, "Vault is sealed");
        }
        if path == "auth/approle/login" && matches!(*method, Method::POST | Method::PUT) {
            return self.login(body);
        }
        let alive = self.tokens.get(token).is_some_and(|t| t.expires.is_none_or(|end| end > Instant::now()));
        if !alive {
            return refused(403, "permission denied");
        }
        if self.faults.denied.iter().any(|prefix| path.starts_with(prefix)) {
            return refused(403, "1 error occurred:\n\t* permission denied\n\n");
        }
        match path {
            "auth/token/lookup-self" => self.lookup(token),
            "auth/token/renew-self" => self.renew(token),
            "auth/token/revoke-self" => {
                self.tokens.remove(token);
                reply(204, Value::Null)
            }
            _ => self.kv(method, path, query, namespace, body),
        }
    }

    fn health(&self, query: &str) -> Response<Body> {
        let asked = |name: &str| query.split('&').any(|part| part.starts_with(name));
        let status = match (self.faults.sealed, self.faults.standby) {
            (true, _) if asked("sealedcode=200") => 200,
            (true, _) => 503,
            (_, true) if asked("standbyok=true") => 200,
            (_, true) => 429,
            _ => 200,
        };
        let body = json!({"initialized": true, "sealed": self.faults.sealed, "standby": self.faults.standby,
            "performance_standby": false, "server_time_utc": 1_770_000_000, "version": "1.99.0-fake",
            "cluster_name": "fake", "cluster_id": "0"});
        reply(status, body)
    }

    fn login(&mut self, body: &Value) -> Response<Body> {
        let secret = self.roles.get(body["role_id"].as_str().unwrap_or_default());
        if secret.is_none() || secret.map(String::as_str) != body["secret_id"].as_str() {
            return refused(400, "invalid role or secret ID");
        }
        self.logins += 1;
        let (token, ttl) = (format!("hvs.login-{}-of-the-fake", self.logins), self.login_ttl);
        let expires = (ttl > 0).then(|| Instant::now() + Duration::from_secs(ttl));
        self.tokens.insert(token.clone(), Token { expires, ttl, renewable: true });
        reply(200, wrapped(Value::Null, auth(&token, ttl, true)))
    }

    fn lookup(&self, token: &str) -> Response<Body> {
        let about = &self.tokens[token];
        let left = about.expires.map_or(0, |end| end.saturating_duration_since(Instant::now()).as_secs());
        let data = json!({"id": token, "ttl": left, "creation_ttl": about.ttl, "renewable": about.renewable,
            "policies": ["default"], "type": "service", "path": "auth/token/create", "orphan": true});
        reply(200, wrapped(data, Value::Null))
    }

    fn renew(&mut self, token: &str) -> Response<Body> {
        let about = self.tokens.get_mut(token).unwrap();
        if !about.renewable {
            return refused(400, "lease is not renewable");
        }
        about.expires = Some(Instant::now() + Duration::from_secs(about.ttl));
        let ttl = about.ttl;
        reply(200, wrapped(Value::Null, auth(token, ttl, true)))
    }

    fn write(&mut self, namespace: &str, mount: &str, path: &str, fields: Value) -> usize {
        let key = (namespace.to_owned(), mount.to_owned(), path.to_owned());
        let secret = self.secrets.entry(key).or_default();
        secret.versions.push(Version { data: Some(fields), deleted: false, destroyed: false });
        secret.versions.len()
    }

    fn kv(
        &mut self,
        method: &Method,
        path: &str,
        query: &str,
        namespace: &str,
        body: &Value,
    ) -> Response<Body> {
        let Some(mount) = self.mounts.iter().find(|m| path.starts_with(&format!("{m}/"))).cloned() else {
            return refused(404, &format!("no handler for route \"{path}\". route entry not found."));
        };
        let rest = &path[mount.len() + 1..];
        let (kind, path) = rest.split_once('/').unwrap_or((rest, ""));
        let key = (namespace.to_owned(), mount.clone(), path.to_owned());
        let parameter = |name: &str| query.split('&').find_map(|part| part.strip_prefix(name));
        let listing = method.as_str() == "LIST" || parameter("list=") == Some("true");
        match (method.as_str(), kind) {
            ("GET", "data") => {
                if let Some(words) = self.faults.nonsense {
                    return Response::new(Body::from(words));
                }
                let version = parameter("version=").map_or(0, |v| v.parse().unwrap());
                self.read(&key, version)
            }
            ("POST" | "PUT", "data") => {
                let Some(fields) = body.get("data").filter(|data| data.is_object()) else {
                    return refused(400, "no data provided");
                };
                let expected = body["options"]["cas"].as_u64();
                let current = self.secrets.get(&key).map_or(0, |s| s.versions.len()) as u64;
                if expected.is_some_and(|cas| cas != current) {
                    return refused(400, "check-and-set parameter did not match the current version");
                }
                let version = self.write(namespace, &mount, path, fields.clone());
                reply(200, wrapped(metadata_of(version, None, &self.secrets[&key].custom), Value::Null))
            }
            ("DELETE", "data") => {
                if let Some(last) = self.secrets.get_mut(&key).and_then(|s| s.versions.last_mut()) {
                    last.deleted = true;
                }
                reply(204, Value::Null)
            }
            (_, "metadata") if listing => self.list(namespace, &mount, path),
            ("GET", "metadata") => match self.secrets.get(&key) {
                Some(secret) => reply(200, wrapped(secret.metadata(), Value::Null)),
                None => refused(404, ""),
            },
            ("POST" | "PUT", "metadata") => {
                self.secrets.entry(key).or_default().custom = body["custom_metadata"].clone();
                reply(204, Value::Null)
            }
            ("DELETE", "metadata") => {
                self.secrets.remove(&key);
                reply(204, Value::Null)
            }
            _ => refused(405, "unsupported operation"),
        }
    }

    fn read(&self, key: &(String, String, String), version: usize) -> Response<Body> {
        let Some(secret) = self.secrets.get(key) else { return refused(404, "") };
        let number = if version == 0 { secret.versions.len() } else { version };
        let Some(found) = number.checked_sub(1).and_then(|at| secret.versions.get(at)) else {
            return refused(404, "");
        };
        let gone = found.deleted || found.destroyed;
        let data = if gone { &Value::Null } else { found.data.as_ref().unwrap_or(&Value::Null) };
        let metadata = metadata_of(number, Some(found), &secret.custom);
        let body = wrapped(json!({"data": data, "metadata": metadata}), Value::Null);
        reply(if gone { 404 } else { 200 }, body)
    }

    fn list(&self, namespace: &str, mount: &str, folder: &str) -> Response<Body> {
        let folder = folder.trim_end_matches('/');
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let keys: BTreeSet<String> = self
            .secrets
            .keys()
            .filter(|(ns, m, _)| ns == namespace && m == mount)
            .filter_map(|(_, _, path)| path.strip_prefix(&prefix))
            .map(|rest| rest.split_once('/').map_or(rest.to_owned(), |(folder, _)| format!("{folder}/")))
            .collect();
        if keys.is_empty() {
            refused(404, "")
        } else {
            reply(200, wrapped(json!({"keys": keys}), Value::Null))
        }
    }
}

fn auth(token: &str, ttl: u64, renewable: bool) -> Value {
    json!({"client_token": token, "accessor": "a", "policies": ["default"], "token_policies": ["default"],
        "metadata": {"role_name": "netpulse"}, "lease_duration": ttl, "renewable": renewable, "entity_id": "e",
        "token_type": "service", "orphan": true})
}

fn metadata_of(number: usize, version: Option<&Version>, custom: &Value) -> Value {
    let deleted = version.is_some_and(|v| v.deleted);
    json!({"created_time": WHEN, "custom_metadata": custom, "deletion_time": if deleted { WHEN } else { "" },
        "destroyed": version.is_some_and(|v| v.destroyed), "version": number})
}

impl Secret {
    fn metadata(&self) -> Value {
        let versions: Map<String, Value> = self
            .versions
            .iter()
            .enumerate()
            .map(|(at, version)| {
                let mut about = metadata_of(at + 1, Some(version), &Value::Null);
                about.as_object_mut().unwrap().retain(|k, _| k != "version" && k != "custom_metadata");
                ((at + 1).to_string(), about)
            })
            .collect();
        json!({"cas_required": false, "created_time": WHEN, "current_version": self.versions.len(),
            "custom_metadata": self.custom, "delete_version_after": "0s", "max_versions": 0, "oldest_version": 0,
            "updated_time": WHEN, "versions": versions})
    }
}
