//! From acceptance to being forgotten.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::StreamExt;
use netpulse_model::event::Event;
use netpulse_model::worker::{WorkerRecord, WorkerState};
use netpulse_model::{JobId, QueueName, Timestamp};

use super::*;
use crate::api::{Canceled, Follow, Followed, JobQuery, QueueError, Verdict};

/// Runs the next job of `name` to its end.
async fn run<Q: Queue>(queue: &Q, name: &str, completion: Completion) -> Job {
    let lease = acquire(queue, "n1", name).await;
    let claim = claim(queue, &lease).await;
    assert_eq!(queue.complete(&claim.token, completion).await.unwrap(), Verdict::Taken);
    job(queue, claim.job.id).await
}

pub async fn promise_1_what_was_accepted_survives_a_crash<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let mut accepted = Vec::new();
    for make in [query, change, fifo_query, fifo_change] {
        for name in ["sw1", "sw2"] {
            accepted.push(accept(&*queue, NewJob { priority: Priority::High, ..make(name) }).await);
        }
    }
    let done = accept(&*queue, change("sw9")).await;
    let done = run(&*queue, "sw9", applied()).await.id.eq(&done.id).then_some(done).unwrap();
    factory.crash(queue).await;

    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    for before in &accepted {
        assert_eq!(job(&*queue, before.id).await, *before);
    }
    let kept = job(&*queue, done.id).await;
    assert_eq!((kept.status, outcome_of(&kept)), (JobStatus::Finished, Some(Outcome::Applied)));
    assert_eq!(queue.counts().await.unwrap().queued, accepted.len() as u64);
    let lease = acquire(&*queue, "n1", "sw1").await;
    let first = claim(&*queue, &lease).await;
    assert_eq!(first.job.id, accepted[0].id);
    assert_eq!(first.payload, format!("payload of {}", accepted[0].id).into_bytes());
    assert_eq!(first.timeout, Duration::from_secs(60));
    assert_eq!(first.retry.max, 2);
    let later = accept(&*queue, query("sw1")).await;
    assert!(later.created_at >= accepted.last().unwrap().created_at);
}

pub async fn promise_1_a_bulk_is_accepted_in_order<F: Factory>() {
    let factory = F::empty(Bounds { max_queued: 100, max_queued_per_device: 3, ..Bounds::default() }).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let bulk: Vec<NewJob> = (0..5).map(|n| query(if n == 2 { "sw2" } else { "sw1" })).collect();
    let ids: Vec<JobId> = bulk.iter().map(|job| job.id).collect();
    let answers = queue.submit(bulk).await.unwrap();
    assert_eq!(answers.len(), 5, "one answer each, in the order of the request");
    for (n, (answer, id)) in answers.iter().zip(&ids).enumerate() {
        match answer {
            Submitted::Accepted(job) => assert_eq!((job.id, n == 4), (*id, false)),
            Submitted::Full { .. } => {
                assert_eq!(n, 4, "one device's bound does not reject the others")
            }
            other => panic!("{other:?}"),
        }
    }
    for n in [0, 1, 3] {
        let lease = acquire(&*queue, "n1", "sw1").await;
        let claim = claim(&*queue, &lease).await;
        assert_eq!(claim.job.id, ids[n]);
        queue.complete(&claim.token, finished()).await.unwrap();
    }
    assert!(queue.submit(Vec::new()).await.unwrap().is_empty());
}

