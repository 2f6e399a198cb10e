//! The netmiko driver against simulated devices that do something wrong. What became of a change
//! is judged by what the device has, not by what we say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod netmiko_support;

use std::time::{Duration, Instant};

use netmiko_support::{Log, ask, connect, object, run};
use netpulse_model::{ErrorCode, Outcome};
use netpulse_simulator::{Faults, Plan, Running, Simulator};
use serde_json::json;
use tokio_util::sync::CancellationToken;

fn simulate(name: &str, faults: &str) -> Running {
    let plan = Plan { faults: Faults::parse(faults).unwrap(), ..Plan::of(name, 1) };
    Simulator::start(plan).unwrap()
}

fn args(running: &Running, name: &str) -> netpulse_model::ConnectionArgs {
    let address = running.device(0).ssh.unwrap();
    object(json!({"device_type": name, "host": "127.0.0.1", "port": address.port(), "username": "admin",
        "password": "admin", "secret": "enable"}))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_disturbs_changes_nothing() {
    for name in ["cisco_ios", "juniper_junos", "huawei"] {
        for faults in
            ["split=1", "split=3,latency=20ms,jitter=30ms", "slow_echo=2ms", "junk_bytes", "echo_off"]
        {
            let running = simulate(name, faults);
            let mut session = connect(&args(&running, name)).await;
            let report = ask(&mut *session, json!({"command": "simulator-lines 60"})).await;
            assert!(report.error.is_none(), "{name} {faults}: {:?}", report.error);
            let text = report.results[0].stdout.as_str().unwrap();
            assert_eq!(text.lines().filter(|l| l.len() >= 60).count(), 60, "{name} {faults}: {text}");
            let line = match name {
                "cisco_ios" => json!({"config": ["interface Loopback7", "description seven"]}),
                "huawei" => json!({"config": ["interface LoopBack7", "description seven"]}),
                _ => json!({"config": ["set interfaces lo0 description seven"]}),
            };
            let report = ask(&mut *session, line).await;
            assert!(report.error.is_none(), "{name} {faults}: {:?}", report.error);
            assert!(running.device(0).running_config().contains("seven"), "{name} {faults}");
            session.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_lines_in_the_answers_hang_nothing_and_refuse_nothing() {
    let running = simulate("cisco_ios", "junk_every=2");
    let mut session = connect(&args(&running, "cisco_ios")).await;
    let began = Instant::now();
    let report =
        ask(&mut *session, json!({"config": ["interface Loopback7", "description seven", "no shutdown"]}))
            .await;
    assert!(report.error.is_none(), "{:?} {:#?}", report.error, report.results);
    assert!(running.device(0).running_config().contains("seven"));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pain_10_a_pager_without_end_is_left_at_the_deadline() {
    let running = simulate("cisco_ios", "stuck_pager");
    let mut session = connect(&args(&running, "generic")).await;
    let began = Instant::now();
    let body = json!({"command": "show version", "driver_args": {"read_timeout": 2}});
    let report = ask(&mut *session, body).await;
    assert_eq!(report.error.unwrap().code, ErrorCode::ReadTimeout);
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d06_promise_5_a_connection_cut_at_a_line_leaves_the_truth() {
    for (fault, took_effect) in [("drop_before=description", false), ("drop_after=description", true)] {
        let running = simulate("cisco_ios", fault);
        let mut session = connect(&args(&running, "cisco_ios")).await;
        let report =
            ask(&mut *session, json!({"config": ["interface Loopback7", "description seven", "mtu 1400"]}))
                .await;
        assert_eq!(report.outcome, Some(Outcome::Unknown), "{fault}");
        let error = report.error.unwrap();
        assert_eq!(error.code, ErrorCode::SessionLost, "{fault}: {error}");
        assert!(error.message.contains("line 2 of 3 was in flight"), "{error}");
        assert!(!report.reusable && !report.untouched);
        assert_eq!(running.device(0).running_config().contains("seven"), took_effect, "{fault}");
        assert_eq!(report.results.iter().map(|r| r.exit_status).collect::<Vec<_>>(), [0, 1, 1]);
        assert_eq!(report.results[2].stderr, "Not sent: the session was lost");
        assert_eq!(error.message.matches("the device").count(), 1, "{error}");
    }
    // Before the commit nothing takes effect; in the commit nobody knows.
    for (fault, outcome) in
        [("drop_after=description", Outcome::NotApplied), ("drop_after=commit", Outcome::Unknown)]
    {
        let running = simulate("juniper_junos", fault);
        let mut session = connect(&args(&running, "juniper_junos")).await;
        let report = ask(&mut *session, json!({"config": ["set interfaces lo0 description seven"]})).await;
        assert_eq!(report.outcome, Some(outcome), "{fault}: {:?}", report.error);
        let applied = running.device(0).running_config().contains("seven");
        assert_eq!(applied, outcome == Outcome::Unknown, "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_and_a_hang_are_bounded() {
    let running = simulate("cisco_ios", "flood_on=show flood,hang_on=show hang");
    let mut session = connect(&args(&running, "cisco_ios")).await;
    let began = Instant::now();
    let report =
        ask(&mut *session, json!({"command": "show hang", "driver_args": {"read_timeout": 1}})).await;
    let error = report.error.unwrap();
    assert_eq!(error.code, ErrorCode::ReadTimeout);
    for part in ["`show hang`: no prompt within 1 s (read_timeout): Pattern not detected: '", "' in output."]
    {
        assert!(error.message.contains(part), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let mut session = connect(&args(&running, "cisco_ios")).await;
    let began = Instant::now();
    let report =
        ask(&mut *session, json!({"command": "show flood", "driver_args": {"read_timeout": 2}})).await;
    let code = report.error.unwrap().code;
    assert!(
        matches!(code, ErrorCode::ReadTimeout | ErrorCode::OutputTooLarge | ErrorCode::SessionLost),
        "{code}"
    );
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pain_16_a_silent_device_is_given_up_in_time() {
    let running = simulate("cisco_ios", "half_open");
    let mut device = args(&running, "cisco_ios");
    device.0.insert("banner_timeout".into(), json!(1));
    device.0.insert("session_timeout".into(), json!(2));
    let began = Instant::now();
    let error = netpulse_plugin::Driver::connect(&netmiko_support::driver(), &device).await.err().unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{error} after {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_junos_rejects_is_told_in_the_words_of_the_device() {
    let running = Simulator::start(Plan::of("juniper_junos", 1)).unwrap();
    let mut session = connect(&args(&running, "juniper_junos")).await;
    let report = ask(
        &mut *session,
        json!({"config": ["set system host-name r9", "set nonsense x", "set system y"],
            "driver_args": {"read_timout": 5}}),
    )
    .await;
    let error = report.error.unwrap();
    assert!(error.message.contains("`set nonsense x`: syntax error"), "{error}");
    assert_eq!(report.outcome, Some(Outcome::NotApplied));
    assert!(report.results[1].stderr.contains("syntax error"), "{:?}", report.results);
    for result in &report.results {
        let warnings = result.metadata["warnings"].to_string();
        assert!(warnings.contains("did you mean `read_timeout`?"), "{warnings}");
        let text = result.stdout.as_str().unwrap();
        assert!(!text.contains("[edit]") && !text.contains("load complete"), "{:?}", report.results);
    }
    assert_eq!(report.results[2].stderr, "Skipped due to previous error in execution of 'set nonsense x'");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_after_a_cancel_were_not_sent() {
    let running = simulate("cisco_ios", "latency=200ms");
    let mut session = connect(&args(&running, "cisco_ios")).await;
    for after in [0, 1] {
        let cancel = CancellationToken::new();
        let log = Log { cancel_after: Some((after, cancel.clone())), ..Log::default() };
        let body = json!({"config": ["interface Loopback7", "description seven", "mtu 1400"]});
        let report = run(&mut *session, body, true, &log, cancel).await;
        assert_eq!(report.error.unwrap().code, ErrorCode::Canceled);
        let last = &report.results[2];
        assert_eq!((last.exit_status, last.stderr.as_str()), (1, "Not sent: canceled"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_secret_is_told_without_the_prompt() {
    let running = Simulator::start(Plan::of("cisco_ios", 1)).unwrap();
    let mut device = args(&running, "cisco_ios");
    device.0.insert("secret".into(), json!("wrong"));
    let mut session = connect(&device).await;
    let report = ask(&mut *session, json!({"command": "show version", "enable_mode": true})).await;
    let error = report.error.unwrap();
    assert_eq!(error.code, ErrorCode::EnableFailed);
    assert!(error.message.ends_with('`') && error.message.contains("`% "), "{error}");
    assert!(!error.message.contains('>'), "{error}");
}
