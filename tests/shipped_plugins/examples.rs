//! Every example of the guides at its work.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use netpulse_model::worker::NodeInfo;
use netpulse_model::{ConnectionArgs, Job};
use netpulse_plugin::{CredentialRef, Failed, Implementation, Kind, WebhookCall};
use serde_json::{Value, json};

use super::built::{Folder, found, root};
use super::support::Server;

fn example(name: &str) -> String {
    format!("examples/plugins/{name}.py")
}

fn args(value: Value) -> ConnectionArgs {
    ConnectionArgs(value.as_object().unwrap().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn renderer_and_parser() {
    let folder = Folder::new().python(&example("each_row"), "each_row", None).python(
        &example("sections"),
        "sections",
        None,
    );
    let server = Server::start(&folder.config(&json!({})));
    let body = json!({"template": "vlan $id\n name $name", "context": {"rows": [{"id": 30, "name": "a"}, {"id": 31, "name": "b"}]}});
    let (status, text) = server.post("/template/render/each_row", &body).await;
    assert_eq!((status, &text), (200, &json!("vlan 30\n name a\nvlan 31\n name b")), "{}", server.log());
    let body = json!({"template": "$nope", "context": {"rows": [{}]}});
    let (status, said) = server.post("/template/render/each_row", &body).await;
    assert!(
        status == 400 && said.to_string().contains("row 1: the template asks for $nope"),
        "{status} {said}"
    );
    let body =
        json!({"context": "! x\ninterface Vlan30\n description printers\n  deep\nntp server 192.0.2.1\n"});
    let (status, tree) = server.post("/template/parse/sections", &body).await;
    let wanted =
        json!({"interface Vlan30": {"description printers": {"deep": {}}}, "ntp server 192.0.2.1": {}});
    assert_eq!((status, tree), (200, wanted));
}

#[tokio::test(flavor = "multi_thread")]
async fn scheduler() {
    let folder = Folder::new().python(&example("by_site"), "by_site", None);
    let plugins = folder.host(&json!({}));
    let Implementation::Scheduler(scheduler) = found(&plugins, Kind::Scheduler, "by_site").await else {
        panic!()
    };
    let node = |name: &str, count: usize| -> NodeInfo {
        let node = json!({"hostname": name, "count": count, "capacity": 2, "queue": format!("NodeQ_{name}")});
        serde_json::from_value(node).unwrap()
    };
    let nodes = [node("hq-1", 1), node("hq-2", 0), node("branch-1", 0)];
    assert_eq!(scheduler.node_select(&nodes, "hq-sw1").await.unwrap(), "hq-2");
    assert_eq!(scheduler.node_select(&nodes, "branch-sw1").await.unwrap(), "branch-1");
    let hosts: Vec<String> = ["hq-a", "hq-b", "hq-c", "hq-d"].map(str::to_owned).into();
    let chosen = scheduler.batch_node_select(&nodes, &hosts).await.unwrap();
    // Three places at the site, then the other one.
    assert_eq!(chosen.iter().filter(|name| name.as_deref() == Some("branch-1")).count(), 1, "{chosen:?}");
    let error = scheduler.node_select(&[node("hq-1", 2)], "hq-sw1").await.unwrap_err();
    assert_eq!(error.kind, Failed::Unavailable, "{error}");
    plugins.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook() {
    let folder = Folder::new().python(&example("syslog_hook"), "syslog_hook", None);
    let plugins = folder.host(&json!({}));
    let Implementation::Webhook(webhook) = found(&plugins, Kind::Webhook, "syslog").await else { panic!() };
    let collector = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let job: Job = serde_json::from_value(json!({
        "id": "0198c5d2-6f1e-7c40-9d5e-6b1f2a3c4d5e", "status": "failed", "queue": "FifoQ", "device": null,
        "kind": "query", "priority": "normal", "driver": "netmiko", "device_name": "192.0.2.1",
        "command": ["show version"], "task_id": null, "attempt": 1, "created_at": "2026-11-21T10:00:00Z",
        "enqueued_at": null, "started_at": null, "ended_at": null, "worker": null, "result": null
    }))
    .unwrap();
    let url = format!("udp://{}", collector.local_addr().unwrap());
    let request = json!({"name": "syslog", "url": url});
    let delivery = uuid::Uuid::from_u128(7);
    let call =
        |request| WebhookCall { webhook: request, job: &job, payload: &Value::Null, delivery, attempt: 1 };
    webhook.call(call(&request)).await.unwrap();
    let mut buffer = [0; 4096];
    let received = tokio::time::timeout(std::time::Duration::from_secs(10), collector.recv(&mut buffer));
    let length = received.await.unwrap().unwrap();
    let message = String::from_utf8_lossy(&buffer[..length]);
    assert!(message.starts_with("<131>1 ") && message.contains(&delivery.to_string()), "{message}");
    assert!(message.contains("\"status\": \"failed\"") && message.contains("192.0.2.1"), "{message}");
    let error = webhook.call(call(&json!({"name": "syslog", "url": "https://x"}))).await.unwrap_err();
    assert_eq!(error.kind, Failed::BadRequest, "{error}");
    plugins.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credential_provider() {
    use std::os::unix::fs::PermissionsExt;
    let source = std::fs::read_to_string(root().join(example("vault_file"))).unwrap();
    assert!(source.lines().count() < 40, "a credential provider takes {} lines", source.lines().count());
    let folder = Folder::new().python(&example("vault_file"), "vault_file", None);
    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("secrets.json");
    std::fs::write(
        &file,
        json!({"lab": {"username": "ops", "password": "s3cret-word", "enable": "e1"}}).to_string(),
    )
    .unwrap();
    let plugins = folder.host(&json!({"vault_file": {"path": file}}));
    let Implementation::Credential(provider) = found(&plugins, Kind::Credential, "vault_file").await else {
        panic!()
    };
    let reference = |name: &str| CredentialRef { reference: name.into(), ..CredentialRef::default() };
    let device = args(json!({"host": "192.0.2.1"}));
    // A file that others may read is not used.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(provider.get(&reference("lab"), &device).await.unwrap_err().kind, Failed::Denied);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let values = provider.get(&reference("lab"), &device).await.unwrap();
    let plain: BTreeMap<&str, &str> = values.0.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(plain, BTreeMap::from([("username", "ops"), ("password", "s3cret-word")]));
    let mapping = BTreeMap::from([("secret".to_owned(), "enable".to_owned())]);
    let mapped = CredentialRef { field_mapping: Some(mapping), ..reference("lab") };
    let values = provider.get(&mapped, &device).await.unwrap();
    assert_eq!(values.0.keys().collect::<Vec<_>>(), ["secret"]);
    assert_eq!(provider.get(&reference("nope"), &device).await.unwrap_err().kind, Failed::NotFound);
    plugins.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_kinds_of_a_pipeline_in_one_process() {
    let folder = Folder::new().python(&example("inventory_pipeline"), "inventory_pipeline", None);
    let plugins = folder.host(&json!({}));
    let outside = tempfile::tempdir().unwrap();
    let csv: PathBuf = outside.path().join("devices.csv");
    std::fs::write(&csv, "name,site\nsw1,hq\nsw2,hq\nsw1,hq\nsw9,branch\n").unwrap();
    let Implementation::Provider(provider) = found(&plugins, Kind::Provider, "csv_devices").await else {
        panic!()
    };
    let Implementation::Processor(input) = found(&plugins, Kind::Input, "site").await else { panic!() };
    let Implementation::Check(check) = found(&plugins, Kind::Check, "unique_names").await else { panic!() };
    let Implementation::Processor(assistant) = found(&plugins, Kind::Assistant, "worst_first").await else {
        panic!()
    };
    let Implementation::Output(output) = found(&plugins, Kind::Output, "json_file").await else { panic!() };
    let gathered = provider.gather(&json!({"path": csv})).await.unwrap();
    assert_eq!(gathered.details.as_array().unwrap().len(), 4, "{gathered:?}");
    // Missing data is an error, never an empty result.
    let missing = provider.gather(&json!({"path": "/nowhere/at/all"})).await.unwrap_err();
    assert_eq!(missing.kind, Failed::Unavailable, "{missing}");
    let kept = input.process(&json!({"site": "hq"}), vec![gathered]).await.unwrap();
    assert_eq!(kept[0].details.as_array().unwrap().len(), 3);
    let report = check.report(&json!({}), &kept[0].details).await.unwrap();
    assert_eq!(report.details, json!({"duplicates": ["sw1"]}));
    assert!(check.report(&json!({}), &Value::Null).await.is_err(), "nothing to judge is not compliant");
    let sorted = assistant.process(&json!({}), vec![report, kept[0].clone()]).await.unwrap();
    assert_eq!(sorted[0].result_name, "csv_devices");
    let file = outside.path().join("out.json");
    output.output(&json!({"path": file}), &sorted).await.unwrap();
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(written.as_array().unwrap().len(), 2);
    let starts: Vec<u64> = plugins.list().await.iter().map(|plugin| plugin.starts).collect();
    assert!(starts.iter().all(|count| *count == 1), "one process serves all: {starts:?}");
    plugins.stop().await;
}

/// A device with an API: one object, which `PUT` replaces unless it says `bad`.
async fn api(login: &'static str) -> (u16, Arc<AtomicBool>) {
    use axum::extract::State;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::get;
    let enabled = Arc::new(AtomicBool::new(true));
    let known = move |headers: &HeaderMap| headers.get("authorization").is_some_and(|h| h == login);
    let router = axum::Router::new().route("/", get(|| async { "{}" })).route(
        "/interfaces/1",
        get(move |State(state): State<Arc<AtomicBool>>, headers: HeaderMap| async move {
            if !known(&headers) {
                return (StatusCode::UNAUTHORIZED, String::new());
            }
            (StatusCode::OK, json!({"enabled": state.load(Ordering::SeqCst)}).to_string())
        })
        .put(move |State(state): State<Arc<AtomicBool>>, body: String| async move {
            let Ok(value) = serde_json::from_str::<Value>(&body) else {
                return (StatusCode::BAD_REQUEST, "no JSON".to_owned());
            };
            state.store(value["enabled"] == true, Ordering::SeqCst);
            (StatusCode::OK, String::new())
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = router.with_state(Arc::clone(&enabled));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (port, enabled)
}

#[tokio::test(flavor = "multi_thread")]
async fn driver() {
    // ops:s3cret-word
    let (port, enabled) = api("Basic b3BzOnMzY3JldC13b3Jk").await;
    let folder = Folder::new().python(&example("rest_device"), "rest_device", None);
    let server = Server::start(&folder.config(&json!({})));
    let body = |what: &str, lines: Value| {
        json!({"driver": "rest_device", what: lines,
               "connection_args": {"host": "127.0.0.1", "port": port, "username": "ops", "password": "s3cret-word"}})
    };
    for reused in [false, true] {
        let job = server.exec(&body("command", json!("/interfaces/1"))).await;
        assert_eq!(job["status"], "finished", "{job}\n{}", server.log());
        let item = &job["result"]["retval"][0];
        assert_eq!(
            (&item["stdout"], &item["metadata"]["session_reused"]),
            (&json!({"enabled": true}), &json!(reused))
        );
    }
    let job = server.exec(&body("config", json!(["PUT /interfaces/1 {\"enabled\": false}"]))).await;
    assert_eq!((&job["status"], &job["result"]["outcome"]), (&json!("finished"), &json!("applied")), "{job}");
    assert!(!enabled.load(Ordering::SeqCst));
    let lines =
        json!(["PUT /interfaces/1 {\"enabled\": true}", "PUT /interfaces/1 bad", "PUT /interfaces/1 {}"]);
    let job = server.exec(&body("config", lines)).await;
    assert_eq!((&job["status"], &job["result"]["outcome"]), (&json!("failed"), &json!("partial")), "{job}");
    assert_eq!(job["result"]["error"]["type"], "line_rejected", "{job}");
    assert!(enabled.load(Ordering::SeqCst), "the line behind the refused one was sent");
    // What cannot be a path is refused before anything is accepted.
    let (status, said) = server.post("/device/exec", &body("command", json!("interfaces"))).await;
    assert_eq!((status, &said["errors"][0]["loc"]), (400, &json!(["command"])), "{said}");
    let mut other = body("command", json!("/interfaces/1"));
    other["connection_args"]["password"] = json!("wrong-word");
    let job = server.exec(&other).await;
    assert_eq!(job["result"]["error"]["type"], "authentication_failed", "{job}");
    assert!(!server.log().contains("s3cret-word") && !server.log().contains("wrong-word"));
}

#[test]
fn platform_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(root().join("examples/plugins/acme_os.yaml"), folder.path().join("acme_os.yaml")).unwrap();
    let platforms = netpulse_session::platform::Registry::with_folder(folder.path()).unwrap();
    let found = platforms.find("acme_os_ssh").unwrap();
    assert_eq!((found.platform.name.as_str(), found.port), ("acme_os", 22));
    assert!(found.platform.has_enable() && found.platform.has_config());
}
