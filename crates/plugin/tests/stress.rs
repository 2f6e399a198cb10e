//! Promise 14 through the host: whatever a plugin does, it is one call's error, and the next call
//! works.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/world.rs"]
mod world;

use std::time::{Duration, Instant};

use netpulse_model::{ErrorCode, Outcome};
use netpulse_plugin::{Kind, State, Work};
use serde_json::json;
use world::*;

#[tokio::test]
async fn promise_14_a_crash_in_a_call_is_one_jobs_error_at_once() {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let first = pid_of(&run(&mut session, "show clock").await);
    let began = Instant::now();
    let report = run(&mut session, "crash").await;
    let took = began.elapsed();
    let error = report.error.unwrap();
    assert!(
        error.message.contains("exit status 101") && error.message.contains("index out of bounds"),
        "{error}"
    );
    assert!(!report.reusable);
    assert!(took < Duration::from_secs(1), "{took:?}");
    let mut session = world.session().await;
    let second = pid_of(&run(&mut session, "show clock").await);
    assert_ne!(first, second, "a new process");
    world.plugins.stop().await;
    gone(second).await;
}

#[tokio::test]
async fn promise_14_an_abort_is_told_by_its_signal() {
    one_jobs_error("abort", "killed by signal 6").await;
}

#[tokio::test]
async fn promise_14_an_answer_that_is_no_json() {
    one_jobs_error("garbage", "something else than the contract says").await;
}

#[tokio::test]
async fn promise_14_an_answer_without_results() {
    one_jobs_error("empty", "answered one command with 0 results").await;
}

#[tokio::test]
async fn promise_14_half_an_answer_is_never_a_result() {
    one_jobs_error("half", "broke off its answer").await;
}

#[tokio::test]
async fn promise_14_an_answer_without_a_length_is_never_a_result() {
    one_jobs_error("endless", "without saying how long").await;
}

#[tokio::test]
async fn promise_14_an_answer_to_another_request_ends_the_plugin() {
    one_jobs_error("other", "answered request `4711`").await;
}

#[tokio::test]
async fn promise_14_an_answer_past_the_limit_is_cut() {
    one_jobs_error("big", "more than 1048576 bytes").await;
}

#[tokio::test]
async fn promise_14_a_plugin_that_eats_memory_dies_alone() {
    one_jobs_error("memory", "killed by signal 6").await;
}

#[tokio::test]
async fn promise_14_a_flood_of_logs_does_no_harm() {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let report = run(&mut session, "flood").await;
    assert_eq!(report.error, None);
    world.plugins.stop().await;
}

