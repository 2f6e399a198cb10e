//! Who owns a device, and in which order its jobs start.

use std::time::Duration;

use netpulse_model::{JobId, JobKind, Priority, QueueName};

use super::*;
use crate::api::{Next, Verdict};

pub async fn promise_2_a_device_has_one_owner<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let mut first_signals = queue.join("n1", 10.into()).await.unwrap();
    let mut second_signals = queue.join("n2", 10.into()).await.unwrap();
    let first = acquire(&*queue, "n1", "sw1").await;
    assert_eq!(
        queue.acquire("n1", &device("sw1")).await.unwrap(),
        Some(first.clone()),
        "the same lease again"
    );
    assert_eq!(queue.acquire("n2", &device("sw1")).await.unwrap(), None);
    let waits = accept(&*queue, query("sw1")).await;
    signal(&mut first_signals, |s| *s == Signal::Device(device("sw1"))).await;

    // n1 falls silent; n2 waits the lease out and is told.
    lease_passes(&factory, &*queue, &["n2"]).await;
    signal(&mut second_signals, |s| *s == Signal::Device(device("sw1"))).await;
    assert_eq!(
        signal(&mut first_signals, |s| matches!(s, Signal::LeaseLost(_))).await,
        Signal::LeaseLost(first.clone())
    );
    assert!(queue.claim(&first).await.unwrap().is_none(), "a lost lease claims nothing");
    assert_eq!(queue.acquire("n1", &device("sw1")).await.unwrap(), None, "a silent node takes nothing");
    let second = acquire(&*queue, "n2", "sw1").await;
    assert!(second.epoch > first.epoch);
    assert_eq!(queue.renew("n1").await.unwrap(), std::slice::from_ref(&first), "n1 learns what it lost");
    assert_eq!(queue.renew("n1").await.unwrap(), [], "once");
    queue.release(&first).await.unwrap();
    assert_eq!(claim(&*queue, &second).await.job.id, waits.id, "an old lease releases nothing");

    // Given back, it is free at once.
    queue.release(&second).await.unwrap();
    let third = acquire(&*queue, "n1", "sw1").await;
    assert!(third.epoch > second.epoch);
    queue.leave("n1").await.unwrap();
    assert!(acquire(&*queue, "n2", "sw1").await.epoch > third.epoch, "leaving ends leases at once");
}

pub async fn promise_2_epochs_never_repeat<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let mut last = 0;
    for _ in 0..3 {
        let queue = factory.open().await;
        let _signals = queue.join("n1", 10.into()).await.unwrap();
        for name in ["sw1", "sw2"] {
            accept(&*queue, query(name)).await;
            let lease = acquire(&*queue, "n1", name).await;
            assert!(lease.epoch > last, "{} after {last}", lease.epoch);
            last = lease.epoch;
            let claim = claim(&*queue, &lease).await;
            assert!(claim.token.epoch > last);
            last = claim.token.epoch;
            assert_eq!(queue.complete(&claim.token, finished()).await.unwrap(), Verdict::Taken);
        }
        factory.crash(queue).await;
    }
}

pub async fn promise_2_a_fifo_modification_is_the_one_writer<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let mut signals = queue.join("n1", 10.into()).await.unwrap();
    let _others = queue.join("n2", 10.into()).await.unwrap();
    accept(&*queue, fifo_change("sw1")).await;
    accept(&*queue, fifo_change("sw1")).await;
    let writer = queue.claim_fifo("n2", 8).await.unwrap().expect("nobody holds sw1");
    assert!(queue.claim_fifo("n2", 8).await.unwrap().is_none(), "the second waits for the first");
    assert_eq!(queue.acquire("n1", &device("sw1")).await.unwrap(), None, "its claim holds the lease");
    let pinned = accept(&*queue, query("sw1")).await;
    queue.complete(&writer.token, applied()).await.unwrap();
    let second = queue.claim_fifo("n2", 8).await.unwrap().expect("the second's turn");
    queue.complete(&second.token, applied()).await.unwrap();
    signal(&mut signals, |s| *s == Signal::Device(device("sw1"))).await;
    let lease = acquire(&*queue, "n1", "sw1").await;
    let owned = claim(&*queue, &lease).await;
    assert_eq!(owned.job.id, pinned.id);

    // While the owner's job runs no modification of FifoQ starts; when it is idle one does, and
    // the owner's next job waits for it.
    accept(&*queue, fifo_change("sw1")).await;
    accept(&*queue, query("sw1")).await;
    assert!(queue.claim_fifo("n1", 8).await.unwrap().is_none());
    queue.complete(&owned.token, finished()).await.unwrap();
    assert!(queue.claim(&lease).await.unwrap().is_none(), "the modification was accepted before it");
    let writer = queue.claim_fifo("n1", 8).await.unwrap().expect("the owner is idle");
    assert!(queue.claim(&lease).await.unwrap().is_none());
    queue.complete(&writer.token, applied()).await.unwrap();
    claim(&*queue, &lease).await;
}

