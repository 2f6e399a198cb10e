//! Prints the time of the REST-form TTP cases, compiled anew and compiled once. Run with
//! `cargo test --release -p netpulse-template --test ttp_speed -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::process::Command;
use std::time::Instant;

use netpulse_template::ttp::{Options, Template};
use serde_json::Value;

#[test]
#[ignore = "a measurement, not a test"]
fn rest_cases() {
    let Ok(root) = std::env::var("NETPULSE_CORPUS") else {
        println!("skipped: NETPULSE_CORPUS is not set");
        return;
    };
    let out = Command::new("xz").arg("-dc").arg(format!("{root}/ttp/cases.jsonl.xz")).output().unwrap();
    let cases: Vec<(String, String)> = String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap())
        .filter(|c| c["runnable"] == Value::Bool(true) && c["rest"].is_object())
        .map(|c| {
            (
                c["rest"]["template"].as_str().unwrap().to_owned(),
                c["rest"]["context"].as_str().unwrap().to_owned(),
            )
        })
        .filter(|(t, _)| Template::compile(t, &Options::default()).is_ok())
        .collect();
    let rounds = 50u32;
    let at = Instant::now();
    for _ in 0..rounds {
        for (t, text) in &cases {
            let _ = Template::compile(t, &Options::default()).unwrap().parse(text);
        }
    }
    let both = at.elapsed() / rounds;
    let compiled: Vec<(Template, &String)> =
        cases.iter().map(|(t, text)| (Template::compile(t, &Options::default()).unwrap(), text)).collect();
    let at = Instant::now();
    for _ in 0..rounds {
        for (t, text) in &compiled {
            let _ = t.parse(text);
        }
    }
    println!("{} cases: compile and parse {both:?}, parse {:?}", cases.len(), at.elapsed() / rounds);
}
