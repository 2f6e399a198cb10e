//! Acceptance: sealing, one script for many jobs, and what became of each.

use netpulse_model::event::What;
use netpulse_model::{Job, JobId, JobKind, JobStatus, Priority, QueueName, Timestamp};
use redis::{Cmd, Pipeline, Value};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use zeroize::Zeroize;

use super::link::Trouble;
use super::place::{Choices, NO_NODE};
use super::record::{About, number, text};
use super::scripts::{Script, lifetime};
use super::{Shared, unavailable};
use crate::api::{NewJob, QueueError, Submitted};

/// Jobs of one script: a few milliseconds of the server's time.
const CHUNK: usize = 200;

/// How often a node is chosen anew when the one chosen has died.
const TRIES: usize = 4;

/// Sealing and opening of more than this happens on a thread of its own.
const HEAVY: usize = 256 * 1024;

/// Runs `work` here when it is small, on a thread that may block when it is not.
pub(super) async fn off_thread<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, QueueError> {
    if bytes <= HEAVY {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|_| QueueError::Closed)
}

/// A job as it is sent: texts once, so that sending it again costs nothing.
struct Packed {
    new: NewJob,
    id: String,
    queue: String,
    about: String,
    request: Vec<u8>,
    notify: Vec<u8>,
    digest: String,
    event: String,
    /// The node that was chosen for its device.
    chosen: String,
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, QueueError> {
    serde_json::to_string(value).map_err(|error| QueueError::Corrupt(error.to_string()))
}

fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef".get(usize::from(half)).copied().unwrap_or(b'0'));
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn pack(shared: &Shared, mut new: NewJob) -> Result<Packed, QueueError> {
    let bad = |error: crate::seal::SealError| QueueError::Corrupt(error.to_string());
    let request = shared.keys.seal(new.id, &new.payload).map_err(bad)?;
    new.payload.zeroize();
    let notify = match &mut new.notify {
        Some(notify) => {
            let sealed = shared.keys.seal(new.id, notify).map_err(bad)?;
            notify.zeroize();
            sealed
        }
        None => Vec::new(),
    };
    let queue = new.queue.to_string();
    Ok(Packed {
        id: new.id.to_string(),
        about: json(&About {
            driver: Cow::Borrowed(&new.driver),
            priority: new.priority,
            name: new.device_name.as_deref().map(Cow::Borrowed),
            command: Cow::Borrowed(&new.command),
            timeout: u64::try_from(lifetime(new.timeout)).unwrap_or(0),
            retry: new.retry.clone(),
        })?,
        digest: if new.idempotency_key.is_some() { hex(&new.digest) } else { String::new() },
        event: json(&What::Queued { queue: queue.clone() })?,
        queue,
        request,
        notify,
        chosen: String::new(),
        new,
    })
}

impl Packed {
    fn arguments(&self, call: &mut Cmd) {
        let device = self.new.device.as_ref();
        call.arg(&self.id)
            .arg(&self.queue)
            .arg(device.map_or("", |key| key.as_str()))
            .arg(device.map_or("", |key| key.host()))
            .arg(if self.new.kind == JobKind::Modification { "modification" } else { "query" })
            .arg(match self.new.priority {
                Priority::High => 0,
                Priority::Normal => 1,
                Priority::Low => 2,
            })
            .arg(&self.about)
            .arg(lifetime(self.new.ttl))
            .arg(lifetime(self.new.result_ttl))
            .arg(&self.request)
            .arg(&self.notify)
            .arg(self.new.idempotency_key.as_deref().unwrap_or(""))
            .arg(&self.digest)
            .arg(&self.chosen)
            .arg(&self.event);
    }

    fn accepted(&self, created: i64) -> Submitted {
        let at = Timestamp(created);
        Submitted::Accepted(Job {
            id: self.new.id,
            status: JobStatus::Queued,
            queue: self.new.queue.clone(),
            device: self.new.device.clone(),
            kind: self.new.kind,
            priority: self.new.priority,
            driver: self.new.driver.clone(),
            device_name: self.new.device_name.clone(),
            command: Some(self.new.command.clone()),
            task_id: None,
            attempt: 0,
            created_at: at,
            enqueued_at: Some(at),
            started_at: None,
            ended_at: None,
            worker: None,
            result: None,
        })
    }
}

impl Shared {
    /// Accepts the jobs, part by part in their order: while one part is with the store the next is sealed.
    pub(super) async fn submit(self: &Arc<Self>, jobs: Vec<NewJob>) -> Result<Vec<Submitted>, QueueError> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        self.prepare().await;
        let count = jobs.len();
        let bytes = jobs.iter().map(|job| job.payload.len() + 500).sum();
        let mut until = self.until_for(bytes);
        let mut parts = self.packed(jobs, bytes);
        let (mut out, mut ids) = (Vec::with_capacity(count), Vec::new());
        while let Some(part) = parts.recv().await {
            let met = match part {
                Ok(part) => {
                    let own: Vec<String> = part.iter().map(|job| job.id.clone()).collect();
                    let met = self.submit_part(part, &mut until).await;
                    ids.extend(own);
                    met
                }
                Err(error) => Err(error),
            };
            match met {
                Ok(answers) => out.extend(answers),
                Err(error) => {
                    // What the parts before hold is refused with this one.
                    if !out.is_empty() {
                        self.withdraw_jobs(ids, until);
                    }
                    return Err(error);
                }
            }
        }
        if out.len() < count {
            self.withdraw_jobs(ids, until);
            return Err(QueueError::Closed);
        }
        Ok(out)
    }

