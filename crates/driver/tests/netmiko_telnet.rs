//! The netmiko driver over Telnet, against a small IOS-like server: login in text, the privileged
//! mode, what is refused and what is warned about.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod netmiko_support;

use std::sync::Arc;
use std::time::Duration;

use netmiko_support::{Log, ask, connect, driver, object, run};
use netpulse_model::{ErrorCode, Outcome};
use netpulse_plugin::Driver;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// A router that starts in user mode and keeps a journal of the lines it got.
#[derive(Clone, Default)]
struct Router {
    journal: Arc<Mutex<Vec<String>>>,
}

impl Router {
    async fn start(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(router.clone().serve(stream));
            }
        });
        port
    }

    async fn serve(self, mut stream: TcpStream) {
        // Will echo, will suppress go-ahead, as routers do.
        let _sent = stream
            .write_all(b"\xff\xfb\x01\xff\xfb\x03\r\n\r\nUser Access Verification\r\n\r\nUsername: ")
            .await;
        let (mut state, mut line, mut user) = ("user", Vec::new(), String::new());
        let mut buffer = [0u8; 1024];
        let mut negotiation = 0;
        loop {
            let Ok(read) = stream.read(&mut buffer).await else { return };
            if read == 0 {
                return;
            }
            let mut out = Vec::new();
            for &byte in &buffer[..read] {
                if negotiation > 0 {
                    // A command of two bytes (NOP), or of three (WILL, WONT, DO, DONT).
                    negotiation = if negotiation == 2 && byte < 0xfb { 0 } else { negotiation - 1 };
                    continue;
                }
                match byte {
                    0xff => negotiation = 2,
                    0 | b'\n' => {}
                    b'\r' => {
                        let text = String::from_utf8_lossy(&std::mem::take(&mut line)).into_owned();
                        out.extend_from_slice(b"\r\n");
                        match self.answer(&mut state, &mut user, &text) {
                            Some(answer) => out.extend_from_slice(answer.as_bytes()),
                            None => {
                                let _sent = stream.write_all(&out).await;
                                return;
                            }
                        }
                    }
                    byte @ 0x20..0x7f => {
                        line.push(byte);
                        if !matches!(state, "password" | "secret") {
                            out.push(byte);
                        }
                    }
                    3 => {
                        line.clear();
                        out.extend_from_slice(b"^C\r\nR1>");
                    }
                    _ => {}
                }
            }
            if stream.write_all(&out).await.is_err() {
                return;
            }
        }
    }

    fn answer(&self, state: &mut &'static str, user: &mut String, line: &str) -> Option<String> {
        if !matches!(*state, "user" | "password" | "secret") && !line.is_empty() {
            self.journal.lock().push(line.to_owned());
        }
        let prompt = |state: &str| match state {
            "exec" => "R1>",
            "enable" => "R1#",
            _ => "R1(config)#",
        };
        let mut body = String::new();
        match (*state, line) {
            ("user", name) => {
                name.clone_into(user);
                *state = "password";
                return Some("Password: ".to_owned());
            }
            ("password", word) if user == "ops" && word == "pw-1234" => *state = "exec",
            ("password", _) => {
                *state = "user";
                return Some("% Login invalid\r\n\r\nUsername: ".to_owned());
            }
            ("exec", "enable") => {
                *state = "secret";
                return Some("Password: ".to_owned());
            }
            ("secret", "s3cret") => *state = "enable",
            ("secret", _) => {
                *state = "exec";
                body = "% Bad secrets\r\n\r\n".to_owned();
            }
            ("enable", "disable") => *state = "exec",
            ("enable", "configure terminal") => *state = "config",
            ("config", "end") => *state = "enable",
            ("exec" | "enable", "exit") => return None,
            ("enable", "write mem") => body = "Building configuration...\r\n[OK]\r\n".to_owned(),
            (_, line) if line.starts_with("show") => body = format!("{line} in {state}\r\n"),
            ("config", _) | (_, "") => {}
            _ => body = "% Invalid input detected at '^' marker.\r\n\r\n".to_owned(),
        }
        Some(format!("{body}{}", prompt(state)))
    }
}

fn args(port: u16, more: Value) -> netpulse_model::ConnectionArgs {
    let mut args = json!({"device_type": "cisco_ios_telnet", "host": "127.0.0.1", "port": port, "username": "ops",
        "password": "pw-1234", "secret": "s3cret"});
    for (key, value) in more.as_object().unwrap() {
        args[key] = value.clone();
    }
    object(args)
}

