//! Taking jobs and ending them: a claim reaches whoever asked for it, or the job goes back.

use std::sync::Arc;
use std::time::Duration;

use netpulse_model::event::What;
use netpulse_model::result::ResultType;
use netpulse_model::{ErrorCode, ErrorInfo, JobId, JobKind, JobResult, JobStatus, Outcome};
use redis::Cmd;
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use super::claims::{Brought, Ending, Held, Taken};
use super::lane::{End, Item};
use super::link::Trouble;
use super::record;
use super::scripts::Script;
use super::submit::off_thread;
use super::{Reply, Shared, unavailable};
use crate::api::{Claim, ClaimToken, Completion, Lease, Next, QueueError, Verdict};

/// How a claim's script ended.
type Claimed = Result<Option<Taken>, QueueError>;

impl Shared {
    /// Runs a claim on a task of its own, so that a caller who goes away leaves no job behind.
    pub(super) async fn take(
        self: &Arc<Self>,
        node: &str,
        life: &str,
        pinned: bool,
        script: Script,
        arguments: impl Fn(&mut Cmd, &str) + Send + Sync + 'static,
    ) -> Result<Option<Claim>, QueueError> {
        loop {
            let (tell, told) = oneshot::channel::<Claimed>();
            let ticket = Uuid::new_v4().simple().to_string();
            let (shared, name) = (Arc::clone(self), node.to_owned());
            let mut call = self.scripts.call(script, self.options.clock.ahead(), self.limit(self.until()));
            arguments(&mut call, &ticket);
            self.spawn(async move {
                let claimed = shared.claim_once(call, &name, &ticket).await;
                if let Err(Ok(Some(taken))) = tell.send(claimed) {
                    shared.unclaim(&name, &taken.ticket, taken.job).await;
                }
            });
            let mut guard = Told { shared: self, node, told };
            // However fast the answer, the caller is free to go before it.
            tokio::task::yield_now().await;
            let Some(taken) = (&mut guard.told).await.unwrap_or(Err(QueueError::Closed))? else {
                return Ok(None);
            };
            if let Some(claim) = self.open(node, life, pinned, taken).await? {
                return Ok(Some(claim));
            }
        }
    }

    /// Opens the request of a claim and takes note of it. One that cannot be opened ends at once.
    async fn open(
        self: &Arc<Self>,
        node: &str,
        life: &str,
        pinned: bool,
        taken: Taken,
    ) -> Result<Option<Claim>, QueueError> {
        let Taken { ticket, epoch, job: id, request, record } = taken;
        let mut guard = Unclaim { shared: self, node, claim: Some((ticket.clone(), id)) };
        let Some(record) = record::job(id, &record)? else {
            return Err(QueueError::Corrupt(format!("job {id} was claimed, but is not there")));
        };
        let shared = Arc::clone(self);
        let opened = off_thread(request.len(), move || shared.keys.open_sealed(id, &request)).await?;
        guard.claim = None;
        let token = ClaimToken { job: id, epoch, node: node.to_owned() };
        let change = record.job.kind == JobKind::Modification;
        let held = Held {
            node: node.to_owned(),
            life: life.to_owned(),
            epoch,
            ticket,
            device: record.job.device.clone(),
            change,
            pinned,
            notes: 0,
        };
        self.claims.held.lock().insert(id, held);
        match opened {
            Ok(payload) => Ok(Some(Claim {
                job: record.job,
                token,
                payload,
                timeout: record.timeout,
                retry: record.retry,
            })),
            Err(error) => {
                tracing::error!(job = %id, %error, "a stored request cannot be opened");
                let message = format!("the stored request cannot be opened, so the job was not run: {error}");
                let result = JobResult {
                    kind: ResultType::Failed,
                    retval: None,
                    error: Some(ErrorInfo::new(ErrorCode::Internal, message)),
                    outcome: change.then_some(Outcome::NotApplied),
                };
                let end = Completion { status: JobStatus::Failed, result };
                Box::pin(self.complete(&token, end, None)).await?;
                Ok(None)
            }
        }
    }

    async fn claim_once(self: &Arc<Self>, call: Cmd, node: &str, ticket: &str) -> Claimed {
        let until = self.until();
        match self.once(call, until).await {
            Ok(reply) => Ok(Taken::read(&reply.0, ticket)),
            Err(trouble) => {
                if matches!(trouble, Trouble::Lost(_)) {
                    // It may have been done, or may yet be until its time is over.
                    let (shared, node, ticket) = (Arc::clone(self), node.to_owned(), ticket.to_owned());
                    self.spawn(async move { shared.withdraw(&node, &ticket, until).await });
                }
                Err(unavailable(trouble))
            }
        }
    }

    /// Takes back a claim whose answer was lost, once it can no longer be done.
    async fn withdraw(&self, node: &str, ticket: &str, until: Instant) {
        tokio::time::sleep_until(until + Duration::from_millis(100)).await;
        while let Err(error) = self.unclaim_by(node, ticket, "").await {
            if matches!(error, QueueError::Closed) {
                return;
            }
            tracing::debug!(%error, "a claim cannot be taken back yet");
        }
    }

    async fn unclaim_by(&self, node: &str, ticket: &str, id: &str) -> Result<Reply, QueueError> {
        self.ask(Script::Unclaim, |call| {
            call.arg(node).arg(ticket).arg(id);
        })
        .await
    }

    async fn unclaim(&self, node: &str, ticket: &str, id: JobId) {
        while let Err(error) = self.unclaim_by(node, ticket, &id.to_string()).await {
            if matches!(error, QueueError::Closed) {
                return;
            }
            tracing::debug!(%error, "a claim cannot be taken back yet");
        }
    }