    /// The jobs as they are sent, in parts of one script; more than a few are sealed on a thread of
    /// their own.
    fn packed(
        self: &Arc<Self>,
        jobs: Vec<NewJob>,
        bytes: usize,
    ) -> mpsc::Receiver<Result<Vec<Packed>, QueueError>> {
        let (tell, told) = mpsc::channel(2);
        let shared = Arc::clone(self);
        let few = jobs.len() <= CHUNK && bytes <= HEAVY;
        let mut jobs = jobs.into_iter();
        let mut part = move || -> Result<Vec<Packed>, QueueError> {
            jobs.by_ref().take(CHUNK).map(|job| pack(&shared, job)).collect()
        };
        if few {
            // There is room for one.
            let _ = tell.try_send(part());
            return told;
        }
        tokio::task::spawn_blocking(move || {
            loop {
                let part = part();
                // The last one is empty; an error is the last one too.
                let over = part.as_ref().map_or(true, Vec::is_empty);
                if part.as_ref().is_ok_and(Vec::is_empty) || tell.blocking_send(part).is_err() || over {
                    return;
                }
            }
        });
        told
    }

    /// Accepts what one script takes. What a scheduler takes to choose is added to the time there is: it
    /// is not the store that is slow.
    async fn submit_part(
        self: &Arc<Self>,
        mut packed: Vec<Packed>,
        until: &mut Instant,
    ) -> Result<Vec<Submitted>, QueueError> {
        let mut answers = vec![String::new(); packed.len()];
        let mut choices = Choices::new();
        let mut open: Vec<usize> = (0..packed.len()).collect();
        for tries in 0..=TRIES {
            // Most devices have a node: it is only chosen for those of which the store says otherwise.
            // Jobs of one script keep their order all the same.
            let blind = tries == 0 && self.options.placer.is_some();
            if !blind {
                let asked = Instant::now();
                choices.extend(self.choices(&packed, &open).await?);
                *until += asked.elapsed();
            }
            for at in &open {
                if let Some(job) = packed.get_mut(*at) {
                    let chosen = job.new.device.as_ref().and_then(|key| choices.get(key));
                    job.chosen = chosen.and_then(|choice| choice.clone().ok()).unwrap_or_default();
                }
            }
            let jobs: Vec<&Packed> = open.iter().filter_map(|at| packed.get(*at)).collect();
            let sent = self.send_jobs(&jobs, blind, *until).await?;
            let mut left = Vec::new();
            for (at, answer) in open.iter().zip(sent) {
                // The node that was chosen, or had the device, has died since.
                let chosen = packed.get(*at).is_some_and(|job| !self.without_node(job, &choices));
                if answer == "P" && chosen && tries < TRIES {
                    left.push(*at);
                }
                if let Some(slot) = answers.get_mut(*at) {
                    *slot = answer;
                }
            }
            open = left;
            if open.is_empty() {
                break;
            }
        }
        let mut out = Vec::with_capacity(packed.len());
        for (job, answer) in packed.iter().zip(&answers) {
            out.push(self.submitted(job, answer, &choices).await?);
        }
        Ok(out)
    }

    /// Whether it is known that no node can be had for a job's device.
    fn without_node(&self, job: &Packed, choices: &Choices) -> bool {
        job.new.device.as_ref().and_then(|key| choices.get(key)).is_some_and(Result::is_err)
    }

    /// Chooses nodes where a placer is there to.
    async fn choices(&self, jobs: &[Packed], open: &[usize]) -> Result<Choices, QueueError> {
        if self.options.placer.is_none() {
            return Ok(Choices::new());
        }
        let own = |job: &Packed| match &job.new.queue {
            QueueName::Host(key) => Some(key.clone()),
            _ => None,
        };
        self.choose(open.iter().filter_map(|at| jobs.get(*at)).filter_map(own).collect()).await
    }

