//! The generated file and page are what the program would write today.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use netpulse_config::{Config, KEYS, LoadOptions, Loaded, reference_markdown, reference_yaml};

/// Compares a checked-in file with what the table gives; `NETPULSE_REGENERATE=1` writes it.
fn compare(file: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
    if std::env::var_os("NETPULSE_REGENERATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "{file} is not what the table of keys says: run NETPULSE_REGENERATE=1 cargo test -p netpulse-config"
    );
}

#[test]
fn the_example_file_is_the_table() {
    compare("config/netpulse.yaml", &reference_yaml());
}

#[test]
fn the_page_is_the_table() {
    compare("docs/configuration.md", &reference_markdown());
}

#[test]
fn the_example_file_loads_to_the_defaults() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("np.yaml");
    std::fs::write(&file, reference_yaml()).unwrap();
    let options = LoadOptions { file: Some(file), ..LoadOptions::default() };
    let loaded = Loaded::read(options.clone());
    assert_eq!(loaded.problems.len(), 1, "only the key is missing: {:?}", loaded.problems);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let (config, _) = Config::load(options.with_override("server.api_key", "k", "--test")).unwrap();
    let mut defaults = Config::default();
    defaults.server.api_key = "k".into();
    assert_eq!(serde_json::to_value(config).unwrap(), serde_json::to_value(defaults).unwrap());
}

#[test]
fn every_key_is_explained_and_stands_once() {
    let mut paths: Vec<String> = KEYS.iter().map(netpulse_config::Key::path).collect();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), KEYS.len());
    for key in KEYS {
        assert!(
            key.summary().len() > 10 && key.summary().ends_with(['.', ')', '}']),
            "{}: {}",
            key.path(),
            key.doc
        );
    }
}
