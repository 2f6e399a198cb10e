//! Random operations of several nodes, compared step by step with a reference that does
//! everything the slow and obvious way.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::api::{Canceled, ClaimToken, JobQuery, Next, Verdict};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const DEVICES: usize = 3;
const PER_DEVICE: usize = 2;

#[derive(Debug, Clone)]
enum Operation {
    Submit { device: usize, modification: bool, fifo: bool, priority: usize, key: Option<u8> },
    Acquire { node: usize, device: usize },
    Release { device: usize },
    Claim { device: usize },
    ClaimFifo { node: usize },
    Note { pick: usize },
    Complete { pick: usize, next: bool },
    Stale { pick: usize },
    Retry { pick: usize },
    Cancel { pick: usize },
    Rejoin { node: usize },
    Silence { node: usize },
    Crash,
}

fn operation() -> impl Strategy<Value = Operation> {
    let (node, device, pick) = (0..NODES.len(), 0..DEVICES, 0..64_usize);
    prop_oneof![
        10 => (device.clone(), any::<bool>(), any::<bool>(), 0..3_usize, prop::option::weighted(0.2, 0..3_u8))
            .prop_map(|(device, modification, fifo, priority, key)| Operation::Submit { device, modification, fifo, priority, key }),
        6 => (node.clone(), device.clone()).prop_map(|(node, device)| Operation::Acquire { node, device }),
        1 => device.clone().prop_map(|device| Operation::Release { device }),
        8 => device.prop_map(|device| Operation::Claim { device }),
        8 => node.clone().prop_map(|node| Operation::ClaimFifo { node }),
        4 => pick.clone().prop_map(|pick| Operation::Note { pick }),
        10 => (pick.clone(), any::<bool>()).prop_map(|(pick, next)| Operation::Complete { pick, next }),
        3 => pick.clone().prop_map(|pick| Operation::Stale { pick }),
        2 => pick.clone().prop_map(|pick| Operation::Retry { pick }),
        3 => pick.prop_map(|pick| Operation::Cancel { pick }),
        1 => node.clone().prop_map(|node| Operation::Rejoin { node }),
        1 => node.prop_map(|node| Operation::Silence { node }),
        1 => Just(Operation::Crash),
    ]
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Waiting,
    Running { node: usize },
    Ended(JobStatus, Option<Outcome>),
}

#[derive(Debug)]
struct Known {
    id: JobId,
    priority: Priority,
    device: usize,
    fifo: bool,
    modification: bool,
    state: State,
    attempt: u32,
    lost: u32,
    sent: bool,
    cancel: bool,
    token: Option<ClaimToken>,
}

/// The reference: a list of jobs in order of acceptance.
#[derive(Default)]
struct Reference {
    jobs: Vec<Known>,
    keys: HashMap<u8, usize>,
    leases: HashMap<usize, Lease>,
    old_tokens: Vec<ClaimToken>,
    last_epoch: u64,
}

impl Reference {
    fn waiting_before(&self, at: usize) -> impl Iterator<Item = &Known> {
        let this = &self.jobs[at];
        self.jobs.iter().enumerate().filter_map(move |(n, job)| {
            let earlier = (job.priority, n) < (this.priority, at);
            (earlier && job.device == this.device && job.state == State::Waiting).then_some(job)
        })
    }

    fn running_on(&self, device: usize) -> impl Iterator<Item = &Known> {
        self.jobs.iter().filter(move |job| job.device == device && matches!(job.state, State::Running { .. }))
    }

    fn may_start(&self, at: usize) -> bool {
        let job = &self.jobs[at];
        let mut running = self.running_on(job.device);
        if job.modification {
            return running.next().is_none() && self.waiting_before(at).next().is_none();
        }
        let running: Vec<&Known> = running.collect();
        let beside = running.iter().filter(|other| other.fifo == job.fifo).count();
        running.iter().all(|other| !other.modification)
            && beside < if job.fifo { PER_DEVICE } else { 1 }
            && self.waiting_before(at).all(|other| !other.modification)
    }

    /// The waiting jobs of one queue, in their order.
    fn queue(&self, chosen: impl Fn(&Known) -> bool) -> Vec<usize> {
        let mut places: Vec<usize> = (0..self.jobs.len())
            .filter(|n| self.jobs[*n].state == State::Waiting && chosen(&self.jobs[*n]))
            .collect();
        places.sort_by_key(|n| (self.jobs[*n].priority, *n));
        places
    }

