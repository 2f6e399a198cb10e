//! The plugin `netmiko_py` beside the native driver, on devices of the same kind: what jobs get is the
//! same, field by field. `scripts/test` installs Netmiko and names its Python.

use netpulse_simulator::{Faults, Plan, Running, Simulator};
use serde_json::{Map, Value, json};

use super::built::{Folder, process_of};
use super::support::Server;

/// The Python that has Netmiko; none, said, where nobody has installed it.
pub fn python() -> Option<String> {
    let python = std::env::var("NETPULSE_TEST_PYTHON").ok();
    if python.is_none() {
        println!("skipped: NETPULSE_TEST_PYTHON names no Python with Netmiko (scripts/test sets it)");
    }
    python
}

/// A server with the plugin, and its host keys in a folder of their own.
struct World {
    folder: Folder,
    server: Server,
    known_hosts: tempfile::TempDir,
}

fn world(settings: &Value) -> Option<World> {
    let folder = Folder::new().python("plugins/netmiko", "netmiko_py", Some(&python()?));
    let known_hosts = tempfile::tempdir().unwrap();
    let mut all = json!({"known_hosts": known_hosts.path().join("known_hosts")});
    for (key, value) in settings.as_object().unwrap() {
        all[key] = value.clone();
    }
    let server = Server::start(&folder.config(&json!({"netmiko_py": all})));
    Some(World { folder, server, known_hosts })
}

fn args(devices: &Running, device_type: &str) -> Value {
    let place = devices.device(0).ssh.unwrap();
    json!({"device_type": device_type, "host": place.ip(), "port": place.port(), "username": "admin",
           "password": "admin", "secret": "enable"})
}

/// What of a job should not depend on who ran it.
fn essence(job: &Value) -> Value {
    let items: Vec<Value> = job["result"]["retval"]
        .as_array()
        .map(|items| {
            items
                .iter()
                .map(|item| {
                    let mut item = item.clone();
                    let took = item["metadata"]["duration_seconds"].as_f64();
                    assert!(took.is_some_and(|seconds| seconds >= 0.0), "{job}");
                    item["metadata"]["duration_seconds"] = json!("a time");
                    sorted(&item)
                })
                .collect()
        })
        .unwrap_or_default();
    json!({"status": job["status"], "type": job["result"]["type"], "error": job["result"]["error"]["type"],
           "outcome": job["result"]["outcome"], "queue": job["queue"], "results": items})
}

/// With the keys of objects in order, for a message that can be read.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            Value::Object(keys.into_iter().map(|key| (key.clone(), sorted(&map[key]))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

struct Case {
    persona: &'static str,
    queries: &'static [&'static str],
    good: &'static [&'static str],
    bad: &'static [&'static str],
    other: &'static [&'static str],
    save: bool,
}

