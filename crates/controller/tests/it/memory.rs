//! A queue in memory, as much of one as a controller needs: jobs start and end when a test says so.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use netpulse_model::event::{Event, EventId, What};
use netpulse_model::result::ResultType;
use netpulse_model::worker::{WorkerRecord, WorkerState};
use netpulse_model::*;
use netpulse_queue::*;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    new: HashMap<JobId, NewJob>,
    keys: HashMap<String, JobId>,
    events: Vec<Event>,
    oldest_event: u64,
    workers: Vec<WorkerRecord>,
    stopped: Vec<String>,
}

pub struct Memory {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    pub down: AtomicBool,
    pub full: AtomicBool,
    /// Submissions in the order of the calls, with how many jobs each had.
    pub calls: Mutex<Vec<usize>>,
}

impl Memory {
    pub fn new() -> Arc<Self> {
        let record = |name: &str, queue: &str, status| WorkerRecord {
            name: name.into(),
            status,
            pid: 7,
            hostname: "node-a".into(),
            queues: vec![queue.parse().unwrap()],
            last_heartbeat: Timestamp::now(),
            birth_at: Timestamp::now(),
            successful_job_count: 4,
            failed_job_count: 0,
            self_healing: if name == "node-a" { 2 } else { 0 },
        };
        let workers = vec![
            record("node-a", "NodeQ_node-a", WorkerState::Idle),
            record("node-a_FifoQ", "FifoQ", WorkerState::Busy),
            record("node-a_HostQ_192.0.2.1", "HostQ_192.0.2.1", WorkerState::Idle),
        ];
        Arc::new(Self {
            state: Mutex::new(State { workers, ..State::default() }),
            changed: watch::channel(0).0,
            down: AtomicBool::new(false),
            full: AtomicBool::new(false),
            calls: Mutex::new(Vec::new()),
        })
    }

    fn up(&self) -> Result<(), QueueError> {
        if self.down.load(Ordering::Relaxed) {
            Err(QueueError::Unavailable("disk full".into()))
        } else {
            Ok(())
        }
    }

    fn event(state: &mut State, job: JobId, what: What) {
        let id = EventId(state.events.len() as u64 + 1);
        let device = state.jobs.iter().find(|j| j.id == job).and_then(|j| j.device_name.clone());
        state.events.push(Event { id, at: Timestamp::now(), job, device, what });
    }

