//! The plugins of this repository and the examples of the guides, each at its work: below the real
//! server over REST, or below the real plugin host.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

#[path = "shipped_plugins/built.rs"]
mod built;
#[path = "shipped_plugins/examples.rs"]
mod examples;
#[path = "shipped_plugins/guides.rs"]
mod guides;
#[path = "shipped_plugins/netmiko.rs"]
mod netmiko;
#[path = "shipped_plugins/pass.rs"]
mod pass;
#[path = "shipped_plugins/small.rs"]
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

#[test]
fn doctor_finds_nothing_wrong_with_the_shipped_plugins() {
    let tcp_line = built::root().join("plugins/minimal-driver/tcp_line");
    let folder =
        built::Folder::new().tables().python("plugins/pass", "pass", None).file(&tcp_line, "tcp_line");
    let folder = match netmiko::python() {
        Some(python) => folder.python("plugins/netmiko", "netmiko_py", Some(&python)),
        None => folder,
    };
    built::doctor(&folder);
}

#[test]
fn doctor_finds_nothing_wrong_with_the_examples() {
    let mut folder = built::Folder::new();
    for entry in std::fs::read_dir(built::root().join("examples/plugins")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(stem) = name.strip_suffix(".py") {
            folder = folder.python(&format!("examples/plugins/{name}"), stem, None);
        }
    }
    built::doctor(&folder);
}
