//! Promise 14 through the host: whatever a plugin does, it is one call's error, and the next call
//! works. The plugin is `netpulse-stress-plugin`; how it starts is chosen by its file's name.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use netpulse_model::{ConnectionArgs, ErrorCode, ExecutionRequest, ExecutionResult, JobId, Outcome};
use netpulse_plugin::{
    Driver, DriverSession, Drivers, Folders, GuardProgram, HostSettings, Implementation, Kind, Plugins,
    Report, Run, Scope, State, Watch, Work,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// A folder with plugins, and the registry over it.
struct World {
    folder: tempfile::TempDir,
    plugins: Plugins,
}

fn settings() -> HostSettings {
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
    fn new(modes: &[&str]) -> Self {
        Self::with(modes, settings(), |_| {})
    }

    fn with(modes: &[&str], host: HostSettings, change: impl FnOnce(&mut Folders)) -> Self {
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

    async fn driver(&self) -> Arc<dyn Driver> {
        Drivers::of(self.plugins.clone()).find("stress").await.expect("the driver is there")
    }

    async fn session(&self) -> Box<dyn DriverSession> {
        self.driver().await.connect(&args()).await.expect("connected")
    }

    /// What the list says of the file.
    async fn error_of(&self, file: &str) -> String {
        let list = self.plugins.list().await;
        let handle = list.iter().find(|h| h.path == Some(self.folder.path().join(file))).expect("listed");
        assert_eq!(handle.state, State::Failed, "{handle:?}");
        handle.error.clone().expect("an error")
    }
}

fn args() -> ConnectionArgs {
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

async fn run(session: &mut Box<dyn DriverSession>, command: &str) -> Report {
    perform(
        session,
        json!({"command": [command]}),
        Work::Commands(vec![command.to_owned()]),
        Duration::from_secs(10),
    )
    .await
}

async fn config(session: &mut Box<dyn DriverSession>, lines: &[&str]) -> Report {
    let lines: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
    perform(session, json!({"config": lines}), Work::Config(lines), Duration::from_secs(10)).await
}

async fn perform(
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
async fn one_jobs_error(command: &str, says: &str) -> Report {
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

fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with('Z'))
}

async fn gone(pid: u32) {
    let end = Instant::now() + Duration::from_secs(5);
    while alive(pid) {
        assert!(Instant::now() < end, "process {pid} still lives");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn pid_of(report: &Report) -> u32 {
    let text = report.results[0].stdout.as_str().unwrap();
    text.strip_prefix("pid ").unwrap().parse().unwrap()
}

#[tokio::test]
async fn promise_14_a_crash_in_a_call_is_one_jobs_error_at_once() {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let first = pid_of(&run(&mut session, "show clock").await);
    let began = Instant::now();
    let report = run(&mut session, "crash").await;
    let took = began.elapsed();
    let error = report.error.unwrap();
    assert!(
        error.message.contains("exit status 101") && error.message.contains("index out of bounds"),
        "{error}"
    );
    assert!(!report.reusable);
    assert!(took < Duration::from_secs(1), "{took:?}");
    let mut session = world.session().await;
    let second = pid_of(&run(&mut session, "show clock").await);
    assert_ne!(first, second, "a new process");
    world.plugins.stop().await;
    gone(second).await;
}

#[tokio::test]
async fn promise_14_an_abort_is_told_by_its_signal() {
    one_jobs_error("abort", "killed by signal 6").await;
}

#[tokio::test]
async fn promise_14_an_answer_that_is_no_json() {
    one_jobs_error("garbage", "something else than the contract says").await;
}

#[tokio::test]
async fn promise_14_an_answer_without_results() {
    one_jobs_error("empty", "answered one command with 0 results").await;
}

#[tokio::test]
async fn promise_14_half_an_answer_is_never_a_result() {
    one_jobs_error("half", "broke off its answer").await;
}

#[tokio::test]
async fn promise_14_an_answer_without_a_length_is_never_a_result() {
    one_jobs_error("endless", "without saying how long").await;
}

#[tokio::test]
async fn promise_14_an_answer_to_another_request_ends_the_plugin() {
    one_jobs_error("other", "answered request `4711`").await;
}

#[tokio::test]
async fn promise_14_an_answer_past_the_limit_is_cut() {
    one_jobs_error("big", "more than 1048576 bytes").await;
}

#[tokio::test]
async fn promise_14_a_plugin_that_eats_memory_dies_alone() {
    one_jobs_error("memory", "killed by signal 6").await;
}

#[tokio::test]
async fn promise_14_a_flood_of_logs_does_no_harm() {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let report = run(&mut session, "flood").await;
    assert_eq!(report.error, None);
    world.plugins.stop().await;
}

#[tokio::test]
async fn promise_14_a_call_that_hangs_ends_with_the_jobs_time() {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let began = Instant::now();
    let work = Work::Commands(vec!["hang".into()]);
    let report = perform(&mut session, json!({"command": "hang"}), work, Duration::from_millis(300)).await;
    let error = report.error.unwrap();
    assert!(error.message.contains("did not answer within"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(3));
    // The process is sound: it serves the next session.
    let mut session = world.session().await;
    assert_eq!(run(&mut session, "show clock").await.error, None);
    world.plugins.stop().await;
}

#[tokio::test]
async fn promise_14_a_frozen_process_is_found_out_and_replaced() {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let pid = pid_of(&run(&mut session, "show clock").await);
    let work = Work::Commands(vec!["freeze".into()]);
    let report = perform(&mut session, json!({"command": "freeze"}), work, Duration::from_millis(300)).await;
    assert!(report.error.unwrap().message.contains("did not answer"), "the job's own error");
    gone(pid).await;
    let mut session = world.session().await;
    assert_eq!(run(&mut session, "show clock").await.error, None);
    world.plugins.stop().await;
}

#[tokio::test]
async fn promise_5_a_change_whose_plugin_dies_in_it_is_unknown() {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let report = config(&mut session, &["crash now", "vlan 2"]).await;
    assert_eq!(report.outcome, Some(Outcome::Unknown));
    assert!(!report.untouched);
    assert!(report.error.unwrap().message.contains("not safe to repeat"));
    world.plugins.stop().await;
}

#[tokio::test]
async fn promise_5_a_change_that_is_refused_whole_has_touched_nothing() {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let report = config(&mut session, &["refuse"]).await;
    assert_eq!(report.outcome, Some(Outcome::NotApplied));
    let error = report.error.unwrap();
    assert_eq!(error.code, ErrorCode::BadRequest);
    assert!(error.message.contains("no command of mine"), "{error}");
    world.plugins.stop().await;
}

#[tokio::test]
async fn promise_5_a_change_that_claims_more_than_it_shows_is_unknown() {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let report = config(&mut session, &["applied", "and more"]).await;
    assert_eq!(report.outcome, Some(Outcome::Unknown));
    assert_eq!(report.error.unwrap().code, ErrorCode::PluginFailed);
    world.plugins.stop().await;
}

#[tokio::test]
async fn promise_12_a_secret_that_a_plugin_tells_is_masked() {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let report = run(&mut session, "tell hunter22").await;
    let error = report.error.unwrap();
    assert!(error.message.contains("******") && !error.message.contains("hunter22"), "{error}");
    world.plugins.stop().await;
}

#[tokio::test]
async fn promise_14_a_plugin_that_does_not_come_up_is_an_error_with_its_last_words() {
    for (mode, says) in [
        ("exit_early", "my licence has expired"),
        ("no_hello", "did not come up within 3 s"),
        ("foreign", "http://192.0.2.1:80` is not dialled".trim_end_matches("` is not dialled")),
        ("liar", "netpulse.example/driver/honest/v1"),
        ("wrong_start", "answered for the start 00000000-another"),
    ] {
        let world = World::new(&[mode]);
        let error =
            world.driver().await.connect(&args()).await.err().unwrap_or_else(|| panic!("{mode} connected"));
        assert_eq!(error.code, ErrorCode::PluginFailed, "{mode}: {error}");
        let said =
            error.message.contains(says) || (mode == "foreign" && error.message.contains("192.0.2.1:80"));
        assert!(said, "{mode}: {error}");
        world.plugins.stop().await;
    }
}

#[tokio::test]
async fn promise_14_what_cannot_say_what_it_is_is_listed_and_harms_nobody() {
    let modes = ["caps_hang", "caps_garbage", "caps_fail", "caps_flood", "version2", "renamed", "stress"];
    let world = World::new(&modes);
    for (mode, says) in [
        ("caps_hang", "did not print its capabilities within 5 s"),
        ("caps_garbage", "no JSON"),
        ("caps_fail", "no database here"),
        ("caps_flood", "more than 1048576 bytes"),
        ("version2", "`netpulse.plugin/v2`, and this NetPulse speaks `netpulse.plugin/v1`"),
        ("renamed", "declares the name `Not A Name`"),
    ] {
        let error = world.error_of(mode).await;
        assert!(error.contains(says), "{mode}: {error}");
    }
    let mut session = world.session().await;
    assert_eq!(run(&mut session, "show clock").await.error, None);
    world.plugins.stop().await;
}

#[tokio::test]
async fn promise_14_a_plugin_that_refuses_to_end_is_killed() {
    let world = World::new(&["stubborn"]);
    let mut session = world.session().await;
    let pid = pid_of(&run(&mut session, "show clock").await);
    drop(session);
    let began = Instant::now();
    world.plugins.stop().await;
    gone(pid).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

fn args_of(host: &str) -> ConnectionArgs {
    let mut args = args();
    args.0["host"] = host.into();
    args
}

#[tokio::test]
async fn promise_14_a_crashing_plugin_is_not_started_for_ever() {
    let world = World::new(&["stress"]);
    let mut refused = String::new();
    // Whatever it is asked, and for whichever device: nobody in particular is to blame.
    for n in 0..6 {
        match world.driver().await.connect(&args_of(&format!("192.0.2.{n}"))).await {
            Ok(mut session) => assert!(run(&mut session, &format!("crash {n}")).await.error.is_some()),
            Err(error) => refused = error.message,
        }
    }
    assert!(
        refused.contains("was started 3 times within 60 s") && refused.contains("started again in"),
        "{refused}"
    );
    let info = world.plugins.info(Kind::Driver, "stress").await;
    assert_eq!(info[0].state, State::Failed);
    assert_eq!(info[0].starts, 3);
    world.plugins.stop().await;
}

#[tokio::test]
async fn promise_14_one_poisonous_command_does_not_use_up_the_starts_of_all() {
    let world = World::new(&["stress"]);
    let mut said = Vec::new();
    for _ in 0..10 {
        let mut session = world.session().await;
        let report = run(&mut session, "crash").await;
        said.push(report.error.unwrap().message);
        if said.len() > 1 {
            assert!(report.untouched, "it was not asked");
        }
        // Others are served in between.
        let mut other =
            world.driver().await.connect(&args_of("192.0.2.99")).await.expect("others get a session");
        assert_eq!(run(&mut other, "show clock").await.error, None, "{said:?}");
    }
    assert!(said[0].contains("exit status 101"), "{said:?}");
    for later in &said[1..] {
        assert!(later.contains("is not asked this now") && later.contains("exactly this"), "{said:?}");
    }
    let info = world.plugins.info(Kind::Driver, "stress").await;
    assert_eq!((info[0].starts, info[0].state), (2, State::Started), "one crash, one restart");
    // A change is refused just as well, and says that nothing was done.
    let mut session = world.session().await;
    assert!(config(&mut session, &["crash", "b"]).await.error.is_some());
    let mut session = world.session().await;
    let report = config(&mut session, &["crash", "b"]).await;
    assert_eq!((report.outcome, report.untouched), (Some(Outcome::NotApplied), true), "{report:?}");
    world.plugins.stop().await;
}

#[tokio::test]
async fn promise_14_who_was_on_the_way_when_another_crashed_it_is_not_refused() {
    let world = World::new(&["stress"]);
    let mut innocent = world.driver().await.connect(&args_of("192.0.2.7")).await.unwrap();
    let mut guilty = world.session().await;
    let (slow, crash) = tokio::join!(run(&mut innocent, "slow 5"), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        run(&mut guilty, "crash").await
    });
    assert!(slow.error.is_some() && crash.error.is_some());
    let mut innocent = world.driver().await.connect(&args_of("192.0.2.7")).await.unwrap();
    assert_eq!(run(&mut innocent, "slow 0").await.error, None);
    assert_eq!(run(&mut innocent, "slow 5").await.error, None, "the same again is not refused");
    world.plugins.stop().await;
}

async fn provider(world: &World) -> Arc<dyn netpulse_plugin::Provider> {
    match world.plugins.find(Kind::Provider, "items").await {
        Some(Implementation::Provider(provider)) => provider,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_provider_gives_its_items_as_they_come_or_all_at_once() {
    let world = World::new(&["pipeline"]);
    let provider = provider(&world).await;
    let mut items = Vec::new();
    let result = provider.gather_each(&json!({"do": "stream"}), &mut |item| items.push(item)).await.unwrap();
    assert_eq!(items, [json!({"n": 0}), json!({"n": 1}), json!({"n": 2})]);
    assert_eq!((result.result_description.as_str(), result.details), ("three", Value::Null));
    let result = provider.gather(&json!({"do": "stream"})).await.unwrap();
    assert_eq!(result.details, json!(items), "the items fill the details");
    let result = provider.gather(&json!({"do": "whole"})).await.unwrap();
    assert_eq!(result.details, json!([1, 2]));
    world.plugins.stop().await;
}

#[tokio::test]
async fn promise_14_a_stream_of_items_that_goes_wrong_is_an_error_and_never_a_result() {
    use netpulse_plugin::Failed;
    let world = World::new(&["pipeline"]);
    let provider = provider(&world).await;
    for (what, kind, says) in [
        ("no_done", Failed::Faulty, "without `done` after 3 items"),
        ("after_done", Failed::Faulty, "went on after `done`"),
        ("not_json", Failed::Faulty, "a line that is no JSON"),
        ("foreign", Failed::Faulty, "a line that only drivers do"),
        ("details", Failed::Faulty, "streamed 3 items and has `details` besides"),
        ("flood", Failed::Faulty, "more than 1048576 bytes"),
        ("error", Failed::Unavailable, "the inventory went away"),
        ("crash", Failed::Faulty, "exit status 104"),
    ] {
        let error = provider.gather(&json!({"do": what})).await.unwrap_err();
        assert!(error.kind == kind && error.message.contains(says), "{what}: {error:?}");
        assert!(error.message.contains("driver/stress/v1"), "{what}: {error:?}");
        assert!(provider.gather(&json!({"do": "stream"})).await.is_ok(), "after {what}");
    }
    let error = provider.gather(&json!({"do": "crash"})).await.unwrap_err();
    assert!(error.message.contains("is not asked this now"), "{error:?}");
    world.plugins.stop().await;
}

#[tokio::test]
async fn commands_that_go_on_without_their_session() {
    let world = World::new(&["detached"]);
    let mut session = world.session().await;
    let tasks = session.detached().expect("it has the feature");
    let none = serde_json::Map::new();
    let task = tasks.launch("a1b2", "tcpdump -i any", &none).await.unwrap();
    assert_eq!((task.command.as_str(), task.running, task.pid), ("tcpdump -i any", true, Some(4711)));
    let output = tasks.query("a1b2", 4).await.unwrap();
    assert_eq!((output.output.as_str(), output.next_offset), ("456789", 10));
    assert_eq!(output.task.exit_status, Some(0));
    assert_eq!((tasks.kill("a1b2").await, tasks.kill("ended").await), (Ok(true), Ok(false)));
    assert_eq!(tasks.list().await.unwrap()[0].task_id, "t1");
    assert_eq!(tasks.query("unknown", 0).await.unwrap_err().code, ErrorCode::BadRequest);
    let lie = tasks.query("greedy", 0).await.unwrap_err();
    assert!(lie.message.contains("says that 99 is next"), "{lie}");
    let lie = tasks.launch("a1b2", "lie", &none).await.unwrap_err();
    assert!(lie.message.contains("answered for the task `another`"), "{lie}");
    let lost = tasks.launch("a1b3", "crash", &none).await.unwrap_err();
    assert!(lost.message.contains("the command may run"), "{lost}");
    world.plugins.stop().await;
    // Without the feature nothing of it is asked.
    let world = World::new(&["stress"]);
    assert!(world.session().await.detached().is_none());
    world.plugins.stop().await;
}

#[tokio::test]
async fn a_request_is_shown_to_the_plugin_before_it_is_accepted_and_a_plugin_that_does_not_answer_is_left_out()
 {
    let world = World::new(&["validates"]);
    let driver = world.driver().await;
    assert!(driver.examines());
    let request = |more: Value| {
        let mut body = json!({"driver": "stress", "connection_args": args().0, "command": "show clock"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ExecutionRequest::read(&body, 300).unwrap()
    };
    let examine = async |more: Value| netpulse_model::fields::sentence(&driver.examine(&request(more)).await);
    assert_eq!(examine(json!({})).await, "");
    assert_eq!(examine(json!({"command": "reload"})).await, "command: `reload` is not done over this API");
    // What only the worker will know is not asked here.
    let rendering = json!({"name": "string", "template": "reload"});
    assert_eq!(examine(json!({"command": "reload", "rendering": rendering})).await, "");
    assert_eq!(examine(json!({"command": "reload", "credential": {"ref": "a"}})).await, "");
    // It crashes, then hangs: the request goes on, soon, and the next ones are not asked about.
    assert_eq!(examine(json!({"command": "crash at the door"})).await, "");
    let began = Instant::now();
    assert_eq!(examine(json!({"command": "reload"})).await, "", "left to the worker for a while");
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    world.plugins.stop().await;

    let world = World::new(&["validates"]);
    let driver = world.driver().await;
    let began = Instant::now();
    assert!(driver.examine(&request(json!({"command": "hang at the door"}))).await.is_empty());
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(!World::new(&["stress"]).driver().await.examines());
    world.plugins.stop().await;
}

#[tokio::test]
async fn d1_a_plugin_that_says_no_location_is_found_where_it_was_told_to_be() {
    let world = World::new(&["silent"]);
    let mut session = world.session().await;
    assert_eq!(run(&mut session, "show clock").await.error, None);
    world.plugins.stop().await;
}

#[tokio::test]
async fn d2_a_plugin_that_ended_is_started_again() {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let pid = pid_of(&run(&mut session, "show clock").await);
    let raw = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
    gone(pid).await;
    tokio::time::timeout(Duration::from_secs(5), session.closed())
        .await
        .expect("the idle session ends with it");
    assert_eq!(session.keepalive().await.unwrap_err().code, ErrorCode::SessionLost);
    let report = run(&mut session, "show clock").await;
    assert_eq!(report.error.unwrap().code, ErrorCode::SessionLost);
    assert!(report.untouched, "the worker may run it over a new session");
    let mut session = world.session().await;
    assert_ne!(pid_of(&run(&mut session, "show clock").await), pid);
    world.plugins.stop().await;
}

#[tokio::test]
async fn d2_one_that_ends_in_order_is_started_again_as_often_as_need_be() {
    let world = World::new(&["stress"]);
    for _ in 0..5 {
        let mut session = world.session().await;
        assert_eq!(run(&mut session, "leave").await.error, None);
        tokio::time::timeout(Duration::from_secs(5), session.closed()).await.expect("its end is seen");
    }
    let mut session = world.session().await;
    assert_eq!(run(&mut session, "show clock").await.error, None, "an end in order is no crash");
    assert_eq!(world.plugins.info(Kind::Driver, "stress").await[0].starts, 6);
    world.plugins.stop().await;
}

#[tokio::test]
async fn d3_one_process_serves_every_capability_and_unknown_kinds_do_no_harm() {
    let world = World::new(&["two_kinds"]);
    let mut session = world.session().await;
    let pid = pid_of(&run(&mut session, "show clock").await);
    let list = world.plugins.list().await;
    assert_eq!(list.len(), 3, "{list:?}");
    assert!(
        list.iter().filter(|h| h.error.is_none()).all(|h| h.starts == 1 && h.state == State::Started),
        "{list:?}"
    );
    let later = list.iter().find(|h| h.name == "later").unwrap();
    assert!(later.error.as_ref().unwrap().contains("`teleporter`"), "{later:?}");
    let children = netpulse_plugin::guard::descendants(std::process::id());
    assert!(children.contains(&pid));
    world.plugins.stop().await;
}

#[tokio::test]
async fn d4_concurrent_first_calls_start_it_once() {
    let world = World::new(&["stress"]);
    let driver = world.driver().await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let driver = Arc::clone(&driver);
        calls.spawn(async move {
            driver.connect(&args()).await.map(|mut s| async move { run(&mut s, "show clock").await })
        });
    }
    let mut pids = std::collections::BTreeSet::new();
    while let Some(call) = calls.join_next().await {
        pids.insert(pid_of(&call.unwrap().unwrap().await));
    }
    assert_eq!(pids.len(), 1, "{pids:?}");
    assert_eq!(world.plugins.info(Kind::Driver, "stress").await[0].starts, 1);
    world.plugins.stop().await;
}

#[tokio::test]
async fn d5_the_socket_lies_in_a_folder_of_our_own_that_goes_with_the_start() {
    use std::os::unix::fs::PermissionsExt;
    let runtime = tempfile::tempdir().unwrap();
    let host = HostSettings { runtime_dir: runtime.path().to_owned(), ..settings() };
    let world = World::with(&["stress"], host, |_| {});
    let session = world.session().await;
    let folders: Vec<PathBuf> =
        std::fs::read_dir(runtime.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(folders.len(), 1);
    assert_eq!(std::fs::metadata(&folders[0]).unwrap().permissions().mode() & 0o777, 0o700);
    drop(session);
    world.plugins.stop().await;
    assert_eq!(std::fs::read_dir(runtime.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn d5_two_hosts_of_one_plugin_do_not_meet_and_d8_nor_what_an_earlier_one_left_behind() {
    let runtime = tempfile::tempdir().unwrap();
    // A start that was killed: its socket, and a lock with the number of a process that lives.
    let left = runtime.path().join("np-left");
    std::fs::create_dir(&left).unwrap();
    drop(std::os::unix::net::UnixListener::bind(left.join("plugin.sock")).unwrap());
    std::fs::write(left.join("plugin.sock.lock"), std::process::id().to_string()).unwrap();
    let host = HostSettings { runtime_dir: runtime.path().to_owned(), ..settings() };
    let (one, other) =
        (World::with(&["stress"], host.clone(), |_| {}), World::with(&["stress"], host, |_| {}));
    let (mut first, mut second) = (one.session().await, other.session().await);
    let pids = (pid_of(&run(&mut first, "show clock").await), pid_of(&run(&mut second, "show clock").await));
    assert_ne!(pids.0, pids.1);
    one.plugins.stop().await;
    assert_eq!(pid_of(&run(&mut second, "show clock").await), pids.1, "the other one's end is not ours");
    other.plugins.stop().await;
}

#[tokio::test]
async fn d6_nothing_secret_stands_on_the_command_line_or_in_the_environment() {
    let host = HostSettings { environment: vec!["NP_TEST_ALLOWED".into()], ..settings() };
    let settings =
        BTreeMap::from([("with_settings".to_owned(), json!({"url": "https://x", "token": "t0p-s3cret"}))]);
    let world = World::with(&["with_settings"], host, |folders| folders.settings = settings);
    let mut session = world.session().await;
    let pid = pid_of(&run(&mut session, "show clock").await);
    let read = |what: &str| {
        String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/{what}")).unwrap()).into_owned()
    };
    let shown = format!("{}{}", read("cmdline"), read("environ"));
    assert!(!shown.contains("t0p-s3cret") && !shown.contains("hunter22"), "{shown}");
    assert!(!read("environ").contains("CARGO"), "our own environment is not passed on: {}", read("environ"));
    world.plugins.stop().await;
}

#[tokio::test]
async fn settings_that_a_plugin_refuses_or_does_not_take_are_its_error() {
    let wrong = BTreeMap::from([("with_settings".to_owned(), json!({"uri": "typo"}))]);
    let world = World::with(&["with_settings"], settings(), |folders| folders.settings = wrong);
    let error = world.driver().await.connect(&args()).await.err().unwrap();
    assert!(error.message.contains("the setting `url` is missing"), "{error}");
    let unasked = BTreeMap::from([("stress".to_owned(), json!({"url": "x"}))]);
    let world = World::with(&["stress"], settings(), |folders| folders.settings = unasked);
    let error = world.driver().await.connect(&args()).await.err().unwrap();
    assert!(error.message.contains("lacks the feature `configure`"), "{error}");
}

#[tokio::test]
async fn d7_a_plugin_that_chatters_on_stdout_is_never_held_up() {
    let world = World::new(&["noisy"]);
    let mut session = world.session().await;
    assert_eq!(run(&mut session, "show clock").await.error, None);
    world.plugins.stop().await;
}

#[tokio::test]
async fn d9_who_speaks_another_contract_is_stopped_and_a_later_minor_is_not() {
    let world = World::new(&["turncoat"]);
    let error = world.driver().await.connect(&args()).await.err().unwrap();
    assert!(
        error.message.contains("`netpulse.plugin/v2`, and this NetPulse speaks `netpulse.plugin/v1`"),
        "{error}"
    );
    world.plugins.stop().await;
    for mode in ["minor", "older_form"] {
        let world = World::new(&[mode]);
        let mut session = world.session().await;
        assert_eq!(run(&mut session, "show clock").await.error, None, "{mode}");
        world.plugins.stop().await;
    }
}

#[tokio::test]
async fn d10_an_error_says_what_it_is_and_whether_it_may_be_tried_again() {
    let world = World::new(&["stress"]);
    for (command, code, untouched) in [
        ("coded read_timeout", ErrorCode::ReadTimeout, false),
        ("coded authentication_failed", ErrorCode::AuthenticationFailed, false),
        ("coded no_such_code", ErrorCode::PluginFailed, false),
        ("forgotten", ErrorCode::SessionLost, true),
        ("refuse", ErrorCode::BadRequest, true),
    ] {
        let mut session = world.session().await;
        let report = run(&mut session, command).await;
        assert_eq!((report.error.unwrap().code, report.untouched), (code, untouched), "{command}");
    }
    let error = world.driver().await.connect(&args_of("busy")).await.err().unwrap();
    assert_eq!(error.code, ErrorCode::ConnectFailed, "the worker tries this again by the request's `retry`");
    assert!(error.message.contains("its management port does not answer"), "{error}");
    world.plugins.stop().await;
}

#[tokio::test]
async fn the_start_form_is_found_and_remembered() {
    let cache = tempfile::tempdir().unwrap();
    let file = cache.path().join("cache.json");
    let set = |folders: &mut Folders| folders.cache = Some(file.clone());
    let world = World::with(&["old_form"], settings(), set);
    let mut session = world.session().await;
    assert_eq!(run(&mut session, "show clock").await.error, None);
    world.plugins.stop().await;
    let end = Instant::now() + Duration::from_secs(5);
    while !std::fs::read_to_string(&file).unwrap().contains(r#""form":"config""#) {
        assert!(Instant::now() < end, "{}", std::fs::read_to_string(&file).unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn capabilities_are_asked_once_per_version_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let asked = folder.path().join("asked.log");
    let script = |version: &str| {
        format!(
            "#!/bin/sh\necho x >> {}\necho '{}'\n",
            asked.display(),
            json!({"contract": "netpulse.plugin/v1", "id": "a/driver/b/v1", "version": version,
                   "capabilities": [{"type": "driver", "name": "counted"}]})
        )
    };
    let write = |version: &str| {
        let path = folder.path().join("counted");
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, script(version)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).unwrap();
    };
    write("1");
    let folders = Folders {
        folders: vec![folder.path().to_owned()],
        cache: Some(folder.path().join("cache.json")),
        ..Folders::default()
    };
    for _ in 0..3 {
        let plugins = Plugins::new(folders.clone(), settings());
        assert_eq!(plugins.info(Kind::Driver, "counted").await[0].version, "1");
    }
    assert_eq!(std::fs::read_to_string(&asked).unwrap().lines().count(), 1);
    let plugins = Plugins::new(folders, settings());
    plugins.list().await;
    write("2");
    plugins.reload().await;
    assert_eq!(plugins.info(Kind::Driver, "counted").await[0].version, "2");
    assert_eq!(std::fs::read_to_string(&asked).unwrap().lines().count(), 2);
}

#[tokio::test]
async fn who_wins_a_name_is_said() {
    struct BuiltIn;
    let _ = BuiltIn;
    let clash = World::new(&["netmiko_clash"]);
    clash.plugins.register(Kind::Driver, "netmiko", "", Implementation::Listed);
    assert!(clash.error_of("netmiko_clash").await.contains("`plugin.override: [\"driver/netmiko\"]`"));
    assert!(matches!(clash.plugins.get(Kind::Driver, "netmiko"), Some(Implementation::Listed)));

    let over = World::with(&["netmiko_clash"], settings(), |f| f.overrides = vec!["driver/netmiko".into()]);
    over.plugins.register(Kind::Driver, "netmiko", "", Implementation::Listed);
    assert!(matches!(over.plugins.find(Kind::Driver, "netmiko").await, Some(Implementation::Driver(_))));

    // Two files of one binary: the same id, so the second is a copy.
    let twins = World::new(&["stress", "stubborn"]);
    assert!(twins.error_of("stubborn").await.contains("has the same id"));

    // Two binaries of one name.
    let folder = tempfile::tempdir().unwrap();
    for file in ["a_first", "b_second"] {
        let path = folder.path().join(file);
        let said = json!({"contract": "netpulse.plugin/v1", "id": format!("x/driver/{file}/v1"), "version": "1",
                          "capabilities": [{"type": "driver", "name": "shared"}]});
        std::fs::write(&path, format!("#!/bin/sh\necho '{said}'\n")).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let folders = Folders { folders: vec![folder.path().to_owned()], ..Folders::default() };
    let first = Plugins::new(folders.clone(), settings()).info(Kind::Driver, "shared").await;
    assert_eq!(
        first.iter().map(|h| h.id.as_str()).collect::<Vec<_>>(),
        ["x/driver/a_first/v1", "x/driver/b_second/v1"]
    );
    assert!(
        first[0].error.is_none() && first[1].error.as_ref().unwrap().contains("plugin.prefer"),
        "{first:?}"
    );
    let prefer = BTreeMap::from([("driver/shared".to_owned(), "b_second".to_owned())]);
    let preferred =
        Plugins::new(Folders { prefer, ..folders }, settings()).info(Kind::Driver, "shared").await;
    assert_eq!(preferred[0].id, "x/driver/b_second/v1", "{preferred:?}");
}

#[tokio::test]
async fn a_request_that_does_not_fit_the_schema_is_never_sent() {
    let world = World::new(&["stress"]);
    let driver = world.driver().await;
    let body = json!({"driver": "stress", "connection_args": args().0, "command": "x", "driver_args": {"depth": "deep"}});
    let errors = driver.validate(&ExecutionRequest::read(&body, 300).unwrap());
    assert_eq!(netpulse_model::fields::sentence(&errors), "driver_args.depth: Input should be integer");
    assert_eq!(world.plugins.info(Kind::Driver, "stress").await[0].starts, 0);
}

#[tokio::test]
async fn reload_leaves_running_sessions_alone_and_forgets_what_is_gone() {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let pid = pid_of(&run(&mut session, "show clock").await);
    std::fs::remove_file(world.folder.path().join("stress")).unwrap();
    assert!(world.plugins.reload().await.is_empty());
    assert!(world.plugins.get(Kind::Driver, "stress").is_none());
    assert_eq!(pid_of(&run(&mut session, "show clock").await), pid, "a running session keeps its process");
    session.close().await;
    drop(session);
    gone(pid).await;
}

#[tokio::test]
async fn a_grandchild_in_a_session_of_its_own_ends_with_the_plugin() {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let note = world.folder.path().join("grandchild.pid");
    assert_eq!(run(&mut session, &format!("fork {}", note.display())).await.error, None);
    let pid = read_pid(&note);
    assert!(alive(pid));
    let _ = run(&mut session, "crash").await;
    gone(pid).await;
    world.plugins.stop().await;
}

fn read_pid(note: &Path) -> u32 {
    std::fs::read_to_string(note).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_grandchild_of_capabilities_ends_with_its_time() {
    let world = World::new(&["caps_fork"]);
    assert!(world.error_of("caps_fork").await.contains("within 5 s"));
    let end = Instant::now() + Duration::from_secs(5);
    while netpulse_plugin::guard::descendants(std::process::id()).iter().any(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/environ")).is_ok_and(|e| e.contains("caps_fork"))
            || std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.contains("caps_fork"))
    }) {
        assert!(Instant::now() < end, "something of it still lives");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
