//! The courier over a real store: kinds by name, their faults, fairness, and the end.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use netpulse_model::webhook::Notice;
use netpulse_model::{DeviceKey, FieldError, JobId, JobKind, Priority, QueueName, WebHook};
use netpulse_plugin::{Failed, PluginError, Webhook, WebhookCall, Webhooks};
use netpulse_queue::{Embedded, NewJob, Options, Queue, Signal, Submitted};
use netpulse_webhook::{Counts, Courier, CourierOptions};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

/// A kind of somebody else's: crashes, hangs or says no as the URL wants, and tells of each call.
struct Mock(mpsc::UnboundedSender<(Value, u32, Instant)>);

#[async_trait]
impl Webhook for Mock {
    fn name(&self) -> &str {
        "mock"
    }

    fn validate(&self, _: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    async fn call(&self, call: WebhookCall<'_>) -> Result<(), PluginError> {
        self.0.send((call.webhook.clone(), call.attempt, Instant::now())).unwrap();
        let url = call.webhook["url"].as_str().unwrap();
        assert_eq!(call.payload["id"], json!(call.job.id), "the message is of its job");
        if url.contains("crash") {
            panic!("this kind is broken");
        }
        if url.contains("hang") {
            std::future::pending::<()>().await;
        }
        if url.contains("never") {
            return Err(PluginError::new(Failed::Denied, "not there"));
        }
        if url.contains("later") && call.attempt < 3 {
            return Err(PluginError::new(Failed::Unavailable, "not yet"));
        }
        Ok(())
    }
}

struct World {
    queue: Arc<Embedded>,
    courier: Courier,
    calls: mpsc::UnboundedReceiver<(Value, u32, Instant)>,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new(options: CourierOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let queue = Embedded::open(folder.path(), Options::default()).unwrap();
        let mut signals = queue.join("n1", 10.into()).await.unwrap();
        let wake = Arc::<Notify>::default();
        let bell = Arc::clone(&wake);
        tokio::spawn(async move {
            while let Some(signal) = signals.recv().await {
                if signal == Signal::Outbox {
                    bell.notify_one();
                }
            }
        });
        let (tell, calls) = mpsc::unbounded_channel();
        let kinds = Webhooks::new(vec![Arc::new(Mock(tell))]);
        let courier = Courier::start(queue.clone(), kinds, wake, options);
        Self { queue, courier, calls, _folder: folder }
    }

    /// A job that has ended, with this webhook.
    async fn ended(&self, webhook: Value) -> JobId {
        let hook = WebHook {
            name: webhook["name"].as_str().unwrap_or("mock").into(),
            url: webhook["url"].as_str().unwrap().into(),
            method: "POST".into(),
            headers: Default::default(),
            cookies: Default::default(),
            auth: None,
            timeout: webhook["timeout"].as_f64().unwrap_or(5.0),
            max_retries: 3,
            retry_intervals: vec![0.05],
            format: None,
            secret: None,
            extra: webhook["extra"].as_object().cloned().unwrap_or_default(),
        };
        let device = DeviceKey::new("sw1", 22, 22);
        let id = JobId::random();
        let job = NewJob {
            id,
            queue: QueueName::Host(device.clone()),
            device: Some(device),
            kind: JobKind::Query,
            priority: Priority::Normal,
            driver: "netmiko".into(),
            device_name: Some("sw1".into()),
            command: vec!["show clock".into()],
            ttl: Duration::from_secs(600),
            timeout: Duration::from_secs(60),
            result_ttl: Duration::from_secs(300),
            retry: Default::default(),
            idempotency_key: None,
            digest: [0; 32],
            payload: b"x".to_vec(),
            notify: Some(serde_json::to_vec(&Notice { webhook: hook, device_type: None }).unwrap()),
        };
        let answer = self.queue.submit(vec![job]).await.unwrap().pop();
        assert!(matches!(answer, Some(Submitted::Accepted(_))), "{answer:?}");
        self.queue.cancel(id, "").await.unwrap();
        id
    }

