//! References to secrets, on the whole program: a fake Vault, simulated devices, a real sshd.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[allow(dead_code)]
#[path = "shipped_plugins/built.rs"]
mod built;
#[path = "support/mischief.rs"]
mod mischief;
mod support;
#[path = "support/vault.rs"]
mod vault;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mischief::Mischief;
use netpulse_simulator::{Device, Plan, Running, Simulator};
use serde_json::{Value, json};
use support::{KEY, Server, Sshd, eventually, free_port};
use vault::{ROLE, ROOT, SECRET_ID, Vault};

const ENABLE: &str = "lift-me-up-42";

/// Devices that let in `ops` with this password.
fn devices(count: u32, password: &str) -> Running {
    Simulator::start(Plan { enable: ENABLE.into(), ..plan(count, password) }).unwrap()
}

fn plan(count: u32, password: &str) -> Plan {
    Plan { users: [("ops".to_owned(), password.to_owned())].into(), ..Plan::of("cisco_ios", count) }
}

fn at(device: &Device) -> Value {
    let at = device.ssh.unwrap();
    json!({"device_type": "cisco_ios", "host": at.ip().to_string(), "port": at.port()})
}

fn query(device: &Device, credential: Value) -> Value {
    json!({"driver": "netmiko", "connection_args": at(device), "credential": credential, "command": "show clock"})
}

fn section(vault: &Vault, more: &str) -> String {
    format!(
        "credential: {{enabled: true, name: vault_kv, addr: '{}', token: {ROOT}, {more}}}\n",
        vault.addr()
    )
}

fn reused(job: &Value) -> bool {
    job["result"]["retval"][0]["metadata"]["session_reused"].as_bool().unwrap()
}