pub async fn promise_5_no_job_ends_without_its_result<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let reading = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(accept(&*queue, if n % 2 == 0 { query("sw1") } else { change("sw1") }).await.id);
    }
    let reader = {
        let (queue, reading, ids) = (queue.clone(), reading.clone(), ids.clone());
        tokio::spawn(async move {
            let mut reads = 0;
            while reading.load(std::sync::atomic::Ordering::SeqCst) {
                for id in &ids {
                    job(&*queue, *id).await;
                    reads += 1;
                }
                tokio::task::yield_now().await;
            }
            reads
        })
    };
    for (n, id) in ids.iter().enumerate() {
        let completion = if n % 2 == 0 { finished() } else { applied() };
        let ended = run(&*queue, "sw1", completion.clone()).await;
        assert_eq!(ended.id, *id);
        assert_eq!(ended.result.as_deref(), Some(&completion.result));
        assert!(ended.ended_at >= ended.started_at && ended.started_at >= ended.enqueued_at);
        assert_eq!(ended.worker.as_deref(), Some("n1_HostQ_sw1"));
    }
    reading.store(false, std::sync::atomic::Ordering::SeqCst);
    assert!(reader.await.unwrap() > 0);
    let none = JobQuery { status: vec![JobStatus::Queued, JobStatus::Started], ..JobQuery::default() };
    assert!(queue.list(&none).await.unwrap().jobs.is_empty());
    for job in queue.list(&JobQuery::default()).await.unwrap().jobs {
        assert!(job.result.is_some());
    }
}

pub async fn promise_5_a_job_that_waits_too_long_fails<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let ttl = Duration::from_secs(5);
    let asked = accept(&*queue, NewJob { ttl, ..query("sw1") }).await;
    let changed = accept(&*queue, NewJob { ttl, ..fifo_change("sw2") }).await;
    let patient = accept(&*queue, query("sw1")).await;
    // Nobody asks the engine anything: its own timer ends the job.
    let waiting = {
        let (queue, id) = (queue.clone(), asked.id);
        tokio::spawn(async move { queue.ended(id, SOON).await.unwrap().unwrap() })
    };
    factory.advance(ttl + Duration::from_millis(100)).await;
    let ended = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();
    assert_eq!(ended.status, JobStatus::Failed);
    assert_eq!(error_of(&ended).code, ErrorCode::ExpiredInQueue);
    let ended = job(&*queue, changed.id).await;
    assert_eq!((ended.status, outcome_of(&ended)), (JobStatus::Failed, Some(Outcome::NotApplied)));
    assert_eq!(job(&*queue, patient.id).await.status, JobStatus::Queued);
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let lease = acquire(&*queue, "n1", "sw1").await;
    assert_eq!(claim(&*queue, &lease).await.job.id, patient.id);
    assert!(queue.claim_fifo("n1", 1).await.unwrap().is_none());
}

pub async fn promise_8_the_same_key_gives_the_same_job<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let keyed = || NewJob { idempotency_key: Some("k1".into()), ..query("sw1") };
    let first = accept(&*queue, keyed()).await;
    let again = queue.submit(vec![keyed(), query("sw2"), keyed()]).await.unwrap();
    assert_eq!(again[0], Submitted::Known(first.clone()));
    assert!(matches!(again[1], Submitted::Accepted(_)));
    assert_eq!(again[2], Submitted::Known(first.clone()));
    let other = NewJob { digest: [2; 32], ..keyed() };
    assert_eq!(queue.submit(vec![other.clone()]).await.unwrap(), [Submitted::KeyReused(first.id)]);
    assert_eq!(queue.counts().await.unwrap().queued, 2, "no place is taken by repeats");

    // Twice in one submission, and by many at once: one job.
    let pair = || NewJob { idempotency_key: Some("k2".into()), ..query("sw3") };
    let answers = queue.submit(vec![pair(), pair()]).await.unwrap();
    let [Submitted::Accepted(one), Submitted::Known(two)] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(one.id, two.id);
    let mut racing = Vec::new();
    for _ in 0..16 {
        let queue = queue.clone();
        racing.push(tokio::spawn(async move {
            let job = NewJob { idempotency_key: Some("k3".into()), ..query("sw4") };
            match queue.submit(vec![job]).await.unwrap().pop() {
                Some(Submitted::Accepted(job)) => (job.id, true),
                Some(Submitted::Known(job)) => (job.id, false),
                other => panic!("{other:?}"),
            }
        }));
    }
    let mut ids = HashSet::new();
    let mut accepted = 0;
    for racer in racing {
        let (id, new) = racer.await.unwrap();
        ids.insert(id);
        accepted += usize::from(new);
    }
    assert_eq!((ids.len(), accepted), (1, 1));

    // Over a crash, after its end, until its result is forgotten.
    factory.crash(queue).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let ended = run(&*queue, "sw1", finished()).await;
    assert_eq!(queue.submit(vec![keyed()]).await.unwrap(), [Submitted::Known(ended.clone())]);
    assert_eq!(queue.submit(vec![other]).await.unwrap(), [Submitted::KeyReused(first.id)]);
    factory.advance(Duration::from_secs(301)).await;
    let new = accept(&*queue, keyed()).await;
    assert_ne!(new.id, first.id);
}

