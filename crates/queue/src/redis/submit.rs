//! Acceptance: sealing, one script for many jobs, and what became of each.

use netpulse_model::event::What;
use netpulse_model::{Job, JobId, JobKind, JobStatus, Priority, Timestamp};
use redis::{Cmd, Pipeline, Value};
use std::time::Duration;
use tokio::time::Instant;
use zeroize::Zeroize;

use super::link::Trouble;
use super::record::text;
use super::scripts::{Script, lifetime};
use super::{Shared, unavailable};
use crate::api::{NewJob, QueueError, Submitted};

/// Jobs of one script: a few milliseconds of the server's time.
const CHUNK: usize = 200;

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
    command: String,
    retry: String,
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
        command: json(&new.command)?,
        retry: json(&new.retry)?,
        digest: new.digest.iter().map(|byte| format!("{byte:02x}")).collect(),
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
            .arg(self.new.priority.as_str())
            .arg(match self.new.priority {
                Priority::High => 0,
                Priority::Normal => 1,
                Priority::Low => 2,
            })
            .arg(&self.new.driver)
            .arg(self.new.device_name.as_deref().unwrap_or(""))
            .arg(&self.command)
            .arg(lifetime(self.new.ttl))
            .arg(lifetime(self.new.timeout))
            .arg(lifetime(self.new.result_ttl))
            .arg(&self.retry)
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
    pub(super) async fn submit(
        self: &std::sync::Arc<Self>,
        jobs: Vec<NewJob>,
    ) -> Result<Vec<Submitted>, QueueError> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        self.prepare().await;
        let bytes = jobs.iter().map(|job| job.payload.len() + 500).sum();
        let shared = std::sync::Arc::clone(self);
        let packed = off_thread(bytes, move || {
            jobs.into_iter().map(|job| pack(&shared, job)).collect::<Result<Vec<_>, _>>()
        })
        .await??;
        let answers = self.send_jobs(&packed).await?;
        let mut out = Vec::with_capacity(packed.len());
        for (job, answer) in packed.iter().zip(&answers) {
            out.push(self.submitted(job, answer).await?);
        }
        Ok(out)
    }

    /// Sends the jobs in order, in scripts of a bounded size that travel together.
    async fn send_jobs(&self, jobs: &[Packed]) -> Result<Vec<String>, QueueError> {
        let until = self.until();
        let limit = self.limit(until);
        let mut pause = Duration::from_millis(20);
        let mut again = false;
        loop {
            let ahead = self.options.clock.ahead();
            let mut pipe = Pipeline::new();
            for chunk in jobs.chunks(CHUNK) {
                let mut call = self.scripts.call(Script::Submit, ahead, limit);
                call.arg(u8::from(again));
                for job in chunk {
                    job.arguments(&mut call);
                }
                pipe.add_command(call);
            }
            let met = match self.link.send(&pipe, until).await {
                Ok(answers) => self.answers(answers),
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
                Err(trouble) => return Err(unavailable(trouble)),
            }
        }
    }

    fn answers(&self, answers: Vec<Value>) -> Result<Vec<String>, Trouble> {
        let mut out = Vec::new();
        for answer in answers {
            let reply = self.hear(answer)?;
            out.extend(reply.items(0).iter().filter_map(text).map(str::to_owned));
        }
        Ok(out)
    }

    async fn submitted(&self, job: &Packed, answer: &str) -> Result<Submitted, QueueError> {
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
            "P" => Submitted::NoNode { why: "No available node to run the job".into() },
            _ => return Err(odd()),
        })
    }
}
