//! The defects that were read in other hosts of plugins (D1 to D10), each seen not to be here, and what
//! else a host does around its plugins' lives.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netpulse_model::ErrorCode;
use netpulse_plugin::{Folders, HostSettings, Implementation, Kind, Plugins, State};
use serde_json::json;
use world::*;

#[tokio::test]
async fn d1_a_plugin_that_says_no_location_is_found_where_it_was_told_to_be() {
    let world = World::new(&["silent"]);
    let mut session = world.session().await;
    assert_eq!(run(&mut session, "show clock").await.error, None);
    world.plugins.stop().await;
}

#[tokio::test]
async fn d2_a_plugin_that_ended_is_started_again() {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let pid = pid_of(&run(&mut session, "show clock").await);
    let raw = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
    gone(pid).await;
    tokio::time::timeout(Duration::from_secs(5), session.closed())
        .await
        .expect("the idle session ends with it");
    assert_eq!(session.keepalive().await.unwrap_err().code, ErrorCode::SessionLost);
    let report = run(&mut session, "show clock").await;
    assert_eq!(report.error.unwrap().code, ErrorCode::SessionLost);
    assert!(report.untouched, "the worker may run it over a new session");
    let mut session = world.session().await;
    assert_ne!(pid_of(&run(&mut session, "show clock").await), pid);
    world.plugins.stop().await;
}

#[tokio::test]
async fn d2_one_that_ends_in_order_is_started_again_as_often_as_need_be() {
    let world = World::new(&["stress"]);
    for _ in 0..5 {
        let mut session = world.session().await;
        assert_eq!(run(&mut session, "leave").await.error, None);
        tokio::time::timeout(Duration::from_secs(5), session.closed()).await.expect("its end is seen");
    }
    let mut session = world.session().await;
    assert_eq!(run(&mut session, "show clock").await.error, None, "an end in order is no crash");
    assert_eq!(world.plugins.info(Kind::Driver, "stress").await[0].starts, 6);
    world.plugins.stop().await;
}

#[tokio::test]
async fn d3_one_process_serves_every_capability_and_unknown_kinds_do_no_harm() {
    let world = World::new(&["two_kinds"]);
    let mut session = world.session().await;
    let pid = pid_of(&run(&mut session, "show clock").await);
    let list = world.plugins.list().await;
    assert_eq!(list.len(), 3, "{list:?}");
    assert!(
        list.iter().filter(|h| h.error.is_none()).all(|h| h.starts == 1 && h.state == State::Started),
        "{list:?}"
    );
    let later = list.iter().find(|h| h.name == "later").unwrap();
    assert!(later.error.as_ref().unwrap().contains("`teleporter`"), "{later:?}");
    let children = netpulse_plugin::guard::descendants(std::process::id());
    assert!(children.contains(&pid));
    world.plugins.stop().await;
}

#[tokio::test]
async fn d4_concurrent_first_calls_start_it_once() {
    let world = World::new(&["stress"]);
    let driver = world.driver().await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let driver = Arc::clone(&driver);
        calls.spawn(async move {
            driver.connect(&args()).await.map(|mut s| async move { run(&mut s, "show clock").await })
        });
    }
    let mut pids = std::collections::BTreeSet::new();
    while let Some(call) = calls.join_next().await {
        pids.insert(pid_of(&call.unwrap().unwrap().await));
    }
    assert_eq!(pids.len(), 1, "{pids:?}");
    assert_eq!(world.plugins.info(Kind::Driver, "stress").await[0].starts, 1);
    world.plugins.stop().await;
}

