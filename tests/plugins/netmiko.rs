//! The plugin `netmiko_py` beside the native driver, on devices of the same kind: what jobs get is the
//! same, field by field. `scripts/test` installs Netmiko and names its Python.

use netpulse_simulator::{Faults, Plan, Running, Simulator};
use serde_json::{Map, Value, json};

use super::built::{Folder, process_of};
use super::support::Server;

/// The Python that has Netmiko; none, said, where nobody has installed it.
fn python() -> Option<String> {
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
    save: bool,
}

const CASES: &[Case] = &[
    Case {
        persona: "cisco_ios",
        queries: &["show version", "show ip interface brief", "bogus command"],
        good: &["interface Loopback7", "description seven up"],
        bad: &["interface Loopback8", "bogus nonsense", "description never"],
        save: true,
    },
    Case {
        persona: "arista_eos",
        queries: &["show version"],
        good: &["hostname renamed-1", "interface Loopback7", "description seven up"],
        bad: &["bogus nonsense", "interface Loopback8"],
        save: true,
    },
    Case {
        persona: "juniper_junos",
        queries: &["show version"],
        good: &["set interfaces lo0 description seven"],
        bad: &["set interfaces lo0 description eight", "sett nonsense", "set interfaces lo0 description nine"],
        save: false,
    },
    Case {
        persona: "cisco_xr",
        queries: &["show version"],
        good: &["interface Loopback7", "description seven up"],
        bad: &["interface Loopback8", "bogus nonsense"],
        save: false,
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn results_are_those_of_the_native_driver() {
    let Some(world) = world(&json!({})) else { return };
    let server = &world.server;
    for case in CASES {
        // Two devices that know nothing of each other, both in their first state.
        let devices = [Simulator::start(Plan::of(case.persona, 1)), Simulator::start(Plan::of(case.persona, 1))];
        let [native, plugin] = devices.map(Result::unwrap);
        let steps = [
            json!({"command": case.queries}),
            json!({"command": case.queries, "enable_mode": true}),
            json!({"config": case.good}),
            json!({"config": case.bad}),
            json!({"config": case.good, "save": case.save}),
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
