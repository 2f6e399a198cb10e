//! Running one job: open the request, render, connect or reuse, execute, parse, report.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use netpulse_model::request::Operation;
use netpulse_model::result::ResultType;
use netpulse_model::secret::scrub;
use netpulse_model::{
    ErrorCode, ErrorInfo, ExecutionRequest, ExecutionResult, JobKind, JobResult, JobStatus, Outcome,
};
use netpulse_plugin::{Driver, DriverSession, Report, Run, Scope, Work};
use netpulse_queue::{Claim, ClaimToken, Completion, Lease, Next, QueueError, Verdict};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::credential::{self, Filled};
use crate::fence::Fence;
use crate::metrics::{Open, Phase};
use crate::node::Inner;
use crate::recorder::Recorder;
use crate::text;

/// A session kept for the next job, and for whom.
pub(crate) struct Held {
    pub(crate) session: Box<dyn DriverSession>,
    _open: Open,
    /// Driver, reference and every connection argument, those that came out of a secret included:
    /// another user, password, key or option is another session (S1).
    key: [u8; 32],
}

/// What is left when a job has ended.
pub(crate) struct Ended {
    /// A session that can serve the next one.
    pub(crate) held: Option<Held>,
    /// Whether the job ended `finished`.
    pub(crate) succeeded: bool,
    /// The device's next job, where it was asked for.
    pub(crate) next: Next,
}

/// The right to take a device's next job together with the end of this one.
#[derive(Clone, Copy)]
pub(crate) struct More<'a> {
    pub(crate) lease: &'a Lease,
    /// Set when the worker is to end after its current job.
    pub(crate) stop: &'a CancellationToken,
}

/// Which session serves these arguments.
fn session_key(request: &ExecutionRequest) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(request.driver.as_bytes());
    if let Some(reference) = &request.credential {
        hash.update([2]);
        hash.update(serde_json::to_vec(reference).unwrap_or_default());
    }
    let mut sorted: Vec<_> = request.connection_args.0.iter().collect();
    sorted.sort_by_key(|(key, _)| key.as_str());
    for (key, value) in sorted {
        hash.update([0]);
        hash.update(key.as_bytes());
        hash.update([1]);
        hash.update(value.to_string().as_bytes());
    }
    hash.finalize().into()
}

/// How a try went.
struct Try {
    report: Report,
    /// Connecting failed: the request's retry policy applies.
    no_connection: bool,
    /// How long another try would be refused.
    not_before: Duration,
}

impl Try {
    /// One that no retry helps.
    fn settled(report: Report) -> Self {
        Self { report, no_connection: false, not_before: Duration::ZERO }
    }
}

/// The job that is tried, and its time: all of it, and what is left.
struct Bounds<'a> {
    claim: &'a Claim,
    whole: Duration,
    left: Duration,
}

/// Runs a claimed job to its end and stores how it ended. A held session is used if it fits, and
/// closed otherwise. With `more` the next job is taken in the step that stores the end.
pub(crate) async fn run(
    node: &Arc<Inner>,
    worker: &str,
    claim: Claim,
    held: Option<Held>,
    fence: &Fence,
    more: Option<More<'_>>,
) -> Ended {
    let cancel = node.running(claim.job.id);
    // An error span: it stands in the log at every level.
    let span = tracing::error_span!("job", job = %claim.job.id, device = claim.job.device_name.as_deref().unwrap_or(""));
    run_inner(node, worker, claim, held, (fence, &cancel), more).instrument(span).await
}

