//! What a node counts and measures, for Prometheus. No label carries a host, a device or a job.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use netpulse_model::{ErrorCode, JobKind, JobStatus};
use netpulse_plugin::Opening;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// From a prompt that answers at once to a job that takes five minutes, seconds.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0];

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// Where a job's time goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// From acceptance to a worker.
    Queue,
    /// The right to be the device's one writer.
    Lease,
    /// TCP, and the agreement on keys.
    Connect,
    /// User and password or key.
    Login,
    /// To the first prompt, paging off.
    Prompt,
    /// The work itself.
    Execute,
    /// Outputs into data.
    Parse,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Phased {
    phase: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct End {
    status: &'static str,
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Failure {
    code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Call {
    call: &'static str,
}

/// The figures of one node. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct Metrics {
    phases: Family<Phased, Histogram>,
    ends: Family<End, Counter>,
    open: Gauge,
    opened: Counter,
    reused: Counter,
    failures: Family<Failure, Counter>,
    leases_lost: Counter,
    healed: Counter<u64, AtomicU64>,
    store: Family<Call, Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            phases: Family::new_with_constructor(seconds as fn() -> Histogram),
            ends: Family::default(),
            open: Gauge::default(),
            opened: Counter::default(),
            reused: Counter::default(),
            failures: Family::default(),
            leases_lost: Counter::default(),
            healed: Counter::default(),
            store: Family::new_with_constructor(seconds as fn() -> Histogram),
        }
    }
}

impl Metrics {
    /// Figures that `registry` shows.
    #[must_use]
    pub fn registered(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let own = registry.sub_registry_with_prefix("netpulse");
        own.register("job_phase_seconds", "Where the time of jobs goes", metrics.phases.clone());
        own.register("jobs_ended", "Jobs that ended on this node, by status and kind", metrics.ends.clone());
        own.register("sessions_open", "Device sessions that are open", metrics.open.clone());
        own.register("sessions_opened", "Device sessions opened", metrics.opened.clone());
        own.register("sessions_reused", "Jobs that ran over a session kept", metrics.reused.clone());
        own.register(
            "connects_failed",
            "Connections that did not come about, by error",
            metrics.failures.clone(),
        );
        own.register(
            "leases_lost",
            "Leases lost: a node that cannot renew them in time",
            metrics.leases_lost.clone(),
        );
        own.register("self_healing", "Repairs without a human", metrics.healed.clone());
        own.register("node_store_seconds", "Calls of this node to its store", metrics.store.clone());
        metrics
    }

    /// Sessions found dead and replaced without anybody's doing.
    #[must_use]
    pub fn self_healing(&self) -> u64 {
        self.healed.get()
    }

    pub(crate) fn phase(&self, phase: Phase, took: Duration) {
        let phase = match phase {
            Phase::Queue => "queue",
            Phase::Lease => "lease",
            Phase::Connect => "connect",
            Phase::Login => "login",
            Phase::Prompt => "prompt",
            Phase::Execute => "execute",
            Phase::Parse => "parse",
        };
        self.phases.get_or_create(&Phased { phase }).observe(took.as_secs_f64());
    }

    /// A session was opened; the answer counts it as open until it is dropped.
    pub(crate) fn opened(&self, opening: Opening) -> Open {
        self.opened.inc();
        self.open.inc();
        for (phase, took) in [
            (Phase::Connect, opening.connect),
            (Phase::Login, opening.login),
            (Phase::Prompt, opening.prompt),
        ] {
            if let Some(took) = took {
                self.phase(phase, took);
            }
        }
        Open(self.open.clone())
    }

    pub(crate) fn reused(&self) {
        self.reused.inc();
    }

    pub(crate) fn connect_failed(&self, code: ErrorCode) {
        self.failures.get_or_create(&Failure { code: code.as_str() }).inc();
    }

    pub(crate) fn lease_lost(&self) {
        self.leases_lost.inc();
    }

    pub(crate) fn healed(&self) {
        self.healed.inc();
    }

    pub(crate) fn ended(&self, status: JobStatus, kind: JobKind) {
        let kind = match kind {
            JobKind::Query => "query",
            JobKind::Modification => "modification",
        };
        self.ends.get_or_create(&End { status: status.as_str(), kind }).inc();
    }

    pub(crate) fn store(&self, call: &'static str, took: Duration) {
        self.store.get_or_create(&Call { call }).observe(took.as_secs_f64());
    }
}

/// A session that is open, for as long as this lives.
pub(crate) struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
