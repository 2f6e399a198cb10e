//! What every engine must do, as tests written against [`Queue`] alone.
//!
//! An engine brings a [`Factory`] and calls [`conformance_suite!`](crate::conformance_suite) in a
//! test file; every promise becomes a test of its own. [`model`] drives random operations against
//! a plain reference.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "these are tests, called from the test files of the engines"
)]

pub mod life;
pub mod lost;
pub mod model;
pub mod order;
pub mod outbox;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use netpulse_model::event::What;
use netpulse_model::job::RetryPolicy;
use netpulse_model::result::ResultType;
use netpulse_model::{
    DeviceKey, ErrorCode, ErrorInfo, ExecutionResult, Job, JobId, JobKind, JobResult, JobStatus, Outcome,
    Priority, QueueName,
};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::api::{Claim, Completion, Lease, NewJob, Queue, Signal, Submitted};

/// What a suite needs to make, end and hinder an engine.
#[async_trait]
pub trait Factory: Sized + Send + Sync + 'static {
    type Engine: Queue;

    /// An empty store.
    async fn empty(bounds: Bounds) -> Self;
    /// Opens the store; after a crash, the same one again.
    async fn open(&self) -> Arc<Self::Engine>;
    /// Ends the engine as a killed process ends: nothing more is written.
    async fn crash(&self, engine: Arc<Self::Engine>);
    /// Lets time pass, for the engine too.
    async fn advance(&self, by: Duration);
    /// From now on, or no more, the store cannot be written.
    async fn outage(&self, on: bool);
}

/// The bounds that a store is made with.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub max_queued: usize,
    pub max_queued_per_device: usize,
    pub max_outbox: usize,
    pub lease: Duration,
    pub events: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_queued: 1000,
            max_queued_per_device: 100,
            max_outbox: 1000,
            lease: Duration::from_secs(10),
            events: 10_000,
        }
    }
}

/// No call of a test may take longer.
pub const SOON: Duration = Duration::from_secs(20);

pub fn device(name: &str) -> DeviceKey {
    DeviceKey::new(name, 22, 22)
}

pub fn new_job(queue: QueueName, device: DeviceKey, kind: JobKind) -> NewJob {
    let id = JobId::random();
    NewJob {
        id,
        queue,
        device_name: Some(device.to_string()),
        device: Some(device),
        kind,
        priority: Priority::Normal,
        driver: "netmiko".into(),
        command: vec!["show version".into()],
        ttl: Duration::from_secs(600),
        timeout: Duration::from_secs(60),
        result_ttl: Duration::from_secs(300),
        retry: RetryPolicy { max: 2, intervals: vec![] },
        idempotency_key: None,
        digest: [1; 32],
        payload: format!("payload of {id}").into_bytes(),
        notify: None,
    }
}

/// A query in the device's own queue.
pub fn query(name: &str) -> NewJob {
    new_job(QueueName::Host(device(name)), device(name), JobKind::Query)
}

/// A modification in the device's own queue.
pub fn change(name: &str) -> NewJob {
    new_job(QueueName::Host(device(name)), device(name), JobKind::Modification)
}

/// A query in `FifoQ`.
pub fn fifo_query(name: &str) -> NewJob {
    new_job(QueueName::Fifo, device(name), JobKind::Query)
}

/// A modification in `FifoQ`.
pub fn fifo_change(name: &str) -> NewJob {
    new_job(QueueName::Fifo, device(name), JobKind::Modification)
}

pub fn finished() -> Completion {
    let retval = Some(vec![ExecutionResult::ok("show version", "Version 1")]);
    Completion {
        status: JobStatus::Finished,
        result: JobResult { kind: ResultType::Successful, retval, error: None, outcome: None },
    }
}

pub fn applied() -> Completion {
    let mut completion = finished();
    completion.result.outcome = Some(Outcome::Applied);
    completion
}

pub fn failed() -> Completion {
    let error = Some(ErrorInfo::new(ErrorCode::ConnectFailed, "no answer"));
    Completion {
        status: JobStatus::Failed,
        result: JobResult { kind: ResultType::Failed, retval: None, error, outcome: None },
    }
}

/// Why a worker gives a job up for now.
pub fn no_connection(message: &str) -> ErrorInfo {
    ErrorInfo::new(ErrorCode::ConnectFailed, message)
}

pub fn sending(index: usize, command: &str) -> What {
    What::Sending { index, total: 3, command: command.into() }
}

pub fn line(index: usize, command: &str) -> What {
    What::Line {
        index,
        total: 3,
        command: command.into(),
        stdout: "ok".into(),
        stderr: String::new(),
        exit_status: 0,
    }
}

/// Submits one job that must be accepted.
pub async fn accept<Q: Queue>(queue: &Q, job: NewJob) -> Job {
    match queue.submit(vec![job]).await.unwrap().pop() {
        Some(Submitted::Accepted(job)) => job,
        other => panic!("not accepted: {other:?}"),
    }
}

pub async fn acquire<Q: Queue>(queue: &Q, node: &str, name: &str) -> Lease {
    queue.acquire(node, &device(name)).await.unwrap().expect("the device is free")
}

