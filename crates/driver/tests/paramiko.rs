//! The `paramiko` driver against OpenSSH's own server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, dead_code)]

#[path = "../../session/tests/support/mod.rs"]
mod support;

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netpulse_driver::connect::ConnectSettings;
use netpulse_driver::paramiko::Paramiko;
use netpulse_model::{ConnectionArgs, ErrorCode, ExecutionRequest, ExecutionResult, Outcome};
use netpulse_plugin::{Driver, DriverSession, Report, Run, Watch, Work};
use netpulse_session::transport::hostkeys::HostKeys;
use parking_lot::Mutex;
use serde_json::{Value, json};
use support::{Sshd, user};
use tokio_util::sync::CancellationToken;

/// Notes what it was told, and loses the right to send at a line.
#[derive(Default)]
struct Witness {
    told: Mutex<Vec<String>>,
    lose_at: Option<usize>,
}

impl Watch for Witness {
    fn sending(&self, index: usize, total: usize, line: &str) -> bool {
        self.told.lock().push(format!("sending {}/{total} {line}", index + 1));
        self.lose_at != Some(index)
    }

    fn answered(&self, index: usize, total: usize, result: &ExecutionResult) {
        self.told.lock().push(format!("answered {}/{total} {}", index + 1, result.exit_status));
    }
}

fn settings() -> ConnectSettings {
    ConnectSettings::new(HostKeys::in_memory())
}

fn args(sshd: &Sshd, more: Value) -> ConnectionArgs {
    let mut args =
        json!({"host": "127.0.0.1", "port": sshd.port, "username": user(), "pkey": sshd.client_key()});
    for (key, value) in more.as_object().unwrap() {
        args[key] = value.clone();
    }
    ConnectionArgs(args.as_object().unwrap().clone())
}

struct Bench {
    sshd: Sshd,
    session: Box<dyn DriverSession>,
    watch: Witness,
    cancel: CancellationToken,
    fence: CancellationToken,
}

impl Bench {
    async fn new() -> Self {
        Self::with("", settings(), json!({})).await
    }

    async fn with(config: &str, settings: ConnectSettings, more: Value) -> Self {
        let sshd = Sshd::start(config);
        let session = Paramiko::new(settings).connect(&args(&sshd, more)).await.unwrap();
        Self {
            sshd,
            session,
            watch: Witness::default(),
            cancel: CancellationToken::new(),
            fence: CancellationToken::new(),
        }
    }

    async fn run(&mut self, what: &str, lines: &[&str], driver_args: Value) -> Report {
        let body = json!({"driver": "paramiko", "connection_args": {"host": "h"}, what: lines, "driver_args": driver_args});
        let request = ExecutionRequest::read(&body, 300).unwrap();
        let lines = lines.iter().map(|l| (*l).to_owned()).collect();
        let work = if what == "config" { Work::Config(lines) } else { Work::Commands(lines) };
        self.session
            .run(Run {
                request: &request,
                work,
                watch: &self.watch,
                cancel: self.cancel.clone(),
                fence: self.fence.clone(),
                reused: false,
            })
            .await
    }

    async fn command(&mut self, line: &str, driver_args: Value) -> ExecutionResult {
        let report = self.run("command", &[line], driver_args).await;
        assert_eq!(report.error, None);
        assert_eq!(report.outcome, None);
        report.results.into_iter().next().unwrap()
    }
}

fn text(result: &ExecutionResult) -> &str {
    result.stdout.as_str().unwrap()
}

#[tokio::test]
async fn a_querys_exit_status_is_a_result_and_no_failure() {
    let mut bench = Bench::new().await;
    let report = bench
        .run("command", &["echo out; echo err >&2; exit 3", "kill -9 $$", "cat; echo end"], json!({}))
        .await;
    assert_eq!((report.error, report.outcome, report.reusable, report.untouched), (None, None, true, false));
    let first = &report.results[0];
    assert_eq!((text(first), first.stderr.as_str(), first.exit_status), ("out\n", "err\n", 3));
    assert_eq!(first.metadata["host"], "127.0.0.1");
    assert_eq!(first.metadata["session_reused"], false);
    assert!(first.metadata["duration_seconds"].as_f64().unwrap() < 10.0);
    assert_eq!((report.results[1].exit_status, &report.results[1].metadata["signal"]), (-1, &json!("KILL")));
    // Nobody types: a command that reads gets the end at once.
    assert_eq!(text(&report.results[2]), "end\n");
    assert_eq!(
        bench.watch.told.lock()[..2],
        ["sending 1/3 echo out; echo err >&2; exit 3", "answered 1/3 3"]
    );
}

