//! The outbox: whoever is to be told of a job's end is told, at least once.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::*;
use crate::api::{Canceled, Delivered, Delivery, Due, JobQuery, QueueError, Verdict};

const HOLD: Duration = Duration::from_secs(30);

/// The job, with somebody to be told of its end.
fn told(mut job: NewJob) -> NewJob {
    job.notify = Some(format!("tell of {}", job.id).into_bytes());
    job
}

/// Claims messages as a courier does, asking again when it is signalled, until there are `count`.
async fn take<Q: Queue>(
    queue: &Q,
    signals: &mut UnboundedReceiver<Signal>,
    count: usize,
) -> BTreeMap<JobId, Delivery> {
    let mut taken = BTreeMap::new();
    loop {
        for delivery in queue.deliveries(100, HOLD).await.unwrap().deliveries {
            assert_eq!(delivery.notify, format!("tell of {}", delivery.job.id).into_bytes());
            assert!(delivery.job.status.is_final() && delivery.job.ended_at.is_some(), "{:?}", delivery.job);
            assert!(delivery.job.result.is_some(), "with its result");
            let twice = taken.insert(delivery.job.id, delivery);
            assert!(twice.is_none(), "one job, one message: {:?}", twice.map(|d| d.job));
        }
        if taken.len() >= count {
            assert_eq!(taken.len(), count);
            return taken;
        }
        signal(signals, |s| *s == Signal::Outbox).await;
    }
}

async fn take_one<Q: Queue>(queue: &Q, signals: &mut UnboundedReceiver<Signal>) -> Delivery {
    take(queue, signals, 1).await.into_values().next().unwrap()
}

async fn settle<Q: Queue>(queue: &Q, delivery: &Delivery, how: Delivered) -> Verdict {
    queue.settle(delivery.id, delivery.epoch, how).await.unwrap()
}

async fn nothing_due<Q: Queue>(queue: &Q) -> Option<Duration> {
    let Due { deliveries, next } = queue.deliveries(100, HOLD).await.unwrap();
    assert!(deliveries.is_empty(), "nothing is due: {:?}", deliveries[0].job);
    next
}

/// Runs the next job of a device to this end.
async fn run<Q: Queue>(queue: &Q, node: &str, name: &str, end: Completion) -> JobId {
    let lease = acquire(queue, node, name).await;
    let claim = claim(queue, &lease).await;
    assert_eq!(queue.complete(&claim.token, end).await.unwrap(), Verdict::Taken);
    claim.job.id
}

pub async fn promise_5_every_end_is_told_however_it_comes<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let mut signals = queue.join("n1", 10.into()).await.unwrap();
    let _lost = queue.join("n2", 10.into()).await.unwrap();
    accept(&*queue, query("sw0")).await;
    run(&*queue, "n1", "sw0", finished()).await;
    assert_eq!(nothing_due(&*queue).await, None, "nobody is to be told of it");

    let mut expected = HashMap::new();
    accept(&*queue, told(query("sw1"))).await;
    expected.insert(run(&*queue, "n1", "sw1", finished()).await, JobStatus::Finished);
    accept(&*queue, told(change("sw1"))).await;
    expected.insert(run(&*queue, "n1", "sw1", applied()).await, JobStatus::Finished);
    accept(&*queue, told(query("sw1"))).await;
    expected.insert(run(&*queue, "n1", "sw1", failed()).await, JobStatus::Failed);

    let waiting = accept(&*queue, told(change("sw2"))).await;
    assert!(matches!(queue.cancel(waiting.id, "").await.unwrap(), Canceled::BeforeStart(_)));
    expected.insert(waiting.id, JobStatus::Canceled);
    let emptied = accept(&*queue, told(query("sw3"))).await;
    let of_host = JobQuery { host: Some("sw3".into()), ..JobQuery::default() };
    assert_eq!(queue.cancel_waiting(&of_host).await.unwrap(), [emptied.id]);
    expected.insert(emptied.id, JobStatus::Canceled);

    accept(&*queue, told(change("sw4"))).await;
    let lease = acquire(&*queue, "n1", "sw4").await;
    let running = claim(&*queue, &lease).await;
    assert!(matches!(queue.cancel(running.job.id, "").await.unwrap(), Canceled::Asked(_)));
    let mut stopped = failed();
    stopped.status = JobStatus::Canceled;
    queue.complete(&running.token, stopped).await.unwrap();
    expected.insert(running.job.id, JobStatus::Canceled);

    // Its worker is lost with a line on its way.
    let halfway = accept(&*queue, told(change("sw5"))).await;
    let lease = acquire(&*queue, "n2", "sw5").await;
    let held = claim(&*queue, &lease).await;
    assert_eq!(queue.progress(&held.token, sending(0, "vlan 10")), Verdict::Taken);
    lease_passes(&factory, &*queue, &["n1"]).await;
    expected.insert(halfway.id, JobStatus::Failed);

    let taken = take(&*queue, &mut signals, expected.len()).await;
    for (id, delivery) in &taken {
        assert_eq!(Some(&delivery.job.status), expected.get(id), "{:?}", delivery.job);
        assert_eq!(delivery.attempt, 1);
        assert_eq!(delivery.job, job(&*queue, *id).await, "the job as everybody sees it");
    }
    assert_eq!(outcome_of(&taken[&halfway.id].job), Some(Outcome::Unknown));

    // Nobody takes this one.
    let mut short = told(query("sw6"));
    short.ttl = Duration::from_secs(3);
    let expired = accept(&*queue, short).await;
    lease_passes(&factory, &*queue, &["n1"]).await;
    let told_of = take_one(&*queue, &mut signals).await;
    assert_eq!((told_of.job.id, told_of.job.status), (expired.id, JobStatus::Failed));
    assert_eq!(error_of(&told_of.job).code, ErrorCode::ExpiredInQueue);

    for delivery in taken.values() {
        assert_eq!(settle(&*queue, delivery, Delivered::Done(None)).await, Verdict::Taken);
    }
    assert_eq!(settle(&*queue, &told_of, Delivered::Done(None)).await, Verdict::Taken);
    assert_eq!(nothing_due(&*queue).await, None, "the outbox is empty");
}

