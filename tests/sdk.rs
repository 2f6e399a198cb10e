//! The Python client that users have (`netpulse-sdk` from PyPI), against our server.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

use netpulse_simulator::{Layout, Plan, Simulator};
use support::{KEY, Server, free_port};

/// `scripts/test` installs the client and names its Python; without it there is nothing to drive.
#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_works_unchanged() {
    let Ok(python) = std::env::var("NETPULSE_TEST_PYTHON") else {
        println!("skipped: NETPULSE_TEST_PYTHON names no Python with netpulse-sdk (scripts/test sets it)");
        return;
    };
    let port = free_port();
    let plan = Plan {
        personas: vec!["cisco_ios".into()],
        devices: 3,
        bind: "127.77.0.1".parse().unwrap(),
        layout: Layout::Addresses,
        ssh_port: Some(port),
        enable: "admin".into(),
        ..Plan::default()
    };
    let devices = Simulator::start(plan).unwrap();
    let hosts: Vec<String> = devices.devices().iter().map(|d| d.ssh.unwrap().ip().to_string()).collect();
    let server = Server::start("");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/sdk.py");
    let output = tokio::process::Command::new(python)
        .arg(script)
        .args([&server.url, KEY, &serde_json::to_string(&hosts).unwrap(), &port.to_string()])
        .output()
        .await
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("all ok"), "{out}\n{err}\n{}", server.log());
}