    fn running(&self) -> Vec<usize> {
        (0..self.jobs.len()).filter(|n| matches!(self.jobs[*n].state, State::Running { .. })).collect()
    }

    fn start(&mut self, at: usize, node: usize, claim: &Claim) {
        assert!(claim.token.epoch > self.last_epoch, "epochs grow");
        self.last_epoch = claim.token.epoch;
        let job = &mut self.jobs[at];
        job.state = State::Running { node };
        job.attempt += 1;
        job.sent = false;
        job.token = Some(claim.token.clone());
        assert_eq!(claim.job.attempt, job.attempt);
        assert_eq!(claim.payload, format!("payload of {}", job.id).into_bytes());
    }

    fn stop(&mut self, at: usize, state: State) {
        let job = &mut self.jobs[at];
        self.old_tokens.extend(job.token.take());
        job.state = state;
    }

    /// What becomes of a running job whose worker is lost.
    fn settle(&mut self, at: usize) {
        let job = &mut self.jobs[at];
        job.lost += 1;
        let state = if job.modification {
            let outcome = if job.sent { Outcome::Unknown } else { Outcome::NotApplied };
            State::Ended(JobStatus::Failed, Some(outcome))
        } else if job.cancel {
            State::Ended(JobStatus::Canceled, None)
        } else if job.lost >= 3 {
            State::Ended(JobStatus::Failed, None)
        } else {
            State::Waiting
        };
        self.stop(at, state);
    }

    fn lose_node(&mut self, node: usize) {
        self.leases.retain(|_, lease| lease.node != NODES[node]);
        for at in self.running() {
            if self.jobs[at].state == (State::Running { node }) {
                self.settle(at);
            }
        }
    }
}

fn name(device: usize) -> String {
    format!("sw{device}")
}

/// One engine beside its reference.
struct Pair<F: Factory> {
    factory: F,
    queue: Arc<F::Engine>,
    reference: Reference,
    _signals: Vec<UnboundedReceiver<Signal>>,
}

impl<F: Factory> Pair<F> {
    async fn new() -> Self {
        let factory = F::empty(Bounds::default()).await;
        let queue = factory.open().await;
        let mut pair = Self { factory, queue, reference: Reference::default(), _signals: Vec::new() };
        pair.join().await;
        pair
    }

    async fn join(&mut self) {
        self._signals.clear();
        for node in NODES {
            self._signals.push(self.queue.join(node, 10.into()).await.unwrap());
        }
    }

    fn pick(&self, pick: usize) -> Option<usize> {
        let running = self.reference.running();
        (!running.is_empty()).then(|| running[pick % running.len()])
    }