pub async fn promise_1_messages_survive_a_crash<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let mut signals = queue.join("n1", 10.into()).await.unwrap();
    // One that nobody took, one in the hands of a courier, one that arrived, one that waits.
    for name in ["sw1", "sw2", "sw3", "sw4"] {
        accept(&*queue, told(change(name))).await;
    }
    let taken_id = run(&*queue, "n1", "sw2", applied()).await;
    let taken = take_one(&*queue, &mut signals).await;
    assert_eq!((taken.job.id, taken.attempt), (taken_id, 1));
    run(&*queue, "n1", "sw3", applied()).await;
    let arrived = take_one(&*queue, &mut signals).await;
    assert_eq!(settle(&*queue, &arrived, Delivered::Done(None)).await, Verdict::Taken);
    let untaken = run(&*queue, "n1", "sw1", applied()).await;

    factory.crash(queue).await;
    let queue = factory.open().await;
    let mut signals = queue.join("n1", 10.into()).await.unwrap();
    // The courier that held one is gone: its hold may have to end first.
    factory.advance(HOLD + Duration::from_secs(1)).await;
    queue.renew("n1").await.ok();
    let again = take(&*queue, &mut signals, 2).await;
    assert_eq!(again[&untaken].attempt, 1);
    let second = &again[&taken_id];
    assert_eq!((second.id, second.attempt), (taken.id, 2), "the same message; the lost courier counts");
    assert_eq!(second.job, taken.job);
    assert!(second.epoch > taken.epoch, "epochs grow over crashes");
    assert_eq!(settle(&*queue, &taken, Delivered::Done(None)).await, Verdict::Stale, "the dead say nothing");
    for delivery in again.values() {
        assert_eq!(settle(&*queue, delivery, Delivered::Done(None)).await, Verdict::Taken);
    }
    assert_eq!(nothing_due(&*queue).await, None);
}

pub async fn promise_6_jobs_settled_after_a_crash_are_told<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let running = accept(&*queue, told(change("sw1"))).await;
    let lease = acquire(&*queue, "n1", "sw1").await;
    claim(&*queue, &lease).await;
    let repeated = accept(&*queue, told(query("sw2"))).await;
    let lease = acquire(&*queue, "n1", "sw2").await;
    claim(&*queue, &lease).await;

    factory.crash(queue).await;
    let queue = factory.open().await;
    let mut signals = queue.join("n1", 10.into()).await.unwrap();
    let told_of = take_one(&*queue, &mut signals).await;
    assert_eq!((told_of.job.id, told_of.job.status), (running.id, JobStatus::Failed));
    assert_eq!(error_of(&told_of.job).code, ErrorCode::WorkerLost);
    // The query runs again, and is told of once it has ended.
    assert_eq!(run(&*queue, "n1", "sw2", finished()).await, repeated.id);
    assert_eq!(take_one(&*queue, &mut signals).await.job.id, repeated.id);
}