    async fn call(&mut self) -> (Value, u32, Instant) {
        tokio::time::timeout(Duration::from_secs(30), self.calls.recv()).await.expect("a call").unwrap()
    }

    /// Waits until the courier's counts are so.
    async fn until(&self, ready: impl Fn(&Counts) -> bool) {
        let counts = self.courier.counts();
        let waited = tokio::time::timeout(Duration::from_secs(30), async {
            while !ready(&counts) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(waited.await.is_ok(), "{counts:?}");
    }

    /// What stays in the outbox once the courier has said how its attempts went: counted before
    /// it is said, so the store may be a moment behind.
    async fn left(&self) -> usize {
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let due = self.queue.deliveries(100, Duration::from_millis(50)).await.unwrap();
            let left = due.deliveries.len() + usize::from(due.deliveries.is_empty() && due.next.is_some());
            if left == 0 || Instant::now() >= until {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_14_a_kind_that_crashes_or_is_missing_is_one_webhooks_fault() {
    let mut world = World::new(CourierOptions::default()).await;
    world.ended(json!({"url": "http://crash", "extra": {"room": "noc"}})).await;
    for attempt in 1..=4 {
        let (webhook, given, _) = world.call().await;
        assert_eq!((given, &webhook["room"]), (attempt, &json!("noc")));
    }
    world.ended(json!({"url": "http://h", "name": "gone"})).await;
    world.until(|counts| counts.given_up() == 2).await;
    world.ended(json!({"url": "http://h"})).await;
    world.call().await;
    world.until(|counts| counts.delivered() == 1).await;
    assert_eq!(world.courier.counts().failed(), 8);
    assert_eq!(world.left().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_end_when_one_arrives_or_cannot_ever() {
    let mut world = World::new(CourierOptions::default()).await;
    world.ended(json!({"url": "http://later"})).await;
    let times: Vec<_> = [world.call().await, world.call().await, world.call().await].into();
    assert_eq!(times.iter().map(|call| call.1).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(times[1].2 - times[0].2 >= Duration::from_millis(50));
    world.until(|counts| counts.delivered() == 1).await;
    world.ended(json!({"url": "http://never"})).await;
    assert_eq!(world.call().await.1, 1);
    world.until(|counts| counts.given_up() == 1).await;
    assert_eq!(world.left().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_dead_receivers_leave_room_for_a_good_one_and_no_message_is_lost() {
    let options = CourierOptions { concurrency: 8, per_receiver: 2, legacy: false };
    let mut world = World::new(options).await;
    // More for one dead receiver than the courier takes into its hands.
    for _ in 0..120 {
        world.ended(json!({"url": "http://hang", "timeout": 120})).await;
    }
    world.call().await;
    let started = Instant::now();
    world.ended(json!({"url": "http://good"})).await;
    loop {
        let (webhook, _, _) = world.call().await;
        if webhook["url"] == "http://good" {
            break;
        }
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    world.until(|counts| counts.delivered() == 1).await;
    let counts = world.courier.counts();
    assert!(counts.flying() <= 3 && counts.held() <= 16 && counts.postponed() > 0, "{counts:?}");

    // At the end what did not begin is put back untried, and what flies is left to its hold.
    let World { queue, courier, .. } = world;
    courier.drain(Duration::from_millis(300)).await;
    let until = Instant::now() + Duration::from_secs(90);
    let mut found = 0;
    let mut attempts = 0;
    while found < 118 && Instant::now() < until {
        let due = queue.deliveries(100, Duration::from_secs(600)).await.unwrap();
        found += due.deliveries.len();
        attempts += due.deliveries.iter().map(|delivery| delivery.attempt).sum::<u32>();
        tokio::time::sleep(due.next.unwrap_or_default().min(Duration::from_secs(1))).await;
    }
    assert_eq!((found, attempts), (118, 118), "being put back is no attempt");
}
