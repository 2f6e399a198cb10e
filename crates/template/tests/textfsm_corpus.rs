//! Every recorded TextFSM case gives what Python textfsm gave, on both paths.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod corpus;

use std::collections::HashMap;

use netpulse_template::textfsm::{Table, Template, merge};
use serde_json::Value;

fn lower(value: Value) -> Value {
    match value {
        Value::Array(rows) => rows
            .into_iter()
            .map(|row| match row {
                Value::Object(map) => {
                    Value::Object(map.into_iter().map(|(k, v)| (k.to_lowercase(), v)).collect())
                }
                other => other,
            })
            .collect(),
        other => other,
    }
}

#[test]
fn corpus() {
    let Some(cases) = corpus::read("textfsm/cases.jsonl.xz") else { return };
    let templates: HashMap<String, Template> = corpus::read("textfsm/templates.jsonl.xz")
        .unwrap()
        .iter()
        .map(|t| {
            let name = t["name"].as_str().unwrap();
            let template =
                Template::compile(t["text"].as_str().unwrap()).unwrap_or_else(|e| panic!("{name}: {e}"));
            (name.to_owned(), template)
        })
        .collect();
    let mut wrong = Vec::new();
    for case in &cases {
        let raw = case["raw"].as_str().unwrap();
        let id = case["id"].as_str().unwrap();
        let parse = || -> Result<Table<'_>, netpulse_template::TemplateError> {
            let mut tables = Vec::new();
            for name in case["templates"].as_array().unwrap() {
                let template = &templates[name.as_str().unwrap()];
                tables.push((template.parse(raw)?, template.keys()));
            }
            merge(tables).map(Option::unwrap)
        };
        match parse() {
            Err(e) => wrong.push(format!("{id}: {e}")),
            Ok(table) => {
                if table.to_ntc_value() != case["expected"] {
                    let got = table.to_ntc_value();
                    let (a, b) = (got.as_array().unwrap(), case["expected"].as_array().unwrap());
                    let at = a.iter().zip(b).position(|(x, y)| x != y);
                    wrong.push(format!(
                        "{id}: {} rows for {}, first difference {:?}",
                        a.len(),
                        b.len(),
                        at.map(|i| (&a[i], &b[i]))
                    ));
                }
                let bare = case.get("expected_bare").filter(|v| !v.is_null());
                let got = lower(table.to_value());
                let want = bare.map_or_else(|| case["expected"].clone(), |v| lower(v.clone()));
                if case["templates"].as_array().unwrap().len() == 1 && got != want {
                    wrong.push(format!("{id}: plain form differs"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    println!("{} of {} cases", cases.len(), cases.len());
}
