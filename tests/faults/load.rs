//! Clients: each device has one, whose next request follows the answer to the last, so that the
//! order of acceptance is known. A request is sent again with its key until it is answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::Client;
use serde_json::{Value, json};

use super::history::History;
use super::random::Random;
use crate::support::KEY;

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Query,
    /// The lines, each of which no other job sends.
    Change(Vec<String>),
}

/// A request and what was answered.
#[derive(Debug, Clone)]
pub struct Sent {
    pub n: usize,
    pub device: usize,
    pub asked: Asked,
    pub key: String,
    pub hook: bool,
    /// The job, once a controller said 201; more than one is a broken promise.
    pub ids: Vec<String>,
    /// When it was first sent, and when last answered.
    pub first: Instant,
    pub answered: Option<Instant>,
}

pub struct Clients {
    pub sent: Mutex<Vec<Sent>>,
    urls: Vec<String>,
    http: Client,
    hook: String,
    history: Arc<History>,
}

impl Clients {
    pub fn new(urls: Vec<String>, hook: String, history: Arc<History>) -> Arc<Self> {
        let http = Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
        Arc::new(Self { sent: Mutex::default(), urls, http, hook, history })
    }

    /// One device's client, until `until`; returns when its last request is answered.
    pub async fn run(self: Arc<Self>, device: usize, args: Value, mut random: Random, until: Instant) {
        let mut made = 0;
        while Instant::now() < until {
            tokio::time::sleep(random.millis(100, 500)).await;
            let n = device * 100_000 + made;
            made += 1;
            self.one(n, device, &args, &mut random).await;
        }
    }

    async fn one(self: &Arc<Self>, n: usize, device: usize, args: &Value, random: &mut Random) {
        let hook = random.percent(50);
        let asked = if random.percent(45) {
            Asked::Query
        } else {
            let more = random.range(2, 10);
            let lines = (1..=more).map(|line| format!("description mark-{n}-{line}"));
            Asked::Change(std::iter::once(format!("interface Loopback{n}")).chain(lines).collect())
        };
        let fifo = random.percent(30);
        let mut body = json!({"driver": "netmiko", "connection_args": args, "ttl": 3600,
            "queue_strategy": if fifo { "fifo" } else { "pinned" }});
        match &asked {
            Asked::Query => body["command"] = json!(["show clock"]),
            Asked::Change(lines) => body["config"] = json!(lines),
        }
        if hook {
            body["webhook"] =
                json!({"url": format!("{}/{n}", self.hook), "retry_intervals": [0.5], "max_retries": 10});
        }
        let key = format!("request-{n}");
        let at = {
            let mut sent = self.sent.lock();
            sent.push(Sent {
                n,
                device,
                asked,
                key: key.clone(),
                hook,
                ids: Vec::new(),
                first: Instant::now(),
                answered: None,
            });
            sent.len() - 1
        };
        // Two controllers at once, now and then, and the same again later.
        if random.percent(15) && self.urls.len() > 1 {
            tokio::join!(self.submit(at, 0, &body, &key), self.submit(at, 1, &body, &key));
        } else {
            let first = usize::try_from(random.range(0, self.urls.len() as u64)).unwrap();
            self.submit(at, first, &body, &key).await;
        }
        if random.percent(10) {
            let (clients, pause) = (Arc::clone(self), random.millis(500, 6000));
            let controller = usize::try_from(random.range(0, self.urls.len() as u64)).unwrap();
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                clients.submit(at, controller, &body, &key).await;
            });
        } else if random.percent(12) {
            let (clients, pause) = (Arc::clone(self), random.millis(0, 400));
            let controller = usize::try_from(random.range(0, self.urls.len() as u64)).unwrap();
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                let id = clients.sent.lock()[at].ids.first().cloned();
                if let Some(id) = id {
                    let url = format!("{}/jobs/{id}", clients.urls[controller]);
                    // What it met is the job's to say.
                    let _ = clients.http.delete(url).header("X-API-KEY", KEY).send().await;
                }
            });
        }
    }

    /// Sends until one controller answers 201, the first one first.
    async fn submit(&self, at: usize, first: usize, body: &Value, key: &str) {
        for round in first.. {
            let url = &self.urls[round % self.urls.len()];
            let request = self
                .http
                .post(format!("{url}/device/exec"))
                .header("X-API-KEY", KEY)
                .header("Idempotency-Key", key)
                .json(body);
            let answer = match request.send().await {
                Ok(reply) => (reply.status().as_u16(), reply.json::<Value>().await.unwrap_or(Value::Null)),
                Err(_) => (0, Value::Null),
            };
            match answer {
                (201, job) => {
                    let id = job["id"].as_str().unwrap_or_default().to_owned();
                    let mut sent = self.sent.lock();
                    sent[at].answered = Some(Instant::now());
                    if !sent[at].ids.contains(&id) {
                        sent[at].ids.push(id.clone());
                        self.history.note(format!("{key} is job {id}"));
                    }
                    return;
                }
                // No answer, an outage, a restart, no node, a full queue: again.
                (0 | 429 | 500 | 502 | 503, _) => tokio::time::sleep(Duration::from_millis(150)).await,
                (status, told) => {
                    self.history.wrong(format!("{key} was answered {status}: {told}"));
                    return;
                }
            }
        }
    }

    /// The job as any controller tells it, as soon as it has ended; none when nobody knows it.
    pub async fn job(&self, id: &str, until: Instant) -> Option<Value> {
        for round in 0.. {
            let url = format!("{}/jobs/{id}?wait=3", self.urls[round % self.urls.len()]);
            if let Ok(reply) = self.http.get(url).header("X-API-KEY", KEY).send().await {
                let status = reply.status().as_u16();
                let job = reply.json::<Value>().await.unwrap_or(Value::Null);
                let ended = ["finished", "failed", "canceled"].iter().any(|end| job["status"] == *end);
                if status == 404 {
                    return None;
                }
                if (status == 200 && ended) || Instant::now() > until {
                    return Some(job);
                }
            } else {
                assert!(Instant::now() < until, "no controller answers");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        None
    }
}
