//! What becomes of jobs whose worker is lost, stale or gives up.

use std::time::Duration;

use super::*;
use crate::api::Verdict;

pub async fn promise_6_a_query_is_tried_again_after_its_worker<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _one = queue.join("n1", 10.into()).await.unwrap();
    let _two = queue.join("n2", 10.into()).await.unwrap();
    let first = accept(&*queue, query("sw1")).await;
    accept(&*queue, query("sw1")).await;
    let fifo = accept(&*queue, fifo_query("sw2")).await;
    let lease = acquire(&*queue, "n1", "sw1").await;
    claim(&*queue, &lease).await;
    queue.claim_fifo("n1", 1).await.unwrap().expect("a job waits");
    assert_eq!(job(&*queue, first.id).await.status, JobStatus::Started);

    lease_passes(&factory, &*queue, &["n2"]).await;
    assert_eq!(job(&*queue, first.id).await.status, JobStatus::Queued);
    let lease = acquire(&*queue, "n2", "sw1").await;
    let again = claim(&*queue, &lease).await;
    assert_eq!((again.job.id, again.job.attempt), (first.id, 2), "at the front");
    assert_eq!(again.payload, format!("payload of {}", first.id).into_bytes());
    assert_eq!(queue.claim_fifo("n2", 1).await.unwrap().expect("back too").job.id, fifo.id);

    // The same over a crash of everything: a node of the same name starts anew.
    factory.crash(queue).await;
    let queue = factory.open().await;
    let _two = queue.join("n2", 10.into()).await.unwrap();
    let lease = acquire(&*queue, "n2", "sw1").await;
    let again = claim(&*queue, &lease).await;
    assert_eq!(again.job.id, first.id);
    assert_eq!(again.payload, format!("payload of {}", first.id).into_bytes());
    queue.complete(&again.token, finished()).await.unwrap();
    assert_eq!(job(&*queue, first.id).await.status, JobStatus::Finished);
}

pub async fn promise_6_a_query_that_ends_its_workers_is_given_up<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let poison = accept(&*queue, fifo_query("sw1")).await;
    for attempt in 1..=3 {
        let _signals = queue.join("n1", 10.into()).await.unwrap();
        let claim = queue.claim_fifo("n1", 1).await.unwrap().expect("tried again");
        assert_eq!(claim.job.attempt, attempt);
        queue.leave("n1").await.unwrap();
    }
    let ended = job(&*queue, poison.id).await;
    assert_eq!(ended.status, JobStatus::Failed);
    assert_eq!(error_of(&ended).code, ErrorCode::WorkerLost);
}

pub async fn promise_6_a_modification_is_never_pushed_twice<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _one = queue.join("n1", 10.into()).await.unwrap();
    let _two = queue.join("n2", 10.into()).await.unwrap();
    let untouched = accept(&*queue, change("sw1")).await;
    let halfway = accept(&*queue, change("sw2")).await;
    let fifo = accept(&*queue, fifo_change("sw3")).await;
    let lease = acquire(&*queue, "n1", "sw1").await;
    claim(&*queue, &lease).await;
    let lease = acquire(&*queue, "n1", "sw2").await;
    let second = claim(&*queue, &lease).await;
    for note in [sending(0, "vlan 10"), line(0, "vlan 10"), sending(1, "name users")] {
        assert_eq!(queue.progress(&second.token, note), Verdict::Taken);
    }
    let third = queue.claim_fifo("n1", 1).await.unwrap().expect("a job waits");
    for note in [sending(0, "vlan 20"), line(0, "vlan 20")] {
        assert_eq!(queue.progress(&third.token, note), Verdict::Taken);
    }

    lease_passes(&factory, &*queue, &["n2"]).await;
    let ended = job(&*queue, untouched.id).await;
    assert_eq!((ended.status, outcome_of(&ended)), (JobStatus::Failed, Some(Outcome::NotApplied)));
    let ended = job(&*queue, halfway.id).await;
    assert_eq!((ended.status, outcome_of(&ended)), (JobStatus::Failed, Some(Outcome::Unknown)));
    assert_eq!(error_of(&ended).code, ErrorCode::WorkerLost);
    assert!(error_of(&ended).message.contains("name users"), "{}", error_of(&ended));
    let lines = ended.result.as_ref().unwrap().retval.clone().unwrap();
    assert_eq!(lines.iter().map(|line| line.command.as_str()).collect::<Vec<_>>(), ["vlan 10"]);
    let ended = job(&*queue, fifo.id).await;
    assert_eq!((ended.status, outcome_of(&ended)), (JobStatus::Failed, Some(Outcome::Unknown)));
    assert!(error_of(&ended).message.contains("vlan 20"), "{}", error_of(&ended));

    for name in ["sw1", "sw2", "sw3"] {
        let lease = acquire(&*queue, "n2", name).await;
        assert!(queue.claim(&lease).await.unwrap().is_none(), "nothing is pushed again");
    }
    assert!(queue.claim_fifo("n2", 1).await.unwrap().is_none());
}

