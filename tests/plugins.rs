//! External plugins below the whole program: a driver made with the kit, and one that misbehaves on
//! command (promise 14).

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use netpulse_plugin::{Failed, Folders, GuardProgram, HostSettings, Implementation, Kind, Plugins};
use serde_json::{Value, json};
use support::{Server, eventually};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The driver of the kit's example, the stress plugin, and the kit's other example. A test run of the workspace has built them;
/// this asks for the same and is told where they are.
fn built() -> &'static (PathBuf, PathBuf, PathBuf) {
    static BUILT: OnceLock<(PathBuf, PathBuf, PathBuf)> = OnceLock::new();
    BUILT.get_or_init(|| {
        let output = Command::new(env!("CARGO"))
            // The workspace's features are those of the test run: nothing is built twice.
            .args(["build", "--quiet", "--workspace", "--message-format", "json"])
            .args(["--example", "echo_driver", "--example", "long_work", "--bin", "netpulse-stress-plugin"])
            .current_dir(repository())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout).unwrap();
        let made: Vec<PathBuf> = said
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
            .collect();
        let named =
            |name: &str| made.iter().find(|path| path.ends_with(name)).cloned().expect("cargo names it");
        (named("echo_driver"), named("netpulse-stress-plugin"), named("long_work"))
    })
}

/// A server with these files as plugins.
fn server(plugins: &[(&str, &Path)], extra: &str) -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    for (name, file) in plugins {
        std::os::unix::fs::symlink(file, folder.path().join(name)).unwrap();
    }
    let yaml = format!("plugin: {{directory: {}, {extra}}}", folder.path().display());
    (Server::start(&yaml), folder)
}

fn query(driver: &str, command: &str) -> Value {
    json!({"driver": driver, "connection_args": {"host": "192.0.2.1", "password": "hunter22x"}, "command": command})
}

/// Whether a process lives, by its id.
fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with('Z'))
}

