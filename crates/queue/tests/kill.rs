//! A real process, really killed: what it had been told was accepted is there afterwards.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use netpulse_model::{JobId, JobKind, JobStatus, Outcome};
use netpulse_queue::{Embedded, JobQuery, OpenError, Options, Queue};

/// Cargo builds examples beside the tests: `target/<profile>/examples`.
fn submitter() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    profile.join("examples/queue_submitter")
}

/// Runs the submitter, kills it after `lines` lines, returns what it said.
fn run_and_kill(folder: &Path, lines: usize) -> Vec<(String, JobId)> {
    let mut child = Command::new(submitter())
        .arg(folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("cargo has built the example queue_submitter");
    let mut said = Vec::new();
    let mut reader = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in reader.by_ref() {
        said.push(line.unwrap());
        if said.len() == lines {
            child.kill().unwrap();
            break;
        }
    }
    // What it said before it died is still in the pipe; a half line counts for nothing.
    said.extend(reader.map_while(Result::ok));
    let status = child.wait().unwrap();
    assert!(!status.success(), "it ends by being killed");
    said.iter()
        .filter_map(|line| {
            let (word, id) = line.split_once(' ')?;
            Some((word.to_owned(), id.parse().ok()?))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_1_5_6_kill_minus_nine_loses_nothing_accepted_and_repeats_no_modification() {
    let folder = tempfile::tempdir().unwrap();
    let mut accepted = HashSet::new();
    let mut applied = HashSet::new();
    let mut started = HashSet::new();
    let mut lines = 20;
    for round in 0..8 {
        lines = (lines * 7 + round * 131) % 700 + 3;
        for (word, id) in run_and_kill(folder.path(), lines) {
            match word.as_str() {
                "accepted" => assert!(accepted.insert(id)),
                "applied" => assert!(applied.insert(id)),
                "started" => assert!(started.insert(id), "a modification was pushed twice: {id}"),
                other => panic!("{other}"),
            }
        }
        let queue = Embedded::open(folder.path(), Options::default()).unwrap();
        for id in &accepted {
            let job =
                queue.job(*id).await.unwrap().unwrap_or_else(|| panic!("{id} was accepted and is lost"));
            assert_eq!(job.status.is_final(), job.result.is_some());
            assert_ne!(job.status, JobStatus::Started, "settled on opening");
            let outcome = job.result.as_ref().and_then(|result| result.outcome);
            if applied.contains(id) {
                assert_eq!((job.status, outcome), (JobStatus::Finished, Some(Outcome::Applied)));
            } else if started.contains(id) {
                assert_eq!(job.kind, JobKind::Modification);
                assert!(
                    matches!(outcome, Some(Outcome::Unknown | Outcome::Applied)),
                    "something may have been sent: {job:?}"
                );
            }
        }
        // Order of acceptance is kept: the oldest first.
        let page = queue.list(&JobQuery::default()).await.unwrap();
        assert!(page.jobs.len() >= accepted.len());
        assert!(page.jobs.windows(2).all(|pair| pair[0].created_at >= pair[1].created_at));
        queue.close().await;
    }
    assert!(accepted.len() > 100 && !applied.is_empty(), "{} {}", accepted.len(), applied.len());
}

#[tokio::test]
async fn a_second_process_on_the_same_store_is_refused_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Embedded::open(folder.path(), Options::default()).unwrap();
    let Err(error) = Embedded::open(folder.path(), Options::default()) else {
        panic!("one store, one server")
    };
    assert!(matches!(error, OpenError::InUse { .. }));
    let text = error.to_string();
    assert!(text.contains(&folder.path().display().to_string()), "{text}");
    assert!(text.contains(&std::process::id().to_string()), "{text}");
    let other = Command::new(submitter()).arg(folder.path()).env("RUST_BACKTRACE", "0").output().unwrap();
    assert!(!other.status.success());
    assert!(String::from_utf8_lossy(&other.stderr).contains("InUse"), "{other:?}");
    queue.close().await;
    Embedded::open(folder.path(), Options::default()).unwrap().close().await;
}

#[tokio::test]
async fn the_folder_and_its_files_are_the_owners_only() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("deep/store");
    let queue = Embedded::open(&folder, Options::default()).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&folder.join("seal.key")), 0o600);
    queue.close().await;
    std::fs::write(folder.join("seal.key"), "short").unwrap();
    let Err(error) = Embedded::open(&folder, Options::default()) else { panic!("a key of another size") };
    assert!(error.to_string().contains("32 bytes"), "{error}");
}

#[tokio::test]
async fn a_long_wait_for_the_disk_is_an_answer_too() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { deadline: Duration::from_millis(100), ..Options::default() };
    let queue = Embedded::open(folder.path(), options.clone()).unwrap();
    options.faults.slow_commits(Duration::from_millis(400));
    let error = queue.health().await.unwrap_err();
    assert!(error.to_string().contains("did not confirm"), "{error}");
    options.faults.slow_commits(Duration::ZERO);
}