pub async fn promise_7_a_hold_ends_and_old_epochs_are_refused<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let mut signals = queue.join("n1", 10.into()).await.unwrap();
    accept(&*queue, told(change("sw1"))).await;
    run(&*queue, "n1", "sw1", applied()).await;
    let first = take_one(&*queue, &mut signals).await;
    let next = nothing_due(&*queue).await.expect("its hold ends some time");
    assert!(next <= HOLD && next > HOLD / 2, "{next:?}");

    factory.advance(HOLD / 2).await;
    assert_eq!(settle(&*queue, &first, Delivered::Held(HOLD)).await, Verdict::Taken, "still at it");
    factory.advance(HOLD / 2 + Duration::from_secs(2)).await;
    nothing_due(&*queue).await;
    queue.renew("n1").await.ok();
    factory.advance(HOLD / 2).await;
    let second = take_one(&*queue, &mut signals).await;
    assert_eq!((second.id, second.attempt), (first.id, 2));
    assert!(second.epoch > first.epoch);
    for how in [
        Delivered::Done(None),
        Delivered::Again(Duration::ZERO),
        Delivered::Later(Duration::ZERO),
        Delivered::Held(HOLD),
    ] {
        assert_eq!(settle(&*queue, &first, how).await, Verdict::Stale);
    }
    nothing_due(&*queue).await;

    // Said twice is said once.
    assert_eq!(settle(&*queue, &second, Delivered::Again(HOLD)).await, Verdict::Taken);
    assert_eq!(settle(&*queue, &second, Delivered::Again(Duration::ZERO)).await, Verdict::Stale);
    nothing_due(&*queue).await;
    factory.advance(HOLD + Duration::from_secs(1)).await;
    let third = take_one(&*queue, &mut signals).await;
    assert_eq!((third.id, third.attempt), (first.id, 3));
    assert_eq!(settle(&*queue, &third, Delivered::Done(Some("no answer".into()))).await, Verdict::Taken);
    assert_eq!(settle(&*queue, &third, Delivered::Done(None)).await, Verdict::Stale);
    assert_eq!(nothing_due(&*queue).await, None);
    let unknown = queue.settle(uuid::Uuid::new_v4(), third.epoch, Delivered::Done(None)).await.unwrap();
    assert_eq!(unknown, Verdict::Stale);
}

pub async fn messages_wait_their_time_and_keep_their_order<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let mut signals = queue.join("n1", 10.into()).await.unwrap();
    let mut ended = Vec::new();
    for n in 0..5 {
        let name = format!("sw{n}");
        accept(&*queue, told(change(&name))).await;
        ended.push(run(&*queue, "n1", &name, applied()).await);
    }
    signal(&mut signals, |s| *s == Signal::Outbox).await;
    let mut taken = Vec::new();
    while taken.len() < 5 {
        let due = queue.deliveries(2, HOLD).await.unwrap();
        assert!(!due.deliveries.is_empty() && due.deliveries.len() <= 2);
        if taken.len() + due.deliveries.len() < 5 {
            assert_eq!(due.next, Some(Duration::ZERO), "more are due than were asked for");
        }
        taken.extend(due.deliveries);
    }
    let ids = |taken: &[Delivery]| taken.iter().map(|d| d.job.id).collect::<Vec<_>>();
    assert_eq!(ids(&taken), ended, "oldest first");
    let epochs: Vec<u64> = taken.iter().map(|d| d.epoch).collect();
    assert!(epochs.is_sorted_by(|a, b| a < b), "epochs grow: {epochs:?}");

    // Later is no attempt, again is one; each waits its time.
    assert_eq!(settle(&*queue, &taken[0], Delivered::Later(Duration::from_secs(5))).await, Verdict::Taken);
    assert_eq!(settle(&*queue, &taken[1], Delivered::Again(Duration::from_secs(9))).await, Verdict::Taken);
    for rest in &taken[2..] {
        assert_eq!(settle(&*queue, rest, Delivered::Done(None)).await, Verdict::Taken);
    }
    let next = nothing_due(&*queue).await.expect("two wait");
    assert!(next <= Duration::from_secs(5), "{next:?}");
    factory.advance(Duration::from_secs(6)).await;
    let later = take_one(&*queue, &mut signals).await;
    assert_eq!((later.job.id, later.attempt), (ended[0], 1));
    queue.renew("n1").await.ok();
    factory.advance(Duration::from_secs(4)).await;
    let again = take_one(&*queue, &mut signals).await;
    assert_eq!((again.job.id, again.attempt), (ended[1], 2));
}