    async fn apply(&mut self, operation: &Operation) {
        match *operation {
            Operation::Submit { device, modification, fifo, priority, key } => {
                self.submit(device, modification, fifo, priority, key).await;
            }
            Operation::Acquire { node, device: at } => {
                let got = self.queue.acquire(NODES[node], &device(&name(at))).await.unwrap();
                match self.reference.leases.get(&at) {
                    Some(lease) if lease.node == NODES[node] => {
                        assert_eq!(got.as_ref(), Some(lease))
                    }
                    Some(_) => assert_eq!(got, None, "another holds it"),
                    None if self.reference.running_on(at).any(|job| job.modification) => {
                        assert_eq!(got, None)
                    }
                    None => {
                        let lease = got.expect("the device is free");
                        assert!(lease.epoch > self.reference.last_epoch);
                        self.reference.last_epoch = lease.epoch;
                        self.reference.leases.insert(at, lease);
                    }
                }
            }
            Operation::Release { device } => {
                if let Some(lease) = self.reference.leases.remove(&device) {
                    self.queue.release(&lease).await.unwrap();
                    for at in self.reference.running() {
                        let job = &self.reference.jobs[at];
                        if job.device == device && !job.fifo {
                            self.reference.settle(at);
                        }
                    }
                }
            }
            Operation::Claim { device } => {
                let Some(lease) = self.reference.leases.get(&device).cloned() else {
                    return;
                };
                let first = self.reference.queue(|job| !job.fifo && job.device == device).first().copied();
                let expected = first.filter(|at| self.reference.may_start(*at));
                let got = self.queue.claim(&lease).await.unwrap();
                let node = NODES.iter().position(|node| *node == lease.node).unwrap();
                self.started(expected, got, node);
            }
            Operation::ClaimFifo { node } => {
                let waiting = self.reference.queue(|job| job.fifo);
                let expected = waiting.into_iter().find(|at| self.reference.may_start(*at));
                let got = self.queue.claim_fifo(NODES[node], PER_DEVICE).await.unwrap();
                self.started(expected, got, node);
            }
            Operation::Note { pick } => {
                let Some(at) = self.pick(pick) else { return };
                let job = &mut self.reference.jobs[at];
                job.sent = true;
                assert_eq!(
                    self.queue.progress(job.token.as_ref().unwrap(), sending(0, "vlan 10")),
                    Verdict::Taken
                );
            }
            Operation::Complete { pick, next } => {
                let Some(at) = self.pick(pick) else { return };
                let job = &self.reference.jobs[at];
                let completion = match (pick % 3, job.modification) {
                    (0, _) => failed(),
                    (_, true) => applied(),
                    (_, false) => finished(),
                };
                let state = State::Ended(completion.status, completion.result.outcome);
                let (device, token) = (job.device, job.token.clone().unwrap());
                let Some(lease) = self.reference.leases.get(&device).filter(|_| next && !job.fifo).cloned()
                else {
                    assert_eq!(self.queue.complete(&token, completion).await.unwrap(), Verdict::Taken);
                    self.reference.stop(at, state);
                    return;
                };
                let (verdict, next) =
                    self.queue.complete_and_claim(&token, completion, &lease).await.unwrap();
                assert_eq!(verdict, Verdict::Taken);
                self.reference.stop(at, state);
                let first = self.reference.queue(|job| !job.fifo && job.device == device).first().copied();
                let expected = first.filter(|at| self.reference.may_start(*at));
                let got = match next {
                    Next::Job(claim) => Some(*claim),
                    Next::Nothing => None,
                    Next::Unknown => panic!("nothing failed"),
                };
                let node = NODES.iter().position(|node| *node == lease.node).unwrap();
                self.started(expected, got, node);
            }
            Operation::Stale { pick } => {
                let tokens = &self.reference.old_tokens;
                let Some(token) = tokens.get(pick % tokens.len().max(1)) else {
                    return;
                };
                assert_eq!(self.queue.complete(token, finished()).await.unwrap(), Verdict::Stale);
                assert_eq!(self.queue.progress(token, sending(0, "late")), Verdict::Stale);
                assert_eq!(
                    self.queue.retry(token, Duration::ZERO, &no_connection("late")).await.unwrap(),
                    Verdict::Stale
                );
            }
            Operation::Retry { pick } => {
                let Some(at) = self.pick(pick) else { return };
                let job = &self.reference.jobs[at];
                let verdict = self
                    .queue
                    .retry(job.token.as_ref().unwrap(), Duration::ZERO, &no_connection("again"))
                    .await
                    .unwrap();
                if job.modification && job.sent {
                    assert_eq!(verdict, Verdict::Stale);
                    return;
                }
                assert_eq!(verdict, Verdict::Taken);
                let canceled = job.modification.then_some(Outcome::NotApplied);
                let next =
                    if job.cancel { State::Ended(JobStatus::Canceled, canceled) } else { State::Waiting };
                self.reference.stop(at, next);
            }
            Operation::Cancel { pick } => self.cancel(pick).await,
            Operation::Rejoin { node } => {
                self._signals[node] = self.queue.join(NODES[node], 10.into()).await.unwrap();
                self.reference.lose_node(node);
            }
            Operation::Silence { node } => {
                let alive: Vec<&str> = NODES.iter().filter(|other| **other != NODES[node]).copied().collect();
                lease_passes(&self.factory, &*self.queue, &alive).await;
                self.reference.lose_node(node);
                self.queue.renew(NODES[node]).await.unwrap();
            }
            Operation::Crash => self.crash().await,
        }
    }