pub async fn promise_3_priority_then_acceptance<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    for fifo in [false, true] {
        let make = |priority| {
            let make = if fifo { fifo_query } else { query };
            NewJob { priority, ..make("sw1") }
        };
        let mut expected: Vec<(Priority, usize, JobId)> = Vec::new();
        for (n, priority) in
            [Priority::Low, Priority::Normal, Priority::High, Priority::Normal, Priority::High, Priority::Low]
                .into_iter()
                .enumerate()
        {
            expected.push((priority, n, accept(&*queue, make(priority)).await.id));
        }
        expected.sort();
        let lease = acquire(&*queue, "n1", "sw1").await;
        for (_, _, id) in expected {
            let claim = if fifo {
                queue.claim_fifo("n1", 1).await.unwrap()
            } else {
                queue.claim(&lease).await.unwrap()
            };
            let claim = claim.expect("a job waits");
            assert_eq!(claim.job.id, id);
            assert_eq!(claim.payload, format!("payload of {id}").into_bytes());
            assert_eq!(claim.job.attempt, 1);
            queue.complete(&claim.token, finished()).await.unwrap();
        }
    }
}

pub async fn promise_3_a_device_runs_one_job_of_its_queue<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let first = accept(&*queue, query("sw1")).await;
    let second = accept(&*queue, query("sw1")).await;
    accept(&*queue, query("sw2")).await;
    let lease = acquire(&*queue, "n1", "sw1").await;
    let running = claim(&*queue, &lease).await;
    assert_eq!(running.job.id, first.id);
    assert!(queue.claim(&lease).await.unwrap().is_none(), "one at a time");
    let other = acquire(&*queue, "n1", "sw2").await;
    claim(&*queue, &other).await;
    queue.complete(&running.token, finished()).await.unwrap();
    assert_eq!(claim(&*queue, &lease).await.job.id, second.id);
}

pub async fn promise_3_a_modification_overlaps_with_nothing<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let lease = acquire(&*queue, "n1", "sw1").await;
    let pinned = accept(&*queue, query("sw1")).await;
    let beside = accept(&*queue, fifo_query("sw1")).await;
    let changed = accept(&*queue, change("sw1")).await;
    let after = accept(&*queue, fifo_query("sw1")).await;
    let elsewhere = accept(&*queue, fifo_query("sw2")).await;

    let pinned_claim = claim(&*queue, &lease).await;
    assert_eq!(pinned_claim.job.id, pinned.id);
    let beside_claim = queue.claim_fifo("n1", 8).await.unwrap().expect("queries of the two ways overlap");
    assert_eq!(beside_claim.job.id, beside.id);
    let elsewhere_claim = queue.claim_fifo("n1", 8).await.unwrap().expect("another device");
    assert_eq!(elsewhere_claim.job.id, elsewhere.id, "a query does not overtake an earlier modification");

    queue.complete(&pinned_claim.token, finished()).await.unwrap();
    assert!(queue.claim(&lease).await.unwrap().is_none(), "the query of FifoQ still runs");
    queue.complete(&beside_claim.token, finished()).await.unwrap();
    let change_claim = claim(&*queue, &lease).await;
    assert_eq!(change_claim.job.id, changed.id);
    assert!(queue.claim_fifo("n1", 8).await.unwrap().is_none(), "nothing beside a modification");
    queue.complete(&change_claim.token, applied()).await.unwrap();
    assert_eq!(queue.claim_fifo("n1", 8).await.unwrap().expect("its turn").job.id, after.id);
}

