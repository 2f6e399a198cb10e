//! Submits jobs until it is killed and prints the id of each one that was accepted; runs some of
//! them meanwhile. The kill test reads what it printed and looks for it in the store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use netpulse_model::event::What;
use netpulse_model::job::RetryPolicy;
use netpulse_model::result::ResultType;
use netpulse_model::{DeviceKey, JobId, JobKind, JobResult, JobStatus, Outcome, Priority, QueueName};
use netpulse_queue::{Completion, Embedded, NewJob, Options, Queue, Submitted, Verdict};

fn job(device: usize, kind: JobKind) -> NewJob {
    let key = DeviceKey::new(&format!("sw{device}"), 22, 22);
    NewJob {
        id: JobId::random(),
        queue: QueueName::Fifo,
        device: Some(key),
        kind,
        priority: Priority::Normal,
        driver: "netmiko".into(),
        device_name: Some(format!("sw{device}")),
        command: vec!["vlan 10".into()],
        ttl: Duration::from_secs(1800),
        timeout: Duration::from_secs(300),
        result_ttl: Duration::from_secs(3000),
        retry: RetryPolicy::default(),
        idempotency_key: None,
        digest: [0; 32],
        payload: vec![b'x'; 700],
        notify: None,
    }
}

/// One line per fact, out at once: what is printed has happened.
fn say(word: &str, id: JobId) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word} {id}").unwrap();
    out.flush().unwrap();
}

#[tokio::main]
async fn main() {
    let folder = std::env::args().nth(1).expect("the store's folder");
    let options = Options { max_queued: 1_000_000, max_queued_per_device: 1_000_000, ..Options::default() };
    let queue = Embedded::open(folder.as_ref(), options).unwrap();
    let _signals = queue.join("n1", 100.into()).await.unwrap();
    for caller in 0..8 {
        let queue: Arc<Embedded> = queue.clone();
        tokio::spawn(async move {
            for n in 0.. {
                let kind = if n % 2 == 0 { JobKind::Query } else { JobKind::Modification };
                let device = caller * 10 + n % 10;
                for answer in queue.submit(vec![job(device, kind)]).await.unwrap() {
                    if let Submitted::Accepted(job) = answer {
                        say("accepted", job.id);
                    }
                }
            }
        });
    }
    loop {
        queue.renew("n1").await.unwrap();
        let Some(claim) = queue.claim_fifo("n1", 1).await.unwrap() else {
            tokio::task::yield_now().await;
            continue;
        };
        let mut result = JobResult { kind: ResultType::Successful, retval: None, error: None, outcome: None };
        if claim.job.kind == JobKind::Modification {
            // What is said here has been sent to the device.
            say("started", claim.job.id);
            let command = "vlan 10".to_owned();
            assert_eq!(
                queue.progress(&claim.token, What::Sending { index: 0, total: 1, command }),
                Verdict::Taken
            );
            result.outcome = Some(Outcome::Applied);
        }
        let completion = Completion { status: JobStatus::Finished, result };
        assert_eq!(queue.complete(&claim.token, completion).await.unwrap(), Verdict::Taken);
        if claim.job.kind == JobKind::Modification {
            say("applied", claim.job.id);
        }
    }
}