pub async fn claim<Q: Queue>(queue: &Q, lease: &Lease) -> Claim {
    queue.claim(lease).await.unwrap().expect("a job may start")
}

pub async fn job<Q: Queue>(queue: &Q, id: JobId) -> Job {
    let job = queue.job(id).await.unwrap().expect("the job is known");
    assert_eq!(job.status.is_final(), job.result.is_some(), "final exactly with its result: {job:?}");
    job
}

pub fn error_of(job: &Job) -> &ErrorInfo {
    job.result.as_ref().and_then(|result| result.error.as_ref()).expect("an error")
}

pub fn outcome_of(job: &Job) -> Option<Outcome> {
    job.result.as_ref().and_then(|result| result.outcome)
}

/// The next signal that `wanted` accepts; others are passed over.
pub async fn signal(signals: &mut UnboundedReceiver<Signal>, wanted: impl Fn(&Signal) -> bool) -> Signal {
    tokio::time::timeout(SOON, async {
        loop {
            let signal = signals.recv().await.expect("the stream lives");
            if wanted(&signal) {
                return signal;
            }
        }
    })
    .await
    .expect("the signal comes")
}

/// Waits a little more than a lease, while the nodes named go on renewing.
pub async fn lease_passes<F: Factory>(factory: &F, queue: &F::Engine, alive: &[&str]) {
    let step = queue.lease_time() / 3;
    for _ in 0..4 {
        for node in alive {
            queue.renew(node).await.unwrap();
        }
        factory.advance(step).await;
    }
    for node in alive {
        queue.renew(node).await.unwrap();
    }
}

/// Makes a test of each scenario, for the factory named.
#[macro_export]
macro_rules! conformance_suite {
    ($factory:ty) => {
        $crate::conformance_suite!(@ $factory, life: [
            promise_1_what_was_accepted_survives_a_crash,
            promise_1_a_bulk_is_accepted_in_order,
            promise_5_no_job_ends_without_its_result,
            promise_5_a_job_that_waits_too_long_fails,
            promise_8_the_same_key_gives_the_same_job,
            promise_9_cancel_says_what_it_did,
            promise_9_a_queue_is_emptied,
            promise_10_queues_are_bounded,
            promise_10_watchers_neither_block_nor_fill_memory,
            promise_11_an_outage_refuses_submits_and_holds_results,
            results_are_forgotten_but_outcomes_are_kept,
            events_tell_a_job_from_its_start_to_its_end,
            events_of_an_ended_job_are_told_from_the_job,
            event_ids_grow_over_restarts,
            pages_stay_apart_while_jobs_come_and_go,
            lists_filter,
            a_waiter_is_told_of_the_end,
            one_waits_for_the_ends_of_many,
            workers_are_listed_and_stopped,
        ]);
        $crate::conformance_suite!(@ $factory, order: [
            promise_2_a_device_has_one_owner,
            promise_2_epochs_never_repeat,
            promise_2_a_fifo_modification_is_the_one_writer,
            promise_3_priority_then_acceptance,
            promise_3_a_device_runs_one_job_of_its_queue,
            promise_3_a_modification_overlaps_with_nothing,
            promise_3_fifo_keeps_to_sessions_per_device,
            promise_3_an_end_brings_the_next_job_in_order,
            promise_3_a_claim_put_back_keeps_its_place,
            promise_7_an_end_that_does_not_count_brings_nothing,
            an_end_dropped_half_way_leaves_the_next_job_behind,
            nodes_are_signalled_when_jobs_may_start,
            a_suspended_node_is_offered_nothing_new,
            a_waiting_job_says_why,
            a_call_dropped_half_way_leaves_no_job_behind,
        ]);
        $crate::conformance_suite!(@ $factory, lost: [
            promise_6_a_query_is_tried_again_after_its_worker,
            promise_6_a_query_that_ends_its_workers_is_given_up,
            promise_6_a_modification_is_never_pushed_twice,
            promise_6_a_crash_leaves_the_last_line_known,
            promise_6_a_started_modification_is_not_taken_back,
            promise_7_stale_owners_are_refused,
            retries_wait_their_time,
        ]);
        $crate::conformance_suite!(@ $factory, outbox: [
            promise_1_messages_survive_a_crash,
            promise_5_every_end_is_told_however_it_comes,
            promise_6_jobs_settled_after_a_crash_are_told,
            promise_7_a_hold_ends_and_old_epochs_are_refused,
            promise_10_the_outbox_is_bounded,
            promise_11_an_outage_delays_messages_and_loses_none,
            messages_wait_their_time_and_keep_their_order,
            a_message_outlives_the_result_of_its_job,
            two_couriers_never_hold_the_same_message,
        ]);
        mod model {
            use super::*;

            #[test]
            fn random_operations_agree_with_the_reference() {
                $crate::conformance::model::random_operations::<$factory>();
            }
        }
    };
    (@ $factory:ty, $group:ident: [$($name:ident),+ $(,)?]) => {
        mod $group {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    $crate::conformance::$group::$name::<$factory>().await;
                }
            )+
        }
    };
}