pub async fn promise_6_a_crash_leaves_the_last_line_known<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let silent = accept(&*queue, change("sw1")).await;
    let noted = accept(&*queue, change("sw2")).await;
    let done = accept(&*queue, change("sw3")).await;
    let lease = acquire(&*queue, "n1", "sw1").await;
    claim(&*queue, &lease).await;
    let lease = acquire(&*queue, "n1", "sw2").await;
    let second = claim(&*queue, &lease).await;
    for note in [sending(0, "vlan 10"), line(0, "vlan 10"), sending(1, "name users")] {
        assert_eq!(queue.progress(&second.token, note), Verdict::Taken);
    }
    // Its end is waited for, and what was noted before it is on disk with it.
    let lease = acquire(&*queue, "n1", "sw3").await;
    let third = claim(&*queue, &lease).await;
    assert_eq!(queue.complete(&third.token, applied()).await.unwrap(), Verdict::Taken);

    factory.crash(queue).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let ended = job(&*queue, silent.id).await;
    assert_eq!(ended.status, JobStatus::Failed);
    assert!(
        matches!(outcome_of(&ended), Some(Outcome::Unknown | Outcome::NotApplied)),
        "after a crash an engine says not_applied only when it can know: {ended:?}"
    );
    let ended = job(&*queue, noted.id).await;
    assert_eq!((ended.status, outcome_of(&ended)), (JobStatus::Failed, Some(Outcome::Unknown)));
    assert!(error_of(&ended).message.contains("name users"), "{}", error_of(&ended));
    assert_eq!(ended.result.as_ref().unwrap().retval.as_ref().unwrap().len(), 1);
    let ended = job(&*queue, done.id).await;
    assert_eq!((ended.status, outcome_of(&ended)), (JobStatus::Finished, Some(Outcome::Applied)));
    for name in ["sw1", "sw2", "sw3"] {
        let lease = acquire(&*queue, "n1", name).await;
        assert!(queue.claim(&lease).await.unwrap().is_none());
    }
}

pub async fn promise_6_a_started_modification_is_not_taken_back<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let changed = accept(&*queue, change("sw1")).await;
    let lease = acquire(&*queue, "n1", "sw1").await;
    let first = claim(&*queue, &lease).await;
    let verdict =
        queue.retry(&first.token, Duration::ZERO, &no_connection("connection refused")).await.unwrap();
    assert_eq!(verdict, Verdict::Taken, "nothing was sent");
    let second = claim(&*queue, &lease).await;
    assert_eq!((second.job.id, second.job.attempt), (changed.id, 2));
    queue.progress(&second.token, sending(0, "vlan 10"));
    let verdict =
        queue.retry(&second.token, Duration::ZERO, &no_connection("connection lost")).await.unwrap();
    assert_eq!(verdict, Verdict::Stale);
    assert_eq!(job(&*queue, changed.id).await.status, JobStatus::Started, "it has to be completed");
    assert_eq!(queue.complete(&second.token, failed()).await.unwrap(), Verdict::Taken);
}

