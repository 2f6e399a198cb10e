//! The netmiko driver against real command lines: bash as `linux`, FRRouting's vtysh as
//! `cisco_ios` and `frr`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod netmiko_support;

use std::time::{Duration, Instant};

use netmiko_support::{Device, Log, ask, connect, driver, run};
use netpulse_model::{ErrorCode, Outcome};
use netpulse_plugin::Driver;
use serde_json::json;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn bash_as_linux() {
    let device = Device::bash();
    let mut session = connect(&device.args("linux")).await;
    let began = Instant::now();
    let report = ask(&mut *session, json!({"command": ["echo one; echo two", "cd /tmp", "pwd", "printf 'no newline'"]})).await;
    assert!(report.error.is_none(), "{:?}", report.error);
    let out: Vec<_> = report.results.iter().map(|r| r.stdout.as_str().unwrap().to_owned()).collect();
    assert_eq!(out[..3], ["one\ntwo", "", "/tmp"]);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(report.reusable);
    // A long output, whole and in order.
    let report = ask(&mut *session, json!({"command": "seq 1 200000", "driver_args": {"read_timeout": 60}})).await;
    let text = report.results[0].stdout.as_str().unwrap().to_owned();
    assert_eq!(text.lines().count(), 200_000);
    assert!(text.ends_with("\n200000"));
    session.close().await;
}

#[tokio::test]
async fn a_hanging_command_is_interrupted_and_the_session_serves_on() {
    let device = Device::bash();
    let mut session = connect(&device.args("linux")).await;
    let report = ask(&mut *session, json!({"command": "echo begun; sleep 600", "driver_args": {"read_timeout": 1}})).await;
    assert_eq!(report.error.unwrap().code, ErrorCode::ReadTimeout);
    assert_eq!(report.results[0].exit_status, 1);
    assert!(report.results[0].stdout.as_str().unwrap().contains("begun"));
    assert!(report.reusable);
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop.cancel();
    });
    let began = Instant::now();
    let report = run(&mut *session, json!({"command": "sleep 600"}), true, &Log::default(), cancel).await;
    assert_eq!(report.error.unwrap().code, ErrorCode::Canceled);
    assert!(began.elapsed() < Duration::from_secs(5) && report.reusable);
    assert_eq!(ask(&mut *session, json!({"command": "echo alive"})).await.results[0].stdout, "alive");
}

#[tokio::test]
async fn expect_string_and_strip_options() {
    let device = Device::bash();
    let mut session = connect(&device.args("linux")).await;
    let report =
        ask(&mut *session, json!({"command": "read -p 'Proceed? ' x\nyes", "driver_args": {"expect_string": "[#$] $"}})).await;
    assert!(report.error.is_none(), "{:?}", report.error);
    let report = ask(
        &mut *session,
        json!({"command": "echo $x", "driver_args": {"strip_prompt": false, "strip_command": false}}),
    )
    .await;
    let text = report.results[0].stdout.as_str().unwrap();
    assert!(text.starts_with("echo $x\nyes\nops@box:") && text.ends_with(['$', '#']), "{text}");
    let report = ask(&mut *session, json!({"command": "read -p 'Overwrite? [confirm]' x"})).await;
    let error = report.error.unwrap();
    assert_eq!(error.code, ErrorCode::PromptNotFound);
    assert!(error.message.contains("Overwrite? [confirm]"), "{error}");
    assert!(report.reusable);
}

#[tokio::test]
async fn vtysh_as_cisco_ios_and_frr() {
    let device = Device::frr();
    for name in ["cisco_ios", "frr"] {
        let mut session = connect(&device.args(name)).await;
        let report = ask(&mut *session, json!({"command": ["show version", "show bogus"]})).await;
        assert!(report.error.is_none(), "{:?}", report.error);
        assert!(report.results[0].stdout.as_str().unwrap().starts_with("FRRouting "));
        assert!(report.results[1].stdout.as_str().unwrap().contains("% Unknown command"));
        assert_eq!(report.results[0].metadata["host"], "127.0.0.1");
        session.close().await;
    }
}

#[tokio::test]
async fn d02_d19_save_saves_and_the_session_stays_in_exec() {
    let device = Device::frr();
    let mut session = connect(&device.args("cisco_ios")).await;
    let report = ask(&mut *session, json!({"config": ["ip route 192.0.2.0/24 Null0"], "save": true})).await;
    assert!(report.error.is_none(), "{:?} {:?}", report.error, report.results);
    assert_eq!(report.outcome, Some(Outcome::Applied));
    let saved = std::fs::read_to_string(device.dir.path().join("cfg/frr.conf")).unwrap();
    assert!(saved.contains("ip route 192.0.2.0/24 Null0"), "{saved}");
    let report = ask(&mut *session, json!({"command": "show version"})).await;
    let text = report.results[0].stdout.as_str().unwrap();
    assert!(text.starts_with("FRRouting") && !text.contains("(config)"), "{text}");
}

