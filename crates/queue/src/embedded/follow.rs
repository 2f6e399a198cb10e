//! Streams of events for watchers.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use netpulse_model::event::{Event, EventId, What};
use netpulse_model::{Job, JobId};
use tokio::sync::Notify;

use super::{Shared, store};
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
            // Registered before looking, so that nothing falls between.
            let notified = shared.events.any().notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let batch = shared.events.after(cursor);
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
            let events = state.shared.events.of_job_after(state.job, state.cursor);
            state.take(events);
            // An end that left the ring before it was read is told from the job.
            if state.ready.is_empty() && !state.over {
                if state.shared.with(|s, _| s.core.job(state.job).is_some_and(|job| !job.status.is_final())) {
                    notified.await;
                } else {
                    let events = state.shared.events.of_job_after(state.job, state.cursor);
                    state.take(events);
                    if state.ready.is_empty() {
                        state.end_from_job().await;
                    }
                }
            }
        }
    })
    .boxed()
}

impl Drop for One {
    fn drop(&mut self) {
        self.watch = None;
        self.shared.events.unwatch(self.job);
    }
}

impl One {
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
        self.watch = Some(self.shared.events.watch(self.job));
        // Events are published under the state's lock, so both tell the same moment.
        let (known, kept, last) = self.shared.with(|state, now| {
            let job = state.core.job(self.job).or_else(|| state.cache.get(self.job, now.wall)).cloned();
            (job, self.shared.events.of_job(self.job), self.shared.events.last())
        });
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
        let job = match known {
            Some(job) => Some(job),
            None => self.shared.find_job(self.job).await,
        };
        self.cursor = last;
        let Some(job) = job else {
            self.over = true;
            return;
        };
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

    async fn end_from_job(&mut self) {
        let last = self.shared.events.last();
        match self.shared.find_job(self.job).await {
            Some(job) if job.status.is_final() => {
                self.ready.push_back(Followed::Gap(EventId(last + 1)));
                self.ready.extend(ended(&job, last).map(Followed::Event));
                self.over = true;
            }
            Some(_) => {}
            None => self.over = true,
        }
    }
}

impl Shared {
    async fn find_job(self: &Arc<Self>, id: JobId) -> Option<Job> {
        let known =
            self.with(|state, now| state.core.job(id).or_else(|| state.cache.get(id, now.wall)).cloned());
        match known {
            Some(job) => Some(job),
            None => self.read(move |db, now| store::job(db, id, now)).await.unwrap_or_else(|error| {
                tracing::warn!(job = %id, %error, "a job cannot be read for its watcher");
                None
            }),
        }
    }
}
