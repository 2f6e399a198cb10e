//! Answers template calls line by line; `scripts/diff-templates` compares it with Python.
//!
//! Reads one JSON object per line from stdin, `{"engine", "template", "text" | "context"}`, and
//! writes one per line: `{"ok": value}`, `{"error": text, "code": code}` or `{"crash": text}`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::io::{BufRead as _, Write as _};
use std::panic::catch_unwind;

use netpulse_template::{Config, Engines, ParseCall, TemplateError};
use serde_json::{Value, json};

fn answer(call: &Value) -> Result<Value, TemplateError> {
    let engines = Engines::new(Config { cache_size: 0, ..Config::default() }.with_environment());
    let text = |key: &str| call[key].as_str().unwrap_or_default();
    if text("engine") == "jinja2" {
        return engines
            .render("jinja2", text("template"), &call["context"], call.get("args"))
            .map(Value::from);
    }
    engines.parse(&ParseCall {
        name: text("engine"),
        template: call["template"].as_str(),
        text: text("text"),
        platform: call["platform"].as_str(),
        command: call["command"].as_str(),
        use_ntc_template: call["platform"].is_string(),
        ..ParseCall::default()
    })
}

fn main() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let call: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let answer = match catch_unwind(|| answer(&call)) {
            Ok(Ok(value)) => json!({"ok": value}),
            Ok(Err(error)) => json!({"error": error.to_string(), "code": error.code, "line": error.line}),
            Err(crash) => json!({"crash": crash.downcast_ref::<String>()}),
        };
        writeln!(out, "{answer}").unwrap();
        out.flush().unwrap();
    }
}