#[tokio::test]
async fn d04_d05_d20_hostname_and_rejected_lines_on_vtysh() {
    let device = Device::frr();
    let mut session = connect(&device.args("cisco_ios")).await;
    let began = Instant::now();
    let report = ask(&mut *session, json!({"config": "hostname edge-1\nip route 198.51.100.0/24 Null0\n"})).await;
    assert!(report.error.is_none(), "{:?} {:?}", report.error, report.results);
    assert_eq!(report.results.len(), 2);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let log = Log::default();
    let body = json!({"config": ["ip route 203.0.113.0/24 Null0", "bogus line", "ip route 203.0.114.0/24 Null0"]});
    let report = run(&mut *session, body, true, &log, CancellationToken::new()).await;
    let statuses: Vec<i32> = report.results.iter().map(|r| r.exit_status).collect();
    assert_eq!(statuses, [0, 1, 1]);
    assert!(report.results[1].stderr.starts_with("Device reported configuration error: % Unknown command"));
    assert_eq!(report.results[2].stderr, "Skipped due to previous error in execution of 'bogus line'");
    assert_eq!(report.error.unwrap().code, ErrorCode::LineRejected);
    assert_eq!(report.outcome, Some(Outcome::Partial));
    assert_eq!(log.sent.lock().len(), 2);
    let report = ask(&mut *session, json!({"command": "show running-config"})).await;
    let text = report.results[0].stdout.as_str().unwrap();
    assert!(text.contains("hostname edge-1") && text.contains("203.0.113.0") && !text.contains("203.0.114.0"), "{text}");
}

#[tokio::test]
async fn promise_2_a_forbidden_line_is_not_sent() {
    let device = Device::frr();
    let mut session = connect(&device.args("frr")).await;
    let log = Log { deny: Some("ip route 192.0.2.2/32 Null0".into()), ..Log::default() };
    let body = json!({"config": ["ip route 192.0.2.1/32 Null0", "ip route 192.0.2.2/32 Null0"]});
    let report = run(&mut *session, body, true, &log, CancellationToken::new()).await;
    assert_eq!(report.outcome, Some(Outcome::Partial));
    assert!(!report.reusable);
    let mut other = connect(&device.args("frr")).await;
    let text = ask(&mut *other, json!({"command": "show running-config"})).await.results[0].stdout.to_string();
    assert!(text.contains("192.0.2.1/32") && !text.contains("192.0.2.2/32"), "{text}");
}

#[tokio::test]
async fn promise_9_cancel_between_lines_says_where() {
    let device = Device::frr();
    let mut session = connect(&device.args("frr")).await;
    let cancel = CancellationToken::new();
    let log = Log { cancel_after: Some((0, cancel.clone())), ..Log::default() };
    let body = json!({"config": ["ip route 192.0.2.1/32 Null0", "ip route 192.0.2.2/32 Null0"]});
    let report = run(&mut *session, body, true, &log, cancel).await;
    let error = report.error.unwrap();
    assert_eq!(error.code, ErrorCode::Canceled);
    assert!(error.message.contains("between line 1 and line 2"), "{error}");
    assert_eq!(report.outcome, Some(Outcome::Partial));
    assert!(report.reusable);
}

#[tokio::test]
async fn d06_a_dead_session_is_found_before_anything_is_sent() {
    let mut device = Device::frr();
    let mut session = connect(&device.args("frr")).await;
    device.hang_up();
    tokio::time::timeout(Duration::from_secs(10), session.closed()).await.expect("the end of the session shows");
    let report = ask(&mut *session, json!({"config": ["ip route 192.0.2.1/32 Null0"]})).await;
    assert!(report.untouched && !report.reusable);
    assert_eq!(report.error.unwrap().code, ErrorCode::SessionLost);
    assert!(session.keepalive().await.is_err());
}

#[tokio::test]
async fn the_platform_is_detected() {
    let frr = Device::frr();
    let seen = driver().test(&frr.args("autodetect")).await.unwrap();
    assert_eq!(seen["device_type"], "frr");
    let bash = Device::bash();
    let seen = driver().test(&bash.args("autodetect")).await.unwrap();
    assert_eq!(seen["device_type"], "linux");
    assert!(seen["prompt"].as_str().unwrap().starts_with("ops@box:"));
    assert!(seen["remote_version"].as_str().unwrap().starts_with("SSH-2.0-OpenSSH"));
}

#[tokio::test]
#[ignore = "a measurement, not a test"]
async fn how_long_it_takes() {
    let device = Device::frr();
    let began = Instant::now();
    let mut session = connect(&device.args("cisco_ios")).await;
    println!("connect {:?}", began.elapsed());
    let mut times = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        ask(&mut *session, json!({"command": "show clock"})).await;
        times.push(began.elapsed());
    }
    times.sort();
    println!("command p50 {:?} p95 {:?}", times[100], times[190]);
    let began = Instant::now();
    let lines: Vec<String> = (1..=100).map(|n| format!("ip route 10.0.{n}.0/24 Null0")).collect();
    let report = ask(&mut *session, json!({"config": lines})).await;
    println!("100 lines {:?} {:?}", began.elapsed(), report.outcome);
    let bash = Device::bash();
    let began = Instant::now();
    let mut session = connect(&bash.args("linux")).await;
    println!("bash connect {:?}", began.elapsed());
    let began = Instant::now();
    let report = ask(&mut *session, json!({"command": "yes 0123456789012345678901234567890123456789012345678901234567890123456789 | head -c 50000000", "driver_args": {"read_timeout": 120}})).await;
    println!("50 MB in {:?}, {:?}", began.elapsed(), report.error);
}