pub async fn promise_9_cancel_says_what_it_did<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let mut signals = queue.join("n1", 10.into()).await.unwrap();
    let running = accept(&*queue, change("sw1")).await;
    let waiting = accept(&*queue, change("sw1")).await;
    let last = accept(&*queue, query("sw1")).await;
    let lease = acquire(&*queue, "n1", "sw1").await;
    let first = claim(&*queue, &lease).await;

    let Canceled::BeforeStart(canceled) = queue.cancel(waiting.id, "wrong window").await.unwrap() else {
        panic!("it had not started")
    };
    assert_eq!((canceled.status, outcome_of(&canceled)), (JobStatus::Canceled, Some(Outcome::NotApplied)));
    assert_eq!(error_of(&canceled).code, ErrorCode::Canceled);
    assert!(error_of(&canceled).message.contains("wrong window"));
    assert!(matches!(queue.cancel(waiting.id, "").await.unwrap(), Canceled::TooLate(_)));

    assert!(matches!(queue.cancel(running.id, "stop").await.unwrap(), Canceled::Asked(_)));
    signal(&mut signals, |s| *s == Signal::Cancel(running.id)).await;
    assert_eq!(job(&*queue, running.id).await.status, JobStatus::Started, "its worker decides");
    let mut stopped = failed();
    stopped.status = JobStatus::Canceled;
    stopped.result.outcome = Some(Outcome::Partial);
    assert_eq!(queue.complete(&first.token, stopped).await.unwrap(), Verdict::Taken);
    let Canceled::TooLate(ended) = queue.cancel(running.id, "").await.unwrap() else {
        panic!("it has ended")
    };
    assert_eq!((ended.status, outcome_of(&ended)), (JobStatus::Canceled, Some(Outcome::Partial)));
    assert_eq!(queue.cancel(JobId::random(), "").await.unwrap(), Canceled::Unknown);
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.canceled, counts.queued, counts.started), (2, 1, 0));

    // A canceled job never starts, also after a crash; a query whose worker was asked and lost is
    // not run again.
    let lease = acquire(&*queue, "n1", "sw1").await;
    assert_eq!(claim(&*queue, &lease).await.job.id, last.id);
    assert!(matches!(queue.cancel(last.id, "enough").await.unwrap(), Canceled::Asked(_)));
    queue.list(&JobQuery::default()).await.unwrap();
    factory.crash(queue).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    assert_eq!(job(&*queue, waiting.id).await.status, JobStatus::Canceled);
    assert_eq!(job(&*queue, last.id).await.status, JobStatus::Canceled);
    let lease = acquire(&*queue, "n1", "sw1").await;
    assert!(queue.claim(&lease).await.unwrap().is_none());
}

pub async fn promise_9_a_queue_is_emptied<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let running = accept(&*queue, query("sw1")).await;
    let lease = acquire(&*queue, "n1", "sw1").await;
    let held = claim(&*queue, &lease).await;
    let one = accept(&*queue, query("sw1")).await;
    let two = accept(&*queue, fifo_query("sw1")).await;
    let other = accept(&*queue, query("sw2")).await;
    let of_queue = JobQuery { queue: Some(QueueName::Host(device("sw1"))), ..JobQuery::default() };
    assert_eq!(queue.cancel_waiting(&of_queue).await.unwrap(), [one.id]);
    let of_host = JobQuery { host: Some("sw1".into()), ..JobQuery::default() };
    assert_eq!(queue.cancel_waiting(&of_host).await.unwrap(), [two.id]);
    assert_eq!(job(&*queue, one.id).await.status, JobStatus::Canceled);
    assert_eq!(job(&*queue, running.id).await.status, JobStatus::Started);
    assert_eq!(job(&*queue, other.id).await.status, JobStatus::Queued);
    queue.complete(&held.token, finished()).await.unwrap();
}

