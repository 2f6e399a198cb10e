//! What lies in `deploy/` agrees with the program: every variable is a key, every command one that
//! it knows, and the image's root file system holds all that the binary needs.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use netpulse_config::KEYS;
use regex::Regex;
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_netpulse");

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, into) } else { into.push(path) }
    }
}

/// Every YAML document below `deploy/`, with its file's name.
fn documents() -> Vec<(String, Value)> {
    let mut paths = Vec::new();
    files(&deploy(), &mut paths);
    paths.sort();
    let mut found = Vec::new();
    for path in paths.iter().filter(|p| p.extension().is_some_and(|e| e == "yaml")) {
        let text = std::fs::read_to_string(path).unwrap();
        for document in yaml_serde::Deserializer::from_str(&text) {
            let value = <yaml_serde::Value as serde::Deserialize>::deserialize(document);
            let mut value = value.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            value.apply_merge().unwrap();
            found.push((
                path.file_name().unwrap().to_string_lossy().into_owned(),
                serde_json::to_value(value).unwrap(),
            ));
        }
    }
    found
}

/// Every list under the key `name`, at any depth.
fn lists<'a>(value: &'a Value, name: &str, into: &mut Vec<Vec<&'a str>>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if key == name
                    && let Some(list) = value.as_array()
                {
                    into.push(list.iter().filter_map(Value::as_str).collect());
                }
                lists(value, name, into);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| lists(item, name, into)),
        _ => {}
    }
}

#[test]
fn every_variable_is_a_key() {
    let keys: BTreeSet<String> = KEYS.iter().map(|key| key.env()).collect();
    let variable = Regex::new(r"NETPULSE_[A-Z]+__[A-Z_]+").unwrap();
    let mut paths = Vec::new();
    files(&deploy(), &mut paths);
    let mut seen = 0;
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        for found in variable.find_iter(&text) {
            assert!(
                keys.contains(found.as_str()),
                "{} names {}, which is no key",
                path.display(),
                found.as_str()
            );
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} variables were found");
}

#[test]
fn every_command_is_one_that_the_program_knows() {
    let mut commands = Vec::new();
    for (file, document) in documents() {
        let image = if file == "compose.yaml" { "command" } else { "args" };
        let mut found = Vec::new();
        lists(&document, image, &mut found);
        commands
            .extend(found.into_iter().map(|words| words.into_iter().map(str::to_owned).collect::<Vec<_>>()));
    }
    commands.retain(|words| words.first().is_some_and(|w| !w.contains("redis") && w != "sh"));
    assert!(commands.len() >= 8, "{commands:?}");
    for words in commands {
        let output = Command::new(BINARY).args(&words).arg("--help").output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn manifests_name_each_other_rightly() {
    let documents = documents();
    let named = |kind: &str| -> BTreeSet<&str> {
        let of_kind = documents.iter().filter(|(_, d)| d["kind"] == kind);
        of_kind.filter_map(|(_, d)| d["metadata"]["name"].as_str()).collect()
    };
    let listed: Vec<&str> = documents
        .iter()
        .filter(|(_, d)| d["kind"] == "Kustomization")
        .flat_map(|(_, d)| d["resources"].as_array().unwrap().iter().filter_map(Value::as_str))
        .collect();
    for (file, document) in &documents {
        let kind = document["kind"].as_str().unwrap_or_default();
        if kind.is_empty() || kind == "Kustomization" {
            continue;
        }
        assert!(listed.contains(&file.as_str()), "{file} is not in kustomization.yaml");
        // Whoever is selected by label is there.
        if let Some(labels) = document["spec"]["selector"]["matchLabels"].as_object() {
            let carried = documents.iter().any(|(_, other)| {
                let carries = other["spec"]["template"]["metadata"]["labels"].as_object();
                carries.is_some_and(|c| labels.iter().all(|(k, v)| c.get(k) == Some(v)))
            });
            assert!(carried, "{file}: nothing carries {labels:?}");
        }
    }
    let text = serde_json::to_string(&documents.iter().map(|(_, d)| d).collect::<Vec<_>>()).unwrap();
    let secret = documents.iter().find(|(_, d)| d["kind"] == "Secret").unwrap();
    let keys = secret.1["stringData"].as_object().unwrap();
    for found in Regex::new(r#""secretKeyRef":\{[^}]*"key":"([^"]+)""#).unwrap().captures_iter(&text) {
        assert!(keys.contains_key(&found[1]), "no secret has the key {}", &found[1]);
    }
    for kind in ["StatefulSet", "Deployment", "PodDisruptionBudget", "NetworkPolicy"] {
        assert!(!named(kind).is_empty(), "no {kind}");
    }
}

/// The image starts from nothing: the binary runs with only what `deploy/rootfs` gathered, as
/// nobody, without a shell.
#[test]
fn the_image_holds_all_that_the_binary_needs() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("rootfs");
    let made = Command::new(deploy().join("rootfs")).arg(BINARY).arg(&root).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert!(!root.join("bin/sh").exists() && !root.join("usr/bin/sh").exists());
    // Without root a user namespace makes the folder a root.
    let run = |arguments: &[&str]| {
        let output = Command::new("unshare")
            .args(["--map-root-user", "chroot"])
            .arg(&root)
            .arg("/usr/bin/netpulse")
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("NETPULSE_SERVER__API_KEY", "a-key-of-the-image")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    assert!(run(&["--version"]).starts_with("netpulse "));
    assert!(run(&["config", "show", "--output", "json"]).contains("server"));
}
