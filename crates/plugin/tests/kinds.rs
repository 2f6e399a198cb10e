//! What the kinds have of their own: providers that stream, commands that go on without their session,
//! checks before a request is accepted.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/world.rs"]
mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use netpulse_model::{ErrorCode, ExecutionRequest};
use netpulse_plugin::{Implementation, Kind};
use serde_json::{Value, json};
use world::*;

async fn provider(world: &World) -> Arc<dyn netpulse_plugin::Provider> {
    match world.plugins.find(Kind::Provider, "items").await {
        Some(Implementation::Provider(provider)) => provider,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_provider_gives_its_items_as_they_come_or_all_at_once() {
    let world = World::new(&["pipeline"]);
    let provider = provider(&world).await;
    let mut items = Vec::new();
    let result = provider.gather_each(&json!({"do": "stream"}), &mut |item| items.push(item)).await.unwrap();
    assert_eq!(items, [json!({"n": 0}), json!({"n": 1}), json!({"n": 2})]);
    assert_eq!((result.result_description.as_str(), result.details), ("three", Value::Null));
    let result = provider.gather(&json!({"do": "stream"})).await.unwrap();
    assert_eq!(result.details, json!(items), "the items fill the details");
    let result = provider.gather(&json!({"do": "whole"})).await.unwrap();
    assert_eq!(result.details, json!([1, 2]));
    world.plugins.stop().await;
}

#[tokio::test]
async fn promise_14_a_stream_of_items_that_goes_wrong_is_an_error_and_never_a_result() {
    use netpulse_plugin::Failed;
    let world = World::new(&["pipeline"]);
    let provider = provider(&world).await;
    for (what, kind, says) in [
        ("no_done", Failed::Faulty, "without `done` after 3 items"),
        ("after_done", Failed::Faulty, "went on after `done`"),
        ("not_json", Failed::Faulty, "a line that is no JSON"),
        ("foreign", Failed::Faulty, "a line that only drivers do"),
        ("details", Failed::Faulty, "streamed 3 items and has `details` besides"),
        ("flood", Failed::Faulty, "more than 1048576 bytes"),
        ("error", Failed::Unavailable, "the inventory went away"),
        ("crash", Failed::Faulty, "exit status 104"),
    ] {
        let error = provider.gather(&json!({"do": what})).await.unwrap_err();
        assert!(error.kind == kind && error.message.contains(says), "{what}: {error:?}");
        assert!(error.message.contains("driver/stress/v1"), "{what}: {error:?}");
        assert!(provider.gather(&json!({"do": "stream"})).await.is_ok(), "after {what}");
    }
    let error = provider.gather(&json!({"do": "crash"})).await.unwrap_err();
    assert!(error.message.contains("is not asked this now"), "{error:?}");
    world.plugins.stop().await;
}

#[tokio::test]
async fn commands_that_go_on_without_their_session() {
    let world = World::new(&["detached"]);
    let mut session = world.session().await;
    let tasks = session.detached().expect("it has the feature");
    let none = serde_json::Map::new();
    let task = tasks.launch("a1b2", "tcpdump -i any", &none).await.unwrap();
    assert_eq!((task.command.as_str(), task.running, task.pid), ("tcpdump -i any", true, Some(4711)));
    let output = tasks.query("a1b2", 4).await.unwrap();
    assert_eq!((output.output.as_str(), output.next_offset), ("456789", 10));
    assert_eq!(output.task.exit_status, Some(0));
    assert_eq!((tasks.kill("a1b2").await, tasks.kill("ended").await), (Ok(true), Ok(false)));
    assert_eq!(tasks.list().await.unwrap()[0].task_id, "t1");
    assert_eq!(tasks.query("unknown", 0).await.unwrap_err().code, ErrorCode::BadRequest);
    let lie = tasks.query("greedy", 0).await.unwrap_err();
    assert!(lie.message.contains("says that 99 is next"), "{lie}");
    let lie = tasks.launch("a1b2", "lie", &none).await.unwrap_err();
    assert!(lie.message.contains("answered for the task `another`"), "{lie}");
    let lost = tasks.launch("a1b3", "crash", &none).await.unwrap_err();
    assert!(lost.message.contains("the command may run"), "{lost}");
    world.plugins.stop().await;
    // Without the feature nothing of it is asked.
    let world = World::new(&["stress"]);
    assert!(world.session().await.detached().is_none());
    world.plugins.stop().await;
}

#[tokio::test]
async fn a_request_is_shown_to_the_plugin_before_it_is_accepted_and_a_plugin_that_does_not_answer_is_left_out()
 {
    let world = World::new(&["validates"]);
    let driver = world.driver().await;
    assert!(driver.examines());
    let request = |more: Value| {
        let mut body = json!({"driver": "stress", "connection_args": args().0, "command": "show clock"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ExecutionRequest::read(&body, 300).unwrap()
    };
    let examine = async |more: Value| netpulse_model::fields::sentence(&driver.examine(&request(more)).await);
    assert_eq!(examine(json!({})).await, "");
    assert_eq!(examine(json!({"command": "reload"})).await, "command: `reload` is not done over this API");
    // What only the worker will know is not asked here.
    let rendering = json!({"name": "string", "template": "reload"});
    assert_eq!(examine(json!({"command": "reload", "rendering": rendering})).await, "");
    assert_eq!(examine(json!({"command": "reload", "credential": {"ref": "a"}})).await, "");
    // It crashes, then hangs: the request goes on, soon, and the next ones are not asked about.
    assert_eq!(examine(json!({"command": "crash at the door"})).await, "");
    let began = Instant::now();
    assert_eq!(examine(json!({"command": "reload"})).await, "", "left to the worker for a while");
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    world.plugins.stop().await;

    let world = World::new(&["validates"]);
    let driver = world.driver().await;
    let began = Instant::now();
    assert!(driver.examine(&request(json!({"command": "hang at the door"}))).await.is_empty());
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(!World::new(&["stress"]).driver().await.examines());
    world.plugins.stop().await;
}

#[tokio::test]
async fn a_request_that_does_not_fit_the_schema_is_never_sent() {
    let world = World::new(&["stress"]);
    let driver = world.driver().await;
    let body = json!({"driver": "stress", "connection_args": args().0, "command": "x", "driver_args": {"depth": "deep"}});
    let errors = driver.validate(&ExecutionRequest::read(&body, 300).unwrap());
    assert_eq!(netpulse_model::fields::sentence(&errors), "driver_args.depth: Input should be integer");
    assert_eq!(world.plugins.info(Kind::Driver, "stress").await[0].starts, 0);
}
