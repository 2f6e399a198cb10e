//! The binary against the real controller over the real embedded queue, with the test as worker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use netpulse_config::Config;
use netpulse_controller::{Controller, Parts, serve};
use netpulse_model::event::What;
use netpulse_model::request::Strategy;
use netpulse_model::result::ResultType;
use netpulse_model::{
    ConnectionArgs, DeviceKey, ErrorCode, ErrorInfo, ExecutionRequest, ExecutionResult, FieldError,
    JobResult, JobStatus,
};
use netpulse_plugin::{Driver, DriverSession, Drivers};
use netpulse_queue::{Completion, Embedded, Options, Queue};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

const KEY: &str = "k-demo-9f8e7d";

/// A driver for the controller to check requests with; the worker below never asks it to connect.
struct Checks;

#[async_trait]
impl Driver for Checks {
    fn name(&self) -> &str {
        "paramiko"
    }

    fn default_strategy(&self) -> Strategy {
        Strategy::Fifo
    }

    fn device(&self, args: &ConnectionArgs) -> Result<DeviceKey, FieldError> {
        let host =
            args.host().ok_or_else(|| FieldError::new(&["connection_args", "host"], "Field required"))?;
        Ok(DeviceKey::new(host, args.port().unwrap_or(22), 22))
    }

    fn validate(&self, _: &ExecutionRequest) -> Vec<FieldError> {
        Vec::new()
    }

    fn validate_connection(&self, _: &ConnectionArgs) -> Vec<FieldError> {
        Vec::new()
    }

    async fn connect(&self, _: &ConnectionArgs) -> Result<Box<dyn DriverSession>, ErrorInfo> {
        Err(ErrorInfo::new(ErrorCode::NotSupported, "not in this test"))
    }

    async fn test(&self, _: &ConnectionArgs) -> Result<Map<String, Value>, ErrorInfo> {
        Err(ErrorInfo::new(ErrorCode::AuthenticationFailed, "the device refused user `ops`"))
    }
}