    fn bump(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// What the controller submitted for a job.
    pub fn submitted(&self, id: JobId) -> NewJob {
        self.state.lock().new[&id].clone()
    }

    pub fn stopped(&self) -> Vec<String> {
        self.state.lock().stopped.clone()
    }

    pub fn forget_events_before(&self, id: u64) {
        self.state.lock().oldest_event = id;
    }

    pub fn all(&self) -> Vec<Job> {
        self.state.lock().jobs.clone()
    }

    pub fn start(&self, id: JobId) {
        let mut state = self.state.lock();
        let job = state.jobs.iter_mut().find(|j| j.id == id).unwrap();
        job.status = JobStatus::Started;
        job.worker = Some("node-a_FifoQ".into());
        job.started_at = Some(Timestamp::now());
        job.attempt += 1;
        Self::event(&mut state, id, What::Started { worker: "node-a_FifoQ".into(), attempt: 1 });
        drop(state);
        self.bump();
    }

    pub fn say(&self, id: JobId, what: What) {
        Self::event(&mut self.state.lock(), id, what);
        self.bump();
    }

    pub fn finish(&self, id: JobId) {
        let mut state = self.state.lock();
        let job = state.jobs.iter_mut().find(|j| j.id == id).unwrap();
        let retval = job
            .command
            .clone()
            .unwrap_or_default()
            .into_iter()
            .map(|c| ExecutionResult::ok(c, "out"))
            .collect();
        job.status = JobStatus::Finished;
        job.ended_at = Some(Timestamp::now());
        job.result = Some(Arc::new(JobResult {
            kind: ResultType::Successful,
            retval: Some(retval),
            error: None,
            outcome: None,
        }));
        Self::event(
            &mut state,
            id,
            What::Ended { status: JobStatus::Finished, outcome: None, message: None },
        );
        drop(state);
        self.bump();
    }
}

#[async_trait]
impl Queue for Memory {
    async fn submit(&self, jobs: Vec<NewJob>) -> Result<Vec<Submitted>, QueueError> {
        self.up()?;
        self.calls.lock().push(jobs.len());
        let mut state = self.state.lock();
        let mut answers = Vec::new();
        for new in jobs {
            if self.full.load(Ordering::Relaxed) && new.device_name.as_deref() != Some("192.0.2.200") {
                let what = "200000 jobs wait already (`store.max_queued`)".into();
                answers.push(Submitted::Full { what, retry_after: Duration::from_secs(3) });
                continue;
            }
            if let Some(known) = new.idempotency_key.as_ref().and_then(|key| state.keys.get(key)).copied() {
                let same = state.new[&known].digest == new.digest;
                let job = state.jobs.iter().find(|j| j.id == known).unwrap().clone();
                answers.push(if same { Submitted::Known(job) } else { Submitted::KeyReused(known) });
                continue;
            }
            let now = Timestamp::now();
            let job = Job {
                id: new.id,
                status: JobStatus::Queued,
                queue: new.queue.clone(),
                device: new.device.clone(),
                kind: new.kind,
                priority: new.priority,
                driver: new.driver.clone(),
                device_name: new.device_name.clone(),
                command: Some(new.command.clone()),
                task_id: None,
                attempt: 0,
                created_at: now,
                enqueued_at: Some(now),
                started_at: None,
                ended_at: None,
                worker: None,
                result: None,
            };
            if let Some(key) = &new.idempotency_key {
                state.keys.insert(key.clone(), new.id);
            }
            let queue = new.queue.to_string();
            state.jobs.push(job.clone());
            let id = new.id;
            state.new.insert(id, new);
            Self::event(&mut state, id, What::Queued { queue });
            answers.push(Submitted::Accepted(job));
        }
        drop(state);
        self.bump();
        Ok(answers)
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, QueueError> {
        self.up()?;
        Ok(self.state.lock().jobs.iter().find(|j| j.id == id).cloned())
    }

    async fn ended(&self, id: JobId, wait: Duration) -> Result<Option<Job>, QueueError> {
        let mut changed = self.changed.subscribe();
        let wait = tokio::time::sleep(wait);
        tokio::pin!(wait);
        loop {
            let job = self.job(id).await?;
            if job.as_ref().is_none_or(|j| j.status.is_final()) {
                return Ok(job);
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = &mut wait => return self.job(id).await,
            }
        }
    }

    async fn list(&self, query: &JobQuery) -> Result<Page, QueueError> {
        self.up()?;
        let state = self.state.lock();
        let before = query.cursor.as_deref().and_then(|c| c.parse::<usize>().ok()).unwrap_or(usize::MAX);
        let found: Vec<(usize, &Job)> = state
            .jobs
            .iter()
            .enumerate()
            .rev()
            .filter(|(index, job)| {
                *index < before
                    && query.queue.as_ref().is_none_or(|q| *q == job.queue)
                    && (query.status.is_empty() || query.status.contains(&job.status))
                    && query
                        .host
                        .as_ref()
                        .is_none_or(|h| job.device.as_ref().is_some_and(|d| d.matches_host(h)))
                    && query
                        .node
                        .as_ref()
                        .is_none_or(|n| job.worker.as_ref().is_some_and(|w| w.starts_with(n.as_str())))
                    && query.since.is_none_or(|at| job.created_at >= at)
                    && query.until.is_none_or(|at| job.created_at < at)
            })
            .collect();
        let limit = if query.limit == 0 { usize::MAX } else { query.limit };
        let jobs: Vec<Job> = found.iter().take(limit).map(|(_, job)| (*job).clone()).collect();
        let next = (found.len() > limit).then(|| found[limit - 1].0.to_string());
        Ok(Page { jobs, next })
    }

    async fn cancel(&self, id: JobId, _: &str) -> Result<Canceled, QueueError> {
        self.up()?;
        let mut state = self.state.lock();
        let Some(job) = state.jobs.iter_mut().find(|j| j.id == id) else { return Ok(Canceled::Unknown) };
        Ok(match job.status {
            JobStatus::Queued => {
                job.status = JobStatus::Canceled;
                Canceled::BeforeStart(job.clone())
            }
            JobStatus::Started => Canceled::Asked(job.clone()),
            _ => Canceled::TooLate(job.clone()),
        })
    }

    async fn cancel_waiting(&self, query: &JobQuery) -> Result<Vec<JobId>, QueueError> {
        let waiting = JobQuery { status: vec![JobStatus::Queued], ..query.clone() };
        let ids: Vec<JobId> = self.list(&waiting).await?.jobs.into_iter().map(|j| j.id).collect();
        for id in &ids {
            self.cancel(*id, "").await?;
        }
        Ok(ids)
    }

    async fn waiting(&self, id: JobId) -> Result<Option<Waiting>, QueueError> {
        let state = self.state.lock();
        let Some(job) = state.jobs.iter().find(|j| j.id == id && j.status == JobStatus::Queued) else {
            return Ok(None);
        };
        let before = state.jobs.iter().take_while(|j| j.id != id).filter(|j| j.queue == job.queue);
        let ahead = before.clone().filter(|j| j.status == JobStatus::Queued).count() as u64;
        let behind = before.clone().find(|j| j.status == JobStatus::Started).map(|j| j.id);
        Ok(Some(Waiting { ahead, behind, ..Waiting::default() }))
    }

    fn follow(&self, what: Follow, after: Option<EventId>) -> BoxStream<'static, Followed> {
        // The test's queue outlives its streams: a snapshot, then whatever changes.
        let state = self.state.lock();
        let mut items = Vec::new();
        let from = after.map_or(0, |id| id.0);
        if from + 1 < state.oldest_event {
            items.push(Followed::Gap(EventId(state.oldest_event)));
        }
        let wanted = |event: &&Event| {
            event.id.0 > from
                && event.id.0 >= state.oldest_event
                && match what {
                    Follow::Job(id) => event.job == id,
                    Follow::All => true,
                }
        };
        items.extend(state.events.iter().filter(wanted).cloned().map(Followed::Event));
        stream::iter(items).chain(stream::pending()).boxed()
    }

