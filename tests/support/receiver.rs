//! A receiver of webhooks that behaves as its path says.

#![allow(dead_code)]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;

/// One call that came in.
#[derive(Debug, Clone)]
pub struct Call {
    pub at: Instant,
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// It was answered with success.
    pub arrived: bool,
}

impl Call {
    pub fn header(&self, name: &str) -> String {
        self.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn delivery(&self) -> String {
        self.header("x-netpulse-delivery")
    }
}

#[derive(Default)]
struct Inner {
    calls: Mutex<Vec<Call>>,
    /// Calls of each delivery.
    seen: Mutex<HashMap<String, usize>>,
    told: Mutex<HashSet<String>>,
    came: Notify,
}

/// `/ok` takes everything, `/second` each message at its second call, `/fail` none, `/hang` never answers,
/// `/redirect` sends elsewhere.
pub struct Receiver {
    pub port: u16,
    inner: Arc<Inner>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let inner = Arc::<Inner>::default();
        let router = Router::new()
            .fallback(answer)
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::clone(&inner));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, inner, task }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn calls(&self) -> Vec<Call> {
        self.inner.calls.lock().clone()
    }

    /// How many deliveries were answered with success, and how often each.
    pub fn arrived(&self) -> HashMap<String, usize> {
        let mut arrived = HashMap::new();
        for call in self.inner.calls.lock().iter().filter(|call| call.arrived) {
            *arrived.entry(call.delivery()).or_default() += 1;
        }
        arrived
    }

    /// Waits until so many deliveries were answered with success.
    pub async fn until_arrived(&self, seconds: u64, count: usize) {
        let waited = tokio::time::timeout(Duration::from_secs(seconds), async {
            loop {
                let came = self.inner.came.notified();
                if self.inner.told.lock().len() >= count {
                    return;
                }
                came.await;
            }
        });
        let told = || self.inner.told.lock().len();
        assert!(waited.await.is_ok(), "{} of {count} deliveries within {seconds} s", told());
    }

    /// Waits until `ready` says so about the calls so far.
    pub async fn until(&self, seconds: u64, what: &str, ready: impl Fn(&[Call]) -> bool) -> Vec<Call> {
        let waited = tokio::time::timeout(Duration::from_secs(seconds), async {
            loop {
                let came = self.inner.came.notified();
                let calls = self.calls();
                if ready(&calls) {
                    return calls;
                }
                came.await;
            }
        });
        let Ok(calls) = waited.await else {
            panic!("{what} did not happen within {seconds} s: {} calls", self.calls().len())
        };
        calls
    }
}

async fn answer(
    State(inner): State<Arc<Inner>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    let delivery = headers.get("x-netpulse-delivery").map(|value| value.to_str().unwrap().to_owned());
    let nth = {
        let mut seen = inner.seen.lock();
        let times = seen.entry(delivery.clone().unwrap_or_default()).or_default();
        *times += 1;
        *times - 1
    };
    let status = match path.split('/').nth(1).unwrap_or_default() {
        "fail" => StatusCode::INTERNAL_SERVER_ERROR,
        "second" if nth % 2 == 0 => StatusCode::BAD_GATEWAY,
        "redirect" => StatusCode::TEMPORARY_REDIRECT,
        _ => StatusCode::OK,
    };
    let hang = path.starts_with("/hang");
    if let (true, false, Some(delivery)) = (status.is_success(), hang, delivery) {
        inner.told.lock().insert(delivery);
    }
    inner.calls.lock().push(Call {
        at: Instant::now(),
        method: method.to_string(),
        path,
        headers,
        body: body.to_vec(),
        arrived: status.is_success() && !hang,
    });
    inner.came.notify_waiters();
    if hang {
        std::future::pending::<()>().await;
    }
    (status, [("location", "/ok/elsewhere")], "x".repeat(100)).into_response()
}
