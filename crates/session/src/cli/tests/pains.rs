//! Each pain of the field notes that concerns a conversation, under its number.

use std::time::Duration;

use netpulse_model::{ErrorCode, Outcome};

use super::device::{Wire, ios, lines};
use crate::cli::{CommandOptions, ConfigOptions, LineState, Silent};
use crate::platform::Mode;

fn config(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|l| (*l).to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_command_answers_without_echo_and_prompt() {
    let wire = Wire::new(ios(|line, _| Some(format!("you said {line}\r\n"))));
    let mut session = wire.open("cisco_ios").await.unwrap();
    assert_eq!(session.mode(), Mode::Enable);
    let output = session.command("show clock", &CommandOptions::default()).await.unwrap();
    assert_eq!(output.into_text(), "you said show clock");
    let options = CommandOptions { strip_prompt: false, strip_command: false, ..CommandOptions::default() };
    let output = session.command("show clock", &options).await.unwrap();
    assert_eq!(output.into_text(), "show clock\nyou said show clock\nR1#");
}

#[tokio::test(start_paused = true)]
async fn d04_a_hostname_in_the_configuration_does_not_hang() {
    let mut session = Wire::new(ios(|_, _| Some(String::new()))).open("cisco_ios").await.unwrap();
    let began = tokio::time::Instant::now();
    let report = session
        .config(&config(&["hostname R2", "no ip http server"]), &ConfigOptions::default(), &mut Silent)
        .await;
    assert!(report.error.is_none(), "{:?}", report.error);
    assert_eq!(report.outcome, Outcome::Applied);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(session.prompt(), "R2#");
    assert_eq!(session.command("show x", &CommandOptions::default()).await.unwrap().into_text(), "");
}

#[tokio::test(start_paused = true)]
async fn d05_unknown_command_is_a_refused_line_and_the_rest_is_not_sent() {
    let wire = Wire::new(ios(|line, _| {
        Some(if line.starts_with("bogus") { "% Unknown command: bogus\r\n".into() } else { String::new() })
    }));
    let sent = std::sync::Arc::clone(&wire.sent);
    let mut session = wire.open("cisco_ios").await.unwrap();
    let report = session
        .config(
            &config(&["interface Eth1", "bogus line", "shutdown"]),
            &ConfigOptions::default(),
            &mut Silent,
        )
        .await;
    assert_eq!(report.outcome, Outcome::Partial);
    assert_eq!(report.lines[1].state, LineState::Rejected("% Unknown command: bogus".into()));
    assert_eq!(report.lines[2].state, LineState::Skipped(Some(1)));
    assert_eq!(report.error.unwrap().kind, ErrorCode::LineRejected);
    assert!(!String::from_utf8_lossy(&sent.lock()).contains("shutdown"));
    assert_eq!(session.mode(), Mode::Enable);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_command_is_interrupted_and_the_session_lives() {
    let mut hanging = false;
    let device = lines("R1#", move |line| {
        Some(match line {
            "ping" => {
                hanging = true;
                b"....".to_vec()
            }
            "\u{3}" => {
                hanging = false;
                b"^C\r\nR1#".to_vec()
            }
            _ if hanging => Vec::new(),
            _ => b"R1#".to_vec(),
        })
    });
    let mut session = Wire::new(device).open("cisco_ios").await.unwrap();
    let error = session.command("ping", &CommandOptions::default()).await.unwrap_err();
    assert_eq!(error.kind, ErrorCode::ReadTimeout);
    assert!(error.message.contains("Pattern not detected"), "{error}");
    assert_eq!(session.take_partial(), b"....");
    assert!(session.usable());
    session.command("show", &CommandOptions::default()).await.unwrap();
}

/// A device that answers every line with the prompt that `prompt` gives for the n-th line.
fn prompting(
    mut prompt: impl FnMut(usize, &str) -> String + Send + 'static,
) -> Box<dyn super::device::Behave> {
    let first = prompt(0, "");
    let mut count = 0;
    lines(&first, move |line| {
        count += 1;
        Some(prompt(count, line).into_bytes())
    })
}

#[tokio::test(start_paused = true)]
async fn pain_01_a_prompt_that_no_pattern_knows_is_learnt_by_its_return() {
    let mut session = Wire::new(prompting(|_, _| "=> ops/ $$".into())).open("cisco_ios").await.unwrap();
    assert_eq!(session.prompt(), "=> ops/ $$");
    session.command("anything", &CommandOptions::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn pain_01_garbage_instead_of_a_prompt_is_said_within_the_login_timeout() {
    let began = tokio::time::Instant::now();
    let garbage = prompting(|n, _| format!("{}\x01\x02 choose an option {n}: ", "x".repeat(n)));
    let error = Wire::new(garbage).open("cisco_ios").await.err().unwrap();
    assert_eq!(error.kind, ErrorCode::PromptNotFound);
    assert!(error.message.contains("dut:22") && error.message.contains("choose an option"), "{error}");
    assert!(began.elapsed() <= Duration::from_secs(61));
}

#[tokio::test(start_paused = true)]
async fn pain_03_a_prompt_inside_the_output_does_not_end_it() {
    // As in `show tech`, where each section starts with the prompt and the command; the pieces
    // end exactly behind the prompt.
    let section = "R1#show version\r\nCisco IOS Software\r\n".to_owned() + &"x".repeat(700) + "\r\n";
    let body = section.repeat(20);
    let expected = body.replace("\r\n", "\n").trim_end().to_owned();
    let wire = Wire::new(ios(move |_, _| Some(body.clone())));
    let mut cuts = [3usize].into_iter().cycle();
    let mut session = wire.open("cisco_ios").await.unwrap();
    let output = session.command("show tech", &CommandOptions::default()).await.unwrap();
    assert_eq!(output.into_text(), expected);
    let section = "\r\nR1#show version\r\n".to_owned() + &"y".repeat(50);
    let body = section.repeat(40) + "\r\n";
    let expected = body.replace("\r\n", "\n").trim_end().to_owned();
    let wire = Wire::new(ios(move |_, _| Some(body.clone())))
        .in_pieces(Duration::from_micros(1500), move || cuts.next().unwrap());
    let mut session = wire.open("cisco_ios").await.unwrap();
    let output = session.command("show tech", &CommandOptions::default()).await.unwrap();
    assert_eq!(output.into_text(), expected);
}

#[tokio::test(start_paused = true)]
async fn pain_04_a_text_that_only_looks_like_a_prompt_is_output() {
    // Another router's prompt, printed by a session within the session.
    let body = "Trying 192.0.2.9 ...\r\nR9#".to_owned();
    let device = lines("R1#", move |line| match line {
        "telnet R9" => Some(body.clone().into_bytes()),
        "" => Some(b"\r\nconnection closed\r\nR1#".to_vec()),
        _ => Some(b"R1#".to_vec()),
    });
    let mut session = Wire::new(device).open("cisco_ios").await;
    // The device answers Enter with a line of text at first, then with its prompt.
    let output =
        session.as_mut().unwrap().command("telnet R9", &CommandOptions::default()).await.unwrap().into_text();
    assert!(output.contains("connection closed") && output.starts_with("Trying"), "{output}");
    assert_eq!(session.unwrap().prompt(), "R1#");
}

#[tokio::test(start_paused = true)]
async fn pain_05_prompts_of_many_kinds() {
    for (platform, first, config) in [
        (
            "cisco_ios",
            "very-long-name-of-a-switch-in-building-7.example.net#",
            Some("very-long-name-of-a(config)#"),
        ),
        ("cisco_asa", "fw/ctx1/pri/act#", Some("fw/ctx1/pri/act(config)#")),
        ("cisco_nxos", "nx(standby)#", Some("nx(config-if)#")),
        ("cisco_xr", "RP/0/RSP0/CPU0:core#", Some("RP/0/RSP0/CPU0:core(config-bgp)#")),
        ("paloalto_panos", "admin@PA-5220(active-primary)>", Some("admin@PA-5220(passive)#")),
        ("fortinet", "FGT-1 #", Some("FGT-1 (interface) #")),
        ("huawei", "HRP_M<fw-1>", Some("HRP_M[fw-1-policy-security]")),
        ("extreme_exos", "* (pacman debug-mode) Slot-1 Stack.34 #", None),
        ("linux", "[ops@db-1 core]$", None),
        ("linux", "(venv) ops@db-1:/var/core$", None),
        ("linux", "ops@db-1 ~ %", None),
        ("f5_tmsh", "admin@(big1)(cfg-sync In Sync)(Active)(/Common)(tmos)#", None),
        ("checkpoint_gaia", "gw-1>", None),
        ("nokia_sros_classic", "*A:pe-1#", Some("*A:pe-1>config>router>bgp#")),
        ("mikrotik_routeros", "[admin@RB 4011] /interface>", None),
    ] {
        let (prompt, inside) = (first.to_owned(), config.unwrap_or(first).to_owned());
        let device = prompting(move |_, line| format!("{} ", if line == "go" { &inside } else { &prompt }));
        let mut session =
            Wire::new(device).open(platform).await.unwrap_or_else(|e| panic!("{platform} {first}: {e}"));
        assert_eq!(session.prompt(), first, "{platform}");
        let began = tokio::time::Instant::now();
        session
            .command("go", &CommandOptions::default())
            .await
            .unwrap_or_else(|e| panic!("{platform} {first}: {e}"));
        assert_eq!(session.mode() == Mode::Config, config.is_some(), "{platform} {first}");
        assert!(began.elapsed() < Duration::from_millis(5), "{platform} {first} was not known at once");
    }
}

#[tokio::test(start_paused = true)]
async fn pain_07_a_console_that_waits_for_enter() {
    let mut asked = 0;
    let device = lines("", move |line| {
        asked += 1;
        Some(match (asked, line) {
            (1, "") => b"\r\nUser Access Verification\r\n\r\nUsername: ".to_vec(),
            (2, "ops") => b"Password: ".to_vec(),
            _ => b"R1>".to_vec(),
        })
    });
    let session = Wire::new(device).telnet().open("cisco_ios").await.unwrap();
    assert_eq!(session.prompt(), "R1>");
}

#[tokio::test(start_paused = true)]
async fn a_refused_text_login_is_refused_once() {
    let mut tries = 0;
    let device = lines("Username: ", move |line| {
        Some(match line {
            "ops" => b"Password: ".to_vec(),
            "pass-word" => {
                tries += 1;
                assert_eq!(tries, 1, "the password went out twice");
                b"% Login invalid\r\n\r\nUsername: ".to_vec()
            }
            _ => b"Username: ".to_vec(),
        })
    });
    let error = Wire::new(device).telnet().open("cisco_ios").await.err().unwrap();
    assert_eq!(error.kind, ErrorCode::AuthenticationFailed);
    assert!(error.message.contains("Login invalid") && !error.message.contains("pass-word"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn pain_08_bytes_that_are_no_text_do_no_harm() {
    let device = lines("\u{0}", |line| {
        let body: &[u8] = if line == "show" { b"caf\xe9 \xff\xfe\0 \xf0\x9f\x98\x80\r\n" } else { b"\0" };
        Some([body, b"R1#\0"].concat())
    });
    let mut session = Wire::new(device).open("cisco_ios").await.unwrap();
    let output = session.command("show", &CommandOptions::default()).await.unwrap();
    assert_eq!(output.bytes, b"caf\xe9 \xff\xfe \xf0\x9f\x98\x80");
    assert!(output.into_text().starts_with("caf\u{fffd}"));
}

#[tokio::test(start_paused = true)]
async fn pain_10_pagers_turn_up_everywhere() {
    // In the login banner, in the answer to the paging command, in a configuration answer.
    let mut mode = "R1#";
    let device = lines("banner line\r\n--More--", move |line| {
        let line = line.trim_start();
        if line == "configure terminal" {
            mode = "R1(config)#";
        } else if line == "end" {
            mode = "R1#";
        }
        Some(
            format!("{}{mode}", if line.starts_with("ntp") { "one\r\n --More-- \r\n" } else { "" })
                .into_bytes(),
        )
    });
    let error = Wire::new(device).open("cisco_ios").await.err();
    assert!(error.is_none(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn pain_11_12_13_nothing_sleeps() {
    let began = tokio::time::Instant::now();
    let mut session = Wire::new(ios(|_, _| Some(String::new()))).open("cisco_ios").await.unwrap();
    let all: Vec<String> = (0..100).map(|n| format!("access-list 10 permit 10.0.{n}.0 0.0.0.255")).collect();
    let report = session.config(&all, &ConfigOptions::default(), &mut Silent).await;
    assert_eq!(report.outcome, Outcome::Applied);
    // The clock only moves when somebody waits for it.
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn pain_14_a_long_output_is_bounded_and_flat() {
    let line = "0123456789".repeat(10) + "\r\n";
    let body = line.repeat(200_000);
    let wire = Wire::new(ios(move |l, _| Some(if l == "show all" { body.clone() } else { String::new() })));
    let wire = wire.in_pieces(Duration::ZERO, || 32 * 1024);
    let login = crate::cli::Login { max_output: 10 << 20, ..crate::cli::Login::default() };
    let mut session = wire.open_with("cisco_ios", login).await.unwrap();
    let error = session.command("show all", &CommandOptions::default()).await.unwrap_err();
    assert_eq!(error.kind, ErrorCode::OutputTooLarge);
    assert!(error.message.contains("10485760"), "{error}");
    assert!(session.usable(), "interrupted, and at the prompt again");
    session.command("show", &CommandOptions::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn pain_15_each_command_has_its_own_patience() {
    struct Slow;
    impl super::device::Behave for Slow {
        fn greet(&mut self) -> Vec<u8> {
            b"R1#".to_vec()
        }
        fn receive(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
            let line = String::from_utf8_lossy(bytes).replace('\n', "\r\n");
            Some(format!("{line}R1#").into_bytes())
        }
    }
    let wire = Wire::new(Box::new(Slow)).in_pieces(Duration::from_millis(800), || 4);
    let mut session = wire.open("cisco_ios").await.unwrap();
    let impatient = CommandOptions { read_timeout: Duration::from_secs(2), ..CommandOptions::default() };
    let error = session.command("show tech-support detail", &impatient).await.unwrap_err();
    assert_eq!(error.kind, ErrorCode::ReadTimeout);
    let patient = CommandOptions { read_timeout: Duration::from_secs(60), ..CommandOptions::default() };
    if session.usable() {
        session.command("show tech-support detail", &patient).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn pain_16_17_a_mute_device_never_hangs_anybody() {
    let mut count = 0;
    let device = lines("R1#", move |_| {
        count += 1;
        Some(if count > 3 { Vec::new() } else { b"R1#".to_vec() })
    });
    let mut session = Wire::new(device).open("cisco_ios").await.unwrap();
    let began = tokio::time::Instant::now();
    assert!(session.keepalive().await.is_err());
    assert!(began.elapsed() <= Duration::from_secs(11));
    assert!(!session.usable());
    let error = session.command("show", &CommandOptions::default()).await.unwrap_err();
    assert_eq!(error.kind, ErrorCode::SessionLost);
    session.close().await;
    let began = tokio::time::Instant::now();
    let error = Wire::new(lines("", |_| Some(Vec::new()))).open("cisco_ios").await.err().unwrap();
    assert_eq!(error.kind, ErrorCode::PromptNotFound);
    assert!(began.elapsed() <= Duration::from_secs(61));
}

#[tokio::test(start_paused = true)]
async fn pain_18_a_session_is_left_politely() {
    let wire = Wire::new(ios(|_, _| Some(String::new())));
    let sent = std::sync::Arc::clone(&wire.sent);
    let mut session = wire.open("cisco_ios").await.unwrap();
    session.close().await;
    assert!(sent.lock().ends_with(b"exit\n"));
    session.close().await;
}

#[tokio::test(start_paused = true)]
async fn pain_27_banners_of_several_lines_do_not_hang_and_keep_their_empty_lines() {
    let mut until: Option<char> = None;
    let wire = Wire::new(lines("R1#", move |line| {
        if let Some(end) = until {
            if line.contains(end) {
                until = None;
            } else {
                return Some(Vec::new());
            }
        } else if let Some(rest) = line.strip_prefix("banner login ") {
            until = rest.chars().next().filter(|end| rest.matches(*end).count() == 1);
            if until.is_some() {
                return Some(b"Enter TEXT message.  End with the character '%'.\r\n".to_vec());
            }
        }
        Some(if line == "configure terminal" || line.starts_with("banner") || line == "%" {
            b"R1(config)#".to_vec()
        } else {
            b"R1#".to_vec()
        })
    }));
    let sent = std::sync::Arc::clone(&wire.sent);
    let mut session = wire.open("cisco_ios").await.unwrap();
    let text = "banner login %\nfirst# line\n\nlast line\n%\n\nbanner login %one line%\n".to_owned();
    let lines = crate::cli::config_lines(session.platform(), &[text]);
    assert_eq!(lines, ["banner login %", "first# line", "", "last line", "%", "banner login %one line%"]);
    let began = tokio::time::Instant::now();
    let report = session.config(&lines, &ConfigOptions::default(), &mut Silent).await;
    assert_eq!(report.outcome, Outcome::Applied, "{:?}", report.error);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(String::from_utf8_lossy(&sent.lock()).contains("first# line\n\nlast line\n%\n"));
}

#[tokio::test(start_paused = true)]
async fn pain_24_the_error_names_the_failing_line() {
    let wire = Wire::new(ios(|line, _| {
        Some(if line == "no bonus" { "% Invalid input\r\n".into() } else { String::new() })
    }));
    let mut session = wire.open("cisco_ios").await.unwrap();
    let report = session.config(&config(&["ip x", "no bonus"]), &ConfigOptions::default(), &mut Silent).await;
    let message = report.error.unwrap().message;
    assert!(
        message.contains("line 2 of 2")
            && message.contains("`no bonus`")
            && message.contains("% Invalid input"),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_device_that_dies_in_the_middle_of_a_line_leaves_an_unknown_outcome() {
    let wire = Wire::new(ios(|line, _| if line == "reload now" { None } else { Some(String::new()) }));
    let mut session = wire.open("cisco_ios").await.unwrap();
    let report = session
        .config(&config(&["ip x", "reload now", "ip y"]), &ConfigOptions::default(), &mut Silent)
        .await;
    assert_eq!(report.outcome, Outcome::Unknown);
    let error = report.error.unwrap();
    assert_eq!(error.kind, ErrorCode::SessionLost);
    assert!(error.message.contains("line 2 of 3 was in flight"), "{error}");
    assert!(matches!(report.lines[1].state, LineState::Unknown(_)));
    assert_eq!(report.lines[2].state, LineState::Skipped(Some(1)));
    assert!(!session.usable());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_question_in_a_configuration_is_reported_with_its_text() {
    let wire = Wire::new(ios(|line, _| {
        Some(if line == "no username ops" {
            "This operation will remove all username related configurations with same name.Do you want to continue? [confirm]".into()
        } else {
            String::new()
        })
    }));
    let mut session = wire.open("cisco_ios").await.unwrap();
    let began = tokio::time::Instant::now();
    let report = session.config(&config(&["no username ops"]), &ConfigOptions::default(), &mut Silent).await;
    assert!(began.elapsed() < Duration::from_secs(8));
    let error = report.error.unwrap();
    assert_eq!((error.kind, report.outcome), (ErrorCode::PromptNotFound, Outcome::Unknown));
    assert!(error.message.contains("[confirm]"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_log_line_behind_the_prompt_does_not_hang() {
    let mut first = true;
    let device = lines("R1#", move |line| {
        let log = if line == "show" && std::mem::take(&mut first) {
            "\r\n*Mar  1 00:00:00: %SYS-5-CONFIG_I: Configured\r\n"
        } else {
            ""
        };
        Some(format!("body\r\nR1#{log}").into_bytes())
    });
    let mut session = Wire::new(device).open("cisco_ios").await.unwrap();
    let began = tokio::time::Instant::now();
    let output = session.command("show", &CommandOptions::default()).await.unwrap().into_text();
    assert!(output.starts_with("body"), "{output}");
    assert!(began.elapsed() < Duration::from_secs(4));
    assert_eq!(session.command("show", &CommandOptions::default()).await.unwrap().into_text(), "body");
}

#[tokio::test(start_paused = true)]
async fn a_device_without_echo_is_understood() {
    struct NoEcho;
    impl super::device::Behave for NoEcho {
        fn greet(&mut self) -> Vec<u8> {
            b"R1#".to_vec()
        }
        fn receive(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
            Some(if bytes == b"show\n" { b"\r\n10%\r20%\r\nR1#".to_vec() } else { b"\r\nR1#".to_vec() })
        }
    }
    let mut session = Wire::new(Box::new(NoEcho)).open("cisco_ios").await.unwrap();
    let began = tokio::time::Instant::now();
    let output = session.command("show", &CommandOptions::default()).await.unwrap().into_text();
    assert_eq!(output.trim(), "20%");
    assert_eq!(began.elapsed(), Duration::ZERO, "once known, nothing is waited for");
}

#[tokio::test(start_paused = true)]
async fn the_fence_stops_every_byte() {
    let wire =
        Wire::new(ios(|line, _| Some(if line == "slow" { "no prompt".into() } else { String::new() })));
    let sent = std::sync::Arc::clone(&wire.sent);
    let mut session = wire.open("cisco_ios").await.unwrap();
    let control = crate::cli::Control::default();
    session.set_control(control.clone());
    let before = sent.lock().len();
    let fence = control.fence.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        fence.cancel();
    });
    let error = session.command("slow down", &CommandOptions::default()).await;
    assert!(error.is_ok());
    let error = session
        .command(
            "wait",
            &CommandOptions {
                expect: Some(regex::bytes::Regex::new("never").unwrap()),
                ..CommandOptions::default()
            },
        )
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorCode::SessionLost);
    assert!(!session.usable());
    session.close().await;
    assert_eq!(sent.lock()[before..], *b"slow down\nwait\n");
}

#[tokio::test(start_paused = true)]
async fn promise_09_a_cancel_lets_the_line_on_its_way_end() {
    let wire = Wire::new(ios(|_, _| Some(String::new()))).in_pieces(Duration::from_millis(40), || 3);
    let mut session = wire.open("cisco_ios").await.unwrap();
    let control = crate::cli::Control::default();
    session.set_control(control.clone());
    struct Canceling(crate::cli::Control);
    impl crate::cli::Progress for Canceling {
        fn sending(&mut self, index: usize, _line: &str) -> bool {
            if index == 1 {
                self.0.cancel.cancel();
            }
            true
        }
        fn answered(&mut self, _index: usize, _report: &crate::cli::LineReport) {}
    }
    let lines = config(&["ip one", "ip two", "ip three"]);
    let report = session.config(&lines, &ConfigOptions::default(), &mut Canceling(control)).await;
    let states: Vec<_> = report.lines.iter().map(|l| l.state.clone()).collect();
    assert_eq!(states, [LineState::Accepted, LineState::Accepted, LineState::Skipped(None)]);
    assert_eq!(report.outcome, Outcome::Partial);
    assert!(report.error.unwrap().message.contains("between line 2 and line 3"));
    assert!(session.usable());
}

/// A device whose prompt holds brackets and blanks.
fn bigip() -> Box<dyn super::device::Behave> {
    const PROMPT: &str = "ops@(b1)(cfg-sync In Sync)(Active)(/Common)(tmos)#";
    lines(PROMPT, |line| {
        let body = if line.starts_with("show") { "Sys::Version\r\n  Version 16.1.2\r\n" } else { "" };
        Some(format!("{body}{PROMPT}").into_bytes())
    })
}

#[tokio::test(start_paused = true)]
async fn pain_1_a_prompt_cut_by_a_pause_is_learnt_whole() {
    // A long pause behind each bracket in turn: the beginning of the prompt is all that stands there.
    for cut in
        (0..50).filter(|at| b")#".contains(&b"ops@(b1)(cfg-sync In Sync)(Active)(/Common)(tmos)#"[*at]))
    {
        let mut bytes = 0;
        let wire = Wire::new(bigip()).in_bytes(move || {
            bytes += 1;
            if bytes == cut + 2 { Duration::from_secs(4) } else { Duration::from_millis(1) }
        });
        let mut session = wire.open("f5_tmsh").await.unwrap();
        for _ in 0..4 {
            let output = session.command("show sys version", &CommandOptions::default()).await.unwrap();
            assert_eq!(output.into_text(), "Sys::Version\n  Version 16.1.2", "a pause at {cut}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pain_1_a_prompt_that_no_pattern_knows_is_learnt_whole() {
    const PROMPT: &str = "<< lab ~ 1 >> (up) =>";
    for cut in [9, 12, 17, 20] {
        let device = lines(PROMPT, |line| {
            let body = if line.starts_with("show") { "one\r\ntwo\r\n" } else { "" };
            Some(format!("{body}{PROMPT}").into_bytes())
        });
        // A pause there in the first two prompts: learnt too short, mended by what follows.
        let (mut bytes, again) = (0, cut + PROMPT.len() + 4);
        let wire = Wire::new(device).in_bytes(move || {
            bytes += 1;
            if bytes == cut || bytes == again { Duration::from_secs(4) } else { Duration::from_millis(1) }
        });
        let mut session = wire.open("generic").await.unwrap();
        for turn in 0..5 {
            let output = session.command("show it", &CommandOptions::default()).await.unwrap();
            assert_eq!(output.into_text(), "one\ntwo", "a pause at {cut}, turn {turn}");
        }
    }
}
