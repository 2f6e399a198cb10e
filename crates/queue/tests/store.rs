//! What lies on disk: sealed requests, results, and what happens when they cannot be read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use netpulse_model::{ErrorCode, JobKind, JobStatus, Outcome, QueueName};
use netpulse_queue::conformance::{
    accept, acquire, applied, change, claim, error_of, fifo_query, finished, job, line, new_job, outcome_of,
    query,
};
use netpulse_queue::{Embedded, JobQuery, NewJob, Options, Queue, Submitted, Verdict};

const SECRET: &str = "hunter2-never-on-disk";

fn secret(job: NewJob) -> NewJob {
    NewJob { payload: format!("{{\"password\":\"{SECRET}\"}}").into_bytes(), ..job }
}

fn open(folder: &Path, options: Options) -> Arc<Embedded> {
    Embedded::open(folder, options).unwrap()
}

/// Whether any file of the folder holds `text`.
fn on_disk(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

fn payloads(folder: &Path) -> i64 {
    let db = rusqlite::Connection::open(folder.join("queue.sqlite")).unwrap();
    db.query_row("SELECT count(*) FROM payloads", [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn promise_12_requests_are_sealed_at_rest_and_removed_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(folder.path(), Options::default());
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    accept(&*queue, secret(query("sw1"))).await;
    accept(&*queue, secret(change("sw1"))).await;
    let canceled = accept(&*queue, secret(query("sw1"))).await;
    queue.list(&JobQuery::default()).await.unwrap();
    assert_eq!(payloads(folder.path()), 3);
    assert!(!on_disk(folder.path(), SECRET), "neither in the file nor in its log");
    assert!(on_disk(folder.path(), "show version"), "this looks where it should");
    let lease = acquire(&*queue, "n1", "sw1").await;
    for completion in [finished(), applied()] {
        let claim = claim(&*queue, &lease).await;
        assert!(String::from_utf8_lossy(&claim.payload).contains(SECRET));
        assert_eq!(queue.complete(&claim.token, completion).await.unwrap(), Verdict::Taken);
    }
    queue.cancel(canceled.id, "").await.unwrap();
    queue.list(&JobQuery::default()).await.unwrap();
    assert_eq!(payloads(folder.path()), 0, "a job that ended needs its request no more");
    queue.close().await;
    assert!(!on_disk(folder.path(), SECRET));
}

#[tokio::test]
async fn a_request_that_does_not_open_fails_its_job_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(folder.path(), Options::default());
    let broken = accept(&*queue, secret(change("sw1"))).await;
    let gone = accept(&*queue, secret(query("sw1"))).await;
    let whole = accept(&*queue, secret(query("sw1"))).await;
    queue.close().await;
    let db = rusqlite::Connection::open(folder.path().join("queue.sqlite")).unwrap();
    let set = "UPDATE payloads SET sealed = (SELECT sealed FROM payloads WHERE seq = 3) WHERE seq = 1";
    assert_eq!(db.execute(set, []).unwrap(), 1, "another job's request in its place");
    assert_eq!(db.execute("DELETE FROM payloads WHERE seq = 2", []).unwrap(), 1);
    drop(db);

    let queue = open(folder.path(), Options::default());
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let lease = acquire(&*queue, "n1", "sw1").await;
    assert_eq!(claim(&*queue, &lease).await.job.id, whole.id);
    let ended = job(&*queue, broken.id).await;
    assert_eq!((ended.status, outcome_of(&ended)), (JobStatus::Failed, Some(Outcome::NotApplied)));
    assert_eq!(error_of(&ended).code, ErrorCode::Internal);
    assert!(error_of(&ended).message.contains("cannot be opened"), "{}", error_of(&ended));
    assert_eq!(job(&*queue, gone.id).await.status, JobStatus::Failed);
}

/// With no memory to spare everything comes from disk, and comes out the same.
#[tokio::test]
async fn promise_10_memory_for_requests_and_results_may_run_out() {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(folder.path(), Options { payload_memory: 0, result_cache: 0, ..Options::default() });
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let big = vec![b'z'; 3 << 20];
    let asked = accept(&*queue, NewJob { payload: big.clone(), ..query("sw1") }).await;
    let lease = acquire(&*queue, "n1", "sw1").await;
    let taken = claim(&*queue, &lease).await;
    assert!(taken.payload == big);
    queue.complete(&taken.token, finished()).await.unwrap();
    queue.list(&JobQuery::default()).await.unwrap();
    let ended = job(&*queue, asked.id).await;
    assert_eq!((ended.status, ended.result.as_deref()), (JobStatus::Finished, Some(&finished().result)));
    queue.close().await;
}

#[tokio::test]
async fn lines_noted_by_queries_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(folder.path(), Options::default());
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    accept(&*queue, fifo_query("sw1")).await;
    let taken = queue.claim_fifo("n1", 1).await.unwrap().unwrap();
    assert_eq!(queue.progress(&taken.token, line(0, "show version")), Verdict::Taken);
    queue.list(&JobQuery::default()).await.unwrap();
    let db = rusqlite::Connection::open(folder.path().join("queue.sqlite")).unwrap();
    let notes: i64 = db.query_row("SELECT count(*) FROM notes", [], |row| row.get(0)).unwrap();
    assert_eq!(notes, 0);
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), Options::default()).close().await;
    let db = rusqlite::Connection::open(folder.path().join("queue.sqlite")).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let Err(error) = Embedded::open(folder.path(), Options::default()) else { panic!("a newer store") };
    assert!(error.to_string().contains("newer version"), "{error}");
    std::fs::write(folder.path().join("queue.sqlite"), "this is no database, whatever it is called").unwrap();
    let Err(error) = Embedded::open(folder.path(), Options::default()) else { panic!("no database") };
    assert!(error.to_string().contains("queue.sqlite"), "{error}");
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(folder.path(), Options::default());
    queue.close().await;
    let refused = tokio::time::timeout(Duration::from_secs(20), queue.submit(vec![query("sw1")])).await;
    let error = refused.expect("answered at once").unwrap_err();
    assert!(error.to_string().contains("closed"), "{error}");
    assert_eq!(queue.counts().await.unwrap().queued, 0, "and keeps no place for what it refused");
    queue.close().await;
}