#[tokio::test]
async fn d14_working_directory_and_environment_hold_for_commands_and_config() {
    let mut bench = Bench::new().await;
    let with = json!({"working_directory": "/usr/share", "environment": {"WHAT": "it's $HOME", "N": 7}});
    for what in ["command", "config"] {
        let report = bench.run(what, &["pwd", "echo \"$WHAT $N\""], with.clone()).await;
        assert_eq!((text(&report.results[0]), text(&report.results[1])), ("/usr/share\n", "it's $HOME 7\n"));
    }
    let lost = bench.command("echo never", json!({"working_directory": "/nowhere"})).await;
    assert_eq!((text(&lost), lost.exit_status), ("", 1));
    assert!(lost.stderr.contains("/nowhere"), "{}", lost.stderr);
}

#[tokio::test]
async fn d21_five_megabytes_on_each_stream() {
    let mut bench = Bench::new().await;
    let both = "head -c 5000000 /dev/zero | tr '\\0' o & head -c 5000000 /dev/zero | tr '\\0' e >&2; wait";
    let result = bench.command(both, json!({"timeout": 60})).await;
    assert_eq!((text(&result).len(), result.stderr.len(), result.exit_status), (5_000_000, 5_000_000, 0));
}

#[tokio::test]
async fn a_terminal_when_asked() {
    let mut bench = Bench::new().await;
    let result = bench.command("tty >/dev/null && echo yes; echo err >&2", json!({"get_pty": true})).await;
    assert_eq!((text(&result), result.stderr.as_str()), ("yes\nerr\n", ""));
}

#[tokio::test]
async fn promise_10_output_has_a_bound_and_the_command_is_ended() {
    let mut bench = Bench::with("", ConnectSettings { max_output: 200_000, ..settings() }, json!({})).await;
    let report = bench.run("command", &["yes", "echo never"], json!({})).await;
    let error = report.error.unwrap();
    assert_eq!(error.code, ErrorCode::OutputTooLarge);
    assert!(error.message.contains("200000 bytes (`session.max_output`)"), "{error}");
    assert_eq!(report.results.len(), 1);
    assert_eq!(text(&report.results[0]).len(), 200_000);
    assert!(report.reusable);
    assert_eq!(text(&bench.command("pgrep -cx yes || true", json!({})).await), "0\n");
    assert_eq!(text(&bench.command("echo on", json!({})).await), "on\n");
}

#[tokio::test]
async fn a_command_past_its_timeout_is_ended_on_the_server_too() {
    let mut bench = Bench::new().await;
    for pty in [false, true] {
        let started = Instant::now();
        let report =
            bench.run("command", &["echo begun; sleep 4242"], json!({"timeout": 2, "get_pty": pty})).await;
        let error = report.error.unwrap();
        assert_eq!(error.code, ErrorCode::ReadTimeout);
        assert!(
            error.message.starts_with("Command timed out: `echo begun; sleep 4242` on 127.0.0.1"),
            "{error}"
        );
        assert_eq!(text(&report.results[0]), if pty { "begun\n^C" } else { "begun\n" });
        assert!(report.results[0].exit_status != 0 && report.results[0].stderr.contains("Command timed out"));
        assert!(
            started.elapsed() < Duration::from_secs(12) && report.reusable,
            "{pty} {:?}",
            started.elapsed()
        );
        // The bracket keeps the search from finding itself.
        assert_eq!(text(&bench.command("pgrep -cf 'sleep 424[2]' || true", json!({})).await), "0\n");
    }
}