async fn run_inner(
    node: &Arc<Inner>,
    worker: &str,
    mut claim: Claim,
    mut held: Option<Held>,
    (fence, cancel): (&Fence, &CancellationToken),
    more: Option<More<'_>>,
) -> Ended {
    // Asked at the end: until then somebody may have asked the worker to stop.
    let more = || {
        more.filter(|more| {
            !more.stop.is_cancelled() && !node.stopping.is_cancelled() && !fence.token().is_cancelled()
        })
    };
    let started = Instant::now();
    let id = claim.job.id;
    if let Some(waited) = claim.job.queue_time().and_then(|s| Duration::try_from_secs_f64(s).ok()) {
        node.metrics.phase(Phase::Queue, waited);
    }
    let payload = std::mem::take(&mut claim.payload);
    let mut request = match serde_json::from_slice::<ExecutionRequest>(&payload) {
        Ok(request) => Filled::new(request),
        Err(error) => {
            let info =
                ErrorInfo::new(ErrorCode::Internal, format!("the stored request cannot be read: {error}"));
            let report = Report { error: Some(info), untouched: true, ..Report::default() };
            let outcome = untouched_outcome(claim.job.kind);
            let completion = completion(claim.job.kind, Report { outcome, ..report }, &[]);
            let next = finish(node, &claim.token, completion, more()).await;
            node.no_longer_running(id);
            return Ended { held, succeeded: false, next };
        }
    };
    drop(payload);
    let deadline = claim.timeout;
    let resolved = credential::resolve(node, &mut request, deadline, fence, cancel).await;
    let secrets = request.secrets();
    let recorder = Recorder::new(&*node.queue, &claim.token, fence, &secrets);
    let tried = match resolved {
        Ok(()) => {
            let left = deadline.saturating_sub(started.elapsed());
            let bounds = Bounds { claim: &claim, whole: deadline, left };
            bounded(node, &request, &mut held, &recorder, fence, cancel, &bounds).await
        }
        Err(error) => {
            let no_connection = error.code == ErrorCode::CredentialUnavailable;
            let report = Report { error: Some(error), untouched: true, ..Report::default() };
            let report = with_failed_result(report, &request.payload().items(), &request);
            Try { report, no_connection, not_before: Duration::ZERO }
        }
    };
    credential::after(node, &request, tried.report.error.as_ref());
    let mut report = tried.report;
    if report.outcome.is_none() {
        report.outcome = report
            .error
            .as_ref()
            .and_then(|_| report.untouched.then(|| untouched_outcome(claim.job.kind)).flatten());
    }
    if tried.no_connection
        && claim.job.attempt <= claim.retry.max
        && retryable(&report)
        && !cancel.is_cancelled()
    {
        let delay = Duration::from_secs_f64(claim.retry.delay_after(claim.job.attempt)).max(tried.not_before);
        let why = report.error.as_ref().map_or_else(
            || ErrorInfo::new(ErrorCode::ConnectFailed, "no connection"),
            |error| ErrorInfo::new(error.code, scrub(&error.message, &secrets)),
        );
        let put_back = with_store(node, || node.queue.retry(&claim.token, delay, &why)).await;
        node.no_longer_running(id);
        if put_back == Some(Verdict::Taken) {
            let (reason, delay) = (why.message, delay.as_secs_f64());
            tracing::info!(worker, reason, delay, attempt = claim.job.attempt, "no connection; trying again");
        }
        return Ended { held, succeeded: false, next: Next::Unknown };
    }
    request.note(&mut report);
    // Calls to plugins are bounded by what is left of the job's time.
    let scope = Scope { job: id, deadline: started + deadline };
    if let Some(parsing) = &request.parsing {
        scope.around(text::parse(node, parsing, &request, &mut report)).await;
    } else {
        scope.around(text::parse_by_driver_args(node, &request, &mut report)).await;
    }
    let completion = completion(claim.job.kind, report, &secrets);
    let succeeded = completion.status == JobStatus::Finished;
    let status = completion.status;
    let message = completion.result.error.as_ref().map(|e| e.message.clone());
    let next = finish(node, &claim.token, completion, more()).await;
    node.no_longer_running(id);
    node.metrics.ended(status, claim.job.kind);
    match message {
        Some(message) if status == JobStatus::Canceled => tracing::info!(worker, %status, "{message}"),
        Some(message) => {
            tracing::warn!(worker, %status, seconds = started.elapsed().as_secs_f64(), "{message}")
        }
        None => tracing::debug!(worker, %status, seconds = started.elapsed().as_secs_f64(), "job ended"),
    }
    Ended { held, succeeded, next }
}

/// [`attempt`] within its time and its right to the device, whatever the driver does.
async fn bounded(
    node: &Arc<Inner>,
    request: &ExecutionRequest,
    held: &mut Option<Held>,
    recorder: &Recorder<'_>,
    fence: &Fence,
    cancel: &CancellationToken,
    bounds: &Bounds<'_>,
) -> Try {
    let (kind, deadline, left) = (bounds.claim.job.kind, bounds.whole, bounds.left);
    // Calls to plugins are bounded by what is left of the job's time.
    let scope = Scope { job: recorder.job(), deadline: Instant::now() + left };
    let attempt = tokio::select! {
        biased;
        () = fence.token().cancelled() => {
            // Everything of the session goes with the future; nobody may say more to the device.
            *held = None;
            None
        }
        // A driver that panics is one job's error; its device's worker goes on.
        outcome = tokio::time::timeout(
            left,
            AssertUnwindSafe(scope.around(attempt(node, request, held, recorder, fence, cancel, bounds.claim)))
                .catch_unwind(),
        ) => Some(outcome),
    };
    let (code, message, cut) = match attempt {
        Some(Ok(Ok(tried))) => return tried,
        Some(Ok(Err(_panic))) => {
            *held = None;
            let cut = recorder.cut_short();
            let message = format!("The driver `{}` crashed {}: please report it", request.driver, cut.place);
            (ErrorCode::PluginFailed, message, cut)
        }
        Some(Err(_elapsed)) => {
            *held = None;
            let cut = recorder.cut_short();
            let message =
                format!("The job ran longer than its {} s and was stopped {}", deadline.as_secs(), cut.place);
            (ErrorCode::JobTimeout, message, cut)
        }
        None => {
            let cut = recorder.cut_short();
            let message = format!("The right to send to the device was lost; stopped {}", cut.place);
            (ErrorCode::WorkerLost, message, cut)
        }
    };
    Try::settled(cut_report(kind, code, message, cut))
}

