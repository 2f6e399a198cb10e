//! Every recorded TTP run that needs no Python gives what the reference gave.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use netpulse_template::ttp::{Files, Input, Options, Run, Structure, Template};
use serde_json::{Map, Value};

fn corpus() -> Option<Vec<Value>> {
    let root = std::env::var("NETPULSE_CORPUS")
        .map(PathBuf::from)
        .unwrap_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus"));
    let file = root.join("ttp/cases.jsonl.xz");
    if !file.exists() {
        return None;
    }
    let unpack = |program: &str, args: &[&str]| {
        Command::new(program).args(args).arg(&file).output().ok().filter(|o| o.status.success())
    };
    let out = unpack("xz", &["-dc"]).or_else(|| {
        unpack("python3", &["-c", "import lzma,sys;sys.stdout.buffer.write(lzma.open(sys.argv[1]).read())"])
    })?;
    Some(String::from_utf8(out.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect())
}

/// The recorded files of a case, by normalised path.
#[derive(Debug)]
struct CaseFiles(Map<String, Value>);

fn plain(path: &str) -> String {
    path.split('/').filter(|p| !p.is_empty() && *p != ".").collect::<Vec<_>>().join("/")
}

impl Files for CaseFiles {
    fn read(&self, path: &str) -> Option<String> {
        if let Some(name) = path.strip_prefix("ttp://") {
            // From an installed ttp_templates package, where the caller names its folder.
            let root = std::env::var("NETPULSE_TTP_TEMPLATES").ok()?;
            return std::fs::read_to_string(Path::new(&root).join(name)).ok();
        }
        self.0.get(&plain(path)).and_then(Value::as_str).map(str::to_owned)
    }

    fn list(&self, path: &str) -> Option<Vec<String>> {
        let prefix = format!("{}/", plain(path));
        let names: BTreeSet<String> =
            self.0.keys().filter_map(|k| k.strip_prefix(&prefix)).map(str::to_owned).collect();
        (!names.is_empty()).then(|| names.into_iter().collect())
    }
}

fn strings(v: &Value) -> Vec<String> {
    v.as_array().map(|a| a.iter().filter_map(|x| x.as_str().map(str::to_owned)).collect()).unwrap_or_default()
}

/// Whether a case needs the ttp_templates package and it is not there.
fn lacks_package(case: &Value) -> bool {
    std::env::var("NETPULSE_TTP_TEMPLATES").is_err()
        && (case["templates"].to_string() + &case["files"].to_string()).contains("ttp://")
}

/// Values equal and keys in the same order.
fn exact(v: &Value) -> String {
    serde_json::to_string(v).unwrap()
}

fn recorded(case: &Value) -> Result<Value, String> {
    let vars = case["vars"].as_object().cloned().unwrap_or_default();
    let templates = case["templates"].as_array().unwrap();
    let options = Options {
        vars: vars.clone(),
        name: templates[0]["template_name"].as_str().unwrap_or("_root_template_").into(),
        filters: strings(&templates[0]["filters"]),
        base_path: case["ctor"]["base_path"].as_str().unwrap_or("").into(),
        files: Some(Arc::new(CaseFiles(case["files"].as_object().cloned().unwrap_or_default()))),
        timeout: std::time::Duration::from_secs(20),
        ..Options::default()
    };
    let mut t =
        Template::compile(templates[0]["template"].as_str().unwrap(), &options).map_err(|e| e.to_string())?;
    for more in &templates[1..] {
        t.add(more["template"].as_str().unwrap(), more["template_name"].as_str().unwrap())
            .map_err(|e| e.to_string())?;
    }
    let mut inputs = Vec::new();
    for i in case["inputs"].as_array().unwrap() {
        let template = i["template_name"].as_str().filter(|n| *n != "_all_").map(str::to_owned);
        for d in i["data"].as_array().unwrap() {
            inputs.push(Input {
                texts: vec![d["text"].as_str().unwrap_or_default().to_owned()],
                name: i["input_name"].as_str().unwrap().into(),
                template: template.clone(),
                groups: strings(&i["groups"]),
            });
        }
    }
    let structure = match case["result"]["structure"].as_str() {
        Some("flat_list") => Structure::FlatList,
        Some("dictionary") => Structure::Dictionary,
        _ => Structure::List,
    };
    let run = Run {
        vars,
        structure: Some(structure),
        output: case["result"]["kwargs"].as_object().cloned().unwrap_or_default(),
        templates: strings(&case["result"]["templates"]),
        ..Run::default()
    };
    t.parse_inputs(&inputs, &run).map_err(|e| e.to_string())
}

fn report(kind: &str, total: usize, failed: &[String]) {
    println!("{kind}: {} of {total}", total - failed.len());
    assert!(failed.is_empty(), "{kind}: {} of {total} differ:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn rest_form() {
    let Some(cases) = corpus() else {
        println!("skipped: no corpus");
        return;
    };
    let mut failed = Vec::new();
    let mut total = 0;
    for case in cases.iter().filter(|c| c["runnable"] == Value::Bool(true) && c["rest"].is_object()) {
        if lacks_package(case) {
            println!("skipped without NETPULSE_TTP_TEMPLATES: {}", case["id"]);
            continue;
        }
        total += 1;
        let rest = &case["rest"];
        let options = Options {
            timeout: std::time::Duration::from_secs(20),
            files: Some(Arc::new(CaseFiles(Map::new()))),
            ..Options::default()
        };
        let got = Template::compile(rest["template"].as_str().unwrap(), &options)
            .and_then(|t| t.parse(rest["context"].as_str().unwrap()));
        match got {
            Ok(v) if exact(&v) == exact(&rest["expected"]) => {}
            Ok(v) => failed.push(format!(
                "{}\n  got  {}\n  want {}",
                case["id"],
                exact(&v),
                exact(&rest["expected"])
            )),
            Err(e) => failed.push(format!("{}\n  error {e}", case["id"])),
        }
    }
    report("TTP rest form", total, &failed);
}

#[test]
fn recorded_form() {
    let Some(cases) = corpus() else {
        println!("skipped: no corpus");
        return;
    };
    let mut failed = Vec::new();
    let mut total = 0;
    for case in cases.iter().filter(|c| c["runnable"] == Value::Bool(true)) {
        if lacks_package(case) {
            println!("skipped without NETPULSE_TTP_TEMPLATES: {}", case["id"]);
            continue;
        }
        // Recorded as runnable, but an extended file holds a macro: it must be refused.
        let python = case["files"].to_string().contains("<macro>");
        total += 1;
        match recorded(case) {
            Err(e) if python && e.contains("macro") => {}
            Ok(v) if exact(&v) == exact(&case["expected"]) => {}
            Ok(v) => failed.push(format!(
                "{}\n  got  {}\n  want {}",
                case["id"],
                exact(&v),
                exact(&case["expected"])
            )),
            Err(e) => failed.push(format!("{}\n  error {e}", case["id"])),
        }
    }
    report("TTP recorded form", total, &failed);
}

#[test]
fn python_is_refused() {
    let Some(cases) = corpus() else {
        println!("skipped: no corpus");
        return;
    };
    for case in cases.iter().filter(|c| c["unrunnable"].to_string().contains("\"macro\"")) {
        let text = case["templates"][0]["template"].as_str().unwrap_or("");
        if text.contains("<macro>") {
            let e = Template::compile(text, &Options::default()).unwrap_err();
            assert!(matches!(e.code, "python" | "io" | "unsupported"), "{}: {e}", case["id"]);
        }
    }
}