pub async fn promise_10_queues_are_bounded<F: Factory>() {
    let factory = F::empty(Bounds { max_queued: 5, max_queued_per_device: 3, ..Bounds::default() }).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let keyed = || NewJob { idempotency_key: Some("k".into()), ..query("sw1") };
    accept(&*queue, keyed()).await;
    for make in [fifo_query, change] {
        accept(&*queue, make("sw1")).await;
    }
    let full = |answer: Option<Submitted>| match answer {
        Some(Submitted::Full { what, retry_after }) => {
            assert!(!retry_after.is_zero());
            what
        }
        other => panic!("not full: {other:?}"),
    };
    let what = full(queue.submit(vec![query("sw1")]).await.unwrap().pop());
    assert!(what.contains("max_queued_per_device") && what.contains("sw1"), "{what}");
    accept(&*queue, query("sw2")).await;
    accept(&*queue, query("sw3")).await;
    let what = full(queue.submit(vec![query("sw4")]).await.unwrap().pop());
    assert!(what.contains("max_queued"), "{what}");
    let again = queue.submit(vec![keyed()]).await.unwrap().pop();
    assert!(matches!(again, Some(Submitted::Known(_))), "a repeat needs no place: {again:?}");

    // The bound is kept over a crash, and a start makes room.
    factory.crash(queue).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    full(queue.submit(vec![query("sw4")]).await.unwrap().pop());
    let lease = acquire(&*queue, "n1", "sw2").await;
    claim(&*queue, &lease).await;
    accept(&*queue, query("sw4")).await;
    full(queue.submit(vec![query("sw4")]).await.unwrap().pop());
}

pub async fn promise_10_watchers_neither_block_nor_fill_memory<F: Factory>() {
    let factory = F::empty(Bounds { events: 50, ..Bounds::default() }).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let mut slow = queue.follow(Follow::All, None);
    accept(&*queue, query("sw1")).await;
    assert!(matches!(next(&mut slow).await, Followed::Event(_)));
    let lease = acquire(&*queue, "n1", "sw1").await;
    let held = claim(&*queue, &lease).await;
    for n in 0..200 {
        let mut long = line(n, "show tech");
        if let What::Line { stdout, .. } = &mut long {
            *stdout = "x".repeat(100_000).into();
        }
        assert_eq!(queue.progress(&held.token, long), Verdict::Taken);
    }
    let Followed::Gap(first) = next(&mut slow).await else { panic!("the watcher fell behind") };
    let Followed::Event(event) = next(&mut slow).await else { panic!("then it goes on") };
    assert_eq!(event.id, first);
    let What::Line { stdout, index, .. } = event.what else { panic!("{event:?}") };
    assert!(index > 100);
    assert_eq!(stdout.as_str().unwrap().len(), 64 * 1024, "cut");
}

async fn next(stream: &mut (impl futures_util::Stream<Item = Followed> + Unpin)) -> Followed {
    tokio::time::timeout(SOON, stream.next()).await.expect("something happens").expect("the stream lives")
}