fn failure(job: &Value) -> (&str, &str) {
    assert_eq!(job["status"], "failed", "{job}");
    let error = &job["result"]["error"];
    (error["type"].as_str().unwrap(), error["message"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_a_reference_logs_in() {
    let (running, vault) = (devices(2, "pw-from-vault"), Vault::start().await);
    vault.put("kv", "sites/hq", json!({"username": "ops", "password": "pw-from-vault"}));
    vault.put("secret", "odd", json!({"user": "ops", "pass": "pw-from-vault", "en": ENABLE}));
    let server = Server::start(&section(&vault, "cache_ttl: 30"));
    let (one, two) = (running.device(0), running.device(1));
    let job = server.exec(&query(one, json!({"ref": "sites/hq"}))).await;
    assert_eq!(job["status"], "finished", "{job}");
    let early = |reference: Value| {
        let mut body = query(one, Value::Null);
        body["connection_args"]["credential_ref"] = reference;
        body
    };
    for reference in [
        json!("sites/hq"),
        json!({"path": "sites/hq"}),
        json!({"provider": "vault", "path": "sites/hq", "username_key": "username", "password_key": "password"}),
    ] {
        let job = server.exec(&early(reference.clone())).await;
        assert_eq!(job["status"], "finished", "{reference}: {job}");
    }
    // A mapping of its own; the enable secret comes out of Vault as well.
    let mapping = json!({"username": "user", "password": "pass", "secret": "en"});
    let mut change =
        query(one, json!({"name": "vault_kv", "ref": "odd", "mount": "secret", "field_mapping": mapping}));
    change.as_object_mut().unwrap().remove("command");
    change["config"] = json!(["interface Loopback1", "description by-reference"]);
    let job = server.exec(&change).await;
    assert_eq!((&job["status"], &job["result"]["outcome"]), (&json!("finished"), &json!("applied")), "{job}");
    assert_eq!(vault.count("GET kv/data/sites/hq"), 1, "asked once, kept for the others");

    // What the request gives besides is overruled, and that is said.
    let mut both = query(two, json!({"ref": "sites/hq"}));
    both["connection_args"]["username"] = json!("somebody");
    both["connection_args"]["password"] = json!("wrong-password");
    let job = server.exec(&both).await;
    let warnings = job["result"]["retval"][0]["metadata"]["warnings"].to_string();
    assert!(warnings.contains("`password` and `username` of the request were not used"), "{job}");

    for path in ["/device/test", "/device/test-connection"] {
        let body =
            json!({"driver": "netmiko", "connection_args": at(one), "credential": {"ref": "sites/hq"}});
        let (status, seen) = server.post(path, &body).await;
        let success = seen.get("data").unwrap_or(&seen)["success"].clone();
        assert_eq!((status, success), (200, json!(true)), "{seen}");
    }
    let lost = json!({"driver": "netmiko", "connection_args": at(one), "credential": {"ref": "nope"}});
    let (status, seen) = server.post("/device/test", &lost).await;
    assert_eq!(
        (status, &seen["success"], &seen["error_type"]),
        (200, &json!(false), &json!("credential_not_found"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_device_of_many_with_a_bad_reference_is_that_devices_failure() {
    let (running, vault) = (devices(4, "pw-from-vault"), Vault::start().await);
    vault.put("kv", "net/all", json!({"username": "ops", "password": "pw-from-vault"}));
    vault.put("kv", "net/own", json!({"username": "ops", "password": "pw-from-vault"}));
    let server = Server::start(&section(&vault, "allowed_paths: [kv/net]"));
    let device = |n: usize, more: Value| {
        let mut device = at(running.device(n));
        device.as_object_mut().unwrap().remove("device_type");
        device.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        device
    };
    let body = json!({"driver": "netmiko", "command": "show clock", "connection_args": {"device_type": "cisco_ios"},
    "credential": {"ref": "net/all"}, "devices": [
        device(0, json!({})),
        device(1, json!({"credential_ref": "net/own"})),
        device(2, json!({"credential": {"ref": "net/none"}})),
        device(3, json!({"credential": null, "username": "ops", "password": "pw-from-vault"})),
        device(0, json!({"credential": {"ref": "hr/boss"}})),
        device(0, json!({"credential_ref": "net/../hr/boss"})),
        device(0, json!({"credential_ref": {"provider": "keepass", "path": "a"}})),
        device(0, json!({"credential": {"version": 1}})),
    ]});
    let (status, answer) = server.post("/device/bulk?wait=60", &body).await;
    assert_eq!(status, 201, "{answer}");
    let jobs = answer["succeeded"].as_array().unwrap();
    let states: Vec<&str> = jobs.iter().map(|job| job["status"].as_str().unwrap()).collect();
    assert_eq!(states, ["finished", "finished", "failed", "finished"], "{answer}");
    assert_eq!(failure(&jobs[2]), ("credential_not_found", "Secret not found at Vault path: net/none"));
    let reasons: Vec<&str> =
        answer["failed"].as_array().unwrap().iter().map(|f| f["reason"].as_str().unwrap()).collect();
    assert_eq!(
        reasons,
        [
            "Access to Vault path 'kv/hr/boss' is not allowed by policy",
            "The reference `net/../hr/boss` must not have `.` or `..` as a part",
            "Unsupported credential provider: keepass",
            "credential.ref: Field required",
        ]
    );
    assert_eq!(vault.count("GET kv/data/hr"), 0);
    // A reference that holds for all and is wrong is everybody's.
    let mut all = body.clone();
    all["credential"] = json!({"ref": "hr/boss"});
    let (status, answer) = server.post("/device/bulk", &all).await;
    assert_eq!(
        (status, &answer["detail"]),
        (400, &json!("Access to Vault path 'kv/hr/boss' is not allowed by policy"))
    );
    for (credential, sentence) in [
        (json!({"ref": "hr/boss"}), "Access to Vault path 'kv/hr/boss' is not allowed by policy"),
        (json!({"name": "keepass", "ref": "a"}), "Unsupported credential provider: keepass"),
    ] {
        let (status, answer) = server.post("/device/exec", &query(running.device(0), credential)).await;
        assert_eq!((status, answer["detail"].as_str()), (400, Some(sentence)), "{answer}");
    }
    let off = Server::start("");
    let (status, answer) = off.post("/device/exec", &query(running.device(0), json!({"ref": "a"}))).await;
    let sentence = "Credential support is disabled in server configuration";
    assert_eq!((status, answer["detail"].as_str()), (400, Some(sentence)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_password_makes_a_new_session_once_the_cache_ends() {
    let vault = Vault::start().await;
    let port = free_port();
    let fixed = |password: &str| Plan { ssh_port: Some(port), host_key_seed: Some(7), ..plan(1, password) };
    let running = Simulator::start(fixed("pw-of-march")).unwrap();
    vault.put("kv", "sw", json!({"username": "ops", "password": "pw-of-march"}));
    let server = Server::start(&section(&vault, "cache_ttl: 2"));
    let body = query(running.device(0), json!({"ref": "sw"}));
    let first = server.exec(&body).await;
    assert!(!reused(&first), "{first}");
    assert!(reused(&server.exec(&body).await), "the same secret, the same session");
    // Rotated at Vault: at the end of the cached copy the session of the old password is left.
    vault.put("kv", "sw", json!({"username": "ops", "password": "pw-of-april"}));
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let refused = server.exec(&body).await;
    assert_eq!(failure(&refused).0, "authentication_failed", "the device still has the old one");
    running.stop();
    drop(running);
    let _running = Simulator::start(fixed("pw-of-april")).unwrap();
    let job = server.exec(&body).await;
    assert!(job["status"] == "finished" && !reused(&job), "{job}");
    // Rotated at both, within the cache's time: one refused login, and the next job has the new one.
    drop(_running);
    let _running = Simulator::start(fixed("pw-of-may")).unwrap();
    vault.put("kv", "sw", json!({"username": "ops", "password": "pw-of-may"}));
    let mut states = Vec::new();
    for _ in 0..3 {
        states.push(server.exec(&body).await["status"].as_str().unwrap().to_owned());
    }
    assert_eq!(states.last().map(String::as_str), Some("finished"), "{states:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_vault_is_down_kept_secrets_serve_and_others_wait_their_turn() {
    let running = devices(2, "pw-from-vault");
    let mut vault = Vault::start().await;
    for path in ["one", "two"] {
        vault.put("kv", path, json!({"username": "ops", "password": "pw-from-vault", "en": ENABLE}));
    }
    let server = Server::start(&section(&vault, "cache_ttl: 3600, timeout: 2"));
    let (one, two) = (running.device(0), running.device(1));
    assert_eq!(server.exec(&query(one, json!({"ref": "one"}))).await["status"], "finished");
    vault.down();
    assert_eq!(server.exec(&query(one, json!({"ref": "one"}))).await["status"], "finished");
    let job = server.exec(&query(two, json!({"ref": "two"}))).await;
    let (code, message) = failure(&job);
    assert_eq!(code, "credential_unavailable");
    assert!(message.contains(&vault.addr()) && message.contains("does not answer"), "{message}");
    assert_eq!(job["result"]["retval"][0]["exit_status"], 1, "as a connection that did not come about");
    assert_eq!(running.journal().device(1).len(), 0, "the device was not contacted");

    // A change too is tried again: nothing of it had been sent.
    let mapping = json!({"username": "username", "password": "password", "secret": "en"});
    let mut change = query(two, json!({"ref": "two", "field_mapping": mapping}));
    change.as_object_mut().unwrap().remove("command");
    change["config"] = json!(["interface Loopback7", "description after-the-outage"]);
    change["retry"] = json!({"max": 10, "intervals": [0.2, 0.5]});
    let (_, job) = server.post("/device/exec", &change).await;
    let id = job["id"].as_str().unwrap().to_owned();
    let server = &server;
    let attempts = || async { server.job(&id, 0).await["attempt"].as_u64().unwrap() };
    while attempts().await < 2 {
        tokio::task::yield_now().await;
    }
    vault.up().await;
    let job = server.job(&id, 60).await;
    assert_eq!((&job["status"], &job["result"]["outcome"]), (&json!("finished"), &json!("applied")), "{job}");
    let lines = running.journal().lines(1);
    assert_eq!(lines.iter().filter(|line| line.contains("after-the-outage")).count(), 1, "{lines:?}");

    // Without `retry` a change ends, and says that nothing was applied.
    vault.faults(|f| f.sealed = true);
    change["credential"]["ref"] = json!("three");
    change["retry"] = Value::Null;
    let job = server.exec(&change).await;
    assert_eq!(failure(&job).0, "credential_unavailable");
    assert_eq!(job["result"]["outcome"], "not_applied", "{job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_come_from_the_environment_and_from_files_as_well() {
    use std::os::unix::fs::PermissionsExt;
    let running = devices(1, "pw-from-file");
    let secrets = tempfile::tempdir().unwrap();
    let file = secrets.path().join("hq.yaml");
    std::fs::write(&file, "username: ops\npassword: pw-from-file\n").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let server = Server::start(&format!(
        "credential: {{enabled: true, name: file, providers: [env], dir: {}}}",
        secrets.path().display()
    ));
    let device = running.device(0);
    assert_eq!(server.exec(&query(device, json!({"ref": "hq"}))).await["status"], "finished");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let job = server.exec(&query(device, json!({"ref": "hq"}))).await;
    let (code, message) = failure(&job);
    assert!(code == "credential_denied" && message.contains("chmod 600"), "{message}");
    let job = server.exec(&query(device, json!({"name": "env", "ref": "not/set"}))).await;
    let (code, message) = failure(&job);
    assert!(code == "credential_not_found" && message.contains("NETPULSE_CREDENTIAL_NOT_SET_"), "{message}");
    let (status, answer) = server.post("/credential/vault/list", &json!({})).await;
    assert_eq!((status, &answer["code"]), (503, &json!(-1)), "{answer}");
}

/// What `netpulse serve` says when it does not start; killed when it does.
fn refusal(dir: &Path, section: &str) -> String {
    let config = dir.join("netpulse.yaml");
    let yaml = format!(
        "server: {{host: 127.0.0.1, port: 0, api_key: {KEY}}}\nstore: {{path: {}/store}}\n{section}\n",
        dir.display()
    );
    std::fs::write(&config, yaml).unwrap();
    let output = Command::new("timeout")
        .arg("60")
        .arg(env!("CARGO_BIN_EXE_netpulse"))
        .args(["serve", "--config"])
        .arg(&config)
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(!output.status.success() && output.status.code() != Some(124), "it started");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_configuration_stops_the_start_an_unreachable_vault_does_not() {
    let dir = tempfile::tempdir().unwrap();
    for (section, sentence) in [
        ("credential: {enabled: true, name: vault_kv, token: t}", "credential.addr: must be set"),
        (
            "credential: {enabled: true, name: vault_kv, addr: 'http://127.0.0.1:1'}",
            "Vault auth requires token or AppRole (role_id + secret_id)",
        ),
    ] {
        let said = refusal(dir.path(), section);
        assert!(said.contains(sentence), "{said}");
    }
    let mut vault = Vault::start().await;
    vault.down();
    let server = Server::start(&section(&vault, "providers: [lost]"));
    assert_eq!(server.get("/health").await.0, 200);
    eventually(30, "the warning", || server.log().contains("credential provider `vault_kv` is not ready"));
    assert!(server.log().contains("no credential provider is named `lost`"));
    let body = json!({"driver": "netmiko", "connection_args": {"host": "192.0.2.1", "device_type": "cisco_ios"},
        "command": "x", "credential": {"name": "lost", "ref": "a"}});
    let (status, answer) = server.post("/device/exec", &body).await;
    assert_eq!((status, answer["detail"].as_str()), (400, Some("Credential provider not found: lost")));
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_looked_after_below_credential_vault() {
    let mut vault = Vault::start().await;
    let approle = format!(
        "credential: {{enabled: true, name: vault, addr: '{}', role_id: {ROLE}, secret_id: {SECRET_ID}, \
         allowed_paths: [kv/sites, kv/labs], timeout: 2, allow_show_password: true}}",
        vault.addr()
    );
    let server = Server::start(&approle);
    let call = |path: &'static str, body: Value| {
        let server = &server;
        async move { server.post(&format!("/credential/vault/{path}"), &body).await }
    };
    let data = |answer: (u16, Value)| {
        assert_eq!(
            (answer.0, &answer.1["code"], &answer.1["message"]),
            (200, &json!(200), &json!("success")),
            "{}",
            answer.1
        );
        answer.1["data"].clone()
    };
    let refused = |answer: (u16, Value)| {
        assert_eq!((&answer.1["code"], &answer.1["data"]), (&json!(-1), &Value::Null), "{}", answer.1);
        (answer.0, answer.1["message"].as_str().unwrap().to_owned())
    };
    assert_eq!(
        data(call("test", json!({})).await),
        json!({"success": true, "vault_version": "1.99.0-fake", "sealed": false, "standby": false,
            "url": vault.addr(), "mount_point": "kv"})
    );
    let new = json!({"path": "sites/hq/admin", "username": "ops", "password": "s3cret", "metadata": {"owner": "noc"}});
    assert_eq!(
        data(call("create", new).await),
        json!({"success": true, "path": "sites/hq/admin", "message": "Credential created"})
    );
    let masked = json!({"path": "sites/hq/admin", "username": "ops", "password": "***"});
    assert_eq!(data(call("read", json!({"path": "sites/hq/admin"})).await), masked);
    let shown = data(call("read", json!({"path": "sites/hq/admin", "show_password": true})).await);
    assert_eq!(shown["password"], "s3cret");
    vault.put("kv", "labs/a", json!({"user": "lab", "pass": "w0rd", "pkey": "KEY"}));
    let keys = json!({"path": "labs/a", "username_key": "user", "password_key": "pass"});
    let labs = json!({"path": "labs/a", "username": "lab", "password": "***", "pkey": "***"});
    assert_eq!(data(call("read", keys).await), labs);
    assert_eq!(
        data(call("batch-read", json!({"paths": ["sites/hq/admin", "sites/nope", "hr/boss"]})).await),
        json!({"succeeded": [masked], "failed": [
            {"path": "sites/nope", "error": "Secret not found at Vault path: sites/nope"},
            {"path": "hr/boss", "error": "Access to Vault path 'kv/hr/boss' is not allowed by policy"}],
            "total": 3, "success_count": 1, "failed_count": 2})
    );
    assert_eq!(data(call("list", json!({})).await), json!({"count": 2, "paths": ["labs/", "sites/"]}));
    assert_eq!(
        data(call("list", json!({"path_prefix": "sites/", "recursive": true})).await),
        json!({"count": 1, "paths": ["sites/hq/admin"]})
    );
    let about = data(call("metadata", json!({"path": "sites/hq/admin"})).await);
    assert_eq!((&about["current_version"], &about["custom_metadata"]), (&json!(1), &json!({"owner": "noc"})));
    assert!(
        about["versions"]["1"]["created_time"].is_string() && about["created_time"].is_string(),
        "{about}"
    );
    assert_eq!(
        data(call("delete", json!({"path": "sites/hq/admin"})).await),
        json!({"success": true, "path": "sites/hq/admin", "message": "Credential deleted"})
    );
    for (path, body, status, sentence) in [
        ("read", json!({"path": "sites/hq/admin"}), 404, "Secret not found at Vault path: sites/hq/admin"),
        ("delete", json!({"path": "sites/hq/admin"}), 404, "Secret not found at Vault path: sites/hq/admin"),
        ("metadata", json!({"path": "sites/hq/admin"}), 404, "Secret not found"),
        (
            "read",
            json!({"path": "hr/boss"}),
            403,
            "Access to Vault path 'kv/hr/boss' is not allowed by policy",
        ),
        ("list", json!({"path_prefix": "hr"}), 403, "not allowed by policy"),
        ("read", json!({"path": "sites/../hr"}), 400, "must not have `.` or `..`"),
        ("read", json!({}), 422, "path: Field required"),
        ("create", json!({"path": "sites/x", "username": "u"}), 422, "password: Field required"),
        ("batch-read", json!({"paths": []}), 422, "1 to 100 paths"),
    ] {
        let (got, said) = refused(call(path, body.clone()).await);
        assert!(got == status && said.contains(sentence), "{path} {body}: {got} {said}");
    }
    vault.put("kv", "sites/b", json!({"username": "u", "password": "p"}));
    vault.faults(|f| f.denied = vec!["kv/data/sites/b".into()]);
    let (status, said) = refused(call("read", json!({"path": "sites/b"})).await);
    assert_eq!((status, said.as_str()), (403, "Vault token lacks permission to read path: sites/b"));
    vault.faults(|f| f.nonsense = Some("{}"));
    vault.down();
    for path in ["test", "read", "list"] {
        let (status, said) = refused(call(path, json!({"path": "sites/a"})).await);
        assert!(status == 503 && said.contains("does not answer"), "{said}");
    }
    let off = Server::start("");
    let (status, answer) = off.post("/credential/vault/test", &json!({})).await;
    assert_eq!((status, &answer["code"]), (503, &json!(-1)), "{answer}");
}

/// `scripts/test` installs the client and names its Python; without it there is nothing to drive.
#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_sends_references() {
    const SCRIPT: &str = r#"
import sys
from netpulse_sdk import NetPulseClient
url, key, port = sys.argv[1:]
args = {"device_type": "cisco_ios", "port": int(port)}
np = NetPulseClient(base_url=url, api_key=key, driver="netmiko", default_connection_args=args,
                    default_credential={"name": "vault_kv", "ref": "sites/hq"})
job = np.collect("127.0.0.1", command="show version")
assert job.first().ok and "Cisco" in job.first().stdout, job.to_json()
group = np.collect(["127.0.0.1"], command="show clock", credential={"name": "vault_kv", "ref": "sites/hq"})
group.wait(timeout=60)
assert group.all_ok, group.to_dict()
seen = np.test_connection("127.0.0.1", credential={"name": "vault_kv", "ref": "sites/hq"})
assert seen.ok, seen
lost = np.test_connection("127.0.0.1", credential={"name": "vault_kv", "ref": "nope"})
assert not lost.ok and "Secret not found" in lost.error, lost
print("all ok")
"#;
    let Ok(python) = std::env::var("NETPULSE_TEST_PYTHON") else {
        eprintln!("skipped: NETPULSE_TEST_PYTHON names no Python with netpulse-sdk (scripts/test sets it)");
        return;
    };
    let (running, vault) = (devices(1, "pw-from-vault"), Vault::start().await);
    vault.put("kv", "sites/hq", json!({"username": "ops", "password": "pw-from-vault"}));
    let server = Server::start(&section(&vault, "cache_ttl: 30"));
    let port = running.device(0).ssh.unwrap().port().to_string();
    let output = tokio::process::Command::new(python)
        .args(["-c", SCRIPT, &server.url, KEY, &port])
        .output()
        .await
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("all ok"), "{out}\n{err}\n{}", server.log());
}

/// Everything that leaves the server or stays behind it, by name. Another kind of output is one
/// more line.
async fn outputs(server: &Server, jobs: &[String]) -> Vec<(String, String)> {
    let mut seen = vec![("log".to_owned(), server.log())];
    for path in ["/jobs", "/workers", "/system/stats", "/health", "/job", "/worker", "/openapi.json"] {
        seen.push((path.to_owned(), server.get(path).await.1.to_string()));
    }
    for id in jobs {
        for path in [format!("/jobs/{id}"), format!("/jobs/{id}/why")] {
            seen.push((path.clone(), server.get(&path).await.1.to_string()));
        }
        let events = server.request(reqwest::Method::GET, &format!("/jobs/{id}/events"));
        seen.push((format!("events of {id}"), events.send().await.unwrap().text().await.unwrap()));
    }
    files(&server.dir.join("store"), &mut seen);
    processes(server.pid(), &mut seen);
    seen
}

fn files(dir: &Path, seen: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, seen);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            seen.push((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
}

/// What others on the machine see of a process and of all that it started.
fn processes(pid: u32, seen: &mut Vec<(String, String)>) {
    for file in ["cmdline", "environ"] {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        seen.push((format!("{file} of {pid}"), String::from_utf8_lossy(&bytes).into_owned()));
    }
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    for task in tasks {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            processes(child, seen);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_12_a_secret_behind_a_reference_appears_nowhere() {
    const PASSWORD: &str = "pl4nted-Device-Password";
    const WRONG: &str = "pl4nted-Wrong-Password";
    const PHRASE: &str = "pl4nted key phrase";
    const CREATED: &str = "pl4nted-Created-Password";
    const GIVEN: &str = "pl4nted-Given-Password";
    let planted = [PASSWORD, WRONG, ENABLE, PHRASE, CREATED, GIVEN, ROOT, SECRET_ID, "hvs.login-", KEY];
    let running = devices(1, PASSWORD);
    let sshd = Sshd::start(None);
    let keys = tempfile::tempdir().unwrap();
    let file = keys.path().join("key");
    std::fs::write(&file, &sshd.private_key).unwrap();
    run(Command::new("chmod").arg("600").arg(&file));
    run(Command::new("ssh-keygen").args(["-q", "-p", "-P", "", "-N", PHRASE, "-f"]).arg(&file));
    let locked = std::fs::read_to_string(&file).unwrap();

    let mut vault = Vault::start().await;
    vault.put(
        "kv",
        "sw",
        json!({"username": "ops", "password": PASSWORD, "en": ENABLE, "nested": {"a": PASSWORD}}),
    );
    vault.put("kv", "wrong", json!({"username": "ops", "password": WRONG, "en": WRONG}));
    vault.put("kv", "partly", json!({"user": PASSWORD}));
    vault.put("kv", "linux", json!({"username": sshd.user, "key": locked, "phrase": PHRASE, "bad": WRONG}));
    // The token is dead, so that a login is made and its token used as well.
    let server = Server::start(&format!(
        "log: {{level: DEBUG}}\ncredential: {{enabled: true, name: vault_kv, addr: '{}', token: {ROOT}, \
         role_id: {ROLE}, secret_id: {SECRET_ID}, cache_ttl: 1, timeout: 2}}\n",
        vault.addr()
    ));
    vault.revoke_all();
    let device = running.device(0);
    let enable = json!({"username": "username", "password": "password", "secret": "en"});
    let linux = |phrase: &str| {
        let mapping = json!({"username": "username", "pkey": "key", "passphrase": phrase});
        json!({"driver": "paramiko", "connection_args": {"host": "127.0.0.1", "port": sshd.port},
            "credential": {"ref": "linux", "field_mapping": mapping}, "command": "id -un"})
    };
    let mut bodies = vec![
        (query(device, json!({"ref": "sw"})), "finished"),
        (query(device, json!({"ref": "sw", "field_mapping": enable})), "finished"),
        (query(device, json!({"ref": "wrong"})), "failed"),
        (query(device, json!({"ref": "partly"})), "failed"),
        (query(device, json!({"ref": "sw", "version": 9})), "failed"),
        (linux("phrase"), "finished"),
        (linux("bad"), "failed"),
    ];
    let mut change = query(device, json!({"ref": "sw", "field_mapping": enable}));
    change.as_object_mut().unwrap().remove("command");
    change["config"] = json!(["interface Loopback9", "bogus"]);
    bodies.push((change, "failed"));
    let mut fifo = query(device, json!({"ref": "sw"}));
    fifo["queue_strategy"] = json!("fifo");
    fifo["connection_args"]["password"] = json!(GIVEN);
    bodies.push((fifo, "finished"));
    let mut closed = query(device, json!({"ref": "sw"}));
    closed["connection_args"]["port"] = json!(1);
    bodies.push((closed, "failed"));

    let (mut answers, mut jobs) = (Vec::new(), Vec::new());
    for (body, expected) in &bodies {
        let job = server.exec(body).await;
        assert_eq!(&job["status"], expected, "{body}\n{job}");
        jobs.push(job["id"].as_str().unwrap().to_owned());
        answers.push(("POST /device/exec".to_owned(), job.to_string()));
    }
    for reference in ["sw", "wrong", "partly", "nope", "a/../b"] {
        let body =
            json!({"driver": "netmiko", "connection_args": at(device), "credential": {"ref": reference}});
        for path in ["/device/test", "/device/test-connection"] {
            answers.push((path.to_owned(), server.post(path, &body).await.1.to_string()));
        }
    }
    for (call, body) in [
        ("test", json!({})),
        ("create", json!({"path": "new", "username": "u", "password": CREATED, "metadata": {"by": "me"}})),
        ("create", json!({"path": "new/../x", "username": "u", "password": CREATED})),
        ("create", json!({"path": 7, "username": [CREATED], "password": CREATED})),
        ("create", json!([CREATED])),
        ("read", json!({"path": "sw", "show_password": true})),
        ("batch-read", json!({"paths": ["sw", "wrong", "linux", "nope"], "show_password": true})),
        ("list", json!({"recursive": true})),
        ("metadata", json!({"path": "sw"})),
    ] {
        let (status, answer) = server.post(&format!("/credential/vault/{call}"), &body).await;
        // What was sent wrongly comes back to whoever sent it, but for what stands where secrets do.
        if !body["path"].is_number() && !body.is_array() {
            answers.push((call.to_owned(), format!("{status} {answer}")));
        }
    }
    vault.faults(|f| f.nonsense = Some("pl4nted-Device-Password"));
    let job = server.exec(&query(device, json!({"ref": "partly"}))).await;
    answers.push(("nonsense".to_owned(), job.to_string()));
    vault.down();
    let job = server.exec(&query(device, json!({"ref": "down"}))).await;
    assert_eq!(failure(&job).0, "credential_unavailable");
    jobs.push(job["id"].as_str().unwrap().to_owned());
    answers.push(("Vault is down".to_owned(), job.to_string()));

    answers.extend(outputs(&server, &jobs).await);
    assert!(answers.iter().any(|(name, _)| name.starts_with("environ of")), "no process was looked at");
    assert!(answers.iter().any(|(name, text)| name == "log" && text.contains("DEBUG")), "no debug lines");
    nowhere(&answers, &planted);
    nowhere(&answers, &[locked.lines().nth(2).unwrap()]);
}

fn nowhere(answers: &[(String, String)], planted: &[&str]) {
    for (name, text) in answers {
        for secret in planted {
            if let Some(at) = text.find(secret) {
                let from = text[..at].char_indices().rev().nth(300).map_or(0, |(i, _)| i);
                panic!("`{secret}` came out in {name}: {}", &text[from..at + secret.len()]);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_12_and_14_a_provider_that_is_a_program_gives_secrets_that_appear_nowhere_and_faults_that_are_one_jobs()
 {
    const PASSWORD: &str = "pl4nted-Safe-Password";
    let (running, mischief) = (devices(2, PASSWORD), Mischief::new());
    let server = Server::start(&format!(
        "log: {{level: DEBUG}}\ncredential: {{enabled: true, name: safe}}\n{}",
        mischief.config()
    ));
    let device = running.device(0);
    let fine = format!("ok {PASSWORD}");
    let by = |reference: &str| query(device, json!({"ref": reference}));
    let (mut answers, mut jobs) = (Vec::new(), Vec::new());
    let mut exec = async |mood: &str, body: Value| {
        mischief.tell("credential", mood);
        let job = server.exec(&body).await;
        jobs.push(job["id"].as_str().unwrap().to_owned());
        answers.push((format!("the job when it is told `{mood}`"), job.to_string()));
        job
    };
    // Asked in the worker, when it connects, and told of the device without any secret.
    let mut first = by("sw");
    first["connection_args"]["password"] = json!("given-in-vain");
    assert_eq!(exec(&fine, first).await["status"], "finished");
    let asked = mischief.calls("credential");
    assert_eq!((asked.len(), &asked[0]["ref"]), (1, &json!("sw")), "{asked:?}");
    assert_eq!(asked[0]["args"]["host"], at(device)["host"]);
    assert!(!asked[0].to_string().contains("given-in-vain"), "{asked:?}");
    // It writes the secret on its stderr before we can know that it is one.
    assert_eq!(exec(&format!("shout {PASSWORD}"), by("sw")).await["status"], "finished");
    eventually(10, "what it shouted, masked", || server.log().contains("giving ******"));

    for (mood, code, says) in [
        ("denied", "credential_denied", "the safe does not open for sw"),
        ("missing", "credential_not_found", "the safe holds no sw"),
        (&format!("refuse {PASSWORD}"), "credential_unavailable", "the vault says: ******"),
        ("ok another-Password-9", "authentication_failed", ""),
    ] {
        let before = running.journal().device(0).len();
        let job = exec(mood, by("sw")).await;
        let (got, said) = failure(&job);
        assert!(got == code && said.contains(says), "{mood}: {job}");
        if code != "authentication_failed" {
            assert_eq!(running.journal().device(0).len(), before, "{mood}: the device is not contacted");
        }
    }
    // A crash is this job's error; the next one has another process to ask.
    let job = exec("die", by("sw")).await;
    let (code, said) = failure(&job);
    assert!(code == "plugin_failed" && said.contains("test/mischief/v1"), "{job}");
    assert_eq!(exec(&fine, by("sw")).await["status"], "finished");
    // One that hangs has as long as the job.
    let mut short = by("sw");
    short["execution_timeout"] = json!(2);
    let job = exec("hang", short).await;
    let (code, said) = failure(&job);
    assert!(code == "credential_unavailable" && said.contains("`safe` gave no answer"), "{job}");
    let plain = json!({"driver": "netmiko", "command": "show clock", "connection_args":
        {"host": "127.0.0.1", "port": running.device(1).ssh.unwrap().port(), "device_type": "cisco_ios",
         "username": "ops", "password": PASSWORD}});
    assert_eq!(exec("hang", plain).await["status"], "finished", "jobs without a reference do not need it");
    // A change that got no secret was not applied, and says so.
    let mut change = by("sw");
    change.as_object_mut().unwrap().remove("command");
    change["config"] = json!(["interface Loopback1"]);
    let job = exec("missing", change).await;
    assert_eq!((failure(&job).0, &job["result"]["outcome"]), ("credential_not_found", &json!("not_applied")));
    assert_eq!(exec(&fine, by("sw")).await["status"], "finished");

    answers.extend(outputs(&server, &jobs).await);
    assert!(
        answers.iter().filter(|(name, _)| name.starts_with("environ of")).count() > 2,
        "the plugin was looked at"
    );
    nowhere(&answers, &[PASSWORD, "another-Password-9", "given-in-vain"]);
}

/// A device that prints what one logged in with belongs to whoever asked; nobody else sees it.
#[tokio::test(flavor = "multi_thread")]
async fn promise_12_a_password_that_the_device_prints_stays_in_the_result() {
    const PASSWORD: &str = "pl4nted-Echoed-Password";
    let running = devices(1, PASSWORD);
    let server = Server::start("log: {level: DEBUG}");
    let device = running.device(0);
    let mut args = at(device);
    args["username"] = json!("ops");
    args["password"] = json!(PASSWORD);
    args["secret"] = json!(ENABLE);
    let ask = |what: &str, lines: Value| json!({"driver": "netmiko", "connection_args": args, "enable_mode": true, what: lines});
    let lines = json!(["interface Loopback7", format!("description sw-{PASSWORD}")]);
    let changed = server.exec(&ask("config", lines)).await;
    assert_eq!(changed["status"], "finished", "{changed}");
    let body = ask("command", json!(["show running-config", "show version"]));
    let job = server.exec(&body).await;
    assert_eq!(job["status"], "finished", "{job}");
    assert!(
        job["result"]["retval"][0]["stdout"].to_string().contains(PASSWORD),
        "the device prints it: {job}"
    );
    let id = job["id"].as_str().unwrap().to_owned();
    let mut answers = outputs(&server, &[]).await;
    answers.retain(|(name, _)| !["/jobs", "/job"].contains(&name.as_str()));
    let events = server.request(reqwest::Method::GET, &format!("/jobs/{id}/events"));
    answers.push(("events".to_owned(), events.send().await.unwrap().text().await.unwrap()));
    answers.push(("why".to_owned(), server.get(&format!("/jobs/{id}/why")).await.1.to_string()));
    answers.push(("metrics".to_owned(), server.get("/metrics").await.1.to_string()));
    // A listing has the results in it, as upstream's has; of everything else in it nothing shows.
    for path in ["/jobs", "/job"] {
        let (_, mut list) = server.get(path).await;
        let jobs = list.get_mut("data").map_or(json!([]), Value::take);
        let jobs = if list.is_array() { list } else { jobs };
        let jobs = jobs.as_array().cloned().unwrap_or_default();
        assert!(path == "/job" || !jobs.is_empty());
        for mut job in jobs {
            job.as_object_mut().unwrap().remove("result");
            answers.push((path.to_owned(), job.to_string()));
        }
    }
    let stored = answers.iter().filter(|(name, _)| name.contains("/store/")).count();
    assert!(stored > 0, "the store was looked at");
    answers.retain(|(name, _)| !name.contains("/store/"));
    let events = &answers.iter().find(|(name, _)| name == "events").unwrap().1;
    assert!(events.contains("sw-******"), "the output is told, masked: {events}");
    nowhere(&answers, &[PASSWORD]);
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
