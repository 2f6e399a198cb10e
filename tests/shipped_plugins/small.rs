//! The plugins `tables` and `tcp_line`.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use netpulse_simulator::{Plan, Simulator};
use serde_json::json;

use super::built::{Folder, process_of, root};
use super::support::Server;

#[tokio::test(flavor = "multi_thread")]
async fn tables_parses_what_a_device_says() {
    let folder = Folder::new().tables();
    let devices = Simulator::start(Plan::of("cisco_ios", 1)).unwrap();
    let server = Server::start(&folder.config(&json!({})));
    let text = "Model: C2960\nSerial: FOC1\nSlots: 2\n";
    let (status, value) =
        server.post("/template/parse/kv", &json!({"context": text, "args": {"numbers": true}})).await;
    assert_eq!(
        (status, &value),
        (200, &json!({"Model": "C2960", "Serial": "FOC1", "Slots": 2})),
        "{}",
        server.log()
    );
    let place = devices.device(0).ssh.unwrap();
    let body = json!({"driver": "netmiko",
        "connection_args": {"device_type": "cisco_ios", "host": place.ip(), "port": place.port(),
                            "username": "admin", "password": "admin"},
        "command": "show ip interface brief",
        "parsing": {"name": "columns",
                    "args": {"columns": ["Interface", "IP-Address", "OK?", "Method", "Status", "Protocol"]}}});
    let job = server.exec(&body).await;
    let item = &job["result"]["retval"][0];
    let rows = item["parsed"].as_array().unwrap_or_else(|| panic!("{job}\n{}", server.log()));
    // Every row of the text is there, its first word in the first column.
    let words: Vec<&str> = item["stdout"]
        .as_str()
        .unwrap()
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let names: Vec<&str> = rows.iter().map(|row| row["Interface"].as_str().unwrap()).collect();
    assert!(!names.is_empty() && names == words, "{job}");
    assert!(rows.iter().all(|row| ["up", "down"].contains(&row["Protocol"].as_str().unwrap())), "{job}");
    // A text that is no such table fails the job and is kept.
    let mut body = body;
    body["command"] = json!("show clock");
    let job = server.exec(&body).await;
    assert_eq!(job["result"]["error"]["type"], "parse_failed", "{job}");
    assert!(
        job["result"]["error"]["message"].as_str().unwrap().contains("no line of the text has the headings")
    );
    assert!(job["result"]["retval"][0]["stdout"].as_str().unwrap().contains("UTC"), "{job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_14_a_plugin_killed_in_a_call_is_one_jobs_error() {
    let folder = Folder::new().file(&root().join("plugins/minimal-driver/tcp_line"), "tcp_line");
    // An instrument that answers all but one thing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asked, was_asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let asked = asked.clone();
            std::thread::spawn(move || {
                let mut writer = stream.try_clone().unwrap();
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if line == "HANG" {
                        asked.send(()).unwrap();
                    } else if writeln!(writer, "ACME {line}").is_err() {
                        return;
                    }
                }
            });
        }
    });
    let server = Server::start(&folder.config(&json!({})));
    let body = |command: &str| json!({"driver": "tcp_line", "connection_args": {"host": "127.0.0.1", "port": port}, "command": command});
    let job = server.exec(&body("*IDN?")).await;
    assert_eq!(job["result"]["retval"][0]["stdout"], "ACME *IDN?", "{job}\n{}", server.log());
    assert_eq!(job["result"]["retval"][0]["metadata"]["host"], "127.0.0.1");
    let (status, job) = server.post("/device/exec", &body("HANG")).await;
    assert_eq!(status, 201, "{job}");
    tokio::task::spawn_blocking(move || was_asked.recv_timeout(std::time::Duration::from_secs(20)).unwrap())
        .await
        .unwrap();
    let pid = process_of(&folder.path().join("tcp_line"));
    assert!(std::process::Command::new("kill").arg("-9").arg(pid.to_string()).status().unwrap().success());
    let job = server.job(job["id"].as_str().unwrap(), 30).await;
    assert_eq!(job["status"], "failed", "{job}");
    let message = job["result"]["error"]["message"].as_str().unwrap();
    assert!(message.contains("tcp_line"), "{job}");
    let job = server.exec(&body("MEAS?")).await;
    assert_eq!(job["result"]["retval"][0]["stdout"], "ACME MEAS?", "{job}\n{}", server.log());
    // Nobody there: the device's own error, not the plugin's.
    let job = server
        .exec(&json!({"driver": "tcp_line", "connection_args": {"host": "127.0.0.1", "port": 1}, "command": "x"}))
        .await;
    assert_eq!(job["result"]["error"]["type"], "connect_failed", "{job}");
}