fn said_pid(job: &Value) -> u32 {
    let text = job["result"]["retval"][0]["stdout"].as_str().unwrap_or_else(|| panic!("{job}"));
    text.strip_prefix("pid ").unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_of_forty_lines_serves_every_way_to_ask_a_device() {
    let (echo, ..) = built();
    let source =
        std::fs::read_to_string(repository().join("crates/plugin-sdk/examples/echo_driver.rs")).unwrap();
    assert!(source.lines().count() < 60);
    let (mut server, _folder) = server(&[("echo", echo)], "");

    let job = server.exec(&query("echo", "show clock")).await;
    assert_eq!(job["status"], "finished", "{job}");
    assert_eq!(job["result"]["retval"][0]["stdout"], "192.0.2.1: show clock");
    assert_eq!(job["queue"], "FifoQ");

    let mut pinned = query("echo", "show version");
    pinned["queue_strategy"] = json!("pinned");
    let first = server.exec(&pinned).await;
    let second = server.exec(&pinned).await;
    assert_eq!(first["result"]["retval"][0]["metadata"]["session_reused"], false);
    assert_eq!(second["result"]["retval"][0]["metadata"]["session_reused"], true);

    let change =
        |lines: Value| json!({"driver": "echo", "connection_args": {"host": "192.0.2.1"}, "config": lines});
    let good = server.exec(&change(json!(["vlan 30", "name printers"]))).await;
    assert_eq!((&good["status"], &good["result"]["outcome"]), (&json!("finished"), &json!("applied")));
    let bad = server.exec(&change(json!(["vlan 30", "bad line", "name printers"]))).await;
    assert_eq!((&bad["status"], &bad["result"]["outcome"]), (&json!("failed"), &json!("not_applied")));
    assert_eq!(bad["result"]["error"]["type"], "line_rejected");
    let exits: Vec<&Value> =
        bad["result"]["retval"].as_array().unwrap().iter().map(|r| &r["exit_status"]).collect();
    assert_eq!(exits, [0, 1, 1]);

    let (status, bulk) = server
        .post(
            "/device/bulk?wait=20",
            &json!({"driver": "echo", "connection_args": {}, "command": "x", "devices": [{"host": "a"}, {"host": "b"}]}),
        )
        .await;
    assert_eq!(status, 201, "{bulk}");
    assert_eq!(bulk["succeeded"][1]["result"]["retval"][0]["stdout"], "b: x");

    let test = json!({"driver": "echo", "connection_args": {"host": "unreachable"}});
    let (_, tested) = server.post("/device/test", &test).await;
    assert_eq!((&tested["success"], &tested["error_type"]), (&json!(false), &json!("connect_failed")));

    let mut wrong = query("echo", "x");
    wrong["save"] = json!(true);
    let (status, said) = server.post("/device/exec", &wrong).await;
    assert_eq!(status, 400, "{said}");
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_request_is_enough_to_find_a_plugin() {
    let (echo, ..) = built();
    let (mut server, _folder) = server(&[("echo", echo)], "");
    let body = json!({"driver": "echo", "connection_args": {}, "command": "x", "devices": [{"host": "a"}]});
    let (status, bulk) = server.post("/device/bulk?wait=20", &body).await;
    assert_eq!(status, 201, "{bulk}");
    assert_eq!(bulk["succeeded"][0]["status"], "finished", "{bulk}");
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_14_each_misdeed_is_one_jobs_error_and_the_server_goes_on() {
    let (echo, stress, _) = built();
    let (mut server, _folder) = server(&[("echo", echo), ("stress", stress)], "max_answer: 100000");
    for (command, says) in [
        ("garbage", "something else than the contract says"),
        ("half", "broke off its answer"),
        ("big", "more than 100000 bytes"),
        ("crash", "exit status 101"),
    ] {
        let job = server.exec(&query("stress", command)).await;
        assert_eq!(job["status"], "failed", "{command}: {job}");
        assert_eq!(job["result"]["error"]["type"], "plugin_failed", "{command}: {job}");
        let message = job["result"]["error"]["message"].as_str().unwrap();
        // How a process ended is known a moment after its connection broke; a busy machine may miss it.
        let said = message.contains(says) || (command == "crash" && message.contains("broke the connection"));
        assert!(said && message.contains("driver/stress/v1"), "{command}: {message}");
        // Others never notice.
        assert_eq!(server.exec(&query("echo", "still here")).await["status"], "finished");
    }
    let mut hang = query("stress", "hang");
    hang["execution_timeout"] = json!(1);
    let job = server.exec(&hang).await;
    let kind = job["result"]["error"]["type"].as_str().unwrap_or_default();
    assert!(["job_timeout", "plugin_failed"].contains(&kind), "{job}");
    assert_eq!(server.exec(&query("stress", "show clock")).await["status"], "finished");

    let told = server.exec(&query("stress", "tell hunter22x")).await.to_string();
    assert!(!told.contains("hunter22x"), "{told}");
    assert!(!server.log().contains("hunter22x"), "{}", server.log());

    let change =
        json!({"driver": "stress", "connection_args": {"host": "192.0.2.1"}, "config": ["crash", "b"]});
    let job = server.exec(&change).await;
    assert_eq!((&job["status"], &job["result"]["outcome"]), (&json!("failed"), &json!("unknown")), "{job}");
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_14_one_poisonous_command_leaves_the_plugin_to_the_others() {
    let (_, stress, _) = built();
    let (mut server, _folder) = server(&[("stress", stress)], "");
    let mut other = query("stress", "show clock");
    other["connection_args"]["host"] = json!("192.0.2.99");
    for turn in 0..6 {
        let job = server.exec(&query("stress", "crash")).await;
        let said = job["result"]["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(job["result"]["error"]["type"], "plugin_failed", "{job}");
        assert!(turn == 0 || said.contains("is not asked this now"), "turn {turn}: {said}");
        let job = server.exec(&other).await;
        assert_eq!(job["status"], "finished", "turn {turn}: {job}");
    }
    let (_, one) = server.get("/plugins/driver/stress").await;
    assert_eq!((&one[0]["state"], &one[0]["starts"]), (&json!("started"), &json!(2)), "{one}");
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_15_what_a_driver_itself_finds_wrong_is_told_before_the_request_is_accepted() {
    let (_, stress, _) = built();
    let (mut server, _folder) = server(&[("validates", stress)], "");
    let (status, said) = server.post("/device/exec", &query("stress", "reload")).await;
    assert_eq!(status, 400, "{said}");
    assert_eq!(said["errors"][0]["loc"], json!(["command"]), "{said}");
    assert!(
        said["errors"][0]["msg"].as_str().unwrap().contains("`reload` is not done over this API"),
        "{said}"
    );
    let (_, jobs) = server.get("/jobs").await;
    assert_eq!(jobs, json!([]), "nothing was accepted");
    // Of many, the one that is wrong; the others keep their order.
    let body = json!({"driver": "stress", "connection_args": {}, "command": "show clock", "devices":
        [{"host": "a"}, {"host": "b", "command": "reload"}, {"host": "c"}]});
    let (status, bulk) = server.post("/device/bulk?wait=30", &body).await;
    assert_eq!(status, 201, "{bulk}");
    assert_eq!(bulk["failed"][0]["host"], "b", "{bulk}");
    assert!(
        bulk["failed"][0]["reason"].as_str().unwrap().contains("command: Value error, `reload`"),
        "{bulk}"
    );
    let done = bulk["succeeded"].as_array().unwrap();
    let hosts: Vec<&Value> = done.iter().map(|job| &job["device_name"]).collect();
    assert_eq!(hosts, ["a", "c"], "{bulk}");
    assert!(done.iter().all(|job| job["status"] == "finished"), "{bulk}");
    // A plugin that does not answer holds nobody up: the worker has the job's own time to ask it.
    let mut hang = query("stress", "hang at the door");
    hang["execution_timeout"] = json!(1);
    let began = std::time::Instant::now();
    let (status, job) = server.post("/device/exec", &hang).await;
    assert_eq!(status, 201, "{job}");
    assert!(began.elapsed() < std::time::Duration::from_secs(6), "{:?}", began.elapsed());
    let job = server.job(job["id"].as_str().unwrap(), 30).await;
    assert_eq!(job["status"], "failed", "{job}");
    // Once it does not answer, requests do not wait for it at all for a while.
    let (status, job) = server.post("/device/exec?wait=30", &query("stress", "reload")).await;
    assert_eq!(
        (status, &job["result"]["error"]["type"]),
        (201, &json!("bad_request")),
        "the worker finds it: {job}"
    );
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_plugin_outlives_a_server_that_was_killed() {
    let (_, stress, _) = built();
    let (mut server, folder) = server(&[("stress", stress)], "");
    let note = folder.path().join("grandchild");
    let plugin = said_pid(&server.exec(&query("stress", "show pid")).await);
    let job = server.exec(&query("stress", &format!("fork {}", note.display()))).await;
    assert_eq!(job["status"], "finished", "{job}");
    let grandchild: u32 = std::fs::read_to_string(&note).unwrap().parse().unwrap();
    assert!(alive(plugin) && alive(grandchild));
    server.kill();
    eventually(5, "the end of plugin and grandchild", || !alive(plugin) && !alive(grandchild));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_says_what_there_is_and_what_is_wrong_with_it() {
    let (echo, stress, _) = built();
    let (mut server, folder) = server(&[("echo", echo), ("version2", stress), ("netmiko_clash", stress)], "");
    let (status, list) = server.get("/plugins").await;
    assert_eq!(status, 200);
    let of = |list: &Value, name: &str, source: &str| {
        list.as_array()
            .unwrap()
            .iter()
            .find(|p| p["name"] == name && p["source"] == source)
            .cloned()
            .unwrap_or_else(|| panic!("{name}: {list}"))
    };
    assert_eq!(of(&list, "netmiko", "built-in")["state"], "started");
    assert_eq!(of(&list, "jinja2", "built-in")["kind"], "template-renderer");
    assert_eq!(of(&list, "echo", "external")["state"], "declared");
    assert!(of(&list, "version2", "external")["error"].as_str().unwrap().contains("netpulse.plugin/v2"));
    assert!(of(&list, "netmiko", "external")["error"].as_str().unwrap().contains("plugin.override"));

    server.exec(&query("echo", "x")).await;
    let (_, one) = server.get("/plugins/driver/echo").await;
    assert_eq!((&one[0]["state"], &one[0]["starts"]), (&json!("started"), &json!(1)));
    assert_eq!(server.get("/plugins/driver/nobody").await.0, 404);
    assert_eq!(server.get("/plugins/spaceship/echo").await.0, 400);

    std::os::unix::fs::symlink(stress, folder.path().join("stress")).unwrap();
    assert_eq!(server.post("/device/exec", &query("stress", "x")).await.0, 400, "not known yet");
    let (_, list) = server.post("/plugins/reload", &json!({})).await;
    of(&list, "stress", "external");
    assert_eq!(server.exec(&query("stress", "x")).await["status"], "finished");
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_file_in_the_plugin_folder_is_a_platform() {
    let (mut server, folder) = server(&[], "");
    let test = json!({"driver": "netmiko", "connection_args": {"device_type": "acme_os", "host": "127.0.0.1", "port": 1, "username": "u", "password": "pass"}});
    let (status, said) = server.post("/device/test", &test).await;
    assert_eq!(status, 400, "{said}");
    assert!(said.to_string().contains("no platform is called `acme_os`"), "{said}");
    let yaml = "name: acme_os\nextends: cisco_ios\ndescription: Acme\nverified: facts\n";
    std::fs::write(folder.path().join("acme_os.yaml"), yaml).unwrap();
    std::fs::write(
        folder.path().join("lost.yaml"),
        yaml.replace("acme", "lost").replace("cisco_ios", "nowhere"),
    )
    .unwrap();
    let (_, list) = server.post("/plugins/reload", &json!({})).await;
    let of = |name: &str| {
        list.as_array()
            .unwrap()
            .iter()
            .find(|p| p["kind"] == "platform" && p["name"] == name)
            .cloned()
            .unwrap()
    };
    assert_eq!(of("acme_os")["error"], Value::Null, "{list}");
    assert!(of("lost_os")["error"].as_str().unwrap().contains("nowhere"), "{list}");
    let (status, said) = server.post("/device/test", &test).await;
    assert_eq!((status, &said["error_type"]), (200, &json!("connect_failed")), "{said}");
    // And after a restart without being told.
    assert_eq!(server.stop(), Some(0));
    server.launch();
    assert_eq!(server.post("/device/test", &test).await.0, 200);
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renderer_of_a_plugin_is_asked_after_the_built_in_ones() {
    let (_, stress, _) = built();
    let (mut server, _folder) = server(&[("two_kinds", stress)], "");
    let (status, text) =
        server.post("/template/render", &json!({"name": "stress_text", "template": "as it is"})).await;
    assert_eq!((status, text), (200, json!("as it is")));
    let (status, said) = server.post("/template/render", &json!({"name": "nobody", "template": "x"})).await;
    assert_eq!(status, 404, "{said}");
    let mut rendered = query("stress", "unused");
    rendered["rendering"] = json!({"name": "stress_text", "template": "show it"});
    rendered["command"] = json!({"a": 1});
    let job = server.exec(&rendered).await;
    assert_eq!(job["result"]["retval"][0]["command"], "show it", "{job}");
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_external_plugins_no_program_is_run() {
    let (echo, ..) = built();
    let (mut server, _folder) = server(&[("echo", echo)], "external: false");
    assert_eq!(server.post("/device/exec", &query("echo", "x")).await.0, 400);
    let (_, list) = server.get("/plugins").await;
    assert!(list.as_array().unwrap().iter().all(|p| p["source"] == "built-in"), "{list}");
    assert_eq!(server.stop(), Some(0));
}

fn doctor(file: &Path) -> (i32, Vec<Value>) {
    let output = Command::new(env!("CARGO_BIN_EXE_netpulse"))
        .args(["plugin", "doctor", "--output", "json"])
        .arg(file)
        .current_dir("/")
        .output()
        .unwrap();
    let findings = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), findings)
}

#[test]
fn doctor_passes_a_sound_plugin_and_names_the_clause_that_another_breaks() {
    let (echo, stress, _) = built();
    let (code, findings) = doctor(echo);
    assert_eq!(code, 0, "{findings:#?}");
    let leave = findings
        .iter()
        .find(|f| f["clause"] == "4.1.4" && f["check"].as_str().unwrap().contains("leave"))
        .unwrap();
    assert_eq!(leave["verdict"], "passed");
    assert!(findings.len() > 50);

    let folder = tempfile::tempdir().unwrap();
    let examined = |mode: &str, clause: &str, says: &str| {
        let file = folder.path().join(mode);
        std::os::unix::fs::symlink(stress, &file).unwrap();
        // By the name that it was asked under: the doctor follows no link to another name.
        let (code, findings) = doctor(&file);
        assert_eq!(code, 1, "{mode}: {findings:#?}");
        let named = findings.iter().any(|f| {
            f["verdict"] == "failed" && f["clause"] == clause && f["detail"].as_str().unwrap().contains(says)
        });
        assert!(named, "{mode}: {findings:#?}");
    };
    let examined = &examined;
    let modes = [
        ("version2", "1.2", "netpulse.plugin/v2"),
        ("caps_garbage", "1.2", "no JSON"),
        ("liar", "2.1", "driver/honest/v1"),
        ("foreign", "2.1", "192.0.2.1"),
        ("exit_early", "2.1", "licence"),
        ("stubborn", "2.8", "was killed"),
        ("stress", "3.6", "400 is right"),
    ];
    std::thread::scope(|scope| {
        for (mode, clause, says) in modes {
            scope.spawn(move || examined(mode, clause, says));
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_long_goes_item_by_item_and_without_its_session() {
    let (.., long_work) = built();
    let (code, findings) = doctor(long_work);
    assert_eq!(code, 0, "{findings:#?}");
    let passed = |clause: &str, detail: &str| {
        findings.iter().any(|f| f["clause"] == clause && f["verdict"] == "passed" && f["detail"] == detail)
    };
    assert!(passed("4.6", "3 items") && passed("4.1.9", "0 tasks"), "{findings:#?}");
    assert!(findings.iter().any(|f| f["check"].as_str().unwrap().contains("launched, told of and ended")));

    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(long_work, folder.path().join("long_work")).unwrap();
    let guard = GuardProgram {
        program: env!("CARGO_BIN_EXE_netpulse").into(),
        arguments: vec!["plugin-guard".into()],
    };
    let folders = Folders { folders: vec![folder.path().to_owned()], ..Folders::default() };
    let plugins = Plugins::new(folders, HostSettings::new(guard));
    let Some(Implementation::Provider(counter)) = plugins.find(Kind::Provider, "counter").await else {
        panic!()
    };
    let mut items = Vec::new();
    let result = counter.gather_each(&json!({"count": 5000}), &mut |item| items.push(item)).await.unwrap();
    assert_eq!(
        (items.len(), &items[4999], result.relates_to.as_str()),
        (5000, &json!({"n": 4999}), "numbers")
    );
    let whole = counter.gather(&json!({"count": 2})).await.unwrap();
    assert_eq!(whole.details, json!([{"n": 0}, {"n": 1}]));
    for (settings, kind, says) in [
        (json!({}), Failed::BadRequest, "the setting `count` should be a number"),
        (json!({"count": 9, "lost_at": 0}), Failed::Unavailable, "lost after 0 items"),
        (json!({"count": 9, "lost_at": 4}), Failed::Unavailable, "lost after 4 items"),
    ] {
        let error = counter.gather(&settings).await.unwrap_err();
        assert!(error.kind == kind && error.message.contains(says), "{settings}: {error:?}");
    }
    let Some(Implementation::Driver(jobs)) = plugins.find(Kind::Driver, "jobs").await else { panic!() };
    let Value::Object(args) = json!({"host": "192.0.2.1"}) else { unreachable!() };
    let args = netpulse_model::ConnectionArgs(args);
    let mut session = jobs.connect(&args).await.unwrap();
    let task = session.detached().unwrap().launch("a1", "tcpdump", &serde_json::Map::new()).await.unwrap();
    assert!(task.running);
    session.close().await;
    // It goes on without the session that launched it.
    let mut session = jobs.connect(&args).await.unwrap();
    let tasks = session.detached().unwrap();
    let told = tasks.query("a1", 8).await.unwrap();
    assert_eq!((told.output.as_str(), told.next_offset), ("says hello", 18));
    assert_eq!(tasks.list().await.unwrap(), [task]);
    assert_eq!((tasks.kill("a1").await, tasks.kill("a1").await), (Ok(true), Ok(false)));
    assert!(tasks.query("a1", 0).await.unwrap_err().message.contains("there is no task `a1`"));
    plugins.stop().await;
}

const KINDS: [&str; 11] = [
    "driver",
    "template-renderer",
    "template-parser",
    "scheduler",
    "webhook",
    "credential",
    "provider",
    "input",
    "check",
    "assistant",
    "output",
];

/// Whether the doctor has nothing against it, and left no endpoint out for want of an example.
fn sound(kind: &str, file: &Path) {
    let (code, findings) = doctor(file);
    assert_eq!(code, 0, "{kind}: {findings:#?}");
    let left_out = findings
        .iter()
        .filter(|f| f["verdict"] == "skipped" && f["check"].as_str().unwrap().contains("example"));
    assert_eq!(left_out.count(), 0, "{kind}: {findings:#?}");
}

/// As a newcomer would: written, examined, made one file, installed, seen in the list.
#[test]
fn a_new_python_plugin_of_every_kind_passes_the_doctor_and_installs() {
    let folder = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_netpulse");
    std::thread::scope(|scope| {
        for kind in KINDS {
            let at = folder.path().join(kind);
            scope.spawn(move || {
                let made = Command::new(program)
                    .args(["plugin", "new", kind, "mine", "--lang", "python", "--folder"])
                    .arg(&at)
                    .arg("--kit")
                    .arg(repository().join("plugins/python"))
                    .output()
                    .unwrap();
                assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
                sound(kind, &at.join("mine"));
            });
        }
    });
    let at = folder.path().join("driver");
    let one = at.join("dist/mine");
    let built =
        Command::new(repository().join("plugins/build-python")).arg(at.join("mine")).arg(&one).status();
    assert!(built.unwrap().success());
    let installed = folder.path().join("installed");
    // Without the kit in it, it is no plugin, and the way to make it one is told.
    let output = Command::new(program)
        .args(["plugin", "install", at.join("mine").to_str().unwrap(), "--dir"])
        .arg(&installed)
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(7) && said.contains("plugins/build-python"), "{said}");
    for words in [&["install", one.to_str().unwrap()][..], &["list", "--local"]] {
        let output = Command::new(program)
            .arg("plugin")
            .args(words)
            .args(if words[0] == "install" { vec!["--dir"] } else { vec![] })
            .args(if words[0] == "install" { vec![installed.to_str().unwrap()] } else { vec![] })
            .env("NETPULSE_PLUGIN__DIRECTORY", &installed)
            .env_remove("NETPULSE_CONFIG_FILE")
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("mine"),
            "{words:?}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// D1 of the field: over TCP a plugin starts, on loopback only, and takes nobody without its token.
#[test]
fn d1_over_tcp_a_plugin_starts_and_asks_for_its_token() {
    let (echo, ..) = built();
    let (_, findings) = doctor(echo);
    for check in ["starts over TCP", "refuses a request without the token", "refuses a wrong token"] {
        let found =
            findings.iter().find(|f| f["check"] == check).unwrap_or_else(|| panic!("{check}: {findings:#?}"));
        assert_eq!(found["verdict"], "passed", "{found}");
    }
}

/// Every kind in one project, built as an author would, and each passed by the doctor.
#[test]
fn a_new_rust_plugin_of_every_kind_builds_and_passes_the_doctor() {
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path().join("all");
    for kind in KINDS {
        let name = format!("my_{}", kind.replace('-', "_"));
        let at = folder.path().join(&name);
        let made = Command::new(env!("CARGO_BIN_EXE_netpulse"))
            .args(["plugin", "new", kind, &name, "--lang", "rust", "--folder"])
            .arg(&at)
            .arg("--kit")
            .arg(repository().join("crates/plugin-sdk"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        std::fs::create_dir_all(project.join("src/bin")).unwrap();
        std::fs::copy(at.join("src/main.rs"), project.join(format!("src/bin/{name}.rs"))).unwrap();
        if kind == "driver" {
            std::fs::copy(at.join("Cargo.toml"), project.join("Cargo.toml")).unwrap();
        }
    }
    // The versions that were tested, without asking anybody for newer ones.
    std::fs::copy(repository().join("Cargo.lock"), project.join("Cargo.lock")).unwrap();
    let target = repository().join("target/plugin-new");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--offline", "--bins"])
        .env("CARGO_TARGET_DIR", &target)
        // Nobody debugs it, and it is built from nothing where nothing was built before.
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_INCREMENTAL", "0")
        .current_dir(&project)
        .status()
        .unwrap();
    assert!(status.success());
    // Most of it is waiting for plugins to end idle: all at once.
    std::thread::scope(|scope| {
        for kind in KINDS {
            let file = target.join(format!("debug/my_{}", kind.replace('-', "_")));
            scope.spawn(move || sound(kind, &file));
        }
    });
}