#[tokio::test]
async fn d03_the_privileged_mode_never_leaks_from_job_to_job() {
    let router = Router::default();
    let port = router.start().await;
    let mut session = connect(&args(port, json!({}))).await;
    let show = |enable: bool| json!({"command": "show privilege", "enable_mode": enable});
    let text = |report: &netpulse_plugin::Report| report.results[0].stdout.as_str().unwrap().to_owned();
    assert_eq!(text(&ask(&mut *session, show(false)).await), "show privilege in exec");
    assert_eq!(text(&ask(&mut *session, show(true)).await), "show privilege in enable");
    assert_eq!(text(&ask(&mut *session, show(false)).await), "show privilege in exec");
    // A configuration enters the mode it needs, and the session goes back.
    let report = ask(&mut *session, json!({"config": ["ntp server 192.0.2.1"], "save": true})).await;
    assert!(report.error.is_none(), "{:?}", report.error);
    assert_eq!(report.outcome, Some(Outcome::Applied));
    assert_eq!(text(&ask(&mut *session, show(false)).await), "show privilege in exec");
    // All three places.
    let body = json!({"command": "show privilege", "driver_args": {"enable_mode": true}});
    assert_eq!(text(&ask(&mut *session, body).await), "show privilege in enable");
    let journal = router.journal.lock().clone();
    let saved = journal.iter().position(|l| l == "write mem").unwrap();
    assert_eq!(journal[saved - 1], "end");
    session.close().await;
}

#[tokio::test]
async fn a_wrong_secret_is_an_error_and_the_session_lives() {
    let port = Router::default().start().await;
    let mut session = connect(&args(port, json!({"secret": "wrong-one"}))).await;
    let report = ask(&mut *session, json!({"command": "show x", "enable_mode": true})).await;
    let error = report.error.unwrap();
    assert_eq!(error.code, ErrorCode::EnableFailed);
    assert!(!error.message.contains("wrong-one"), "{error}");
    assert!(report.reusable && report.untouched);
    assert_eq!(ask(&mut *session, json!({"command": "show x"})).await.results[0].stdout, "show x in exec");
}

#[tokio::test]
async fn a_refused_login_says_so_without_the_password() {
    let port = Router::default().start().await;
    let error = driver().connect(&args(port, json!({"password": "not-this-one"}))).await.err().unwrap();
    assert_eq!(error.code, ErrorCode::AuthenticationFailed);
    assert!(error.message.contains("`ops`") && !error.message.contains("not-this-one"), "{error}");
}

#[tokio::test]
async fn autodetect_takes_the_name_and_telnet_is_found_by_the_ending() {
    let driver = driver();
    let wrong = |more: Value| {
        let errors = driver.validate_connection(&args(23, more));
        netpulse_model::fields::sentence(&errors)
    };
    assert_eq!(wrong(json!({})), "");
    assert!(wrong(json!({"device_type": "cisco_iso"})).contains("cisco_ios"));
    assert!(wrong(json!({"device_type": null})).contains("connection_args.device_type: Field required"));
    assert!(wrong(json!({"device_type": "cisco_ios_serial"})).contains("console server"));
    assert!(wrong(json!({"session_log": "/tmp/x"})).contains("session_log"));
    assert!(wrong(json!({"host": null})).contains("connection_args.host: Field required"));
    assert_eq!(driver.device(&args(23, json!({}))).unwrap().as_str(), "127.0.0.1");
    assert_eq!(driver.device(&args(2323, json!({}))).unwrap().as_str(), "127.0.0.1:2323");
    // Unknown arguments are tolerated.
    assert_eq!(wrong(json!({"fast_cli": true, "what_is_this": [1], "global_delay_factor": 2})), "");
}

#[tokio::test]
async fn what_cannot_be_honoured_is_named_in_the_metadata() {
    let port = Router::default().start().await;
    let mut session = connect(&args(port, json!({"proxy_host": "192.0.2.9"}))).await;
    let report = ask(&mut *session, json!({"command": "show x"})).await;
    let warnings = report.results[0].metadata["warnings"].as_array().unwrap();
    assert!(warnings[0].as_str().unwrap().contains("`proxy_host` was not used"), "{warnings:?}");
    assert_eq!(report.results[0].metadata["session_reused"], true);
    assert!(report.results[0].metadata["duration_seconds"].as_f64().unwrap() < 5.0);
}

#[tokio::test]
async fn a_dropped_run_leaves_nothing_behind_but_a_closed_socket() {
    let router = Router::default();
    let port = router.start().await;
    let mut session = connect(&args(port, json!({}))).await;
    let log = Log::default();
    let body = json!({"command": "show x", "driver_args": {"expect_string": "never comes"}});
    let dropped = tokio::time::timeout(
        Duration::from_millis(300),
        run(&mut *session, body, true, &log, CancellationToken::new()),
    )
    .await;
    assert!(dropped.is_err());
    session.close().await;
    assert_eq!(router.journal.lock().iter().filter(|l| *l == "exit").count(), 0, "nothing more was said");
}
