//! Recorded conversations, replayed whole, one byte at a time and in random pieces: what comes out
//! must be the same. `<<` is what the device sends, `>>` what we must send, `!` what is asked of the
//! session, `=` what must come of it.

use std::collections::VecDeque;
use std::time::Duration;

use netpulse_model::{ErrorCode, Outcome};
use proptest::prelude::*;

use super::device::{Behave, Wire};
use crate::cli::{CommandOptions, ConfigOptions, LineState, Session, Silent};

const RECORDED: &[(&str, &str)] = &[
    ("arista_eos", include_str!("recorded/arista_eos.txt")),
    ("cisco_asa", include_str!("recorded/cisco_asa.txt")),
    ("cisco_ios", include_str!("recorded/cisco_ios.txt")),
    ("cisco_nxos", include_str!("recorded/cisco_nxos.txt")),
    ("cisco_xr", include_str!("recorded/cisco_xr.txt")),
    ("extreme_exos", include_str!("recorded/extreme_exos.txt")),
    ("fortinet", include_str!("recorded/fortinet.txt")),
    ("hp_comware", include_str!("recorded/hp_comware.txt")),
    ("hp_procurve", include_str!("recorded/hp_procurve.txt")),
    ("huawei", include_str!("recorded/huawei.txt")),
    ("huawei_vrpv8", include_str!("recorded/huawei_vrpv8.txt")),
    ("juniper_junos", include_str!("recorded/juniper_junos.txt")),
    ("linux", include_str!("recorded/linux.txt")),
    ("mikrotik_routeros", include_str!("recorded/mikrotik_routeros.txt")),
    ("nokia_srl", include_str!("recorded/nokia_srl.txt")),
    ("nokia_sros", include_str!("recorded/nokia_sros.txt")),
    ("paloalto_panos", include_str!("recorded/paloalto_panos.txt")),
    ("vyos", include_str!("recorded/vyos.txt")),
];

struct Replay {
    name: &'static str,
    greeting: Vec<u8>,
    /// What must come and what is answered then.
    script: VecDeque<(Vec<u8>, Vec<u8>)>,
    got: Vec<u8>,
}

impl Behave for Replay {
    fn greet(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.greeting)
    }

    fn receive(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.got.extend_from_slice(bytes);
        let mut out = Vec::new();
        while let Some((expected, _)) = self.script.front() {
            if !self.got.starts_with(expected) {
                assert!(
                    expected.starts_with(&self.got),
                    "{}: sent {:?} where {:?} was due",
                    self.name,
                    String::from_utf8_lossy(&self.got),
                    String::from_utf8_lossy(expected)
                );
                return Some(out);
            }
            self.got.drain(..expected.len());
            let (_, answer) = self.script.pop_front().unwrap();
            out.extend(answer);
        }
        assert!(self.got.is_empty(), "{}: sent {:?} after the end", self.name, String::from_utf8_lossy(&self.got));
        Some(out)
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b'x') => {
                let hex = [bytes.next().unwrap(), bytes.next().unwrap()];
                out.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
            }
            other => panic!("no such escape: {other:?}"),
        }
    }
    out
}

fn read(name: &'static str, text: &str) -> (Replay, Vec<(String, String)>) {
    let mut replay = Replay { name, greeting: Vec::new(), script: VecDeque::new(), got: Vec::new() };
    let mut asked: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let rest = line.get(3..).unwrap_or_default();
        match line.get(..2).unwrap_or(line) {
            "<<" => match replay.script.back_mut() {
                Some((_, answer)) => answer.extend(unescape(rest)),
                None => replay.greeting.extend(unescape(rest)),
            },
            ">>" => replay.script.push_back((unescape(rest), Vec::new())),
            "! " => asked.push((line[2..].to_owned(), String::new())),
            "= " => asked.last_mut().unwrap().1 = String::from_utf8(unescape(&line[2..])).unwrap(),
            "# " => {}
            other => panic!("no such line: {other}"),
        }
    }
    (replay, asked)
}

fn code(error: Option<&crate::SessionError>) -> String {
    error.map(|e| e.kind.as_str().to_owned()).unwrap_or_default()
}

async fn ask(session: &mut Session, what: &str) -> String {
    if let Some(command) = what.strip_prefix("command ") {
        return session.command(command, &CommandOptions::default()).await.unwrap().into_text();
    }
    if what == "enable" {
        session.enable().await.unwrap();
        return String::new();
    }
    let (save, rest) = match what.strip_prefix("save ") {
        Some(rest) => (true, rest),
        None => (false, what),
    };
    let lines: Vec<String> = rest.strip_prefix("config ").unwrap().split('|').map(str::to_owned).collect();
    let options = ConfigOptions { save, ..ConfigOptions::default() };
    let report = session.config(&lines, &options, &mut Silent).await;
    assert_eq!(report.saved, save, "{:?}", report.error);
    assert_eq!(report.lines.len(), lines.len());
    let refused = report.lines.iter().position(|l| matches!(l.state, LineState::Rejected(_)));
    match (report.outcome, refused) {
        (Outcome::Applied, None) => {
            assert!(report.error.is_none(), "{:?}", report.error);
            "applied".to_owned()
        }
        (outcome, Some(index)) => {
            assert_eq!(code(report.error.as_ref()), ErrorCode::LineRejected.as_str());
            format!("{} {}", outcome.as_str(), index + 1)
        }
        (outcome, None) => format!("{} {}", outcome.as_str(), code(report.error.as_ref())),
    }
}

fn replay(name: &'static str, text: &str, sizes: impl FnMut() -> usize + Send + 'static, pause: Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (device, asked) = read(name, text);
        let wire = Wire::new(Box::new(device)).in_pieces(pause, sizes);
        let mut session = match wire.open(name).await {
            Ok(session) => session,
            Err(error) => panic!("{name}: {error}"),
        };
        for (what, expected) in asked {
            let got = ask(&mut session, &what).await;
            assert_eq!(got, expected, "{name}: {what}");
            assert!(session.usable(), "{name}: {what}");
        }
    });
}

#[test]
fn whole_answers() {
    for (name, text) in RECORDED {
        replay(name, text, || usize::MAX, Duration::ZERO);
    }
}

#[test]
fn pain_02_one_byte_at_a_time() {
    for (name, text) in RECORDED {
        replay(name, text, || 1, Duration::from_millis(1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn pain_02_in_pieces_of_any_size(
        which in 0..RECORDED.len(),
        sizes in proptest::collection::vec(1usize..16, 1..20),
        micros in proptest::sample::select(vec![0u64, 10, 700, 3_000]),
    ) {
        let (name, text) = RECORDED[which];
        let mut turn = 0;
        let next = move || { turn += 1; sizes[turn % sizes.len()] };
        replay(name, text, next, Duration::from_micros(micros));
    }
}
