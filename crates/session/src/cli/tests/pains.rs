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
