//! The plugins of this repository and the examples of the guides, each at its work: below the real
//! server over REST, or below the real plugin host.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

#[path = "plugins/built.rs"]
mod built;
#[path = "plugins/examples.rs"]
mod examples;
#[path = "plugins/guides.rs"]
mod guides;
#[path = "plugins/netmiko.rs"]
mod netmiko;
#[path = "plugins/pass.rs"]
mod pass;
#[path = "plugins/small.rs"]
mod small;

/// The kit's own tests, which need nothing but Python.
#[test]
fn the_python_kit_keeps_the_contract() {
    let output = std::process::Command::new("python3")
        .args(["-m", "unittest", "discover", "-s", "tests", "-t", "tests"])
        .current_dir(built::root().join("plugins/python"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("\nOK"), "{said}");
    assert!(!said.contains("Ran 0 tests"), "{said}");
}