pub async fn promise_3_fifo_keeps_to_sessions_per_device<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    for _ in 0..3 {
        accept(&*queue, fifo_query("sw1")).await;
    }
    let free =
        accept(&*queue, NewJob { device: None, ..new_job(QueueName::Fifo, device("x"), JobKind::Query) })
            .await;
    let one = queue.claim_fifo("n1", 2).await.unwrap().unwrap();
    let two = queue.claim_fifo("n1", 2).await.unwrap().unwrap();
    assert_eq!([&one.job.device, &two.job.device], [&Some(device("sw1")), &Some(device("sw1"))]);
    assert_eq!(queue.claim_fifo("n1", 2).await.unwrap().expect("one without a device").job.id, free.id);
    assert!(queue.claim_fifo("n1", 2).await.unwrap().is_none());
    queue.complete(&one.token, finished()).await.unwrap();
    assert!(queue.claim_fifo("n1", 2).await.unwrap().is_some());
}

pub async fn nodes_are_signalled_when_jobs_may_start<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    accept(&*queue, query("sw0")).await;
    let mut one = queue.join("n1", 10.into()).await.unwrap();
    signal(&mut one, |s| *s == Signal::Device(device("sw0"))).await;
    let mut two = queue.join("n2", 10.into()).await.unwrap();
    signal(&mut two, |s| *s == Signal::Device(device("sw0"))).await;

    accept(&*queue, fifo_query("sw1")).await;
    signal(&mut one, |s| *s == Signal::Fifo).await;
    signal(&mut two, |s| *s == Signal::Fifo).await;
    let fifo = queue.claim_fifo("n1", 1).await.unwrap().unwrap();
    accept(&*queue, fifo_query("sw1")).await;
    assert!(queue.claim_fifo("n1", 1).await.unwrap().is_none());
    assert!(queue.claim_fifo("n2", 1).await.unwrap().is_none());
    queue.complete(&fifo.token, finished()).await.unwrap();
    signal(&mut two, |s| *s == Signal::Fifo).await;

    // A busy device's next job is told of when the first one ends.
    let lease = acquire(&*queue, "n1", "sw0").await;
    let running = claim(&*queue, &lease).await;
    accept(&*queue, change("sw0")).await;
    queue.complete(&running.token, finished()).await.unwrap();
    signal(&mut one, |s| *s == Signal::Device(device("sw0"))).await;
    // Given back unasked, it is offered to everybody.
    queue.release(&lease).await.unwrap();
    signal(&mut two, |s| *s == Signal::Device(device("sw0"))).await;
}

/// A node that drains: others take what it had, as it gives it back.
pub async fn a_suspended_node_is_offered_nothing_new<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let mut one = queue.join("n1", 10.into()).await.unwrap();
    let lease = acquire(&*queue, "n1", "sw0").await;
    let running = claim_new(&*queue, &lease).await;
    // Offered to it alone, and not taken yet.
    accept(&*queue, query("sw1")).await;
    signal(&mut one, |s| *s == Signal::Device(device("sw1"))).await;
    let mut two = queue.join("n2", 10.into()).await.unwrap();
    queue.suspend("n1").await.unwrap();
    while one.try_recv().is_ok() {}
    signal(&mut two, |s| *s == Signal::Device(device("sw1"))).await;
    accept(&*queue, query("sw2")).await;
    signal(&mut two, |s| *s == Signal::Device(device("sw2"))).await;
    accept(&*queue, fifo_query("sw3")).await;
    signal(&mut two, |s| *s == Signal::Fifo).await;
    let offered = |s: &Signal| matches!(s, Signal::Fifo) || *s == Signal::Device(device("sw2"));
    while let Ok(told) = one.try_recv() {
        assert!(!offered(&told), "offered to a node that drains: {told:?}");
    }
    assert_eq!(queue.acquire("n1", &device("sw1")).await.unwrap(), None, "it takes none by itself either");
    assert!(queue.claim_fifo("n1", 1).await.unwrap().is_none());
    // What it holds stays its own until it gives it back.
    assert_eq!(queue.renew("n1").await.unwrap(), []);
    assert_eq!(queue.acquire("n2", &device("sw0")).await.unwrap(), None);
    assert_eq!(queue.complete(&running.token, finished()).await.unwrap(), Verdict::Taken);
    accept(&*queue, query("sw0")).await;
    queue.release(&lease).await.unwrap();
    signal(&mut two, |s| *s == Signal::Device(device("sw0"))).await;
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.queued, counts.oldest.is_some()), (4, true));
}

async fn claim_new<Q: Queue>(queue: &Q, lease: &crate::api::Lease) -> crate::api::Claim {
    accept(queue, query(lease.device.host())).await;
    claim(queue, lease).await
}

