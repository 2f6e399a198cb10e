//! What `/metrics` shows: counts of this process, and the state of the whole system as its store
//! has it. No label carries a host, a device, a job or a path with a name in it.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use netpulse_model::{JobKind, Timestamp};
use netpulse_queue::{JobCounts, NodeStatus, Submitted};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// From the fastest read of memory to the longest that a client waits, seconds.
const SECONDS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// The figures.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    answers: Family<Route, Histogram>,
    store: Histogram,
    accepted: Family<Kind, Counter>,
    up: Gauge,
    jobs: Family<State, Gauge>,
    oldest: Gauge<f64, AtomicU64>,
    nodes: Family<State, Gauge>,
    devices: Gauge,
    capacity: Gauge,
    running: Gauge,
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

impl Metrics {
    /// Figures that join what `registry` has.
    pub(crate) fn new(mut registry: Registry) -> Self {
        let requests = Family::default();
        let answers = Family::new_with_constructor(seconds as fn() -> Histogram);
        let (store, accepted) = (seconds(), Family::default());
        let (up, jobs, oldest, nodes) =
            (Gauge::default(), Family::default(), Gauge::default(), Family::default());
        let (devices, capacity, running) = (Gauge::default(), Gauge::default(), Gauge::default());
        let own = registry.sub_registry_with_prefix("netpulse");
        own.register("http_requests", "Requests by route and status", Family::clone(&requests));
        own.register(
            "http_request_seconds",
            "From request to answer, waiting for jobs included",
            Family::clone(&answers),
        );
        own.register("store_seconds", "Calls of the API to its store", store.clone());
        own.register("jobs_accepted", "Jobs accepted by this process", Family::clone(&accepted));
        own.register("store_up", "Whether the store answered this scrape", up.clone());
        own.register(
            "jobs",
            "Jobs known to the store by state; queued is the depth of all queues",
            Family::clone(&jobs),
        );
        own.register(
            "queue_oldest_seconds",
            "How long the job that has waited longest waits",
            oldest.clone(),
        );
        own.register("nodes", "Nodes by state", Family::clone(&nodes));
        own.register("devices_owned", "Devices that living nodes own", devices.clone());
        own.register("devices_capacity", "Devices that living nodes may own", capacity.clone());
        own.register("nodes_running_jobs", "Jobs that living nodes run", running.clone());
        Self {
            registry,
            requests,
            answers,
            store,
            accepted,
            up,
            jobs,
            oldest,
            nodes,
            devices,
            capacity,
            running,
        }
    }

    /// A request was answered.
    pub(crate) fn answered(&self, method: &Method, route: Option<&str>, status: StatusCode, took: Duration) {
        // What is no route would be a label for each wrong path.
        let route = route.unwrap_or("none").to_owned();
        let method = match method.as_str() {
            "GET" => "GET",
            "POST" => "POST",
            "DELETE" => "DELETE",
            "HEAD" => "HEAD",
            "OPTIONS" => "OPTIONS",
            _ => "other",
        };
        self.answers.get_or_create(&Route { route: route.clone() }).observe(took.as_secs_f64());
        self.requests.get_or_create(&Request { method, route, status: status.as_u16() }).inc();
    }

    /// A call to the store ended.
    pub(crate) fn store(&self, took: Duration) {
        self.store.observe(took.as_secs_f64());
    }

    /// Jobs were submitted.
    pub(crate) fn accepted(&self, answers: &[Submitted]) {
        for answer in answers {
            if let Submitted::Accepted(job) = answer {
                let kind = match job.kind {
                    JobKind::Query => "query",
                    JobKind::Modification => "modification",
                };
                self.accepted.get_or_create(&Kind { kind }).inc();
            }
        }
    }

    /// Takes what the store says now; none when it does not answer: then what it said before is no
    /// longer shown as if it held.
    pub(crate) fn refresh(&self, seen: Option<(JobCounts, Vec<NodeStatus>)>) {
        self.up.set(i64::from(seen.is_some()));
        let Some((counts, nodes)) = seen else {
            self.jobs.clear();
            self.nodes.clear();
            self.oldest.set(f64::NAN);
            for gauge in [&self.devices, &self.capacity, &self.running] {
                gauge.set(0);
            }
            return;
        };
        let small = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        for (state, count) in [
            ("queued", counts.queued),
            ("started", counts.started),
            ("finished", counts.finished),
            ("failed", counts.failed),
            ("canceled", counts.canceled),
        ] {
            self.jobs.get_or_create(&State { state }).set(small(count));
        }
        let age = counts.oldest.map_or(0.0, |at| Timestamp::now().seconds_since(at).max(0.0));
        self.oldest.set(age);
        let alive = || nodes.iter().filter(|node| node.alive);
        self.nodes.get_or_create(&State { state: "alive" }).set(small(alive().count() as u64));
        self.nodes
            .get_or_create(&State { state: "silent" })
            .set(small((nodes.len() - alive().count()) as u64));
        let sum = |of: fn(&NodeStatus) -> usize| small(alive().map(of).sum::<usize>() as u64);
        self.devices.set(sum(|node| node.devices));
        self.capacity.set(sum(|node| if node.role.devices { node.role.capacity } else { 0 }));
        self.running.set(sum(|node| node.running));
    }

    /// All of it as Prometheus reads it.
    ///
    /// # Errors
    /// A metric that cannot be written: a defect.
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::with_capacity(16 * 1024);
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}