pub async fn a_message_outlives_the_result_of_its_job<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let mut signals = queue.join("n1", 10.into()).await.unwrap();
    let mut brief = told(query("sw1"));
    brief.result_ttl = Duration::from_secs(1);
    accept(&*queue, brief).await;
    let id = run(&*queue, "n1", "sw1", finished()).await;
    let first = take_one(&*queue, &mut signals).await;
    assert_eq!(settle(&*queue, &first, Delivered::Again(Duration::from_secs(20))).await, Verdict::Taken);
    for _ in 0..5 {
        factory.advance(Duration::from_secs(5)).await;
        queue.renew("n1").await.ok();
    }
    assert_eq!(queue.job(id).await.unwrap(), None, "its result is forgotten");
    let second = take_one(&*queue, &mut signals).await;
    assert_eq!(second.job, first.job);
    let kept = second.job.result.as_ref().and_then(|result| result.retval.clone()).unwrap();
    assert_eq!(kept[0].stdout, "Version 1");
}

pub async fn two_couriers_never_hold_the_same_message<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let mut ended = Vec::new();
    for n in 0..30 {
        let name = format!("sw{}", n % 3);
        accept(&*queue, told(change(&name))).await;
        ended.push(run(&*queue, "n1", &name, applied()).await);
    }
    let couriers = (0..6).map(|_| {
        let queue = Arc::clone(&queue);
        tokio::spawn(async move {
            let mut mine = Vec::new();
            loop {
                let due = queue.deliveries(4, HOLD).await.unwrap();
                if due.deliveries.is_empty() && due.next != Some(Duration::ZERO) {
                    return mine;
                }
                mine.extend(due.deliveries.into_iter().map(|delivery| delivery.job.id));
            }
        })
    });
    let mut all = Vec::new();
    for courier in couriers.collect::<Vec<_>>() {
        all.extend(courier.await.unwrap());
    }
    let by_text = |ids: &mut Vec<JobId>| ids.sort_by_key(ToString::to_string);
    by_text(&mut all);
    by_text(&mut ended);
    assert_eq!(all, ended, "each message once");
}

pub async fn promise_10_the_outbox_is_bounded<F: Factory>() {
    let factory = F::empty(Bounds { max_outbox: 3, ..Bounds::default() }).await;
    let queue = factory.open().await;
    let mut signals = queue.join("n1", 10.into()).await.unwrap();
    accept(&*queue, told(change("sw1"))).await;
    run(&*queue, "n1", "sw1", applied()).await;
    accept(&*queue, told(change("sw1"))).await;
    accept(&*queue, told(change("sw1"))).await;
    let full = |answer: Option<Submitted>| match answer {
        Some(Submitted::Full { what, retry_after }) => {
            assert!(what.contains("max_outbox"), "{what}");
            assert!(!retry_after.is_zero());
        }
        other => panic!("not full: {other:?}"),
    };
    full(queue.submit(vec![told(query("sw2"))]).await.unwrap().pop());
    accept(&*queue, query("sw2")).await;

    // The bound is kept over a crash; what was delivered makes room.
    factory.crash(queue).await;
    let queue = factory.open().await;
    signals.close();
    let mut signals = queue.join("n1", 10.into()).await.unwrap();
    full(queue.submit(vec![told(query("sw2"))]).await.unwrap().pop());
    let oldest = take_one(&*queue, &mut signals).await;
    assert_eq!(settle(&*queue, &oldest, Delivered::Done(None)).await, Verdict::Taken);
    accept(&*queue, told(query("sw2"))).await;
    full(queue.submit(vec![told(query("sw2"))]).await.unwrap().pop());
}

pub async fn promise_11_an_outage_delays_messages_and_loses_none<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let mut signals = queue.join("n1", 10.into()).await.unwrap();
    accept(&*queue, told(change("sw1"))).await;
    let id = run(&*queue, "n1", "sw1", applied()).await;
    signal(&mut signals, |s| *s == Signal::Outbox).await;
    factory.outage(true).await;
    let refused = queue.deliveries(10, HOLD).await;
    assert!(matches!(refused, Err(QueueError::Unavailable(_))), "an attempt has to be counted first");
    factory.outage(false).await;
    let delivery = take_one(&*queue, &mut signals).await;
    assert_eq!((delivery.job.id, delivery.attempt), (id, 1), "nothing was tried meanwhile");
}
