//! The page of error codes has a row for every code, and none for a code that does not exist.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use netpulse_model::ErrorCode;

#[test]
fn every_error_code_is_explained_in_the_docs() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors.md");
    let page = std::fs::read_to_string(path).expect("docs/errors.md can be read");
    let jobs = page.split("\n## ").find(|part| part.starts_with("Codes of jobs")).expect("the section");
    let rows: Vec<&str> = jobs
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(code, _)| code))
        .collect();
    let codes: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    for code in &codes {
        assert!(rows.contains(code), "`{code}` has no row in docs/errors.md");
    }
    for row in &rows {
        assert!(codes.contains(row), "docs/errors.md explains `{row}`, which is no code");
    }
}
