//! The key in its places, and what is open.

use std::io::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;

use crate::world::{Answer, KEY, config, world, world_with};

#[tokio::test]
async fn the_key_counts_in_header_query_and_cookie() {
    let w = world().await;
    let plain = |path: &str| w.http.get(format!("{}{path}", w.url));
    let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();

    assert_eq!(status(plain("/health").header("x-api-key", KEY)).await, 200);
    assert_eq!(status(plain(&format!("/health?X-API-KEY={KEY}"))).await, 200);
    assert_eq!(status(plain(&format!("/health?api_key={KEY}"))).await, 200);
    assert_eq!(status(plain("/health").header("cookie", format!("a=b; X-API-KEY={KEY}"))).await, 200);
    assert_eq!(status(plain("/health").header("cookie", format!("api_key={KEY}"))).await, 200);
    assert_eq!(
        status(plain("/health").header("x-api-key", "wrong").header("cookie", format!("api_key={KEY}")))
            .await,
        200
    );

    assert_eq!(status(plain("/health").header("x-api-key", "wrong")).await, 403);
    assert_eq!(status(plain("/health").header("x-api-key", &KEY[..KEY.len() - 1])).await, 403);
    assert_eq!(status(plain("/health").header("x-api-key", "")).await, 403);
    // Query and cookie names are exact, header names are not.
    assert_eq!(status(plain(&format!("/health?x-api-key={KEY}"))).await, 403);
    let missing = Answer::read(plain("/system/stats").send().await.unwrap()).await;
    assert_eq!((missing.status, missing.json()), (403, json!({"detail": "Invalid or missing API key."})));
}

#[tokio::test]
async fn the_keys_name_is_configurable_and_an_empty_key_lets_nobody_in() {
    let mut named = config();
    named.server.api_key_name = "Net-Key".into();
    let w = world_with(named).await;
    let get = |name: &str| w.http.get(format!("{}/health", w.url)).header(name, KEY).send();
    assert_eq!(get("net-key").await.unwrap().status().as_u16(), 200);
    assert_eq!(get("x-api-key").await.unwrap().status().as_u16(), 403);

    let mut empty = config();
    empty.server.api_key = String::new();
    let w = world_with(empty).await;
    let answer = w.http.get(format!("{}/health", w.url)).header("x-api-key", "").send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 403);
}

#[tokio::test]
async fn the_documentation_needs_no_key_and_nothing_from_elsewhere() {
    let w = world().await;
    for path in ["/openapi.json", "/docs", "/redoc"] {
        let answer = Answer::read(w.http.get(format!("{}{path}", w.url)).send().await.unwrap()).await;
        assert_eq!(answer.status, 200, "{path}");
        if path != "/openapi.json" {
            let html = answer.text.to_lowercase();
            assert!(html.contains("openapi.json"), "the page reads the document");
            assert!(
                !html.contains("src=\"http") && !html.contains("href=\"http") && !html.contains("url(http")
            );
        }
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn s7_the_key_never_reaches_the_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    // The test's own thread serves too, so everything logged here is caught.
    let _guard = tracing::subscriber::set_default(subscriber);
    let w = world().await;
    let url = |path: &str| {
        format!("{}{path}?X-API-KEY={KEY}&host=192.0.2.1&api_key={KEY}&%58-API-KEY={KEY}", w.url)
    };
    assert_eq!(w.http.get(url("/jobs")).send().await.unwrap().status().as_u16(), 200);
    assert_eq!(w.http.get(url("/jobs/nothing")).send().await.unwrap().status().as_u16(), 404);
    assert_eq!(
        w.http
            .get(format!("{}/nowhere?X-API-KEY=wrong-{KEY}", w.url))
            .send()
            .await
            .unwrap()
            .status()
            .as_u16(),
        403
    );
    let wrong = json!({"driver": "netmiko", "connection_args": {"host": "h", "password": "s3cret-pw", "port": 70000}, "command": "x"});
    assert_eq!(w.post("/device/exec", &wrong).await.status, 400);
    let text = String::from_utf8(log.0.lock().clone()).unwrap();
    let ours: Vec<&str> = text.lines().filter(|l| l.contains("netpulse_controller")).collect();
    assert!(
        ours.iter().any(|l| l.contains("answered") && l.contains("/jobs") && l.contains("******")),
        "{text}"
    );
    assert!(!ours.iter().any(|l| l.contains(KEY) || l.contains("s3cret-pw")), "{text}");
}