pub async fn a_waiting_job_says_why<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let first = accept(&*queue, query("sw1")).await;
    accept(&*queue, query("sw1")).await;
    let third = accept(&*queue, query("sw1")).await;
    let why = queue.waiting(third.id).await.unwrap().unwrap();
    assert_eq!((why.ahead, why.behind), (2, None));
    let lease = acquire(&*queue, "n1", "sw1").await;
    let running = claim(&*queue, &lease).await;
    let why = queue.waiting(third.id).await.unwrap().unwrap();
    assert_eq!((why.ahead, why.behind), (1, Some(first.id)));
    assert_eq!(queue.waiting(first.id).await.unwrap(), None, "it runs");
    queue.retry(&running.token, Duration::from_secs(60), &no_connection("no answer")).await.unwrap();
    let why = queue.waiting(first.id).await.unwrap().unwrap();
    assert!(why.not_before.is_some());
    assert_eq!(why.held_for, Some(no_connection("no answer")));
    factory.advance(Duration::from_secs(61)).await;
    let why = queue.waiting(first.id).await.unwrap().unwrap();
    assert_eq!((why.not_before, why.held_for), (None, None), "its time has come");
    assert_eq!(queue.waiting(JobId::random()).await.unwrap(), None);
}

/// A claim or submit whose caller goes away must not hold a job for ever.
pub async fn a_call_dropped_half_way_leaves_no_job_behind<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let lease = acquire(&*queue, "n1", "sw1").await;
    let changed = accept(&*queue, change("sw1")).await;
    for _ in 0..5 {
        // Polled once: the start is being written when the caller goes.
        let dropped = futures_util::future::poll_immediate(queue.claim(&lease)).await;
        assert!(dropped.is_none(), "an engine that starts modifications without waiting is not durable");
    }
    let claimed = tokio::time::timeout(SOON, async {
        loop {
            if let Some(claim) = queue.claim(&lease).await.unwrap() {
                return claim;
            }
            tokio::task::yield_now().await;
        }
    });
    let claimed = claimed.await.expect("it can be claimed again");
    assert_eq!(claimed.job.id, changed.id);
    assert_eq!(claimed.job.attempt, 1, "nobody had it before");
    queue.complete(&claimed.token, applied()).await.unwrap();
    assert_eq!(job(&*queue, changed.id).await.status, JobStatus::Finished);
}

/// What an end brought, when the end counted.
async fn end_and_next<Q: Queue>(queue: &Q, claim: &crate::api::Claim, lease: &Lease) -> Next {
    let end = if claim.job.kind == JobKind::Modification { applied() } else { finished() };
    let (verdict, next) = queue.complete_and_claim(&claim.token, end, lease).await.unwrap();
    assert_eq!(verdict, Verdict::Taken);
    next
}

fn brought(next: Next) -> crate::api::Claim {
    match next {
        Next::Job(claim) => *claim,
        Next::Nothing => panic!("it says that nothing waits"),
        Next::Unknown => panic!("nothing failed"),
    }
}

pub async fn promise_3_an_end_brings_the_next_job_in_order<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let mut signals = queue.join("n1", 10.into()).await.unwrap();
    let mut jobs = vec![accept(&*queue, query("sw1")).await];
    jobs.push(accept(&*queue, change("sw1")).await);
    let between = accept(&*queue, fifo_change("sw1")).await;
    jobs.push(accept(&*queue, query("sw1")).await);
    let lease = acquire(&*queue, "n1", "sw1").await;
    let first = claim(&*queue, &lease).await;
    assert_eq!(first.job.id, jobs[0].id);
    let second = brought(end_and_next(&*queue, &first, &lease).await);
    assert_eq!((second.job.id, second.job.attempt), (jobs[1].id, 1));
    assert_eq!(second.job.status, JobStatus::Started);
    assert_eq!(second.payload, format!("payload of {}", jobs[1].id).into_bytes(), "opened");
    assert!(second.token.epoch > first.token.epoch);
    assert_eq!(job(&*queue, jobs[0].id).await.status, JobStatus::Finished);
    assert_eq!(queue.progress(&second.token, sending(0, "vlan 10")), Verdict::Taken);
    // A modification of FifoQ comes first: the query behind it waits.
    assert!(matches!(end_and_next(&*queue, &second, &lease).await, Next::Nothing));
    let beside = queue.claim_fifo("n1", 1).await.unwrap().expect("its turn");
    assert_eq!(beside.job.id, between.id);
    queue.complete(&beside.token, applied()).await.unwrap();
    signal(&mut signals, |s| *s == Signal::Device(device("sw1"))).await;
    let third = claim(&*queue, &lease).await;
    assert_eq!(third.job.id, jobs[2].id);
    assert!(matches!(end_and_next(&*queue, &third, &lease).await, Next::Nothing));
    // Nothing waited; what comes now is told.
    let last = accept(&*queue, query("sw1")).await;
    signal(&mut signals, |s| *s == Signal::Device(device("sw1"))).await;
    assert_eq!(claim(&*queue, &lease).await.job.id, last.id);
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.queued, counts.started, counts.finished), (0, 1, 4));
}