    async fn submit(&mut self, at: usize, modification: bool, fifo: bool, priority: usize, key: Option<u8>) {
        let kind = if modification { JobKind::Modification } else { JobKind::Query };
        let target = device(&name(at));
        let queue = if fifo { QueueName::Fifo } else { QueueName::Host(target.clone()) };
        let mut new = new_job(queue, target, kind);
        new.priority = [Priority::High, Priority::Normal, Priority::Low][priority];
        new.idempotency_key = key.map(|key| format!("key {key}"));
        new.digest = [u8::from(modification); 32];
        let (id, priority) = (new.id, new.priority);
        let answer = self.queue.submit(vec![new]).await.unwrap().pop().unwrap();
        if let Some(known) = key.and_then(|key| self.reference.keys.get(&key)) {
            let known = &self.reference.jobs[*known];
            match answer {
                Submitted::Known(job) => {
                    assert_eq!((job.id, known.modification), (known.id, modification))
                }
                Submitted::KeyReused(id) => {
                    assert_eq!(id, known.id);
                    assert_ne!(known.modification, modification);
                }
                other => panic!("the key is known: {other:?}"),
            }
            return;
        }
        assert!(matches!(answer, Submitted::Accepted(job) if job.id == id));
        if let Some(key) = key {
            self.reference.keys.insert(key, self.reference.jobs.len());
        }
        self.reference.jobs.push(Known {
            id,
            priority,
            device: at,
            fifo,
            modification,
            state: State::Waiting,
            attempt: 0,
            lost: 0,
            sent: false,
            cancel: false,
            token: None,
        });
    }

    fn started(&mut self, expected: Option<usize>, got: Option<Claim>, node: usize) {
        let ids = (expected.map(|at| self.reference.jobs[at].id), got.as_ref().map(|claim| claim.job.id));
        assert_eq!(ids.0, ids.1, "the reference starts the left one");
        if let (Some(at), Some(claim)) = (expected, got) {
            self.reference.start(at, node, &claim);
        }
    }

    async fn cancel(&mut self, pick: usize) {
        if self.reference.jobs.is_empty() {
            return;
        }
        let at = pick % self.reference.jobs.len();
        let job = &mut self.reference.jobs[at];
        let met = self.queue.cancel(job.id, "model").await.unwrap();
        match (&job.state, met) {
            (State::Waiting, Canceled::BeforeStart(_)) => {
                let outcome = job.modification.then_some(Outcome::NotApplied);
                job.state = State::Ended(JobStatus::Canceled, outcome);
            }
            (State::Running { .. }, Canceled::Asked(_)) => job.cancel = true,
            (State::Ended(..), Canceled::TooLate(_)) => {}
            (state, met) => panic!("{state:?} met {met:?}"),
        }
    }

    /// Everything is on disk, then everything is gone but the disk.
    async fn crash(&mut self) {
        self.queue.list(&JobQuery::default()).await.unwrap();
        self.factory.crash(self.queue.clone()).await;
        self.queue = self.factory.open().await;
        self.reference.leases.clear();
        for at in self.reference.running() {
            self.reference.settle(at);
            // After a crash it may not be known that nothing was sent.
            let job = &mut self.reference.jobs[at];
            if let State::Ended(JobStatus::Failed, Some(outcome)) = &mut job.state {
                let told = outcome_of(&super::job(&*self.queue, job.id).await);
                if told == Some(Outcome::Unknown) {
                    *outcome = Outcome::Unknown;
                }
            }
        }
        self.join().await;
    }

    /// Everybody sees what the reference sees.
    async fn compare(&self) {
        let (mut queued, mut started) = (0, 0);
        for known in &self.reference.jobs {
            let job = super::job(&*self.queue, known.id).await;
            let (status, outcome) = match known.state {
                State::Waiting => (JobStatus::Queued, None),
                State::Running { .. } => (JobStatus::Started, None),
                State::Ended(status, outcome) => (status, outcome),
            };
            queued += u64::from(status == JobStatus::Queued);
            started += u64::from(status == JobStatus::Started);
            assert_eq!(
                (job.status, outcome_of(&job), job.attempt),
                (status, outcome, known.attempt),
                "{known:?}"
            );
        }
        let counts = self.queue.counts().await.unwrap();
        assert_eq!((counts.queued, counts.started), (queued, started));
        assert_eq!(
            counts.finished + counts.failed + counts.canceled,
            self.reference.jobs.len() as u64 - queued - started
        );
    }
}

/// Runs random histories; a failing one is shrunk and printed. `PROPTEST_CASES` sets how many.
pub fn random_operations<F: Factory>() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(48);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let histories = prop::collection::vec(operation(), 1..80);
    TestRunner::new(config)
        .run(&histories, |history| {
            runtime.block_on(async {
                let mut pair = Pair::<F>::new().await;
                for operation in &history {
                    pair.apply(operation).await;
                    pair.compare().await;
                }
                pair.factory.crash(pair.queue.clone()).await;
            });
            Ok(())
        })
        .unwrap();
}
