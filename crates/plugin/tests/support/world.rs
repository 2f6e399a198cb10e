//! A registry over folders in which `netpulse-stress-plugin` lies; how it starts is chosen by its file's
//! name, how it answers by the first word of the command.

#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use netpulse_model::{ConnectionArgs, ErrorCode, ExecutionRequest, ExecutionResult, JobId};
use netpulse_plugin::{
    Driver, DriverSession, Drivers, Folders, GuardProgram, HostSettings, Plugins, Report, Run, Scope, State,
    Watch, Work,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// A folder with plugins, and the registry over it.
pub struct World {
    pub folder: tempfile::TempDir,
    pub plugins: Plugins,
}

pub fn settings() -> HostSettings {
    let guard =
        GuardProgram { program: env!("CARGO_BIN_EXE_netpulse-plugin-guard").into(), arguments: Vec::new() };
    let mut host = HostSettings::new(guard);
    host.start_timeout = Duration::from_secs(3);
    host.stop_timeout = Duration::from_millis(500);
    host.call_timeout = Duration::from_secs(10);
    host.max_answer = 1024 * 1024;
    host.max_memory = 512 * 1024 * 1024;
    host
}

impl World {
    pub fn new(modes: &[&str]) -> Self {
        Self::with(modes, settings(), |_| {})
    }

    pub fn with(modes: &[&str], host: HostSettings, change: impl FnOnce(&mut Folders)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for mode in modes {
            std::os::unix::fs::symlink(
                env!("CARGO_BIN_EXE_netpulse-stress-plugin"),
                folder.path().join(mode),
            )
            .unwrap();
        }
        let mut folders = Folders { folders: vec![folder.path().to_owned()], ..Folders::default() };
        change(&mut folders);
        Self { plugins: Plugins::new(folders, host), folder }
    }

    pub async fn driver(&self) -> Arc<dyn Driver> {
        Drivers::of(self.plugins.clone()).find("stress").await.expect("the driver is there")
    }

    pub async fn session(&self) -> Box<dyn DriverSession> {
        self.driver().await.connect(&args()).await.expect("connected")
    }

    /// What the list says of the file.
    pub async fn error_of(&self, file: &str) -> String {
        let list = self.plugins.list().await;
        let handle = list.iter().find(|h| h.path == Some(self.folder.path().join(file))).expect("listed");
        assert_eq!(handle.state, State::Failed, "{handle:?}");
        handle.error.clone().expect("an error")
    }
}

pub fn args() -> ConnectionArgs {
    let Value::Object(map) = json!({"host": "192.0.2.1", "password": "hunter22"}) else { unreachable!() };
    ConnectionArgs(map)
}

/// Remembers what it was told, and gives leave.
#[derive(Default)]
struct Seen(Mutex<Vec<String>>);

impl Watch for Seen {
    fn sending(&self, index: usize, _total: usize, line: &str) -> bool {
        self.0.lock().unwrap().push(format!("sending {index} {line}"));
        true
    }

    fn answered(&self, index: usize, _total: usize, result: &ExecutionResult) {
        self.0.lock().unwrap().push(format!("answered {index} {}", result.exit_status));
    }
}

pub async fn run(session: &mut Box<dyn DriverSession>, command: &str) -> Report {
    perform(
        session,
        json!({"command": [command]}),
        Work::Commands(vec![command.to_owned()]),
        Duration::from_secs(10),
    )
    .await
}

pub async fn config(session: &mut Box<dyn DriverSession>, lines: &[&str]) -> Report {
    let lines: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
    perform(session, json!({"config": lines}), Work::Config(lines), Duration::from_secs(10)).await
}

pub async fn perform(
    session: &mut Box<dyn DriverSession>,
    operation: Value,
    work: Work,
    time: Duration,
) -> Report {
    let mut body = json!({"driver": "stress", "connection_args": args().0});
    body.as_object_mut().unwrap().extend(operation.as_object().unwrap().clone());
    let request = ExecutionRequest::read(&body, 300).unwrap();
    let seen = Seen::default();
    let run = Run {
        request: &request,
        work,
        watch: &seen,
        cancel: CancellationToken::new(),
        fence: CancellationToken::new(),
        reused: false,
    };
    let scope = Scope { job: JobId::random(), deadline: Instant::now() + time };
    tokio::time::timeout(time + Duration::from_secs(2), scope.around(session.run(run))).await.expect("an end")
}

/// A query that the plugin answers badly is that job's error; the next job gets a good answer.
pub async fn one_jobs_error(command: &str, says: &str) -> Report {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let report = run(&mut session, command).await;
    let error = report.error.clone().unwrap_or_else(|| panic!("`{command}` went well: {report:?}"));
    assert_eq!(error.code, ErrorCode::PluginFailed, "{error}");
    assert!(error.message.contains(says), "{error}");
    assert!(error.message.contains("netpulse.example/driver/stress/v1"), "names the plugin: {error}");
    drop(session);
    let mut session = world.session().await;
    let report = run(&mut session, "show clock").await;
    assert_eq!(report.error, None, "the next job");
    assert_eq!(report.results.len(), 1);
    world.plugins.stop().await;
    report
}

pub fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with('Z'))
}

pub async fn gone(pid: u32) {
    let end = Instant::now() + Duration::from_secs(5);
    while alive(pid) {
        assert!(Instant::now() < end, "process {pid} still lives");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn pid_of(report: &Report) -> u32 {
    let text = report.results[0].stdout.as_str().unwrap();
    text.strip_prefix("pid ").unwrap().parse().unwrap()
}

pub fn args_of(host: &str) -> ConnectionArgs {
    let mut args = args();
    args.0["host"] = host.into();
    args
}
