//! The typed client against the real server.

use std::time::Duration;

use netpulse_client::{Client, ClientError, Happened, JobFilter, Options, WorkerFilter};
use netpulse_model::api::{BulkBody, ExecBody, TemplateBody, TestBody};
use netpulse_model::event::What;
use netpulse_model::{JobStatus, Payload};
use serde_json::{Map, Value, json};

use crate::world::{KEY, World, world};

fn args(host: &str) -> Map<String, Value> {
    json!({"host": host, "username": "ops", "password": "s3cret-pw"}).as_object().cloned().unwrap()
}

fn query(host: &str) -> ExecBody {
    ExecBody {
        driver: "netmiko".into(),
        connection_args: args(host),
        command: Some(Payload::List(vec!["show clock".into()])),
        ..ExecBody::default()
    }
}

async fn pair() -> (World, Client) {
    let w = world().await;
    let client = Client::new(&w.url, KEY).unwrap();
    (w, client)
}

#[tokio::test]
async fn every_call_reads_what_the_server_writes() {
    let (w, client) = pair().await;
    assert_eq!(client.health().await.unwrap().status, "ok");
    let job = client.exec(&query("192.0.2.1"), &Options::default()).await.unwrap();
    assert_eq!((job.status, job.device_name.as_deref()), (JobStatus::Queued, Some("192.0.2.1")));
    let second = client.exec(&query("192.0.2.1"), &Options::default()).await.unwrap();
    assert_eq!(client.why(second.id).await.unwrap().ahead, Some(1));
    let (waiting, ()) = tokio::join!(client.job(job.id, Some(Duration::from_secs(10))), async {
        w.queue.start(job.id);
        w.queue.finish(job.id);
    });
    let done = waiting.unwrap();
    assert_eq!(done.status, JobStatus::Finished);
    assert_eq!(done.result.as_ref().unwrap().retval.as_ref().unwrap()[0].stdout, "out");
    assert_eq!(client.cancel(second.id).await.unwrap().canceled, "before_start");

    let bulk = BulkBody {
        base: query("unused"),
        devices: vec![args("192.0.2.7"), args("192.0.2.8"), args("192.0.2.9")],
    };
    let options = Options { idempotency_key: Some("nightly".into()), ..Options::default() };
    let accepted = client.bulk(&bulk, &options).await.unwrap();
    assert_eq!(
        accepted.succeeded.iter().filter_map(|j| j.host.as_deref()).collect::<Vec<_>>(),
        ["192.0.2.7", "192.0.2.8", "192.0.2.9"]
    );
    assert_eq!(client.bulk(&bulk, &options).await.unwrap(), accepted);

    let all = JobFilter { state: Some("all".into()), ..JobFilter::default() };
    let first = client.jobs(&all, 3, None).await.unwrap();
    let rest = client.jobs(&all, 3, first.next.as_deref()).await.unwrap();
    assert_eq!((first.jobs.len(), rest.jobs.len(), rest.next), (3, 2, None));
    assert_eq!(client.cancel_waiting(None, Some("192.0.2.8")).await.unwrap(), [accepted.succeeded[1].id]);

    assert_eq!(client.workers(&WorkerFilter::default()).await.unwrap().len(), 3);
    assert_eq!(client.stop_worker("node-a").await.unwrap().name, "node-a");
    let fifo = WorkerFilter { queue: Some("FifoQ".into()), ..WorkerFilter::default() };
    assert_eq!(client.stop_workers(&fifo).await.unwrap(), ["node-a_FifoQ"]);
    assert_eq!(client.stats().await.unwrap().jobs.succeeded, 1);
    let test =
        TestBody { driver: "netmiko".into(), connection_args: args("192.0.2.1"), ..TestBody::default() };
    assert_eq!(client.test(&test).await.unwrap().result.unwrap()["prompt"], "sw1#");
    let template = TemplateBody {
        template: Some("a {{ b }}".into()),
        context: Some(json!({"b": "c"})),
        ..TemplateBody::default()
    };
    assert_eq!(client.render(&template).await.unwrap(), "a c");
    let text = TemplateBody {
        name: Some("textfsm".into()),
        context: Some("Version 1".into()),
        ..TemplateBody::default()
    };
    assert_eq!(client.parse(&text).await.unwrap(), json!([{"V": "1"}]));
}

#[tokio::test]
async fn errors_are_the_servers_sentences() {
    let (w, client) = pair().await;
    let mut wrong = query("192.0.2.1");
    wrong.driver = "nonsense".into();
    let error = client.exec(&wrong, &Options::default()).await.unwrap_err();
    assert_eq!((error.status(), error.to_string()), (Some(400), "Unsupported driver: nonsense".into()));
    let mut port = query("192.0.2.1");
    port.connection_args.insert("port".into(), json!(70000));
    let error = client.exec(&port, &Options::default()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Validation Error: connection_args.port: Input should be less than or equal to 65535"
    );
    w.queue.full.store(true, std::sync::atomic::Ordering::Relaxed);
    let error = client.exec(&query("a"), &Options::default()).await.unwrap_err();
    assert!(error.is_temporary());
    assert!(
        matches!(error, ClientError::Answered { status: 429, retry_after: Some(after), .. } if after.as_secs() == 3)
    );
    let stranger = Client::new(&w.url, "wrong").unwrap();
    let error = stranger.health().await.unwrap_err();
    assert_eq!(error, ClientError::Refused("Invalid or missing API key.".into()));
    assert!(Client::new("localhost:9000", KEY).is_err(), "an address without http:// is refused");

    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Client::new(format!("http://{gone}"), KEY).unwrap().health().await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Unreachable { reason, .. } if reason.contains("refused")),
        "{error}"
    );
}

#[tokio::test]
async fn events_are_followed_to_the_end() {
    let (w, client) = pair().await;
    let job = client.exec(&query("192.0.2.1"), &Options::default()).await.unwrap();
    w.queue.start(job.id);
    w.queue.finish(job.id);
    let mut events = client.events(Some(job.id), None);
    let mut names = Vec::new();
    while let Some(item) = events.next().await.unwrap() {
        match item {
            Happened::Event(event) => names.push(event.what.name()),
            Happened::Gap(_) => panic!("nothing is missing"),
        }
    }
    assert_eq!(names, ["queued", "started", "ended"]);
    let mut later = client.events(Some(job.id), Some(2));
    assert!(
        matches!(later.next().await.unwrap(), Some(Happened::Event(e)) if matches!(e.what, What::Ended { .. }))
    );
    assert_eq!(later.next().await.unwrap(), None);
    let error = client.events(Some(netpulse_model::JobId::random()), None).next().await.unwrap_err();
    assert_eq!(error.status(), Some(404));
}