pub async fn promise_11_an_outage_refuses_submits_and_holds_results<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let asked = accept(&*queue, query("sw1")).await;
    let changed = accept(&*queue, change("sw2")).await;
    let waiting = accept(&*queue, change("sw3")).await;
    let lease = acquire(&*queue, "n1", "sw1").await;
    let query_claim = claim(&*queue, &lease).await;
    let lease = acquire(&*queue, "n1", "sw2").await;
    let change_claim = claim(&*queue, &lease).await;

    factory.outage(true).await;
    assert!(matches!(queue.submit(vec![query("sw1")]).await, Err(QueueError::Unavailable(_))));
    assert!(queue.health().await.is_err());
    assert!(matches!(queue.cancel(waiting.id, "").await, Err(QueueError::Unavailable(_))));
    assert_eq!(
        job(&*queue, waiting.id).await.status,
        JobStatus::Queued,
        "a cancel that failed changed nothing"
    );
    let lease = acquire(&*queue, "n1", "sw3").await;
    assert!(matches!(queue.claim(&lease).await, Err(QueueError::Unavailable(_))), "no start unwritten");
    assert_eq!(queue.progress(&change_claim.token, sending(0, "vlan 10")), Verdict::Taken);
    let completing = {
        let (queue, token) = (queue.clone(), change_claim.token.clone());
        tokio::spawn(async move {
            loop {
                match queue.complete(&token, applied()).await {
                    Err(QueueError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                    other => return other,
                }
            }
        })
    };
    let query_completing = {
        let (queue, token) = (queue.clone(), query_claim.token.clone());
        tokio::spawn(async move {
            loop {
                match queue.complete(&token, finished()).await {
                    Err(QueueError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                    other => return other,
                }
            }
        })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!completing.is_finished(), "a modification's outcome is durable before it counts");
    assert_eq!(job(&*queue, changed.id).await.status, JobStatus::Started);
    assert_eq!(queue.renew("n1").await.unwrap(), [], "sessions stay up");

    factory.outage(false).await;
    assert_eq!(completing.await.unwrap().unwrap(), Verdict::Taken);
    assert_eq!(query_completing.await.unwrap().unwrap(), Verdict::Taken);
    queue.health().await.unwrap();
    accept(&*queue, query("sw1")).await;
    assert_eq!(claim(&*queue, &lease).await.job.id, waiting.id, "it waited the outage out");
    factory.crash(queue).await;
    let queue = factory.open().await;
    for (id, outcome) in [(asked.id, None), (changed.id, Some(Outcome::Applied))] {
        let ended = job(&*queue, id).await;
        assert_eq!((ended.status, outcome_of(&ended)), (JobStatus::Finished, outcome));
    }
    assert_eq!(queue.counts().await.unwrap().queued, 1, "what was refused was not accepted after all");
}

pub async fn results_are_forgotten_but_outcomes_are_kept<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    accept(&*queue, query("sw1")).await;
    let asked = run(&*queue, "sw1", finished()).await;
    accept(&*queue, change("sw1")).await;
    let changed = run(&*queue, "sw1", applied()).await;
    let canceled = accept(&*queue, query("sw1")).await;
    queue.cancel(canceled.id, "").await.unwrap();

    factory.advance(Duration::from_secs(299)).await;
    assert!(queue.job(asked.id).await.unwrap().is_some());
    factory.advance(Duration::from_secs(2)).await;
    assert!(queue.job(asked.id).await.unwrap().is_none(), "300 s are over");
    assert!(queue.job(canceled.id).await.unwrap().is_some());
    factory.advance(Duration::from_secs(1600)).await;
    assert!(queue.job(canceled.id).await.unwrap().is_none(), "1800 s are over");
    assert_eq!(job(&*queue, changed.id).await, changed);
    // The timer forgets without being asked; counts follow.
    tokio::time::timeout(SOON, async {
        while queue.counts().await.unwrap().finished > 1 || queue.counts().await.unwrap().canceled > 0 {
            factory.advance(Duration::from_secs(2)).await;
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("ends are swept");
    let listed = queue.list(&JobQuery::default()).await.unwrap().jobs;
    assert_eq!(listed.iter().map(|job| job.id).collect::<Vec<_>>(), [changed.id]);
    factory.advance(Duration::from_secs(31 * 24 * 3600)).await;
    assert!(queue.job(changed.id).await.unwrap().is_none());
}

async fn collect(stream: impl futures_util::Stream<Item = Followed>) -> Vec<Followed> {
    tokio::time::timeout(SOON, stream.collect()).await.expect("the stream ends")
}

fn events(followed: &[Followed]) -> Vec<&Event> {
    followed
        .iter()
        .map(|item| match item {
            Followed::Event(event) => event,
            Followed::Gap(id) => panic!("a gap at {id:?}"),
        })
        .collect()
}

fn names(followed: &[Followed]) -> Vec<&'static str> {
    events(followed).iter().map(|event| event.what.name()).collect()
}

pub async fn events_tell_a_job_from_its_start_to_its_end<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let changed = accept(&*queue, change("sw1")).await;
    accept(&*queue, query("sw2")).await;
    let live = tokio::spawn(collect(queue.follow(Follow::Job(changed.id), None)));
    let lease = acquire(&*queue, "n1", "sw1").await;
    let first = claim(&*queue, &lease).await;
    queue.retry(&first.token, Duration::ZERO, &no_connection("no answer")).await.unwrap();
    let second = claim(&*queue, &lease).await;
    queue.progress(&second.token, sending(0, "vlan 10"));
    queue.progress(&second.token, line(0, "vlan 10"));
    queue.complete(&second.token, applied()).await.unwrap();
    let seen = live.await.unwrap();
    let expected = ["queued", "started", "retrying", "started", "sending", "line", "ended"];
    assert_eq!(names(&seen), expected);
    let seen = events(&seen);
    assert!(seen.windows(2).all(|pair| pair[0].id < pair[1].id), "ids grow");
    assert!(seen.iter().all(|event| event.job == changed.id && event.device.as_deref() == Some("sw1")));
    let What::Ended { status, outcome, .. } = &seen[6].what else { panic!("{seen:?}") };
    assert_eq!((*status, *outcome), (JobStatus::Finished, Some(Outcome::Applied)));

    let later = collect(queue.follow(Follow::Job(changed.id), None)).await;
    assert_eq!(names(&later), expected, "the same when asked later");
    let resumed = collect(queue.follow(Follow::Job(changed.id), Some(seen[3].id))).await;
    assert_eq!(names(&resumed), ["sending", "line", "ended"], "from where it was");
    assert!(collect(queue.follow(Follow::Job(JobId::random()), None)).await.is_empty());

    let everybody: Vec<Followed> = queue.follow(Follow::All, None).take(8).collect().await;
    let other = events(&everybody).iter().filter(|event| event.job != changed.id).count();
    assert_eq!(other, 1);
    let mut onward = queue.follow(Follow::All, Some(seen[6].id));
    let newest = accept(&*queue, query("sw3")).await;
    let Followed::Event(event) = next(&mut onward).await else { panic!("no gap") };
    assert_eq!(event.job, newest.id);
}

pub async fn events_of_an_ended_job_are_told_from_the_job<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let changed = accept(&*queue, change("sw1")).await;
    run(&*queue, "sw1", applied()).await;
    let waiting = accept(&*queue, query("sw1")).await;
    let seen = collect(queue.follow(Follow::Job(changed.id), None)).await;
    let Followed::Event(started) = &seen[1] else { panic!("{seen:?}") };
    let started = started.id;
    factory.crash(queue).await;

    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let told = collect(queue.follow(Follow::Job(changed.id), None)).await;
    let told = told.into_iter().filter(|item| matches!(item, Followed::Event(_))).collect::<Vec<_>>();
    assert_eq!(names(&told), ["queued", "started", "line", "ended"]);
    let resumed = collect(queue.follow(Follow::Job(changed.id), Some(started))).await;
    let Some(Followed::Event(last)) = resumed.last() else { panic!("{resumed:?}") };
    assert_eq!(last.what.name(), "ended");

    // One that still waits goes on live.
    let mut live = queue.follow(Follow::Job(waiting.id), None);
    let mut seen = vec![next(&mut live).await];
    run(&*queue, "sw1", finished()).await;
    seen.extend(collect(live).await);
    assert_eq!(names(&seen), ["queued", "started", "ended"]);
}