#[tokio::test]
async fn d5_the_socket_lies_in_a_folder_of_our_own_that_goes_with_the_start() {
    use std::os::unix::fs::PermissionsExt;
    let runtime = tempfile::tempdir().unwrap();
    let host = HostSettings { runtime_dir: runtime.path().to_owned(), ..settings() };
    let world = World::with(&["stress"], host, |_| {});
    let session = world.session().await;
    let folders: Vec<PathBuf> =
        std::fs::read_dir(runtime.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(folders.len(), 1);
    assert_eq!(std::fs::metadata(&folders[0]).unwrap().permissions().mode() & 0o777, 0o700);
    drop(session);
    world.plugins.stop().await;
    assert_eq!(std::fs::read_dir(runtime.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn d5_two_hosts_of_one_plugin_do_not_meet_and_d8_nor_what_an_earlier_one_left_behind() {
    let runtime = tempfile::tempdir().unwrap();
    // A start that was killed: its socket, and a lock with the number of a process that lives.
    let left = runtime.path().join("np-left");
    std::fs::create_dir(&left).unwrap();
    drop(std::os::unix::net::UnixListener::bind(left.join("plugin.sock")).unwrap());
    std::fs::write(left.join("plugin.sock.lock"), std::process::id().to_string()).unwrap();
    let host = HostSettings { runtime_dir: runtime.path().to_owned(), ..settings() };
    let (one, other) =
        (World::with(&["stress"], host.clone(), |_| {}), World::with(&["stress"], host, |_| {}));
    let (mut first, mut second) = (one.session().await, other.session().await);
    let pids = (pid_of(&run(&mut first, "show clock").await), pid_of(&run(&mut second, "show clock").await));
    assert_ne!(pids.0, pids.1);
    one.plugins.stop().await;
    assert_eq!(pid_of(&run(&mut second, "show clock").await), pids.1, "the other one's end is not ours");
    other.plugins.stop().await;
}

#[tokio::test]
async fn d6_nothing_secret_stands_on_the_command_line_or_in_the_environment() {
    let host = HostSettings { environment: vec!["NP_TEST_ALLOWED".into()], ..settings() };
    let settings =
        BTreeMap::from([("with_settings".to_owned(), json!({"url": "https://x", "token": "t0p-s3cret"}))]);
    let world = World::with(&["with_settings"], host, |folders| folders.settings = settings);
    let mut session = world.session().await;
    let pid = pid_of(&run(&mut session, "show clock").await);
    let read = |what: &str| {
        String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/{what}")).unwrap()).into_owned()
    };
    let shown = format!("{}{}", read("cmdline"), read("environ"));
    assert!(!shown.contains("t0p-s3cret") && !shown.contains("hunter22"), "{shown}");
    assert!(!read("environ").contains("CARGO"), "our own environment is not passed on: {}", read("environ"));
    world.plugins.stop().await;
}

#[tokio::test]
async fn settings_that_a_plugin_refuses_or_does_not_take_are_its_error() {
    let wrong = BTreeMap::from([("with_settings".to_owned(), json!({"uri": "typo"}))]);
    let world = World::with(&["with_settings"], settings(), |folders| folders.settings = wrong);
    let error = world.driver().await.connect(&args()).await.err().unwrap();
    assert!(error.message.contains("the setting `url` is missing"), "{error}");
    let unasked = BTreeMap::from([("stress".to_owned(), json!({"url": "x"}))]);
    let world = World::with(&["stress"], settings(), |folders| folders.settings = unasked);
    let error = world.driver().await.connect(&args()).await.err().unwrap();
    assert!(error.message.contains("lacks the feature `configure`"), "{error}");
}

#[tokio::test]
async fn d7_a_plugin_that_chatters_on_stdout_is_never_held_up() {
    let world = World::new(&["noisy"]);
    let mut session = world.session().await;
    assert_eq!(run(&mut session, "show clock").await.error, None);
    world.plugins.stop().await;
}

#[tokio::test]
async fn d9_who_speaks_another_contract_is_stopped_and_a_later_minor_is_not() {
    let world = World::new(&["turncoat"]);
    let error = world.driver().await.connect(&args()).await.err().unwrap();
    assert!(
        error.message.contains("`netpulse.plugin/v2`, and this NetPulse speaks `netpulse.plugin/v1`"),
        "{error}"
    );
    world.plugins.stop().await;
    for mode in ["minor", "older_form"] {
        let world = World::new(&[mode]);
        let mut session = world.session().await;
        assert_eq!(run(&mut session, "show clock").await.error, None, "{mode}");
        world.plugins.stop().await;
    }
}

#[tokio::test]
async fn d10_an_error_says_what_it_is_and_whether_it_may_be_tried_again() {
    let world = World::new(&["stress"]);
    for (command, code, untouched) in [
        ("coded read_timeout", ErrorCode::ReadTimeout, false),
        ("coded authentication_failed", ErrorCode::AuthenticationFailed, false),
        ("coded no_such_code", ErrorCode::PluginFailed, false),
        ("forgotten", ErrorCode::SessionLost, true),
        ("refuse", ErrorCode::BadRequest, true),
    ] {
        let mut session = world.session().await;
        let report = run(&mut session, command).await;
        assert_eq!((report.error.unwrap().code, report.untouched), (code, untouched), "{command}");
    }
    let error = world.driver().await.connect(&args_of("busy")).await.err().unwrap();
    assert_eq!(error.code, ErrorCode::ConnectFailed, "the worker tries this again by the request's `retry`");
    assert!(error.message.contains("its management port does not answer"), "{error}");
    world.plugins.stop().await;
}

#[tokio::test]
async fn the_start_form_is_found_and_remembered() {
    let cache = tempfile::tempdir().unwrap();
    let file = cache.path().join("cache.json");
    let set = |folders: &mut Folders| folders.cache = Some(file.clone());
    let world = World::with(&["old_form"], settings(), set);
    let mut session = world.session().await;
    assert_eq!(run(&mut session, "show clock").await.error, None);
    world.plugins.stop().await;
    let end = Instant::now() + Duration::from_secs(5);
    while !std::fs::read_to_string(&file).unwrap().contains(r#""form":"config""#) {
        assert!(Instant::now() < end, "{}", std::fs::read_to_string(&file).unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn capabilities_are_asked_once_per_version_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let asked = folder.path().join("asked.log");
    let script = |version: &str| {
        format!(
            "#!/bin/sh\necho x >> {}\necho '{}'\n",
            asked.display(),
            json!({"contract": "netpulse.plugin/v1", "id": "a/driver/b/v1", "version": version,
                   "capabilities": [{"type": "driver", "name": "counted"}]})
        )
    };
    let write = |version: &str| {
        let path = folder.path().join("counted");
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, script(version)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).unwrap();
    };
    write("1");
    let folders = Folders {
        folders: vec![folder.path().to_owned()],
        cache: Some(folder.path().join("cache.json")),
        ..Folders::default()
    };
    for _ in 0..3 {
        let plugins = Plugins::new(folders.clone(), settings());
        assert_eq!(plugins.info(Kind::Driver, "counted").await[0].version, "1");
    }
    assert_eq!(std::fs::read_to_string(&asked).unwrap().lines().count(), 1);
    let plugins = Plugins::new(folders, settings());
    plugins.list().await;
    write("2");
    plugins.reload().await;
    assert_eq!(plugins.info(Kind::Driver, "counted").await[0].version, "2");
    assert_eq!(std::fs::read_to_string(&asked).unwrap().lines().count(), 2);
}

#[tokio::test]
async fn who_wins_a_name_is_said() {
    struct BuiltIn;
    let _ = BuiltIn;
    let clash = World::new(&["netmiko_clash"]);
    clash.plugins.register(Kind::Driver, "netmiko", "", Implementation::Listed);
    assert!(clash.error_of("netmiko_clash").await.contains("`plugin.override: [\"driver/netmiko\"]`"));
    assert!(matches!(clash.plugins.get(Kind::Driver, "netmiko"), Some(Implementation::Listed)));

    let over = World::with(&["netmiko_clash"], settings(), |f| f.overrides = vec!["driver/netmiko".into()]);
    over.plugins.register(Kind::Driver, "netmiko", "", Implementation::Listed);
    assert!(matches!(over.plugins.find(Kind::Driver, "netmiko").await, Some(Implementation::Driver(_))));

    // Two files of one binary: the same id, so the second is a copy.
    let twins = World::new(&["stress", "stubborn"]);
    assert!(twins.error_of("stubborn").await.contains("has the same id"));

    // Two binaries of one name.
    let folder = tempfile::tempdir().unwrap();
    for file in ["a_first", "b_second"] {
        let path = folder.path().join(file);
        let said = json!({"contract": "netpulse.plugin/v1", "id": format!("x/driver/{file}/v1"), "version": "1",
                          "capabilities": [{"type": "driver", "name": "shared"}]});
        std::fs::write(&path, format!("#!/bin/sh\necho '{said}'\n")).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let folders = Folders { folders: vec![folder.path().to_owned()], ..Folders::default() };
    let first = Plugins::new(folders.clone(), settings()).info(Kind::Driver, "shared").await;
    assert_eq!(
        first.iter().map(|h| h.id.as_str()).collect::<Vec<_>>(),
        ["x/driver/a_first/v1", "x/driver/b_second/v1"]
    );
    assert!(
        first[0].error.is_none() && first[1].error.as_ref().unwrap().contains("plugin.prefer"),
        "{first:?}"
    );
    let prefer = BTreeMap::from([("driver/shared".to_owned(), "b_second".to_owned())]);
    let preferred =
        Plugins::new(Folders { prefer, ..folders }, settings()).info(Kind::Driver, "shared").await;
    assert_eq!(preferred[0].id, "x/driver/b_second/v1", "{preferred:?}");
}

#[tokio::test]
async fn reload_leaves_running_sessions_alone_and_forgets_what_is_gone() {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let pid = pid_of(&run(&mut session, "show clock").await);
    std::fs::remove_file(world.folder.path().join("stress")).unwrap();
    assert!(world.plugins.reload().await.is_empty());
    assert!(world.plugins.get(Kind::Driver, "stress").is_none());
    assert_eq!(pid_of(&run(&mut session, "show clock").await), pid, "a running session keeps its process");
    session.close().await;
    drop(session);
    gone(pid).await;
}

#[tokio::test]
async fn a_grandchild_in_a_session_of_its_own_ends_with_the_plugin() {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let note = world.folder.path().join("grandchild.pid");
    assert_eq!(run(&mut session, &format!("fork {}", note.display())).await.error, None);
    let pid = read_pid(&note);
    assert!(alive(pid));
    let _ = run(&mut session, "crash").await;
    gone(pid).await;
    world.plugins.stop().await;
}

fn read_pid(note: &Path) -> u32 {
    std::fs::read_to_string(note).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_grandchild_of_capabilities_ends_with_its_time() {
    let world = World::new(&["caps_fork"]);
    assert!(world.error_of("caps_fork").await.contains("within 5 s"));
    let end = Instant::now() + Duration::from_secs(5);
    while netpulse_plugin::guard::descendants(std::process::id()).iter().any(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/environ")).is_ok_and(|e| e.contains("caps_fork"))
            || std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.contains("caps_fork"))
    }) {
        assert!(Instant::now() < end, "something of it still lives");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