    /// Sends the jobs in order, as one script.
    async fn send_jobs(
        self: &Arc<Self>,
        jobs: &[&Packed],
        blind: bool,
        until: Instant,
    ) -> Result<Vec<String>, QueueError> {
        let mut pause = Duration::from_millis(20);
        let mut again = false;
        loop {
            let (ahead, limit) = (self.options.clock.ahead(), self.limit(until));
            let mut call = self.scripts.call(Script::Submit, ahead, limit);
            call.arg(u8::from(again)).arg(u8::from(blind));
            for job in jobs {
                job.arguments(&mut call);
            }
            let mut pipe = Pipeline::with_capacity(2);
            pipe.add_command(call);
            if self.options.min_replicas > 0 {
                let left = until.saturating_duration_since(Instant::now()) / 2;
                pipe.cmd("WAIT")
                    .arg(self.options.min_replicas)
                    .arg(u64::try_from(left.as_millis()).unwrap_or(1).max(1));
            }
            let met = match self.link.send(&pipe, until).await {
                Ok(mut answers) => match self.confirmed(&mut answers) {
                    Ok(()) => self.answers(answers),
                    Err(trouble) => Err(trouble),
                },
                Err(trouble) => Err(trouble),
            };
            match met {
                Ok(answers) => return Ok(answers),
                Err(trouble @ (Trouble::Lost(_) | Trouble::Later(_))) if Instant::now() + pause < until => {
                    tracing::debug!(%trouble, "jobs are submitted again");
                    again = true;
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(trouble) => {
                    if again || matches!(trouble, Trouble::Lost(_)) {
                        self.withdraw_jobs(jobs.iter().map(|job| job.id.clone()).collect(), until);
                    }
                    return Err(unavailable(trouble));
                }
            }
        }
    }

    /// Whoever submitted these is told that they were not accepted: so they are not.
    fn withdraw_jobs(self: &Arc<Self>, ids: Vec<String>, until: Instant) {
        let shared = Arc::clone(self);
        self.spawn(async move {
            // Until then the store may yet do what was asked.
            tokio::time::sleep_until(until + Duration::from_millis(100)).await;
            for part in ids.chunks(CHUNK) {
                let withdraw = || {
                    shared.ask(Script::Withdraw, |call| {
                        for id in part {
                            call.arg(id);
                        }
                    })
                };
                while let Err(error) = withdraw().await {
                    if matches!(error, QueueError::Closed) {
                        return;
                    }
                    tracing::debug!(%error, "jobs cannot be withdrawn yet");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        });
    }

    /// Whether enough replicas have what was accepted; takes their number out of the answers.
    fn confirmed(&self, answers: &mut Vec<Value>) -> Result<(), Trouble> {
        let wanted = self.options.min_replicas;
        if wanted == 0 {
            return Ok(());
        }
        let have = answers.pop().as_ref().and_then(number).unwrap_or(0);
        if usize::try_from(have).unwrap_or(0) >= wanted {
            return Ok(());
        }
        Err(Trouble::Lost(format!("{have} of {wanted} replicas confirmed the jobs (redis.min_replicas)")))
    }

    fn answers(&self, answers: Vec<Value>) -> Result<Vec<String>, Trouble> {
        let mut out = Vec::new();
        for answer in answers {
            let reply = self.hear(answer)?;
            out.extend(reply.items(0).iter().filter_map(text).map(str::to_owned));
        }
        Ok(out)
    }

    async fn submitted(
        self: &Arc<Self>,
        job: &Packed,
        answer: &str,
        choices: &Choices,
    ) -> Result<Submitted, QueueError> {
        let odd = || QueueError::Corrupt(format!("the store answered `{answer}` to a submission"));
        let (sort, rest) = answer.split_at_checked(1).ok_or_else(odd)?;
        let full = |what: String| Submitted::Full { what, retry_after: Duration::from_secs(1) };
        Ok(match sort {
            "A" => job.accepted(rest.parse().map_err(|_| odd())?),
            "K" => {
                let id: JobId = rest.parse().map_err(|_| odd())?;
                let found = self.find(id).await?;
                Submitted::Known(found.ok_or_else(|| {
                    QueueError::Unavailable(format!(
                        "job {id} of this key has just been forgotten: try again"
                    ))
                })?)
            }
            "R" => Submitted::KeyReused(rest.parse().map_err(|_| odd())?),
            "Q" => full(format!("{rest} jobs wait already (store.max_queued)")),
            "D" => full(format!(
                "{rest} jobs wait for device {} already (store.max_queued_per_device)",
                job.new.device.as_ref().map_or("", |key| key.as_str())
            )),
            "O" => full(format!(
                "{rest} webhooks are undelivered and more will follow already (store.max_outbox)"
            )),
            "F" => Submitted::NoNode { why: "No available FIFO worker to run the job".into() },
            "P" => {
                let why = job.new.device.as_ref().and_then(|key| choices.get(key));
                let why = why.and_then(|choice| choice.clone().err());
                Submitted::NoNode { why: why.unwrap_or_else(|| NO_NODE.into()) }
            }
            _ => return Err(odd()),
        })
    }
}