pub async fn event_ids_grow_over_restarts<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let mut last = 0;
    for _ in 0..3 {
        let queue = factory.open().await;
        let mut all = queue.follow(Follow::All, None);
        accept(&*queue, query("sw1")).await;
        loop {
            let Followed::Event(event) = next(&mut all).await else { panic!("a gap") };
            assert!(event.id.0 > last);
            last = event.id.0;
            if event.what.name() == "queued" {
                break;
            }
        }
        let mut resumed = queue.follow(Follow::All, Some(netpulse_model::event::EventId(1)));
        assert!(matches!(next(&mut resumed).await, Followed::Gap(_)), "from before what is kept");
        factory.crash(queue).await;
    }
    assert!(last < 1 << 53, "safe in JSON");
}

pub async fn pages_stay_apart_while_jobs_come_and_go<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let mut ids = Vec::new();
    for _ in 0..25 {
        ids.push(accept(&*queue, query("sw1")).await.id);
    }
    ids.reverse();
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = queue.list(&JobQuery { limit: 10, cursor, ..JobQuery::default() }).await.unwrap();
        assert!(page.jobs.len() <= 10);
        seen.extend(page.jobs.iter().map(|job| job.id));
        // Between the pages a job comes and the one last seen goes.
        accept(&*queue, query("sw2")).await;
        queue.cancel(*seen.last().unwrap(), "").await.unwrap();
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, ids, "each once, newest first");
    let nothing = JobQuery { cursor: Some("nonsense".into()), ..JobQuery::default() };
    assert!(queue.list(&nothing).await.unwrap().jobs.is_empty());
}

