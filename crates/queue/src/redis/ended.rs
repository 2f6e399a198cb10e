//! Waiting for the ends of jobs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use netpulse_model::{Job, JobId, JobStatus};
use redis::Pipeline;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Shared;
use super::record::text;
use crate::api::QueueError;

/// Jobs read in one go.
const PAGE: usize = 100;

/// Who waits for which job's end, and where to tell that it came.
pub(super) type Waiters = HashMap<JobId, Vec<mpsc::UnboundedSender<JobId>>>;

impl Shared {
    fn wait_for(&self, ids: &[JobId], tell: &mpsc::UnboundedSender<JobId>) {
        let mut waiters = self.waiters.lock();
        for id in ids {
            let waiting = waiters.entry(*id).or_default();
            waiting.retain(|waiter| !waiter.is_closed());
            waiting.push(tell.clone());
        }
    }

    /// Forgets those who no longer wait for a job's end.
    fn forget_waiters(&self, ids: impl IntoIterator<Item = JobId>) {
        let mut waiters = self.waiters.lock();
        for id in ids {
            if let Some(waiting) = waiters.get_mut(&id) {
                waiting.retain(|waiter| !waiter.is_closed());
                if waiting.is_empty() {
                    waiters.remove(&id);
                }
            }
        }
    }

    pub(super) async fn ended(
        self: &Arc<Self>,
        id: JobId,
        wait: Duration,
    ) -> Result<Option<Job>, QueueError> {
        let until = Instant::now() + wait;
        loop {
            // Registered before looking, so that no end falls between.
            let (tell, mut told) = mpsc::unbounded_channel();
            self.wait_for(&[id], &tell);
            let found = self.find(id).await;
            let waits = matches!(&found, Ok(Some(job)) if !job.status.is_final());
            if !waits || Instant::now() >= until {
                drop(told);
                self.forget_waiters([id]);
                return found;
            }
            // The end, the time's end or a new connection: the job is read as it then stands.
            drop(tokio::time::timeout_at(until, told.recv()).await);
        }
    }

    /// One reading for many ends. A store that fails meanwhile ends the wait with what is known.
    pub(super) async fn ended_all(self: &Arc<Self>, ids: &[JobId], wait: Duration) -> Vec<Option<Job>> {
        let until = Instant::now() + wait;
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut open: HashMap<JobId, Option<Job>> = ids.iter().map(|id| (*id, None)).collect();
        let mut found: HashMap<JobId, Job> = HashMap::with_capacity(open.len());
        if let Err(error) = self.await_all(&mut open, &mut found, until, (&tell, &mut told)).await {
            tracing::warn!(%error, "the ends of jobs cannot be read; they are told as they were");
        }
        drop(told);
        self.forget_waiters(open.keys().copied());
        ids.iter().map(|id| found.get(id).cloned().or_else(|| open.get(id).cloned().flatten())).collect()
    }

    /// Moves jobs from `open` to `found` as they end.
    async fn await_all(
        self: &Arc<Self>,
        open: &mut HashMap<JobId, Option<Job>>,
        found: &mut HashMap<JobId, Job>,
        until: Instant,
        (tell, told): (&mpsc::UnboundedSender<JobId>, &mut mpsc::UnboundedReceiver<JobId>),
    ) -> Result<(), QueueError> {
        let all: Vec<JobId> = open.keys().copied().collect();
        self.wait_for(&all, tell);
        self.prepare().await;
        // Most have not ended, so no more than that is asked at first.
        let mut ended = self.ended_among(&all).await?;
        let mut time_is_up = false;
        loop {
            for page in ended.chunks(PAGE) {
                self.take_ended(page, open, found).await?;
                let not_yet: Vec<JobId> = page.iter().filter(|id| open.contains_key(id)).copied().collect();
                if !not_yet.is_empty() && !time_is_up {
                    // Told for another reason, and so told no more: registered anew before looking again.
                    self.wait_for(&not_yet, tell);
                    self.take_ended(&not_yet, open, found).await?;
                    self.forget_waiters(not_yet.into_iter().filter(|id| !open.contains_key(id)));
                }
            }
            if open.is_empty() || time_is_up {
                return Ok(());
            }
            ended.clear();
            match tokio::time::timeout_at(until, told.recv()).await {
                Ok(first) => {
                    ended.extend(first);
                    while ended.len() < PAGE
                        && let Ok(next) = told.try_recv()
                    {
                        ended.push(next);
                    }
                }
                Err(_) => {
                    time_is_up = true;
                    ended.extend(open.keys());
                }
            }
            self.prepare().await;
        }
    }

    async fn take_ended(
        self: &Arc<Self>,
        ids: &[JobId],
        open: &mut HashMap<JobId, Option<Job>>,
        found: &mut HashMap<JobId, Job>,
    ) -> Result<(), QueueError> {
        for (id, record) in ids.iter().zip(self.records(ids).await?) {
            match record {
                Some(record) if record.job.status.is_final() => {
                    open.remove(id);
                    found.insert(*id, record.job);
                }
                Some(record) => {
                    open.insert(*id, Some(record.job));
                }
                None => {
                    open.remove(id);
                }
            }
        }
        Ok(())
    }

    async fn ended_among(&self, ids: &[JobId]) -> Result<Vec<JobId>, QueueError> {
        let mut ended = Vec::new();
        for page in ids.chunks(PAGE * 5) {
            let mut pipe = Pipeline::with_capacity(page.len());
            for id in page {
                pipe.cmd("HGET").arg(self.key(&format!("job:{id}"))).arg("status");
            }
            let answers = self.read(&pipe).await?;
            let over = |answer: &redis::Value| {
                text(answer)
                    .and_then(|status| status.parse::<JobStatus>().ok())
                    .is_none_or(JobStatus::is_final)
            };
            ended.extend(page.iter().zip(&answers).filter(|(_, answer)| over(answer)).map(|(id, _)| *id));
        }
        Ok(ended)
    }
}