const CASES: &[Case] = &[
    Case {
        persona: "cisco_ios",
        queries: &["show version", "show ip interface brief", "bogus command"],
        good: &["interface Loopback7", "description seven up"],
        bad: &["interface Loopback8", "bogus nonsense", "description never"],
        other: &["interface Loopback9", "description nine"],
        save: true,
    },
    Case {
        persona: "arista_eos",
        queries: &["show version"],
        good: &["hostname renamed-1", "interface Loopback7", "description seven up"],
        bad: &["bogus nonsense", "interface Loopback8"],
        other: &["interface Loopback9", "description nine"],
        save: true,
    },
    Case {
        persona: "juniper_junos",
        queries: &["show version"],
        good: &["set interfaces lo0 description seven"],
        bad: &[
            "set interfaces lo0 description eight",
            "sett nonsense",
            "set interfaces lo0 description nine",
        ],
        other: &["set interfaces lo0 description ten"],
        save: false,
    },
    Case {
        persona: "cisco_xr",
        queries: &["show version"],
        good: &["interface Loopback7", "description seven up"],
        bad: &["interface Loopback8", "bogus nonsense"],
        other: &["interface Loopback9", "description nine"],
        save: false,
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn results_are_those_of_the_native_driver() {
    let Some(world) = world(&json!({})) else { return };
    let server = &world.server;
    for case in CASES {
        // Two devices that know nothing of each other, both in their first state.
        let devices =
            [Simulator::start(Plan::of(case.persona, 1)), Simulator::start(Plan::of(case.persona, 1))];
        let [native, plugin] = devices.map(Result::unwrap);
        let steps = [
            json!({"command": case.queries}),
            json!({"command": case.queries, "enable_mode": true}),
            json!({"config": case.good}),
            json!({"config": case.bad}),
            json!({"config": case.other, "save": case.save}),
            json!({"command": case.queries, "driver_args": {"read_timeout": 20, "max_loops": 5}}),
        ];
        for step in steps {
            let mut jobs = Vec::new();
            for (driver, device) in [("netmiko", &native), ("netmiko_py", &plugin)] {
                let mut body = step.clone();
                body["driver"] = json!(driver);
                body["connection_args"] = args(device, case.persona);
                let mut seen = essence(&server.exec(&body).await);
                // The queue's name has the device's port in it.
                let port = device.device(0).ssh.unwrap().port().to_string();
                seen["queue"] = json!(seen["queue"].as_str().unwrap().replace(&port, "PORT"));
                jobs.push(seen);
            }
            assert!(
                jobs[0] == jobs[1],
                "{} {step}\nnative {:#}\nplugin {:#}\n{}",
                case.persona,
                jobs[0],
                jobs[1],
                server.log()
            );
        }
        let (ours, theirs) = (native.device(0).running_config(), plugin.device(0).running_config());
        assert_eq!(ours, theirs, "{}", case.persona);
    }
}

/// The same request for both drivers; their jobs.
async fn both(server: &Server, connection: &Value, rest: &Value) -> [Value; 2] {
    let mut jobs = Vec::new();
    for driver in ["netmiko", "netmiko_py"] {
        let mut body = rest.clone();
        body["driver"] = json!(driver);
        body["connection_args"] = connection.clone();
        jobs.push(server.exec(&body).await);
    }
    jobs.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_have_the_native_drivers_codes() {
    let Some(world) = world(&json!({})) else { return };
    let server = &world.server;
    let devices = Simulator::start(Plan::of("cisco_ios", 1)).unwrap();
    let good = args(&devices, "cisco_ios");
    let with = |key: &str, value: Value| {
        let mut args = good.clone();
        args[key] = value;
        args
    };
    let with_two = |key: &str, value: Value, other: &str, more: Value| {
        let mut args = with(key, value);
        args[other] = more;
        args
    };
    let query = json!({"command": "show clock"});
    let change = json!({"config": ["interface Loopback7"]});
    for (connection, code) in [
        // The simulator leaves Paramiko's second way in, keyboard-interactive, without an answer.
        (with_two("password", json!("wr0ng-word"), "auth_timeout", json!(3)), "authentication_failed"),
        (with("port", json!(1)), "connect_failed"),
    ] {
        for rest in [&query, &change] {
            for job in both(server, &connection, rest).await {
                let error = &job["result"]["error"];
                assert_eq!((&job["status"], &error["type"]), (&json!("failed"), &json!(code)), "{job}");
                let outcome = if rest["config"].is_null() { Value::Null } else { json!("not_applied") };
                assert_eq!(job["result"]["outcome"], outcome, "{job}");
            }
        }
    }
    let job = &both(server, &with("secret", json!("wr0ng-secret")), &change).await[1];
    assert_eq!(job["result"]["error"]["type"], "enable_failed", "{job}");
    assert_eq!(job["result"]["outcome"], "not_applied", "{job}");
    // A command that is never answered.
    devices.set_faults(&Faults { hang_on: "show clock".into(), ..Faults::default() });
    let slow = json!({"command": "show clock", "driver_args": {"read_timeout": 2}});
    for job in both(server, &good, &slow).await {
        assert_eq!(job["result"]["error"]["type"], "read_timeout", "{job}");
        assert!(job["result"]["error"]["message"].as_str().unwrap().contains("show clock"), "{job}");
    }
    devices.set_faults(&Faults::default());
    // The session that is of no use is not used again.
    let job = &both(server, &good, &query).await[1];
    assert_eq!(
        (&job["status"], &job["result"]["retval"][0]["metadata"]["session_reused"]),
        (&json!("finished"), &json!(false)),
        "{job}"
    );
    // A device type that nobody knows, and one that only Netmiko knows.
    let wrong = json!({"driver": "netmiko_py", "connection_args": with("device_type", json!("cisco_iso")), "command": "x"});
    let (status, said) = server.post("/device/exec?wait=60", &wrong).await;
    // The plugin is asked before the job is accepted; one that is too slow to say is believed later.
    let message = if status == 400 {
        assert_eq!(said["errors"][0]["loc"], json!(["connection_args", "device_type"]), "{said}");
        &said["errors"][0]["msg"]
    } else {
        assert_eq!((status, &said["status"]), (201, &json!("failed")), "{said}");
        &said["result"]["error"]["message"]
    };
    assert!(message.as_str().unwrap().contains("did you mean cisco_ios"), "{said}");
    let unknown = json!({"driver": "netmiko", "connection_args": with("device_type", json!("garderos_grs_x")), "command": "x"});
    let (status, said) = server.post("/device/exec", &unknown).await;
    assert!(status >= 400 && said.to_string().contains("netmiko_py"), "{status} {said}");
    let (status, test) =
        server.post("/device/test", &json!({"driver": "netmiko_py", "connection_args": good})).await;
    assert_eq!(status, 200, "{test}");
    assert_eq!(test["result"]["prompt"], "sw0>", "{test}");
    assert_eq!(test["result"]["device_type"], "cisco_ios", "{test}");
    let log = server.log();
    assert!(!log.contains("wr0ng"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_13_a_changed_host_key_is_refused() {
    let Some(world) = world(&json!({})) else { return };
    let server = &world.server;
    let devices = Simulator::start(Plan::of("cisco_ios", 1)).unwrap();
    let connection = args(&devices, "cisco_ios");
    let body = json!({"driver": "netmiko_py", "connection_args": connection, "command": "show clock", "queue_strategy": "fifo"});
    assert_eq!(server.exec(&body).await["status"], "finished");
    let file = world.known_hosts.path().join("known_hosts");
    let kept = std::fs::read_to_string(&file).unwrap();
    assert_eq!(kept.lines().count(), 1, "{kept}");
    // Another key of the same kind at the same place.
    let key = tempfile::tempdir().unwrap();
    let made = key.path().join("key");
    super::built::run(
        std::process::Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&made),
    );
    let public = std::fs::read_to_string(made.with_extension("pub")).unwrap();
    let place = kept.split(' ').next().unwrap();
    std::fs::write(&file, format!("{place} {public}")).unwrap();
    let job = server.exec(&body).await;
    assert_eq!(job["result"]["error"]["type"], "host_key_changed", "{job}");
    assert!(job["result"]["error"]["message"].as_str().unwrap().contains("remove the line"), "{job}");
    let mut strict = body.clone();
    std::fs::write(&file, "").unwrap();
    strict["connection_args"]["host_key_policy"] = json!("strict");
    let job = server.exec(&strict).await;
    assert_eq!(job["result"]["error"]["type"], "host_key_unknown", "{job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_14_killed_in_a_change_it_is_unknown_and_the_next_job_works() {
    let Some(world) = world(&json!({})) else { return };
    let server = &world.server;
    let devices = Simulator::start(Plan::of("cisco_ios", 1)).unwrap();
    let connection = args(&devices, "cisco_ios");
    devices.set_faults(&Faults { hang_on: "description two".into(), ..Faults::default() });
    let body = json!({"driver": "netmiko_py", "connection_args": connection,
                      "config": ["interface Loopback7", "description two", "description three"]});
    let (status, job) = server.post("/device/exec", &body).await;
    assert_eq!(status, 201, "{job}");
    let id = job["id"].as_str().unwrap().to_owned();
    // The device has the second line, and keeps silent.
    let device = std::sync::Arc::clone(devices.device(0));
    tokio::task::spawn_blocking(move || {
        super::support::eventually(20, "the second line sent", || {
            device.running_config().contains("Loopback7")
        });
    })
    .await
    .unwrap();
    let pid = process_of(&world.folder.path().join("netmiko_py"));
    assert!(std::process::Command::new("kill").arg("-9").arg(pid.to_string()).status().unwrap().success());
    let job = server.job(&id, 30).await;
    assert_eq!((&job["status"], &job["result"]["outcome"]), (&json!("failed"), &json!("unknown")), "{job}");
    assert!(job["result"]["error"]["message"].as_str().unwrap().contains("netmiko_py"), "{job}");
    devices.set_faults(&Faults::default());
    let mut query = body.clone();
    query.as_object_mut().unwrap().remove("config");
    query["command"] = json!("show clock");
    assert_eq!(server.exec(&query).await["status"], "finished", "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_9_a_command_that_hangs_is_canceled() {
    let Some(world) = world(&json!({})) else { return };
    let server = &world.server;
    let devices = Simulator::start(Plan::of("cisco_ios", 1)).unwrap();
    devices.set_faults(&Faults { hang_on: "show version".into(), ..Faults::default() });
    let body = json!({"driver": "netmiko_py", "connection_args": args(&devices, "cisco_ios"),
                      "command": ["show clock", "show version", "show clock"], "driver_args": {"read_timeout": 60}});
    let (_, job) = server.post("/device/exec", &body).await;
    let id = job["id"].as_str().unwrap();
    // Until the first command is answered and the second has gone out.
    let mut events =
        server.request(reqwest::Method::GET, &format!("/jobs/{id}/events")).send().await.unwrap();
    let mut seen = String::new();
    while !(seen.contains("show version") && seen.contains("sending")) {
        let chunk = tokio::time::timeout(std::time::Duration::from_secs(20), events.chunk());
        seen.push_str(&String::from_utf8_lossy(&chunk.await.unwrap().unwrap().expect("events go on")));
    }
    let (status, said) = server.delete(&format!("/jobs/{id}")).await;
    assert!(status < 300, "{status} {said}");
    let job = server.job(id, 20).await;
    assert_eq!(job["status"], "canceled", "{job}\n{}", server.log());
    assert_eq!(job["result"]["retval"][0]["exit_status"], 0, "{job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_10_sessions_are_bounded_and_what_is_not_let_through_is_named() {
    let Some(world) = world(&json!({"max_sessions": 1})) else { return };
    let server = &world.server;
    let devices = [Simulator::start(Plan::of("cisco_ios", 1)), Simulator::start(Plan::of("cisco_ios", 1))]
        .map(Result::unwrap);
    let mut body = json!({"driver": "netmiko_py", "connection_args": args(&devices[0], "cisco_ios"), "command": "show clock"});
    body["connection_args"]["session_log"] = json!("/tmp/never-written");
    let job = server.exec(&body).await;
    let warnings = job["result"]["retval"][0]["metadata"]["warnings"].to_string();
    assert!(warnings.contains("`session_log` was not used"), "{job}");
    assert!(!std::path::Path::new("/tmp/never-written").exists());
    let other = json!({"driver": "netmiko_py", "connection_args": args(&devices[1], "cisco_ios"), "command": "show clock"});
    let job = server.exec(&other).await;
    assert!(job["result"]["error"]["message"].as_str().unwrap().contains("`max_sessions`"), "{job}");
    // The first one's session is closed: there is room.
    let first = devices[0].device(0).ssh.unwrap().port();
    let (_, workers) = server.get("/workers").await;
    let names = workers.as_array().into_iter().flatten().filter_map(|worker| worker["name"].as_str());
    let name = names
        .into_iter()
        .find(|name| name.ends_with(&format!(":{first}")))
        .unwrap_or_else(|| panic!("{workers}"));
    let (status, said) = server.delete(&format!("/workers/{name}")).await;
    assert!(status < 300, "{said}");
    // The worker leaves its device politely, which takes as long as it takes.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let job = server.exec(&other).await;
        if job["status"] == "finished" {
            break;
        }
        assert!(std::time::Instant::now() < end, "{job}\n{}", server.log());
    }
}