    /// Gives a claim back that nobody waits for.
    pub(super) fn give_back(self: &Arc<Self>, node: String, ticket: String, id: JobId) {
        let shared = Arc::clone(self);
        self.spawn(async move { shared.unclaim(&node, &ticket, id).await });
    }

    /// Gives back what this process holds, if the claim is still this one.
    pub(super) async fn put_back(self: &Arc<Self>, token: &ClaimToken) {
        let ticket = {
            let mut held = self.claims.held.lock();
            match held.get(&token.job) {
                Some(claim) if claim.epoch == token.epoch => {
                    held.remove(&token.job).map(|claim| claim.ticket)
                }
                _ => None,
            }
        };
        let Some(ticket) = ticket else { return };
        let given_back = self.unclaim(&token.node, &ticket, token.job);
        if tokio::time::timeout(self.options.deadline, given_back).await.is_err() {
            self.give_back(token.node.clone(), ticket, token.job);
        }
    }

    /// Ends a job and, where a lease is given, takes the next one of its device in the same step.
    pub(super) async fn complete(
        self: &Arc<Self>,
        token: &ClaimToken,
        end: Completion,
        lease: Option<&Lease>,
    ) -> Result<(Verdict, Next), QueueError> {
        let ending = self.ending(token, end, lease)?;
        let mut guard = Leave { shared: self, node: &token.node, ending: Some(&ending) };
        let decided = tokio::time::timeout(self.options.deadline, ending.decided()).await;
        // From here on no await comes before what was brought is taken.
        guard.ending = None;
        let Ok(decided) = decided else {
            return Err(QueueError::Unavailable(
                "Redis has not confirmed the end; it is held and sent again".into(),
            ));
        };
        self.claims.ending.lock().remove(token);
        self.claims.forget(token.job, token.epoch);
        let brought = ending.leave();
        let verdict = decided?;
        let next = match brought {
            Brought::Here(taken) => match self.living(&token.node) {
                Some(life) => match self.open(&token.node, &life, true, taken).await {
                    Ok(Some(claim)) => Next::Job(Box::new(claim)),
                    Ok(None) => Next::Unknown,
                    Err(error) => {
                        tracing::warn!(%error, "the next job was taken, but cannot be read");
                        Next::Unknown
                    }
                },
                None => {
                    self.give_back(token.node.clone(), taken.ticket, taken.job);
                    Next::Unknown
                }
            },
            Brought::Nothing => Next::Nothing,
            Brought::Awaited | Brought::Unwanted => Next::Unknown,
        };
        Ok((verdict, next))
    }

    /// Sends an end, or joins the one that is on its way.
    fn ending(
        &self,
        token: &ClaimToken,
        mut end: Completion,
        lease: Option<&Lease>,
    ) -> Result<Arc<Ending>, QueueError> {
        let mut endings = self.claims.ending.lock();
        if let Some(ending) = endings.get(token) {
            ending.await_next();
            return Ok(Arc::clone(ending));
        }
        if !end.status.is_final() {
            let change = self.claims.held.lock().get(&token.job).is_some_and(|held| held.change);
            let message = format!("the worker reported the state `{}`, which is no end", end.status);
            end.status = JobStatus::Failed;
            end.result = JobResult {
                kind: ResultType::Failed,
                retval: None,
                error: Some(ErrorInfo::new(ErrorCode::Internal, message)),
                outcome: change.then_some(Outcome::Unknown),
            };
        }
        let bad = |error: serde_json::Error| QueueError::Corrupt(error.to_string());
        let what = What::Ended {
            status: end.status,
            outcome: end.result.outcome,
            message: end.result.error.as_ref().map(|error| error.message.clone()),
        };
        let status = match end.status {
            JobStatus::Finished => "finished",
            JobStatus::Canceled | JobStatus::Stopped => "canceled",
            _ => "failed",
        };
        let ending = Arc::new(Ending::new());
        self.lane.push(Item::End(End {
            token: token.clone(),
            nonce: Uuid::new_v4().simple().to_string(),
            status,
            result: serde_json::to_string(&end.result).map_err(bad)?,
            what: serde_json::to_string(&what).map_err(bad)?,
            lease: lease.map(|lease| lease.epoch),
            ending: Arc::clone(&ending),
        }));
        endings.insert(token.clone(), Arc::clone(&ending));
        Ok(ending)
    }
}

/// Gives a claim back that was told to a caller who went away before it looked.
struct Told<'a> {
    shared: &'a Arc<Shared>,
    node: &'a str,
    told: oneshot::Receiver<Claimed>,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        // What comes after this, the sender gets back.
        self.told.close();
        if let Ok(Ok(Some(taken))) = self.told.try_recv() {
            self.shared.give_back(self.node.to_owned(), taken.ticket, taken.job);
        }
    }
}

/// Gives a job back when the call that took it is dropped before it could hand it over.
struct Unclaim<'a> {
    shared: &'a Arc<Shared>,
    node: &'a str,
    claim: Option<(String, JobId)>,
}

impl Drop for Unclaim<'_> {
    fn drop(&mut self) {
        if let Some((ticket, id)) = self.claim.take() {
            self.shared.give_back(self.node.to_owned(), ticket, id);
        }
    }
}

/// The same for one who waits for an end: what it brings is wanted no more.
struct Leave<'a> {
    shared: &'a Arc<Shared>,
    node: &'a str,
    ending: Option<&'a Arc<Ending>>,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if let Some(ending) = self.ending.take()
            && let Brought::Here(taken) = ending.leave()
        {
            self.shared.give_back(self.node.to_owned(), taken.ticket, taken.job);
        }
    }
}