#[tokio::test]
async fn promise_4_config_stops_at_the_first_line_that_fails() {
    let mut bench = Bench::new().await;
    let file = bench.sshd.dir.path().join("conf");
    let first = format!("echo one >> {}", file.display());
    let last = format!("echo three >> {}", file.display());
    let lines = [first.as_str(), "echo no such thing >&2; exit 5", last.as_str()];
    let report = bench.run("config", &lines, json!({})).await;
    assert_eq!(report.outcome, Some(Outcome::Partial));
    let error = report.error.unwrap();
    assert_eq!(error.code, ErrorCode::LineRejected);
    assert!(
        error.message.contains("line 2 of 3") && error.message.contains("status 5: no such thing"),
        "{error}"
    );
    assert_eq!(report.results.iter().map(|r| r.exit_status).collect::<Vec<_>>(), [0, 5, 1]);
    assert_eq!(
        report.results[2].stderr,
        format!("Skipped due to previous error in execution of '{}'", lines[1])
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\n");

    let report = bench.run("config", &lines[1..], json!({})).await;
    assert_eq!((report.outcome, report.reusable), (Some(Outcome::NotApplied), true));

    let report = bench.run("config", &lines, json!({"stop_on_error": false})).await;
    assert_eq!(report.outcome, Some(Outcome::Partial));
    assert_eq!(report.error.unwrap().code, ErrorCode::LineRejected);
    assert_eq!(report.results.iter().map(|r| r.exit_status).collect::<Vec<_>>(), [0, 5, 0]);

    let report = bench.run("config", &lines[..1], json!({})).await;
    assert_eq!((report.outcome, report.error), (Some(Outcome::Applied), None));
}

#[tokio::test]
async fn promise_9_cancel_says_what_it_did() {
    let mut bench = Bench::new().await;
    let file = bench.sshd.dir.path().join("conf");
    let one = format!("echo one >> {}", file.display());
    let lines = [one.as_str(), "sleep 4343", "echo three"];
    let cancel = bench.cancel.clone();
    let watched = file.clone();
    let canceling = tokio::spawn(async move {
        while !watched.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        cancel.cancel();
    });
    let report = bench.run("config", &lines, json!({})).await;
    canceling.await.unwrap();
    let error = report.error.unwrap();
    assert_eq!(error.code, ErrorCode::Canceled);
    assert_eq!(error.message, "canceled while line 2 of 3 ran; it was interrupted");
    assert_eq!((report.outcome, report.reusable), (Some(Outcome::Unknown), true));
    assert_eq!(report.results.len(), 3);

    // Canceled before it began.
    let report = bench.run("config", &lines, json!({})).await;
    assert_eq!(report.error.unwrap().message, "canceled before anything was sent");
    assert_eq!((report.outcome, report.untouched), (Some(Outcome::NotApplied), true));
    bench.cancel = CancellationToken::new();
    assert_eq!(text(&bench.command("pgrep -cf 'sleep 434[3]' || true", json!({})).await), "0\n");
}

#[tokio::test]
async fn promise_2_who_lost_the_device_sends_nothing_more() {
    let mut bench = Bench::new().await;
    let file = bench.sshd.dir.path().join("conf");
    let line = format!("echo x >> {}", file.display());
    bench.watch.lose_at = Some(1);
    let report = bench.run("config", &[&line, &line, &line], json!({})).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "x\n");
    assert_eq!(report.error.unwrap().code, ErrorCode::WorkerLost);
    assert!(!report.reusable);
    bench.watch.lose_at = None;
    let fence = bench.fence.clone();
    let fencing = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        fence.cancel();
    });
    let started = Instant::now();
    let report = bench.run("config", &["sleep 30"], json!({})).await;
    fencing.await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!((report.outcome, report.reusable), (Some(Outcome::Unknown), false));
    // The connection is closed, not only left.
    assert!(bench.session.keepalive().await.is_err());
}