/// What a modification did when nothing of it was sent.
fn untouched_outcome(kind: JobKind) -> Option<Outcome> {
    (kind == JobKind::Modification).then_some(Outcome::NotApplied)
}

fn cut_report(kind: JobKind, code: ErrorCode, message: String, cut: crate::recorder::CutShort) -> Report {
    Report {
        results: cut.results,
        error: Some(ErrorInfo::new(code, message)),
        outcome: (kind == JobKind::Modification).then_some(cut.outcome),
        reusable: false,
        untouched: cut.outcome == Outcome::NotApplied,
    }
}

/// Whether another try may help. A refused login never does, and locks accounts.
fn retryable(report: &Report) -> bool {
    report.untouched
        && report.error.as_ref().is_some_and(|e| {
            matches!(
                e.code,
                ErrorCode::ConnectFailed
                    | ErrorCode::BreakerOpen
                    | ErrorCode::CredentialUnavailable
                    | ErrorCode::HandshakeFailed
                    | ErrorCode::SessionLost
                    | ErrorCode::PromptNotFound
            )
        })
}

/// One try: render, connect or reuse, execute. A session that turns out dead is replaced once.
async fn attempt(
    node: &Arc<Inner>,
    request: &ExecutionRequest,
    held: &mut Option<Held>,
    recorder: &Recorder<'_>,
    fence: &Fence,
    cancel: &CancellationToken,
    claim: &Claim,
) -> Try {
    let Some(driver) = node.drivers.find(&request.driver).await else {
        let names = node.drivers.names().join(", ");
        let message = format!("no driver `{}`: there are {names}", request.driver);
        return Try::settled(Report::untouched(ErrorCode::UnknownDriver, message));
    };
    let lines = match text::payload(node, request).await {
        Ok(lines) => lines,
        Err(error) => {
            return Try::settled(Report {
                error: Some(error),
                untouched: true,
                reusable: true,
                ..Report::default()
            });
        }
    };
    let key = session_key(request);
    if let Some(mut other) = held.take_if(|h| h.key != key) {
        other.session.close().await;
    }
    let mut reused = held.is_some();
    if reused {
        node.metrics.reused();
    }
    loop {
        if held.is_none() {
            let device = claim.job.device.as_ref();
            let may_try = device.map_or(Ok(()), |device| node.breakers.may_try(device, &key));
            let (began, mut not_before) = (Instant::now(), Duration::ZERO);
            let connected = match may_try {
                Ok(()) => connect(node, &driver, request, fence, cancel).await,
                Err((error, left)) => {
                    not_before = left;
                    Err(error)
                }
            };
            if let Some(device) = device {
                match &connected {
                    Ok(_) => node.breakers.succeeded(device, &key),
                    Err(error) => node.breakers.failed(device, &key, error, began.elapsed()),
                }
            }
            match connected {
                Ok(session) => {
                    let open = node.metrics.opened(session.opening());
                    *held = Some(Held { session, _open: open, key });
                }
                Err(error) => {
                    if error.code != ErrorCode::Canceled {
                        node.metrics.connect_failed(error.code);
                    }
                    let no_connection = error.code != ErrorCode::Canceled;
                    let report = Report { error: Some(error), untouched: true, ..Report::default() };
                    let report = with_failed_result(report, &lines, request);
                    return Try { report, no_connection, not_before };
                }
            }
        }
        let Some(mut current) = held.take() else { continue };
        let work = match &request.operation {
            Operation::Command(_) => Work::Commands(lines.clone()),
            Operation::Config(_) => Work::Config(lines.clone()),
        };
        let run = Run {
            request,
            work,
            watch: recorder,
            cancel: cancel.clone(),
            fence: fence.token().clone(),
            reused,
        };
        let began = Instant::now();
        let report = current.session.run(run).await;
        node.metrics.phase(Phase::Execute, began.elapsed());
        let lost = report.error.as_ref().is_some_and(|e| e.code == ErrorCode::SessionLost);
        if report.reusable {
            *held = Some(current);
        } else if lost {
            drop(current);
        } else {
            current.session.close().await;
        }
        // The kept session had died without our noticing (a reboot): once more over a new one. A
        // modification only if nothing of it had been sent.
        if lost && reused && (request.kind() == JobKind::Query || report.untouched) && !cancel.is_cancelled()
        {
            node.metrics.healed();
            tracing::info!("the kept session was dead; running the job over a new one");
            recorder.restart();
            reused = false;
            continue;
        }
        let no_connection = lost && report.untouched;
        return Try { report, no_connection, not_before: Duration::ZERO };
    }
}