#[tokio::test]
async fn promise_14_a_call_that_hangs_ends_with_the_jobs_time() {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let began = Instant::now();
    let work = Work::Commands(vec!["hang".into()]);
    let report = perform(&mut session, json!({"command": "hang"}), work, Duration::from_millis(300)).await;
    let error = report.error.unwrap();
    assert!(error.message.contains("did not answer within"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(3));
    // The process is sound: it serves the next session.
    let mut session = world.session().await;
    assert_eq!(run(&mut session, "show clock").await.error, None);
    world.plugins.stop().await;
}

#[tokio::test]
async fn promise_14_a_frozen_process_is_found_out_and_replaced() {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let pid = pid_of(&run(&mut session, "show clock").await);
    let work = Work::Commands(vec!["freeze".into()]);
    let report = perform(&mut session, json!({"command": "freeze"}), work, Duration::from_millis(300)).await;
    assert!(report.error.unwrap().message.contains("did not answer"), "the job's own error");
    gone(pid).await;
    let mut session = world.session().await;
    assert_eq!(run(&mut session, "show clock").await.error, None);
    world.plugins.stop().await;
}

#[tokio::test]
async fn promise_5_a_change_whose_plugin_dies_in_it_is_unknown() {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let report = config(&mut session, &["crash now", "vlan 2"]).await;
    assert_eq!(report.outcome, Some(Outcome::Unknown));
    assert!(!report.untouched);
    assert!(report.error.unwrap().message.contains("not safe to repeat"));
    world.plugins.stop().await;
}

#[tokio::test]
async fn promise_5_a_change_that_is_refused_whole_has_touched_nothing() {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let report = config(&mut session, &["refuse"]).await;
    assert_eq!(report.outcome, Some(Outcome::NotApplied));
    let error = report.error.unwrap();
    assert_eq!(error.code, ErrorCode::BadRequest);
    assert!(error.message.contains("no command of mine"), "{error}");
    world.plugins.stop().await;
}

#[tokio::test]
async fn promise_5_a_change_that_claims_more_than_it_shows_is_unknown() {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let report = config(&mut session, &["applied", "and more"]).await;
    assert_eq!(report.outcome, Some(Outcome::Unknown));
    assert_eq!(report.error.unwrap().code, ErrorCode::PluginFailed);
    world.plugins.stop().await;
}

#[tokio::test]
async fn promise_12_a_secret_that_a_plugin_tells_is_masked() {
    let world = World::new(&["stress"]);
    let mut session = world.session().await;
    let report = run(&mut session, "tell hunter22").await;
    let error = report.error.unwrap();
    assert!(error.message.contains("******") && !error.message.contains("hunter22"), "{error}");
    world.plugins.stop().await;
}

#[tokio::test]
async fn promise_14_a_plugin_that_does_not_come_up_is_an_error_with_its_last_words() {
    for (mode, says) in [
        ("exit_early", "my licence has expired"),
        ("no_hello", "did not come up within 3 s"),
        ("foreign", "http://192.0.2.1:80` is not dialled".trim_end_matches("` is not dialled")),
        ("liar", "netpulse.example/driver/honest/v1"),
        ("wrong_start", "answered for the start 00000000-another"),
    ] {
        let world = World::new(&[mode]);
        let error =
            world.driver().await.connect(&args()).await.err().unwrap_or_else(|| panic!("{mode} connected"));
        assert_eq!(error.code, ErrorCode::PluginFailed, "{mode}: {error}");
        let said =
            error.message.contains(says) || (mode == "foreign" && error.message.contains("192.0.2.1:80"));
        assert!(said, "{mode}: {error}");
        world.plugins.stop().await;
    }
}

#[tokio::test]
async fn promise_14_what_cannot_say_what_it_is_is_listed_and_harms_nobody() {
    let modes = ["caps_hang", "caps_garbage", "caps_fail", "caps_flood", "version2", "renamed", "stress"];
    let world = World::new(&modes);
    for (mode, says) in [
        ("caps_hang", "did not print its capabilities within 5 s"),
        ("caps_garbage", "no JSON"),
        ("caps_fail", "no database here"),
        ("caps_flood", "more than 1048576 bytes"),
        ("version2", "`netpulse.plugin/v2`, and this NetPulse speaks `netpulse.plugin/v1`"),
        ("renamed", "declares the name `Not A Name`"),
    ] {
        let error = world.error_of(mode).await;
        assert!(error.contains(says), "{mode}: {error}");
    }
    let mut session = world.session().await;
    assert_eq!(run(&mut session, "show clock").await.error, None);
    world.plugins.stop().await;
}

#[tokio::test]
async fn promise_14_a_plugin_that_refuses_to_end_is_killed() {
    let world = World::new(&["stubborn"]);
    let mut session = world.session().await;
    let pid = pid_of(&run(&mut session, "show clock").await);
    drop(session);
    let began = Instant::now();
    world.plugins.stop().await;
    gone(pid).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn promise_14_a_crashing_plugin_is_not_started_for_ever() {
    let world = World::new(&["stress"]);
    let mut refused = String::new();
    // Whatever it is asked, and for whichever device: nobody in particular is to blame.
    for n in 0..6 {
        match world.driver().await.connect(&args_of(&format!("192.0.2.{n}"))).await {
            Ok(mut session) => assert!(run(&mut session, &format!("crash {n}")).await.error.is_some()),
            Err(error) => refused = error.message,
        }
    }
    assert!(
        refused.contains("was started 3 times within 60 s") && refused.contains("started again in"),
        "{refused}"
    );
    let info = world.plugins.info(Kind::Driver, "stress").await;
    assert_eq!(info[0].state, State::Failed);
    assert_eq!(info[0].starts, 3);
    world.plugins.stop().await;
}

#[tokio::test]
async fn promise_14_one_poisonous_command_does_not_use_up_the_starts_of_all() {
    let world = World::new(&["stress"]);
    let mut said = Vec::new();
    for _ in 0..10 {
        let mut session = world.session().await;
        let report = run(&mut session, "crash").await;
        said.push(report.error.unwrap().message);
        if said.len() > 1 {
            assert!(report.untouched, "it was not asked");
        }
        // Others are served in between.
        let mut other =
            world.driver().await.connect(&args_of("192.0.2.99")).await.expect("others get a session");
        assert_eq!(run(&mut other, "show clock").await.error, None, "{said:?}");
    }
    assert!(said[0].contains("exit status 101"), "{said:?}");
    for later in &said[1..] {
        assert!(later.contains("is not asked this now") && later.contains("exactly this"), "{said:?}");
    }
    let info = world.plugins.info(Kind::Driver, "stress").await;
    assert_eq!((info[0].starts, info[0].state), (2, State::Started), "one crash, one restart");
    // A change is refused just as well, and says that nothing was done.
    let mut session = world.session().await;
    assert!(config(&mut session, &["crash", "b"]).await.error.is_some());
    let mut session = world.session().await;
    let report = config(&mut session, &["crash", "b"]).await;
    assert_eq!((report.outcome, report.untouched), (Some(Outcome::NotApplied), true), "{report:?}");
    world.plugins.stop().await;
}

#[tokio::test]
async fn promise_14_who_was_on_the_way_when_another_crashed_it_is_not_refused() {
    let world = World::new(&["stress"]);
    let mut innocent = world.driver().await.connect(&args_of("192.0.2.7")).await.unwrap();
    let mut guilty = world.session().await;
    let (slow, crash) = tokio::join!(run(&mut innocent, "slow 5"), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        run(&mut guilty, "crash").await
    });
    assert!(slow.error.is_some() && crash.error.is_some());
    let mut innocent = world.driver().await.connect(&args_of("192.0.2.7")).await.unwrap();
    assert_eq!(run(&mut innocent, "slow 0").await.error, None);
    assert_eq!(run(&mut innocent, "slow 5").await.error, None, "the same again is not refused");
    world.plugins.stop().await;
}