/// Every device key survives its way through the columns of the store.
#[tokio::test]
async fn names_with_odd_characters_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(folder.path(), Options::default());
    let mut accepted = Vec::new();
    for host in ["2001:db8::1", "sw\"1\\", "gerät-ß", "a'b; DROP TABLE jobs"] {
        let key = netpulse_model::DeviceKey::new(host, 2222, 22);
        let mut new = new_job(QueueName::Host(key.clone()), key, JobKind::Query);
        new.command = vec!["show \"x\" | i 'y'\n".into()];
        new.ttl = Duration::MAX;
        match queue.submit(vec![new]).await.unwrap().pop() {
            Some(Submitted::Accepted(job)) => accepted.push(job),
            other => panic!("{other:?}"),
        }
    }
    queue.close().await;
    let queue = open(folder.path(), Options::default());
    for before in accepted {
        assert_eq!(job(&*queue, before.id).await, before);
    }
}

#[tokio::test]
async fn promise_12_receivers_are_sealed_at_rest_until_they_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(folder.path(), Options::default());
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let notify = format!("https://hook/{SECRET}").into_bytes();
    for job in [change("sw1"), query("sw1")] {
        accept(&*queue, NewJob { notify: Some(notify.clone()), ..job }).await;
    }
    let lease = acquire(&*queue, "n1", "sw1").await;
    let taken = claim(&*queue, &lease).await;
    queue.complete(&taken.token, applied()).await.unwrap();
    assert!(!on_disk(folder.path(), SECRET), "neither before the end nor in the outbox");
    let due = queue.deliveries(10, Duration::from_secs(10)).await.unwrap();
    assert_eq!(due.deliveries[0].notify, notify);
    let delivery = &due.deliveries[0];
    queue.settle(delivery.id, delivery.epoch, netpulse_queue::Delivered::Done(None)).await.unwrap();
    queue.close().await;
    let db = rusqlite::Connection::open(folder.path().join("queue.sqlite")).unwrap();
    let left: i64 = db.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

/// A store of the version before the outbox opens, keeps its jobs, and has one from then on.
#[tokio::test]
async fn a_store_of_the_first_version_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(folder.path(), Options::default());
    let waiting = accept(&*queue, secret(change("sw1"))).await;
    queue.close().await;
    let db = rusqlite::Connection::open(folder.path().join("queue.sqlite")).unwrap();
    db.execute_batch("DROP TABLE outbox; ALTER TABLE payloads DROP COLUMN notify; PRAGMA user_version = 1")
        .unwrap();
    drop(db);
    let queue = open(folder.path(), Options::default());
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    accept(&*queue, NewJob { notify: Some(b"me".to_vec()), ..change("sw1") }).await;
    let lease = acquire(&*queue, "n1", "sw1").await;
    for expected in [Some(waiting.id), None] {
        let taken = claim(&*queue, &lease).await;
        assert!(expected.is_none_or(|id| id == taken.job.id));
        queue.complete(&taken.token, applied()).await.unwrap();
    }
    let due = queue.deliveries(10, Duration::from_secs(10)).await.unwrap();
    assert_eq!(due.deliveries.len(), 1);
    queue.close().await;
    open(folder.path(), Options::default()).close().await;
}