pub async fn promise_7_stale_owners_are_refused<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _one = queue.join("n1", 10.into()).await.unwrap();
    let _two = queue.join("n2", 10.into()).await.unwrap();
    let asked = accept(&*queue, query("sw1")).await;
    let lease = acquire(&*queue, "n1", "sw1").await;
    let old = claim(&*queue, &lease).await;
    lease_passes(&factory, &*queue, &["n2"]).await;

    // Lost but not yet taken by another, taken by another, and ended by another.
    let refused = async || {
        assert_eq!(queue.complete(&old.token, failed()).await.unwrap(), Verdict::Stale);
        assert_eq!(queue.progress(&old.token, line(0, "late")), Verdict::Stale);
        assert_eq!(
            queue.retry(&old.token, Duration::ZERO, &no_connection("late")).await.unwrap(),
            Verdict::Stale
        );
    };
    refused().await;
    let lease = acquire(&*queue, "n2", "sw1").await;
    let new = claim(&*queue, &lease).await;
    assert!(new.token.epoch > old.token.epoch);
    refused().await;
    assert_eq!(job(&*queue, asked.id).await.status, JobStatus::Started);
    assert_eq!(queue.complete(&new.token, finished()).await.unwrap(), Verdict::Taken);
    refused().await;
    assert_eq!(queue.complete(&new.token, failed()).await.unwrap(), Verdict::Stale, "stored once");
    assert_eq!(job(&*queue, asked.id).await.status, JobStatus::Finished);

    // The right epoch in the wrong hands.
    accept(&*queue, query("sw1")).await;
    let mine = claim(&*queue, &lease).await;
    let mut theirs = mine.token.clone();
    theirs.node = "n1".into();
    assert_eq!(queue.complete(&theirs, finished()).await.unwrap(), Verdict::Stale);

    // A node that joins again under the same name is another life.
    let _two = queue.join("n2", 10.into()).await.unwrap();
    assert_eq!(queue.complete(&mine.token, finished()).await.unwrap(), Verdict::Stale);
}

pub async fn retries_wait_their_time<F: Factory>() {
    let factory = F::empty(Bounds::default()).await;
    let queue = factory.open().await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let first = accept(&*queue, query("sw1")).await;
    let second = accept(&*queue, query("sw1")).await;
    let lease = acquire(&*queue, "n1", "sw1").await;
    let tried = claim(&*queue, &lease).await;
    let delay = Duration::from_secs(5);
    assert_eq!(queue.retry(&tried.token, delay, &no_connection("no answer")).await.unwrap(), Verdict::Taken);
    assert_eq!(queue.complete(&tried.token, finished()).await.unwrap(), Verdict::Stale);
    assert_eq!(job(&*queue, first.id).await.status, JobStatus::Scheduled);
    let other = claim(&*queue, &lease).await;
    assert_eq!(other.job.id, second.id, "others go on meanwhile");
    queue.complete(&other.token, finished()).await.unwrap();
    assert!(queue.claim(&lease).await.unwrap().is_none(), "not yet");

    // It waits on over a crash, too.
    queue.list(&crate::api::JobQuery::default()).await.unwrap();
    factory.crash(queue).await;
    let queue = factory.open().await;
    let mut signals = queue.join("n1", 10.into()).await.unwrap();
    let lease = acquire(&*queue, "n1", "sw1").await;
    assert_eq!(job(&*queue, first.id).await.status, JobStatus::Scheduled);
    assert!(queue.claim(&lease).await.unwrap().is_none());
    factory.advance(delay).await;
    signal(&mut signals, |s| *s == Signal::Device(device("sw1"))).await;
    let again = claim(&*queue, &lease).await;
    assert_eq!((again.job.id, again.job.attempt), (first.id, 2));
}
