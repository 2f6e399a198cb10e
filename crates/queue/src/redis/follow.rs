//! Streams of events for watchers.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use netpulse_model::event::{Event, EventId, What};
use netpulse_model::{Job, JobId};
use tokio::sync::Notify;

use super::Shared;
use super::record::number;
use crate::api::{Follow, Followed};
use crate::events::{ended, told};

pub(super) fn follow(
    shared: Arc<Shared>,
    what: Follow,
    after: Option<EventId>,
) -> BoxStream<'static, Followed> {
    match what {
        Follow::All => all(shared, after.map(|id| id.0)),
        Follow::Job(id) => one(shared, id, after.map(|id| id.0)),
    }
}

fn all(shared: Arc<Shared>, after: Option<u64>) -> BoxStream<'static, Followed> {
    let state = (shared, after, VecDeque::new());
    stream::unfold(state, |(shared, mut cursor, mut ready)| async move {
        loop {
            if let Some(item) = ready.pop_front() {
                return Some((item, (shared, cursor, ready)));
            }
            shared.caught_up().await;
            // A place from before this process opened the store is read from there.
            if let Some(after) = cursor {
                let older = shared.older(after).await;
                if let (Some(first), Some(last)) = (older.first(), older.last()) {
                    if first.id.0 > after + 1 {
                        ready.push_back(Followed::Gap(first.id));
                    }
                    cursor = Some(last.id.0);
                    ready.extend(older.into_iter().map(Followed::Event));
                    continue;
                }
            }
            // Registered before looking, so that nothing falls between.
            let notified = shared.tail.events.any().notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let batch = shared.tail.events.after(cursor);
            cursor = Some(batch.cursor);
            ready.extend(batch.gap.map(Followed::Gap));
            ready.extend(batch.events.iter().map(|event| Followed::Event(Event::clone(event))));
            if ready.is_empty() {
                notified.await;
            }
        }
    })
    .boxed()
}

struct One {
    shared: Arc<Shared>,
    job: JobId,
    after: Option<u64>,
    cursor: u64,
    /// None until the stream has been set up.
    watch: Option<Arc<Notify>>,
    ready: VecDeque<Followed>,
    over: bool,
}

fn one(shared: Arc<Shared>, job: JobId, after: Option<u64>) -> BoxStream<'static, Followed> {
    let state = One { shared, job, after, cursor: 0, watch: None, ready: VecDeque::new(), over: false };
    stream::unfold(state, |mut state| async move {
        loop {
            if let Some(item) = state.ready.pop_front() {
                return Some((item, state));
            }
            if state.over {
                return None;
            }
            let Some(watch) = state.watch.clone() else {
                state.begin().await;
                continue;
            };
            let notified = watch.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            state.shared.caught_up().await;
            state.take_new();
            // An end that left the ring before it was read is told from the job.
            if state.ready.is_empty() && !state.over {
                match state.shared.find_quietly(state.job).await {
                    Some(job) if job.status.is_final() => {
                        state.shared.caught_up().await;
                        state.take_new();
                        if state.ready.is_empty() {
                            state.end_from(&job);
                        }
                    }
                    Some(_) => notified.await,
                    None => state.over = true,
                }
            }
        }
    })
    .boxed()
}

impl Drop for One {
    fn drop(&mut self) {
        self.watch = None;
        self.shared.tail.events.unwatch(self.job);
    }
}

impl One {
    fn take_new(&mut self) {
        let events = self.shared.tail.events.of_job_after(self.job, self.cursor);
        self.take(events);
    }

    fn take(&mut self, events: Vec<Arc<Event>>) {
        for event in events {
            self.cursor = event.id.0;
            self.over |= matches!(event.what, What::Ended { .. });
            self.ready.push_back(Followed::Event(Event::clone(&event)));
            // The stream of one job ends with its end; what became of its webhook is told to all.
            if self.over {
                break;
            }
        }
    }

    /// Finds where to start: the kept events when they are whole, else what the job tells.
    async fn begin(&mut self) {
        self.watch = Some(self.shared.tail.events.watch(self.job));
        // The job first: what happens to it after that is in the ring when that has caught up.
        let job = self.shared.find_quietly(self.job).await;
        self.shared.caught_up().await;
        let last = self.shared.tail.events.last();
        let kept = self.shared.tail.events.of_job(self.job);
        let whole = kept.first().is_some_and(|event| matches!(event.what, What::Queued { .. }));
        let seen = |after: u64| kept.first().is_some_and(|event| event.id.0 <= after);
        if whole || self.after.is_some_and(seen) {
            let after = self.after.unwrap_or(0);
            self.cursor = after;
            self.over = kept.iter().any(|event| {
                matches!(event.what, What::Ended { .. } | What::Undelivered { .. }) && event.id.0 <= after
            });
            self.take(kept.into_iter().filter(|event| event.id.0 > after).collect());
            return;
        }
        self.cursor = last;
        let Some(job) = job else {
            self.over = true;
            return;
        };
        if !job.status.is_final() && self.begin_from_store().await {
            return;
        }
        if self.after.is_none() {
            self.ready.extend(told(&job, last).into_iter().map(Followed::Event));
            self.over = job.status.is_final();
            return;
        }
        // What came between the follower's place and the first event kept is gone.
        let first = kept.first().map_or(EventId(last + 1), |event| event.id);
        self.ready.push_back(Followed::Gap(first));
        self.take(kept);
        self.cursor = last;
        if job.status.is_final() && !self.over {
            self.ready.extend(ended(&job, last).map(Followed::Event));
            self.over = true;
        }
    }

    /// A job that lives may have begun before this process opened the store: its events are there.
    async fn begin_from_store(&mut self) -> bool {
        let Some(first) = self.shared.first_event(self.job).await else {
            return false;
        };
        let mut cursor = first.saturating_sub(1);
        let mut found = Vec::new();
        loop {
            let page = self.shared.older(cursor).await;
            let Some(last) = page.last() else { break };
            cursor = last.id.0;
            found.extend(page.into_iter().filter(|event| event.job == self.job));
        }
        if found.first().is_none_or(|event| event.id.0 != first) {
            return false;
        }
        let after = self.after.unwrap_or(0);
        self.cursor = cursor.max(after);
        self.take(found.into_iter().filter(|event| event.id.0 > after).map(Arc::new).collect());
        self.cursor = self.cursor.max(cursor);
        self.take_new();
        true
    }

    fn end_from(&mut self, job: &Job) {
        let last = self.shared.tail.events.last();
        self.ready.push_back(Followed::Gap(EventId(last + 1)));
        self.ready.extend(ended(job, last).map(Followed::Event));
        self.over = true;
    }
}

impl Shared {
    /// The event of a job's acceptance.
    async fn first_event(&self, id: JobId) -> Option<u64> {
        let mut call = redis::cmd("HGET");
        call.arg(self.key(&format!("job:{id}"))).arg("event");
        match self.link.one(call, self.until()).await {
            Ok(answer) => number(&answer).and_then(|id| u64::try_from(id).ok()),
            Err(trouble) => {
                tracing::warn!(job = %id, %trouble, "a job cannot be read for its watcher");
                None
            }
        }
    }

    async fn find_quietly(self: &Arc<Self>, id: JobId) -> Option<Job> {
        self.find(id).await.unwrap_or_else(|error| {
            tracing::warn!(job = %id, %error, "a job cannot be read for its watcher");
            None
        })
    }
}