    async fn counts(&self) -> Result<JobCounts, QueueError> {
        self.up()?;
        let state = self.state.lock();
        let count = |status| state.jobs.iter().filter(|j| j.status == status).count() as u64;
        Ok(JobCounts {
            queued: count(JobStatus::Queued),
            started: count(JobStatus::Started),
            finished: count(JobStatus::Finished),
            failed: count(JobStatus::Failed),
            canceled: count(JobStatus::Canceled),
            oldest: state.jobs.iter().filter(|j| j.status == JobStatus::Queued).map(|j| j.created_at).min(),
        })
    }

    async fn health(&self) -> Result<(), QueueError> {
        self.up()
    }

    async fn join(&self, _: &str, _: Role) -> Result<mpsc::UnboundedReceiver<Signal>, QueueError> {
        Err(QueueError::Closed)
    }

    async fn nodes(&self) -> Result<Vec<NodeStatus>, QueueError> {
        self.up()?;
        let now = Timestamp::now();
        let node = |name: &str, alive, role| NodeStatus {
            name: name.into(),
            role,
            devices: 1,
            running: 2,
            alive,
            joined_at: now,
            renewed_at: now,
        };
        let draining = Role { capacity: 7, devices: false, fifo: false };
        Ok(vec![
            node("node-a", true, Role { capacity: 32, devices: true, fifo: true }),
            node("node-c", false, Role { capacity: 32, devices: true, fifo: true }),
            node("node-b", true, draining),
        ])
    }

    async fn deliveries(&self, _: usize, _: Duration) -> Result<Due, QueueError> {
        Err(QueueError::Closed)
    }

    async fn settle(&self, _: DeliveryId, _: u64, _: Delivered) -> Result<Verdict, QueueError> {
        Err(QueueError::Closed)
    }

    async fn suspend(&self, _: &str) -> Result<(), QueueError> {
        Ok(())
    }

    async fn leave(&self, _: &str) -> Result<(), QueueError> {
        Err(QueueError::Closed)
    }

    async fn acquire(&self, _: &str, _: &DeviceKey) -> Result<Option<Lease>, QueueError> {
        Err(QueueError::Closed)
    }

    async fn renew(&self, _: &str) -> Result<Vec<Lease>, QueueError> {
        Err(QueueError::Closed)
    }

    async fn release(&self, _: &Lease) -> Result<(), QueueError> {
        Err(QueueError::Closed)
    }

    fn lease_time(&self) -> Duration {
        Duration::from_secs(10)
    }

    async fn claim(&self, _: &Lease) -> Result<Option<Claim>, QueueError> {
        Err(QueueError::Closed)
    }

    async fn claim_fifo(&self, _: &str, _: usize) -> Result<Option<Claim>, QueueError> {
        Err(QueueError::Closed)
    }

    fn progress(&self, _: &ClaimToken, _: What) -> Verdict {
        Verdict::Stale
    }

    async fn retry(
        &self,
        _: &ClaimToken,
        _: Duration,
        _: &netpulse_model::ErrorInfo,
    ) -> Result<Verdict, QueueError> {
        Err(QueueError::Closed)
    }

    async fn complete(&self, _: &ClaimToken, _: Completion) -> Result<Verdict, QueueError> {
        Err(QueueError::Closed)
    }

    fn put_worker(&self, _: WorkerRecord) {}

    fn remove_worker(&self, _: &str) {}

    async fn workers(&self) -> Result<Vec<WorkerRecord>, QueueError> {
        self.up()?;
        Ok(self.state.lock().workers.clone())
    }

    async fn stop_worker(&self, name: &str) -> Result<bool, QueueError> {
        let mut state = self.state.lock();
        let known = state.workers.iter().any(|w| w.name == name);
        if known {
            state.stopped.push(name.to_owned());
        }
        Ok(known)
    }

    async fn close(&self) {}
}
