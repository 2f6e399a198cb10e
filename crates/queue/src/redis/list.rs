//! Reading jobs: one, or a page of them.

use std::sync::Arc;

use netpulse_model::{Job, JobId, JobStatus, QueueName, Timestamp};
use redis::{Cmd, Pipeline};
use tokio::time::Instant;

use super::link::{Trouble, sound};
use super::record::{self, JOB_FIELDS, Record, items, text};
use super::{Shared, unavailable};
use crate::api::{JobQuery, Page, QueueError};

/// Jobs looked at in one go.
const LOOK: usize = 500;

fn fields(call: &mut Cmd) {
    for field in JOB_FIELDS {
        call.arg(field);
    }
}

fn matches(query: &JobQuery, record: &Record) -> bool {
    let job = &record.job;
    query.queue.as_ref().is_none_or(|queue| *queue == job.queue)
        && query.host.as_ref().is_none_or(|host| job.device.as_ref().is_some_and(|d| d.matches_host(host)))
        && (query.status.is_empty() || query.status.contains(&job.status))
        && query.node.as_ref().is_none_or(|node| record.node.as_ref() == Some(node))
        && query.since.is_none_or(|since| job.created_at >= since)
        && query.until.is_none_or(|until| job.created_at < until)
}

impl Shared {
    fn shown(&self, record: Option<Record>) -> Option<Record> {
        let now = Timestamp(self.store_now());
        record.filter(|record| !record.hidden && record.expires.is_none_or(|at| at > now))
    }

    /// Sends reads again while there is time.
    pub(super) async fn read(&self, pipe: &Pipeline) -> Result<Vec<redis::Value>, QueueError> {
        if pipe.is_empty() {
            return Ok(Vec::new());
        }
        let until = self.until();
        let mut pause = std::time::Duration::from_millis(20);
        loop {
            let met = match self.link.send(pipe, until).await {
                Ok(answers) => answers.into_iter().map(sound).collect(),
                Err(trouble) => Err(trouble),
            };
            match met {
                Ok(answers) => return Ok(answers),
                Err(Trouble::Lost(_) | Trouble::Later(_)) if Instant::now() + pause < until => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(trouble) => return Err(unavailable(trouble)),
            }
        }
    }

    pub(super) async fn records(&self, ids: &[JobId]) -> Result<Vec<Option<Record>>, QueueError> {
        let mut pipe = Pipeline::with_capacity(ids.len());
        for id in ids {
            let mut call = redis::cmd("HMGET");
            call.arg(self.key(&format!("job:{id}")));
            fields(&mut call);
            pipe.add_command(call);
        }
        let answers = self.read(&pipe).await?;
        ids.iter()
            .zip(answers)
            .map(|(id, answer)| Ok(self.shown(record::job(*id, items(&answer))?)))
            .collect()
    }

    /// Those of the jobs that may match, by a few small fields.
    async fn matching(&self, query: &JobQuery, ids: Vec<JobId>) -> Result<Vec<JobId>, QueueError> {
        let mut pipe = Pipeline::with_capacity(ids.len());
        for id in &ids {
            pipe.cmd("HMGET").arg(self.key(&format!("job:{id}"))).arg("status").arg("queue").arg("node");
        }
        let answers = self.read(&pipe).await?;
        let queue = query.queue.as_ref().map(ToString::to_string);
        let may = |answer: &redis::Value| {
            let get = |at: usize| items(answer).get(at).and_then(text);
            let status = get(0).and_then(|status| status.parse::<JobStatus>().ok());
            (query.status.is_empty() || status.is_some_and(|status| query.status.contains(&status)))
                && queue.as_deref().is_none_or(|queue| get(1) == Some(queue))
                && query.node.as_deref().is_none_or(|node| get(2) == Some(node))
        };
        Ok(ids.into_iter().zip(&answers).filter(|(_, answer)| may(answer)).map(|(id, _)| id).collect())
    }

