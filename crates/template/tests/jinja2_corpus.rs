//! Every recorded Jinja2 case renders as Python's Jinja2 rendered it, but for the listed ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod corpus;

use netpulse_template::jinja2::{Options, Template};
use netpulse_template::{Limits, Renderer};

/// Templates that stay different, each with the reason.
const DIFFERENT: &[(&str, &str)] = &[(
    "{% macro test() %}{{ varargs|join('|') }}{% endmacro %}{{ test(1, 2, 3) }}",
    "macros have no varargs in minijinja; the user gets an error",
)];

#[test]
fn corpus() {
    let Some(cases) = corpus::read("jinja2/cases.jsonl.xz") else { return };
    let mut wrong = Vec::new();
    for case in &cases {
        let template = case["template"].as_str().unwrap();
        let got = Options::from_args(&case["args"])
            .and_then(|options| Template::compile(template, &options, &Limits::default()))
            .and_then(|t| t.render(&case["context"]));
        let good = match (&got, case["error"].as_str()) {
            (Ok(text), None) => *text == case["expected"].as_str().unwrap(),
            (Err(_), Some(_)) => true,
            _ => false,
        };
        let listed = DIFFERENT.iter().any(|(t, _)| *t == template);
        if good == listed {
            wrong.push(format!(
                "{}: {:?} args {}\n   want {:?} {:?}\n   got  {:?}",
                case["id"], template, case["args"], case["expected"], case["error"], got
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    println!("{} of {} cases", cases.len() - DIFFERENT.len(), cases.len());
}