struct World {
    url: String,
    folder: tempfile::TempDir,
    shutdown: CancellationToken,
    _runtime: tokio::runtime::Runtime,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A server; with a worker, jobs are answered as `<command> on <host>`, hosts `bad*` refuse the
/// second line.
fn world(with_worker: bool) -> World {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let shutdown = CancellationToken::new();
    let url = runtime.block_on(async {
        let queue = Embedded::open(&folder.path().join("store"), Options::default()).unwrap();
        let mut config = Config::default();
        config.server.api_key = KEY.into();
        let config = Arc::new(config);
        let controller = Controller::new(Parts {
            config: config.clone(),
            queue: queue.clone(),
            drivers: Drivers::new(vec![Arc::new(Checks)]),
            webhooks: Default::default(),
            templates: None,
            credentials: netpulse_plugin::Credentials::default(),
            registry: Default::default(),
            draining: CancellationToken::new(),
            shutdown: shutdown.clone(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = shutdown.clone();
        tokio::spawn(async move {
            serve(listener, controller.router(), &config.server, stop, Duration::from_secs(1)).await.unwrap();
        });
        if with_worker {
            tokio::spawn(work(queue, shutdown.clone()));
        }
        url
    });
    World { url, folder, shutdown, _runtime: runtime }
}

async fn work(queue: Arc<Embedded>, shutdown: CancellationToken) {
    let mut signals = queue.join("node-a", 10.into()).await.unwrap();
    loop {
        while let Some(claim) = queue.claim_fifo("node-a", 1).await.unwrap() {
            let host = claim.job.device_name.clone().unwrap();
            let lines = claim.job.command.clone().unwrap();
            let mut results = Vec::new();
            for (index, command) in lines.iter().enumerate() {
                let result = if host.starts_with("bad") && index == 1 {
                    ExecutionResult::failed(command, "% Invalid input")
                } else {
                    ExecutionResult::ok(command, format!("{command} on {host}"))
                };
                queue.progress(
                    &claim.token,
                    What::Line {
                        index,
                        total: lines.len(),
                        command: command.clone(),
                        stdout: result.stdout.clone(),
                        stderr: result.stderr.clone(),
                        exit_status: result.exit_status,
                    },
                );
                results.push(result);
            }
            let bad = results.iter().any(|result| result.exit_status != 0);
            let error = bad.then(|| ErrorInfo::new(ErrorCode::LineRejected, "line 2 of 2 was refused"));
            let (status, kind) = if bad {
                (JobStatus::Failed, ResultType::Failed)
            } else {
                (JobStatus::Finished, ResultType::Successful)
            };
            let result = JobResult { kind, retval: Some(results), error, outcome: None };
            queue.complete(&claim.token, Completion { status, result }).await.unwrap();
        }
        tokio::select! {
            signal = signals.recv() => if signal.is_none() { return },
            () = shutdown.cancelled() => return,
        }
    }
}

impl World {
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_netpulse"))
            .args(args)
            .env_clear()
            .env("NETPULSE_URL", &self.url)
            .env("NETPULSE_API_KEY", KEY)
            .env("HOME", self.folder.path())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }
}

#[test]
fn a_job_goes_all_the_way_and_is_found_again() {
    let world = world(true);
    let (code, out, err) =
        world.run(&["exec", "--driver", "paramiko", "--host", "srv1", "-c", "uptime", "-c", "df -h"]);
    assert_eq!((code, out.as_str()), (0, "uptime on srv1\ndf -h on srv1\n"), "{err}");
    assert!(err.contains("[2/2] df -h") && err.contains("finished in"), "{err}");
    let (code, out, err) =
        world.run(&["exec", "--driver", "paramiko", "--host", "bad1", "-c", "a", "-c", "b"]);
    assert_eq!((code, out.as_str()), (1, "a on bad1\n"), "{err}");
    assert!(err.contains("(line_rejected)"), "{err}");
    let (code, out, _) = world.run(&["jobs", "-o", "json"]);
    let jobs: Vec<Value> = serde_json::from_str(&out).unwrap();
    let hosts: Vec<&str> = jobs.iter().map(|job| job["host"].as_str().unwrap()).collect();
    assert_eq!((code, hosts), (0, vec!["bad1", "srv1"]), "newest first");
    let (_, out, _) = world.run(&["jobs", "--status", "failed", "-o", "json"]);
    assert_eq!(serde_json::from_str::<Vec<Value>>(&out).unwrap().len(), 1);
    let id = jobs[1]["id"].as_str().unwrap();
    let (code, out, err) = world.run(&["watch", id]);
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("queued") && out.contains("uptime on srv1") && out.trim_end().ends_with("finished"),
        "{out}"
    );
    let (code, out, _) = world.run(&["job", id]);
    assert_eq!((code, out.as_str()), (0, "uptime on srv1\ndf -h on srv1\n"));
}

#[test]
fn long_answers_are_printed_whole() {
    let world = world(true);
    let long = "x".repeat(100_000);
    let (code, out, err) =
        world.run(&["exec", "--driver", "paramiko", "--host", "s", "-c", "a", "-c", &long, "-c", "b"]);
    assert_eq!((code, out), (0, format!("a on s\n{long} on s\nb on s\n")), "{err}");
}

#[test]
fn bulk_reaches_many_and_every_job_is_listed_over_pages() {
    let world = world(true);
    let hosts: Vec<Value> = (0..600).map(|n| json!({"host": format!("srv{n}")})).collect();
    std::fs::write(world.folder.path().join("d.json"), json!(hosts).to_string()).unwrap();
    let (code, out, err) =
        world.run(&["bulk", "d.json", "--driver", "paramiko", "-c", "uptime", "--result", "r.csv"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(out.lines().count(), 601);
    assert!(out.contains("uptime on srv599") && err.contains("600 finished of 600 devices"), "{err}");
    let written = std::fs::read_to_string(world.folder.path().join("r.csv")).unwrap();
    assert_eq!(written.lines().count(), 601);
    let (_, out, _) = world.run(&["jobs", "--all", "-o", "json"]);
    let mut ids: Vec<Value> =
        serde_json::from_str::<Vec<Value>>(&out).unwrap().iter().map(|j| j["id"].clone()).collect();
    assert_eq!(ids.len(), 600);
    ids.sort_by_key(ToString::to_string);
    ids.dedup();
    assert_eq!(ids.len(), 600);
    let (_, out, err) = world.run(&["jobs", "--limit", "10"]);
    assert!(out.lines().count() == 11 && err.contains("--all"), "{err}");
}

#[test]
fn waiting_jobs_tell_why_and_are_canceled() {
    let world = world(false);
    let queued = || {
        let (code, out, err) =
            world.run(&["exec", "--driver", "paramiko", "--host", "h1", "-C", "x", "--no-wait"]);
        assert_eq!(code, 0, "{err}");
        out.trim().to_owned()
    };
    let (first, second) = (queued(), queued());
    let (code, _, err) = world.run(&["job", &second]);
    assert!(code == 0 && err.contains("waits "), "{err}");
    let (code, out, err) = world.run(&["cancel", &first]);
    assert_eq!((code, out.trim()), (0, first.as_str()), "{err}");
    let (code, _, err) = world.run(&["cancel", &first]);
    assert_eq!(code, 6, "{err}");
    let (code, out, _) = world.run(&["cancel", "--host", "h1"]);
    assert_eq!((code, out.trim()), (0, second.as_str()));
    let (code, _, err) = world.run(&["watch", &second]);
    assert_eq!(code, 1, "{err}");
    let (code, _, err) = world.run(&["workers", "stop", "nobody"]);
    assert_eq!(code, 6, "{err}");
    let (code, _, err) = world.run(&["test", "--driver", "paramiko", "--host", "h1", "-u", "ops"]);
    assert!(code == 1 && err.contains("(authentication_failed)"), "{err}");
    let (code, _, err) = world.run(&["exec", "--driver", "paramico", "--host", "h1", "-c", "x"]);
    assert!(code == 2 && err.contains("paramico"), "{err}");
}