    pub(super) async fn find(self: &Arc<Self>, id: JobId) -> Result<Option<Job>, QueueError> {
        self.prepare().await;
        Ok(self.records(&[id]).await?.pop().flatten().map(|record| record.job))
    }

    pub(super) async fn list(self: &Arc<Self>, query: &JobQuery) -> Result<Page, QueueError> {
        self.prepare().await;
        // During an outage what has arrived is listed.
        self.lane.barrier(self.options.deadline).await;
        // Places are acceptance times, so a bound in time is a bound in order.
        let mut below = query.until.map_or("+inf".to_owned(), |until| format!("({}", until.0));
        if let Some(cursor) = &query.cursor {
            // A cursor that is none of ours finds nothing rather than everything again.
            let cursor: i64 = cursor.parse().unwrap_or(0);
            if query.until.is_none_or(|until| cursor < until.0) {
                below = format!("({cursor}");
            }
        }
        let above = query.since.map_or("-inf".to_owned(), |since| since.0.to_string());
        let index = match (&query.host, &query.queue) {
            (Some(host), _) => {
                let host = host.trim().to_ascii_lowercase();
                let bare = host.contains("]:") || host.matches(':').count() == 1;
                let name =
                    if bare { host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name) } else { &host };
                self.key(&format!("host:{}", name.trim_start_matches('[').trim_end_matches(']')))
            }
            (None, Some(QueueName::Host(device))) => self.key(&format!("host:{}", device.host())),
            _ => self.key("jobs"),
        };
        let plain =
            query.queue.is_none() && query.status.is_empty() && query.node.is_none() && query.host.is_none();
        let mut jobs = Vec::new();
        loop {
            let want = match query.limit {
                0 => LOOK,
                limit if plain => (limit - jobs.len() + 1).min(LOOK),
                _ => LOOK,
            };
            let mut pipe = Pipeline::with_capacity(1);
            pipe.cmd("ZREVRANGEBYSCORE").arg(&index).arg(&below).arg(&above);
            pipe.arg("WITHSCORES").arg("LIMIT").arg(0).arg(want);
            let answers = self.read(&pipe).await?;
            let found: Vec<&str> =
                answers.first().map(items).unwrap_or_default().iter().filter_map(text).collect();
            let places: Vec<(JobId, &str)> = found
                .chunks_exact(2)
                .filter_map(|pair| Some((pair.first()?.parse().ok()?, *pair.get(1)?)))
                .collect();
            let ids: Vec<JobId> = places.iter().map(|(id, _)| *id).collect();
            let Some((_, lowest)) = places.last() else {
                return Ok(Page { jobs, next: None });
            };
            below = format!("({lowest}");
            // Results are big: only those that match are read whole.
            let ids = if plain { ids } else { self.matching(query, ids).await? };
            let records = self.records(&ids).await?;
            for record in records.into_iter().flatten() {
                if !matches(query, &record) {
                    continue;
                }
                if query.limit > 0 && jobs.len() == query.limit {
                    let next = jobs.last().map(|job: &Job| job.created_at.0.to_string());
                    return Ok(Page { jobs, next });
                }
                jobs.push(record.job);
            }
            if places.len() < want {
                return Ok(Page { jobs, next: None });
            }
        }
    }

    /// The jobs that wait and match, in order of acceptance.
    pub(super) async fn waiting_jobs(self: &Arc<Self>, query: &JobQuery) -> Result<Vec<JobId>, QueueError> {
        let waiting = [JobStatus::Queued, JobStatus::Scheduled];
        let status = match query.status.as_slice() {
            [] => waiting.to_vec(),
            some => some.iter().copied().filter(|status| waiting.contains(status)).collect(),
        };
        if status.is_empty() {
            return Ok(Vec::new());
        }
        let query = JobQuery { status, cursor: None, limit: 0, ..query.clone() };
        let mut jobs = self.list(&query).await?.jobs;
        jobs.reverse();
        Ok(jobs.into_iter().map(|job| job.id).collect())
    }
}