pub async fn lists_filter<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let _others = queue.join("n2", 10.into()).await.unwrap();
    let one = accept(&*queue, query("sw1")).await.id;
    let console = DeviceKey::new("sw1", 2001, 22);
    let two = accept(&*queue, new_job(QueueName::Fifo, console.clone(), JobKind::Query)).await.id;
    let three = accept(&*queue, change("sw2")).await.id;
    let four = accept(
        &*queue,
        new_job(
            QueueName::Host(DeviceKey::new("2001:db8::1", 22, 22)),
            DeviceKey::new("2001:db8::1", 22, 22),
            JobKind::Query,
        ),
    )
    .await
    .id;
    run(&*queue, "sw1", finished()).await;
    queue.claim_fifo("n2", 1).await.unwrap().expect("a job waits");
    let ids = async |query: JobQuery| -> Vec<JobId> {
        let mut ids: Vec<JobId> = queue.list(&query).await.unwrap().jobs.iter().map(|job| job.id).collect();
        ids.reverse();
        ids
    };
    let base = JobQuery::default;
    assert_eq!(ids(base()).await, [one, two, three, four]);
    assert_eq!(ids(JobQuery { status: vec![JobStatus::Finished], ..base() }).await, [one]);
    assert_eq!(
        ids(JobQuery { status: vec![JobStatus::Started, JobStatus::Queued], ..base() }).await,
        [two, three, four]
    );
    assert_eq!(ids(JobQuery { queue: Some(QueueName::Fifo), ..base() }).await, [two]);
    assert_eq!(ids(JobQuery { host: Some("SW1".into()), ..base() }).await, [one, two]);
    assert_eq!(ids(JobQuery { host: Some("sw1:2001".into()), ..base() }).await, [two]);
    assert_eq!(ids(JobQuery { host: Some("2001:db8::1".into()), ..base() }).await, [four]);
    assert_eq!(ids(JobQuery { node: Some("n2".into()), ..base() }).await, [two]);
    assert_eq!(ids(JobQuery { node: Some("n1".into()), ..base() }).await, [one]);
    let middle = job(&*queue, three).await.created_at;
    let since = ids(JobQuery { since: Some(middle), ..base() }).await;
    let until = ids(JobQuery { until: Some(middle), ..base() }).await;
    assert!(since.contains(&three) && since.contains(&four) && !until.contains(&three));
    assert_eq!(since.len() + until.len(), 4);
    let future = Timestamp::now().plus_seconds(3600);
    assert!(ids(JobQuery { since: Some(future), ..base() }).await.is_empty());
    assert_eq!(ids(JobQuery { until: Some(future), ..base() }).await.len(), 4);
}

