//! Devices that send anything at all: the engine neither panics nor hangs.

use std::time::Duration;

use proptest::prelude::*;

use super::device::{Behave, Wire};
use crate::cli::{CommandOptions, ConfigOptions, Silent};

/// Answers each send with the next of its texts, for ever.
struct Babble {
    texts: Vec<Vec<u8>>,
    turn: usize,
}

impl Behave for Babble {
    fn greet(&mut self) -> Vec<u8> {
        self.receive(b"").unwrap_or_default()
    }

    fn receive(&mut self, _bytes: &[u8]) -> Option<Vec<u8>> {
        self.turn += 1;
        let text = self.texts[self.turn % self.texts.len()].clone();
        if text == b"HANG UP" { None } else { Some(text) }
    }
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => proptest::collection::vec(any::<u8>(), 0..60),
        6 => proptest::sample::select(vec![
            "\r\nR1#", "\r\nR1>", "R1(config)#", "\r\nR2#", "<R1>", "[R1]", "ops@r1> ", "[edit]\r\nops@r1# ", "--More--",
            " ---- More ----", "Password: ", "Username: ", "[confirm]", "(y/n)? ", "% Invalid input\r\n", "\r\n", "\r",
            "show\r\n", "configure terminal\r\n", "\x1b[", "\x1b]0;", "\x1b[24;1H", "\x1b[2K", "\x08\x08", "$ ", "commit complete",
            "HANG UP", "",
        ]).prop_map(|text| text.as_bytes().to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn any_device_is_survived_within_the_deadlines(
        texts in proptest::collection::vec(proptest::collection::vec(piece(), 0..6).prop_map(|p| p.concat()), 1..8),
        name in proptest::sample::select(vec!["cisco_ios", "juniper_junos", "huawei", "linux", "nokia_srl", "hp_procurve", "generic"]),
        size in 1usize..50,
        micros in proptest::sample::select(vec![0u64, 300, 40_000]),
        telnet in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let wire = Wire::new(Box::new(Babble { texts, turn: 0 })).in_pieces(Duration::from_micros(micros), move || size);
            let wire = if telnet { wire.telnet() } else { wire };
            let began = tokio::time::Instant::now();
            let Ok(mut session) = wire.open(name).await else {
                assert!(began.elapsed() < Duration::from_secs(240), "login took {:?}", began.elapsed());
                return;
            };
            let began = tokio::time::Instant::now();
            let options = CommandOptions { read_timeout: Duration::from_secs(5), ..CommandOptions::default() };
            let ended = session.command("show", &options).await;
            assert!(began.elapsed() < Duration::from_secs(20), "{ended:?} after {:?}", began.elapsed());
            let began = tokio::time::Instant::now();
            let lines = ["interface x".to_owned(), "banner motd ^C".to_owned(), "text".to_owned()];
            let options = ConfigOptions { read_timeout: Duration::from_secs(5), save: true, ..ConfigOptions::default() };
            let report = session.config(&lines, &options, &mut Silent).await;
            assert_eq!(report.lines.len(), lines.len());
            assert!(began.elapsed() < Duration::from_secs(400), "{report:?} after {:?}", began.elapsed());
            session.close().await;
        });
    }
}