/// Upstream's clients read a failed connection from a result item; it is there beside the error.
fn with_failed_result(mut report: Report, lines: &[String], request: &ExecutionRequest) -> Report {
    if let Some(error) = &report.error {
        let mut item = ExecutionResult::failed(lines.join(" "), error.message.clone());
        item.metadata.insert("host".into(), request.connection_args.host().unwrap_or_default().into());
        item.metadata.insert("duration_seconds".into(), 0.0.into());
        item.metadata.insert("session_reused".into(), false.into());
        report.results = vec![item];
    }
    report
}

async fn connect(
    node: &Inner,
    driver: &Arc<dyn Driver>,
    request: &ExecutionRequest,
    fence: &Fence,
    cancel: &CancellationToken,
) -> Result<Box<dyn DriverSession>, ErrorInfo> {
    let canceled = || ErrorInfo::new(ErrorCode::Canceled, "Canceled before the first line was sent");
    let _slot = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(canceled()),
        slot = node.connects.acquire() => slot,
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(canceled()),
        () = fence.token().cancelled() => Err(ErrorInfo::new(ErrorCode::WorkerLost, "The right to the device was lost")),
        session = driver.connect(&request.connection_args) => session,
    }
}

/// The end of a job out of what its run reported, with no secret in it.
fn completion(kind: JobKind, mut report: Report, secrets: &[String]) -> Completion {
    for item in &mut report.results {
        item.command = scrub(&item.command, secrets);
        item.stderr = scrub(&item.stderr, secrets);
    }
    if let Some(error) = &mut report.error {
        error.message = scrub(&error.message, secrets);
    }
    let (status, result_type) = match report.error.as_ref().map(|e| e.code) {
        None => (JobStatus::Finished, ResultType::Successful),
        Some(ErrorCode::Canceled) => (JobStatus::Canceled, ResultType::Stopped),
        Some(_) => (JobStatus::Failed, ResultType::Failed),
    };
    let outcome = match kind {
        JobKind::Query => None,
        // A driver that reports success without saying what it did has not told the truth.
        JobKind::Modification => Some(report.outcome.unwrap_or(Outcome::Unknown)),
    };
    let retval =
        if report.results.is_empty() && report.error.is_some() { None } else { Some(report.results) };
    Completion { status, result: JobResult { kind: result_type, retval, error: report.error, outcome } }
}

/// Stores the end, and takes the next job where there is to be one. While the store is out, the result
/// is held (promise 11).
async fn finish(node: &Inner, token: &ClaimToken, completion: Completion, more: Option<More<'_>>) -> Next {
    let began = Instant::now();
    let answer = match more {
        Some(more) => {
            with_store(node, || node.queue.complete_and_claim(token, completion.clone(), more.lease)).await
        }
        None => {
            let verdict = with_store(node, || node.queue.complete(token, completion.clone())).await;
            verdict.map(|verdict| (verdict, Next::Unknown))
        }
    };
    node.metrics.store("complete", began.elapsed());
    match answer {
        Some((Verdict::Taken, next)) => return next,
        Some((Verdict::Stale, _)) => {
            tracing::warn!(status = %completion.status, "the claim had passed to another; this result was refused");
        }
        None => {
            tracing::error!(status = %completion.status, "the store was closed, or had written this node off, before this result was stored")
        }
    }
    Next::Unknown
}

/// Asks the store until it answers; none when it was closed, or has written this node off.
async fn with_store<F, T>(node: &Inner, mut ask: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = Result<T, QueueError>>,
{
    let mut warned = false;
    loop {
        match ask().await {
            Ok(answer) => return Some(answer),
            Err(QueueError::Closed | QueueError::UnknownNode(_)) => return None,
            Err(error) => {
                if !warned {
                    tracing::warn!(%error, "the store does not answer; holding the result");
                    warned = true;
                }
                node.store_pause().await;
            }
        }
    }
}