pub async fn promise_7_an_end_that_does_not_count_brings_nothing<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let lease = acquire(&*queue, "n1", "sw1").await;
    let old = claim_new(&*queue, &lease).await;
    queue.release(&lease).await.unwrap();
    let waits = accept(&*queue, query("sw1")).await;
    let (verdict, next) = queue.complete_and_claim(&old.token, finished(), &lease).await.unwrap();
    assert_eq!(verdict, Verdict::Stale);
    assert!(!matches!(next, Next::Job(_)), "the lease was given back");
    assert_eq!(job(&*queue, waits.id).await.status, JobStatus::Queued);
    // A claim that counts under a lease that is no longer this one's: the end alone.
    let lease = acquire(&*queue, "n1", "sw1").await;
    let held = claim(&*queue, &lease).await;
    let other = Lease { epoch: lease.epoch - 1, ..lease.clone() };
    let (verdict, next) = queue.complete_and_claim(&held.token, finished(), &other).await.unwrap();
    assert_eq!(verdict, Verdict::Taken);
    assert!(!matches!(next, Next::Job(_)));
    assert_eq!(claim(&*queue, &lease).await.job.id, waits.id);
}

/// Whoever ends a job and goes before the answer leaves the next one to others.
pub async fn an_end_dropped_half_way_leaves_the_next_job_behind<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let lease = acquire(&*queue, "n1", "sw1").await;
    let held = claim_new(&*queue, &lease).await;
    let waits = accept(&*queue, change("sw1")).await;
    let dropped =
        futures_util::future::poll_immediate(queue.complete_and_claim(&held.token, finished(), &lease)).await;
    // A store that is quicker than this has handed it over.
    if let Some(answered) = dropped {
        queue.put_back(&brought(answered.unwrap().1).token).await;
    }
    assert!(queue.ended(held.job.id, SOON).await.unwrap().unwrap().status.is_final(), "the end counts");
    let claimed = tokio::time::timeout(SOON, async {
        loop {
            if let Some(claim) = queue.claim(&lease).await.unwrap() {
                return claim;
            }
            tokio::task::yield_now().await;
        }
    });
    let claimed = claimed.await.expect("it can be claimed");
    assert_eq!((claimed.job.id, claimed.job.attempt), (waits.id, 1), "nobody had it before");
}

pub async fn promise_3_a_claim_put_back_keeps_its_place<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let mut signals = queue.join("n1", 10.into()).await.unwrap();
    let lease = acquire(&*queue, "n1", "sw1").await;
    let running = claim_new(&*queue, &lease).await;
    let first = accept(&*queue, change("sw1")).await;
    accept(&*queue, query("sw1")).await;
    let taken = brought(end_and_next(&*queue, &running, &lease).await);
    assert_eq!(taken.job.id, first.id);
    queue.put_back(&taken.token).await;
    assert_eq!(job(&*queue, first.id).await.status, JobStatus::Queued);
    signal(&mut signals, |s| *s == Signal::Device(device("sw1"))).await;
    assert_eq!(queue.complete(&taken.token, applied()).await.unwrap(), Verdict::Stale);
    queue.put_back(&taken.token).await;
    let again = claim(&*queue, &lease).await;
    assert_eq!(again.job.id, first.id, "at its old place");
    queue.put_back(&taken.token).await;
    assert_eq!(job(&*queue, first.id).await.status, JobStatus::Started, "an old claim puts nothing back");
    assert_eq!(queue.complete(&again.token, applied()).await.unwrap(), Verdict::Taken);
}