/// A `sudo` that asks as the real one does, with the password `s3cret pw`; named by PATH.
fn fake_sudo(dir: &std::path::Path) -> String {
    let path = dir.join("bin");
    std::fs::create_dir_all(&path).unwrap();
    let script = r#"#!/bin/bash
[ "$1" = -S ] && [ "$2" = -p ] && [ "$4" = -- ] || { echo "sudo: odd arguments: $*" >&2; exit 9; }
prompt=$3; shift 4
if [ ! -e "$(dirname "$0")/nopasswd" ]; then
  for try in 1 2 3; do
    printf %s "$prompt" >&2
    IFS= read -rs word || { echo "sudo: no password was provided" >&2; exit 1; }
    [ "$word" = "s3cret pw" ] && break
    echo "Sorry, try again." >&2
    [ $try = 3 ] && exit 1
  done
fi
SUDOED=yes exec "$@"
"#;
    std::fs::write(path.join("sudo"), script).unwrap();
    std::fs::set_permissions(path.join("sudo"), std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("SetEnv PATH={}:/usr/bin:/bin", path.display())
}

#[tokio::test]
async fn sudo_gets_its_password_only_when_it_asks_and_shows_it_nowhere() {
    let tools = tempfile::tempdir().unwrap();
    let config = fake_sudo(tools.path());
    let mut bench = Bench::with(&config, settings(), json!({})).await;
    let sudo = json!({"sudo": true, "sudo_password": "s3cret pw"});
    for pty in [false, true] {
        let mut with = sudo.clone();
        with["get_pty"] = json!(pty);
        let result = bench.command("printenv SUDOED", with.clone()).await;
        assert_eq!(
            (text(&result), result.stderr.as_str(), result.exit_status),
            ("yes\n", "", 0),
            "pty {pty}"
        );
        with["environment"] = json!({"COLOUR": "blue"});
        let result = bench.command("echo $SUDOED $COLOUR | tr a-z A-Z", with.clone()).await;
        assert_eq!(text(&result), "YES BLUE\n");
        with["sudo_password"] = json!("wrong-one");
        let report = bench.run("config", &["touch /nowhere", "true"], with).await;
        let error = report.error.clone().unwrap();
        assert_eq!(
            (error.code, report.outcome),
            (ErrorCode::EnableFailed, Some(Outcome::NotApplied)),
            "pty {pty}"
        );
        assert!(error.message.contains("sudo refused the password"));
        assert!(!format!("{report:?}").contains("wrong-one"), "{report:?}");
    }
    let report = bench.run("command", &["id"], json!({"sudo": true})).await;
    assert!(report.error.unwrap().message.contains("none was given"));
    // A sudo that asks for nothing must not hand the password to the command.
    std::fs::write(tools.path().join("bin/nopasswd"), "").unwrap();
    let result = bench.command("head -c 5 /dev/zero | wc -c", sudo).await;
    assert_eq!((text(&result), result.stderr.as_str()), ("5\n", ""));
}

/// A user of this system that sudo asks for a password; removed when dropped.
struct Account(String);

impl Account {
    fn new() -> Self {
        let name = format!("np-test-{}", std::process::id());
        let run = |line: String| {
            let done = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
            assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
        };
        run(format!("useradd -m -s /bin/bash {name} && echo '{name}:s3cret pw' | chpasswd"));
        run(format!("echo '{name} ALL=(ALL) ALL' > /etc/sudoers.d/{name}"));
        Self(name)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let line = format!("userdel -r {0}; rm -f /etc/sudoers.d/{0}", self.0);
        let done = std::process::Command::new("sh").args(["-c", &line]).output();
        assert!(done.is_ok());
    }
}

#[tokio::test]
#[ignore = "makes an account on this system: run it as root, where sudo is installed, with --ignored"]
async fn the_real_sudo_with_a_real_account() {
    let account = Account::new();
    let sshd = Sshd::start("");
    std::fs::set_permissions(sshd.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let login = args(&sshd, json!({"username": account.0}));
    let session = Paramiko::new(settings()).connect(&login).await.unwrap();
    let (cancel, fence) = (CancellationToken::new(), CancellationToken::new());
    let mut bench = Bench { sshd, session, watch: Witness::default(), cancel, fence };
    let sudo = json!({"sudo": true, "sudo_password": "s3cret pw"});
    let result = bench.command("id -u", json!({})).await;
    assert_ne!(text(&result), "0\n");
    for pty in [false, true] {
        let mut with = sudo.clone();
        with["get_pty"] = json!(pty);
        let result = bench.command("id -u", with.clone()).await;
        // A first sudo may lecture before it asks.
        assert!(text(&result).ends_with("0\n"), "{result:?}");
        assert!(!format!("{result:?}").contains("s3cret"), "{result:?}");
        let result = bench.command("id -un | tr a-z A-Z", with.clone()).await;
        assert!(text(&result).ends_with("ROOT\n"), "{result:?}");
        // What sudo runs is out of the user's reach, and is ended all the same.
        with["timeout"] = json!(3);
        let report = bench.run("command", &["sleep 4545"], with).await;
        assert_eq!(report.error.as_ref().unwrap().code, ErrorCode::ReadTimeout, "{report:?}");
        assert!(report.reusable, "{report:?}");
        let left = bench.command("pgrep -cf 'sleep 454[5]' || true", json!({})).await;
        assert_eq!(text(&left), "0\n", "pty {pty}");
        let report = bench.run("command", &["sleep 4646"], json!({"timeout": 3})).await;
        assert!(report.reusable, "{report:?}");
    }
    let wrong = json!({"sudo": true, "sudo_password": "wrong-one"});
    let report = bench.run("config", &["id"], wrong).await;
    assert_eq!(report.error.as_ref().unwrap().code, ErrorCode::EnableFailed, "{report:?}");
    assert_eq!(report.outcome, Some(Outcome::NotApplied));
    bench.session.close().await;
}

#[tokio::test]
async fn s1_what_was_asked_is_verified_at_connecting() {
    let sshd = Sshd::start("");
    let driver = Paramiko::new(settings());
    let code = |more: Value| {
        let (driver, args) = (driver.clone(), args(&sshd, more));
        async move { driver.connect(&args).await.err().map(|e| e.code) }
    };
    assert_eq!(code(json!({})).await, None);
    assert_eq!(code(json!({"pkey": null, "password": "wrong"})).await, Some(ErrorCode::AuthenticationFailed));
    assert_eq!(code(json!({"username": "nobody-here"})).await, Some(ErrorCode::AuthenticationFailed));
    assert_eq!(code(json!({"port": 1})).await, Some(ErrorCode::ConnectFailed));
    assert_eq!(code(json!({"pkey": "no key"})).await, Some(ErrorCode::AuthenticationFailed));
    assert_eq!(code(json!({"host": ""})).await, Some(ErrorCode::BadRequest));
    assert_eq!(
        code(json!({"host_key_policy": "reject", "host": "localhost"})).await,
        Some(ErrorCode::HostKeyUnknown)
    );
    assert_eq!(code(json!({"host_key_policy": "auto_add", "host": "localhost"})).await, None);
    assert_eq!(code(json!({"host_key_policy": "reject", "host": "localhost"})).await, None);
}

#[tokio::test]
async fn test_says_whom_it_met() {
    let sshd = Sshd::start("");
    let seen = Paramiko::new(settings()).test(&args(&sshd, json!({}))).await.unwrap();
    assert_eq!((&seen["driver"], &seen["host"]), (&json!("paramiko"), &json!("127.0.0.1")));
    assert!(seen["remote_version"].as_str().unwrap().starts_with("SSH-2.0-OpenSSH"));
}

#[tokio::test]
async fn through_a_jump_host_and_with_a_key_file_of_the_server() {
    let jump = Sshd::start("");
    let keys: Arc<[std::path::PathBuf]> = Arc::from([jump.dir.path().to_path_buf()]);
    let settings = ConnectSettings { key_dirs: keys, ..settings() };
    let more = json!({"proxy_host": "127.0.0.1", "proxy_port": jump.port, "proxy_key_filename": "client",
        "ssh_config_file": "~/.ssh/config", "look_for_keys": true});
    let mut bench = Bench::with("", settings, more).await;
    let result = bench.command("echo through", json!({})).await;
    assert_eq!(text(&result), "through\n");
    let warnings = result.metadata["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].as_str().unwrap().contains("`ssh_config_file`"));
}

#[tokio::test]
async fn d6_a_session_that_died_is_told_and_the_query_was_not_sent() {
    let mut bench = Bench::with("", settings(), json!({"keepalive": 30})).await;
    assert_eq!(bench.session.keepalive_interval(), Some(Duration::from_secs(30)));
    bench.session.keepalive().await.unwrap();
    let server = bench.command("echo $PPID", json!({})).await;
    assert!(std::process::Command::new("kill").arg(text(&server).trim()).status().unwrap().success());
    tokio::time::timeout(Duration::from_secs(10), bench.session.closed()).await.unwrap();
    let report = bench.run("command", &["id"], json!({})).await;
    assert_eq!(report.error.unwrap().code, ErrorCode::SessionLost);
    assert!(report.untouched && !report.reusable);
    assert!(bench.session.keepalive().await.is_err());
    // And in the middle of a change.
    let mut bench = Bench::new().await;
    let report = bench.run("config", &["true", "kill $PPID; sleep 5", "true"], json!({})).await;
    assert_eq!(report.error.unwrap().code, ErrorCode::SessionLost);
    assert_eq!((report.outcome, report.untouched, report.reusable), (Some(Outcome::Unknown), false, false));
    assert_eq!(report.results.len(), 3);
}

#[test]
fn promise_15_wrong_requests_are_named() {
    let driver = Paramiko::new(settings());
    let sentence = |body: Value| {
        let request = ExecutionRequest::read(&body, 300).unwrap();
        netpulse_model::fields::sentence(&driver.validate(&request))
    };
    let text = sentence(json!({"driver": "paramiko", "connection_args": {"host": "h"}, "command": "id",
        "driver_args": {"timeout": "x", "environment": {"A-B": "c"}}}));
    for part in [
        "connection_args.username: Field required",
        "At least one of `password`",
        "driver_args.timeout",
        "`A-B`",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let sound = json!({"driver": "paramiko", "connection_args": {"host": "h", "username": "u", "password": "p",
        "device_type": "linux", "made_up": 1}, "command": "id"});
    assert_eq!(sentence(sound), "");
    assert_eq!(driver.default_strategy(), netpulse_model::request::Strategy::Fifo);
}
