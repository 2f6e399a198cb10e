//! Times the engines over the recorded corpus; `scripts/bench-templates` runs it beside Python.
//!
//! Usage: `measure <folder of decompressed .jsonl files>`; prints one JSON object of seconds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use netpulse_template::jinja2::{Options, Template as Template2};
use netpulse_template::textfsm::{Template, merge};
use netpulse_template::{Limits, Renderer, TemplateError, ttp};
use serde_json::{Value, json};

fn read(folder: &str, name: &str) -> Vec<Value> {
    std::fs::read_to_string(Path::new(folder).join(name))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The best of `rounds`, in seconds.
fn best(rounds: usize, mut work: impl FnMut()) -> f64 {
    (0..rounds)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::MAX, f64::min)
}

fn render(template: &str, context: &Value, args: &Value) -> Result<String, TemplateError> {
    Template2::compile(template, &Options::from_args(args)?, &Limits::default())?.render(context)
}

fn textfsm_both(texts: &HashMap<String, String>, cases: &[(Vec<String>, String)]) {
    for (names, raw) in cases {
        for name in names {
            let template = Template::compile(&texts[name]).unwrap();
            std::hint::black_box(template.parse(raw).unwrap());
        }
    }
}

/// Template, text and id of the cases in the form of `/template/parse`, where they run here.
fn ttp_cases(folder: &str) -> Vec<(String, String, String)> {
    read(folder, "ttp-cases.jsonl")
        .iter()
        .filter(|c| c["runnable"] == Value::Bool(true) && c["rest"].is_object())
        .map(|c| {
            let text = |key: &str| c["rest"][key].as_str().unwrap().to_owned();
            (text("template"), text("context"), c["id"].as_str().unwrap().to_owned())
        })
        .filter(|(t, text, _)| {
            ttp::Template::compile(t, &ttp::Options::default()).and_then(|t| t.parse(text)).is_ok()
        })
        .collect()
}

fn ttp_both(cases: &[(String, String, String)]) {
    for (template, text, _) in cases {
        let template = ttp::Template::compile(template, &ttp::Options::default()).unwrap();
        std::hint::black_box(template.parse(text).unwrap());
    }
}

fn memory_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .and_then(|l| l.trim().trim_end_matches(" kB").trim().parse::<f64>().ok())
        .map_or(0.0, |kb| kb / 1024.0)
}

fn main() {
    let folder = std::env::args().nth(1).expect("a folder");
    let texts: HashMap<String, String> = read(&folder, "textfsm-templates.jsonl")
        .iter()
        .map(|t| (t["name"].as_str().unwrap().to_owned(), t["text"].as_str().unwrap().to_owned()))
        .collect();
    let cases: Vec<(Vec<String>, String)> = read(&folder, "textfsm-cases.jsonl")
        .iter()
        .map(|c| {
            let names =
                c["templates"].as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_owned()).collect();
            (names, c["raw"].as_str().unwrap().to_owned())
        })
        .collect();
    if let Some(only) = std::env::args().nth(2) {
        // For a profiler: one kind of work, over and over, or once.
        let ttp = ttp_cases(&folder);
        let rounds = if only.ends_with("once") { 1 } else { 40 };
        let compiled: Vec<(ttp::Template, &String)> = ttp
            .iter()
            .map(|(t, text, _)| (ttp::Template::compile(t, &ttp::Options::default()).unwrap(), text))
            .collect();
        for _ in 0..rounds {
            if only.starts_with("ttp-parse") {
                for (template, text) in &compiled {
                    std::hint::black_box(template.parse(text).unwrap());
                }
            } else if only.starts_with("ttp") {
                ttp_both(&ttp);
            } else {
                textfsm_both(&texts, &cases);
            }
        }
        return;
    }
    let before = memory_mb();
    let compiled: HashMap<&str, Template> =
        texts.iter().map(|(n, t)| (n.as_str(), Template::compile(t).unwrap())).collect();
    let parse = best(7, || {
        for (names, raw) in &cases {
            for name in names {
                std::hint::black_box(compiled[name.as_str()].parse(raw).unwrap());
            }
        }
    });
    let memory = memory_mb() - before;
    let maps = best(5, || {
        for (names, raw) in &cases {
            let tables = names
                .iter()
                .map(|n| (compiled[n.as_str()].parse(raw).unwrap(), compiled[n.as_str()].keys()))
                .collect();
            std::hint::black_box(merge(tables).unwrap().unwrap().to_value());
        }
    });
    let compile = best(5, || {
        for text in texts.values() {
            std::hint::black_box(Template::compile(text).unwrap());
        }
    });
    let both = best(3, || textfsm_both(&texts, &cases));
    let ttp = ttp_cases(&folder);
    let ttp_compile_and_parse = best(7, || ttp_both(&ttp));
    let compiled_ttp: Vec<(ttp::Template, &String)> = ttp
        .iter()
        .map(|(t, text, _)| (ttp::Template::compile(t, &ttp::Options::default()).unwrap(), text))
        .collect();
    let ttp_parse = best(7, || {
        for (template, text) in &compiled_ttp {
            std::hint::black_box(template.parse(text).unwrap());
        }
    });
    let renders: Vec<(String, Value, Value)> = read(&folder, "jinja2-cases.jsonl")
        .into_iter()
        .filter(|c| c["error"].is_null())
        .map(|c| (c["template"].as_str().unwrap().to_owned(), c["context"].clone(), c["args"].clone()))
        .filter(|(template, context, args)| render(template, context, args).is_ok())
        .collect();
    let jinja2 = best(7, || {
        for (template, context, args) in &renders {
            std::hint::black_box(render(template, context, args).unwrap());
        }
    });
    println!(
        "{}",
        json!({
            "textfsm_parse": parse,
            "textfsm_parse_to_maps": maps,
            "textfsm_compile": compile,
            "textfsm_compile_and_parse": both,
            "textfsm_memory_mb": memory,
            "ttp_parse": ttp_parse,
            "ttp_compile_and_parse": ttp_compile_and_parse,
            "ttp_ids": ttp.iter().map(|(_, _, id)| id).collect::<Vec<_>>(),
            "jinja2_compile_and_render": jinja2,
            "jinja2_cases": renders.len(),
        })
    );
}
