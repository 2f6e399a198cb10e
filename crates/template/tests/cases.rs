//! Our own cases of the languages (`tests/cases/*.yaml`) give what Python gave, which is recorded
//! beside them by `scripts/diff-templates --cases FILE --record`.
//!
//! Where Python ended with an error of its own making, ours may have an answer; an error of the
//! language (all of TextFSM's) must have Python's words.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::path::Path;

use netpulse_template::{Config, Engines, ParseCall};
use serde_json::{Value, json};

/// The list under a key, or one item that stands under another, or a default.
fn several(entry: &Value, list: &str, one: &str, default: Value) -> Vec<Value> {
    match &entry[list] {
        Value::Array(items) => items.clone(),
        _ => vec![entry.get(one).cloned().unwrap_or(default)],
    }
}

/// Python's error without its class and, of TextFSM, without the number of the line.
fn words(error: &str) -> &str {
    let error = error.split_once(": ").map_or(error, |(_, words)| words);
    ["Line: ", "Line "].iter().fold(error, |e, mark| e.rsplit_once(mark).map_or(e, |(e, _)| e)).trim_end()
}

fn cases(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let read = |ending: &str| std::fs::read_to_string(folder.join(format!("{name}.{ending}"))).unwrap();
    let entries: Vec<Value> = yaml_serde::from_str(&read("yaml")).unwrap();
    let lines = read("jsonl");
    let mut recorded = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let engine = name.split('_').next().unwrap();
    let engines = Engines::new(Config { cache_size: 0, ..Config::default() });
    let (mut count, mut wrong) = (0, Vec::new());
    for entry in &entries {
        let given = match engine {
            "jinja2" => several(entry, "contexts", "context", json!({})),
            _ => several(entry, "texts", "text", json!("")),
        };
        for each in several(entry, "each", "", Value::Null) {
            let template = entry["template"].as_str().unwrap();
            let template = each.as_str().map_or(template.to_owned(), |e| template.replace("@@", e));
            let differs = entry["differs"].as_array().is_some_and(|list| list.contains(&each));
            for args in several(entry, "args", "", json!({})) {
                for given in &given {
                    count += 1;
                    let python = recorded.next().expect("a recorded answer for every case");
                    let ours = match engine {
                        "jinja2" => engines.render("jinja2", &template, given, Some(&args)).map(Value::from),
                        _ => engines.parse(&ParseCall {
                            name: engine,
                            template: Some(&template),
                            text: given.as_str().unwrap(),
                            ..ParseCall::default()
                        }),
                    };
                    if differs {
                        continue;
                    }
                    let right = match (&ours, python["ok"].is_null(), python["error"].as_str()) {
                        // Keys in the same order.
                        (Ok(value), _, None) => format!("{value}") == format!("{}", python["ok"]),
                        (Err(error), _, Some(said)) if engine == "textfsm" => {
                            error.to_string().contains(words(said))
                        }
                        (Err(_), _, None) => false,
                        (Ok(_), _, Some(_)) => engine != "textfsm",
                        (Err(_), _, Some(_)) => true,
                    };
                    if !right {
                        let ours = ours.map_or_else(|e| e.to_string(), |v| v.to_string());
                        wrong.push(format!(
                            "== {} / {each} / {args}\n{template}\n-- {given}\nours   {ours}\npython {python}",
                            entry["name"]
                        ));
                    }
                }
            }
        }
    }
    assert!(recorded.next().is_none(), "{name}.jsonl is of another {name}.yaml: record it again");
    println!("{name}: {count} cases");
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn textfsm() {
    cases("textfsm");
}

#[test]
fn ttp_match() {
    cases("ttp_match");
}

#[test]
fn ttp_groups() {
    cases("ttp_groups");
}

#[test]
fn ttp_outputs() {
    cases("ttp_outputs");
}

#[test]
fn jinja2() {
    cases("jinja2");
}