pub async fn a_waiter_is_told_of_the_end<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let asked = accept(&*queue, query("sw1")).await;
    let brief = queue.ended(asked.id, Duration::from_millis(20)).await.unwrap().unwrap();
    assert_eq!(brief.status, JobStatus::Queued, "as it stands when the time is over");
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let (queue, id) = (queue.clone(), asked.id);
            tokio::spawn(async move { queue.ended(id, SOON).await.unwrap().unwrap() })
        })
        .collect();
    run(&*queue, "sw1", finished()).await;
    for waiter in waiters {
        let ended = tokio::time::timeout(SOON / 2, waiter).await.expect("told at once").unwrap();
        assert_eq!(ended.status, JobStatus::Finished);
        assert!(ended.result.is_some());
    }
    assert!(queue.ended(asked.id, SOON).await.unwrap().unwrap().status.is_final());
    assert!(queue.ended(JobId::random(), SOON).await.unwrap().is_none());
}

pub async fn one_waits_for_the_ends_of_many<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let before = accept(&*queue, query("sw1")).await.id;
    run(&*queue, "sw1", finished()).await;
    let mut ids = vec![accept(&*queue, query("sw2")).await.id, JobId::random(), before];
    for n in 0..240 {
        ids.push(accept(&*queue, query(["sw3", "sw4", "sw5"][n % 3])).await.id);
    }
    // One is asked for twice.
    ids.push(before);
    let status = |found: &[Option<Job>]| -> Vec<Option<JobStatus>> {
        found.iter().map(|job| job.as_ref().map(|job| job.status)).collect()
    };
    let brief = queue.ended_all(&ids, Duration::from_millis(20)).await.unwrap();
    assert!(brief.iter().zip(&ids).all(|(job, id)| job.as_ref().is_none_or(|job| job.id == *id)), "in order");
    let mut expected = vec![Some(JobStatus::Queued); ids.len()];
    (expected[1], expected[2]) = (None, Some(JobStatus::Finished));
    *expected.last_mut().unwrap() = Some(JobStatus::Finished);
    assert_eq!(expected, status(&brief), "as they stand when the time is over");
    let waiter = {
        let (queue, ids) = (queue.clone(), ids.clone());
        tokio::spawn(async move { queue.ended_all(&ids, SOON).await.unwrap() })
    };
    for name in ["sw3", "sw4", "sw5"] {
        let lease = acquire(&*queue, "n1", name).await;
        while let Some(claim) = queue.claim(&lease).await.unwrap() {
            queue.complete(&claim.token, finished()).await.unwrap();
        }
    }
    assert!(!waiter.is_finished(), "one has not ended");
    run(&*queue, "sw2", failed()).await;
    let ended = tokio::time::timeout(SOON / 2, waiter).await.expect("told at once").unwrap();
    expected.iter_mut().flatten().for_each(|status| *status = JobStatus::Finished);
    expected[0] = Some(JobStatus::Failed);
    assert_eq!(expected, status(&ended));
    assert!(ended.iter().flatten().all(|job| job.result.is_some()));
}

pub async fn workers_are_listed_and_stopped<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let mut signals = queue.join("n1", 10.into()).await.unwrap();
    let record = |name: &str| WorkerRecord {
        name: name.into(),
        status: WorkerState::Idle,
        pid: 1,
        hostname: "n1".into(),
        queues: vec![QueueName::Fifo],
        last_heartbeat: Timestamp(1),
        birth_at: Timestamp(1),
        successful_job_count: 0,
        failed_job_count: 0,
        self_healing: 0,
    };
    queue.put_worker(record("n1_FifoQ"));
    queue.put_worker(record("n1_HostQ_sw1"));
    queue.put_worker(WorkerRecord { status: WorkerState::Busy, ..record("n1_FifoQ") });
    let known = queue.workers().await.unwrap();
    assert_eq!(known.len(), 2);
    assert!(known.iter().any(|worker| worker.name == "n1_FifoQ" && worker.status == WorkerState::Busy));
    assert!(queue.stop_worker("n1_HostQ_sw1").await.unwrap());
    signal(&mut signals, |s| *s == Signal::StopWorker("n1_HostQ_sw1".into())).await;
    assert!(!queue.stop_worker("nobody").await.unwrap());
    queue.remove_worker("n1_HostQ_sw1");
    assert_eq!(queue.workers().await.unwrap().len(), 1);
    lease_passes(&factory, &*queue, &[]).await;
    queue.counts().await.unwrap();
    assert!(queue.workers().await.unwrap().is_empty(), "a silent node's workers are no more");
}
