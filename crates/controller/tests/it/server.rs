//! The server itself: limits, slow clients, TLS, ids, an orderly end.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{Answer, KEY, config, exec, world, world_with};

async fn connect(url: &str) -> TcpStream {
    TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap()
}

/// Reads one answer with a Content-Length from a raw connection.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let n =
            tokio::time::timeout(Duration::from_secs(15), stream.read(&mut chunk)).await.unwrap().unwrap();
        text.extend_from_slice(&chunk[..n]);
        let so_far = String::from_utf8_lossy(&text).into_owned();
        if let Some((head, body)) = so_far.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|l| l.strip_prefix("content-length: "))
                .map_or(0, |n| n.parse().unwrap());
            if body.len() >= length || n == 0 {
                return so_far;
            }
        }
        assert_ne!(n, 0, "closed after {so_far:?}");
    }
}

#[tokio::test]
async fn d17_the_connection_lives_on_after_errors_and_panics() {
    let w = world().await;
    let mut stream = connect(&w.url).await;
    let panicking = json!({"driver": "netmiko", "command": "x", "connection_args": {"host": "h", "device_type": "panic"}}).to_string();
    let requests = [
        ("GET /nowhere", String::new(), "HTTP/1.1 404"),
        ("PUT /jobs", String::new(), "HTTP/1.1 405"),
        ("DELETE /workers/unknown", String::new(), "HTTP/1.1 404"),
        ("POST /device/exec", "{".to_owned(), "HTTP/1.1 422"),
        ("POST /device/exec", panicking, "HTTP/1.1 500"),
        ("GET /health", String::new(), "HTTP/1.1 200"),
    ];
    for (line, body, wanted) in requests {
        let request = format!(
            "{line} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = answer(&mut stream).await;
        assert!(answer.starts_with(wanted), "{line}: {answer}");
        if wanted.ends_with("500") {
            assert!(
                answer.contains("\"detail\":\"Internal Server Error: ")
                    && !answer.contains("a driver's defect"),
                "{answer}"
            );
        }
    }
}

#[tokio::test]
async fn promise_10_a_body_too_large_gets_a_sentence() {
    let mut small = config();
    small.server.max_body = 10_000;
    let w = world_with(small).await;
    let mut body = exec("192.0.2.1");
    body["command"] = json!("x".repeat(200_000));
    let answer = w.post("/device/exec", &body).await;
    assert_eq!(answer.status, 413);
    assert!(answer.json()["detail"].as_str().unwrap().contains("10000 bytes (`server.max_body`)"));
    // The same without an announced length.
    let chunks = futures_util::stream::iter((0..50).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1000])));
    let request = w.request("POST", "/device/exec").body(reqwest::Body::wrap_stream(chunks));
    assert_eq!(Answer::read(request.send().await.unwrap()).await.status, 413);
    assert_eq!(w.get("/health").await.status, 200);
}

#[tokio::test]
async fn request_ids_go_in_and_out() {
    let w = world().await;
    let given =
        Answer::read(w.request("GET", "/health").header("X-Request-ID", "build-42").send().await.unwrap())
            .await;
    assert_eq!(given.header("x-request-id"), "build-42");
    let (a, b) = (w.get("/health").await, w.get("/nowhere").await);
    assert!(!a.header("x-request-id").is_empty() && a.header("x-request-id") != b.header("x-request-id"));
    let bad =
        Answer::read(w.request("GET", "/health").header("X-Request-ID", "a b\"c").send().await.unwrap())
            .await;
    assert!(!bad.header("x-request-id").contains('"'), "what cannot stand in a log is replaced");
}

#[tokio::test]
async fn head_limits_answer_431_and_414_or_close() {
    let w = world().await;
    let mut stream = connect(&w.url).await;
    let many: String = (0..200).map(|n| format!("h{n}: x\r\n")).collect();
    stream.write_all(format!("GET /health HTTP/1.1\r\nhost: x\r\n{many}\r\n").as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 431"));
    let mut stream = connect(&w.url).await;
    let mut sent = stream
        .write_all(format!("GET /health?{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(200_000)).as_bytes())
        .await;
    if sent.is_ok() {
        let mut text = Vec::new();
        sent = stream.read_to_end(&mut text).await.map(|_| ());
        assert!(text.is_empty() || text.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&text));
    }
    drop(sent);
    assert_eq!(w.get("/health").await.status, 200);
}

#[tokio::test]
async fn promise_10_connections_are_bounded_and_wait_their_turn() {
    let mut one = config();
    one.server.max_connections = 1;
    let w = world_with(one).await;
    let holder = connect(&w.url).await;
    let second = w.request("GET", "/health");
    let second = tokio::spawn(async move { Answer::read(second.send().await.unwrap()).await });
    // Nobody can see that the second waits but by its not being answered.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!second.is_finished());
    drop(holder);
    assert_eq!(second.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_stopping_server_lets_requests_finish_and_idle_connections_go() {
    let w = world().await;
    let mut idle = connect(&w.url).await;
    let mut busy = connect(&w.url).await;
    let body = exec("192.0.2.1").to_string();
    let head = format!(
        "POST /device/exec HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    busy.write_all(head.as_bytes()).await.unwrap();
    busy.write_all(&body.as_bytes()[..10]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let started = Instant::now();
    w.shutdown.cancel();
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0, "an idle connection is closed");
    busy.write_all(&body.as_bytes()[10..]).await.unwrap();
    assert!(answer(&mut busy).await.starts_with("HTTP/1.1 201"));
    while !w.served.is_finished() {
        assert!(started.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn https_when_configured() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut tls = config();
    tls.server.tls_cert = Some(data.join("loopback.pem"));
    tls.server.tls_key = Some(data.join("loopback.key"));
    let w = world_with(tls).await;
    assert!(w.url.starts_with("https://"));
    let ca = std::fs::read(data.join("loopback.pem")).unwrap();
    let client = netpulse_client::Client::builder(&w.url, KEY).ca(ca).build().unwrap();
    assert_eq!(client.health().await.unwrap().status, "ok");
    assert!(
        netpulse_client::Client::new(&w.url, KEY).unwrap().health().await.is_err(),
        "an unknown certificate is refused"
    );
    // Someone who says nothing holds nobody up.
    let silent = TcpStream::connect(w.url.strip_prefix("https://").unwrap()).await.unwrap();
    assert_eq!(client.health().await.unwrap().status, "ok");
    drop(silent);
}

#[tokio::test]
async fn tls_files_that_are_none_are_named() {
    let cases = [
        (Some("/nonexistent.pem"), Some("/nonexistent.key"), "server.tls_cert"),
        (Some("/nonexistent.pem"), None, "belong together"),
    ];
    for (cert, key, wanted) in cases {
        let mut tls = config();
        tls.server.tls_cert = cert.map(Into::into);
        tls.server.tls_key = key.map(Into::into);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let error = netpulse_controller::serve(
            listener,
            axum::Router::new(),
            &tls.server,
            tokio_util::sync::CancellationToken::new(),
            Duration::ZERO,
        )
        .await
        .unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

#[tokio::test]
async fn browsers_from_elsewhere_only_when_configured() {
    let preflight = async |w: &crate::world::World, origin: &str| {
        let request = w.http.request("OPTIONS".parse().unwrap(), format!("{}/jobs", w.url));
        let request = request.header("origin", origin).header("access-control-request-method", "GET");
        Answer::read(request.header("access-control-request-headers", "x-api-key").send().await.unwrap())
            .await
    };
    let closed = world().await;
    assert_eq!(preflight(&closed, "https://noc.example").await.header("access-control-allow-origin"), "");
    let mut open = config();
    open.server.cors_origins = vec!["https://noc.example".into()];
    let w = world_with(open).await;
    let allowed = preflight(&w, "https://noc.example").await;
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.header("access-control-allow-origin"), "https://noc.example");
    assert!(allowed.header("access-control-allow-headers").contains("x-api-key"));
    assert_eq!(preflight(&w, "https://evil.example").await.header("access-control-allow-origin"), "");
}

/// Time runs by itself here whenever nothing moves, so that half a minute passes at once.
#[tokio::test(start_paused = true)]
async fn promise_10_slow_clients_are_let_go() {
    let w = world().await;
    let started = tokio::time::Instant::now();
    let mut slow_head = connect(&w.url).await;
    slow_head.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nx-slow").await.unwrap();
    let mut rest = Vec::new();
    slow_head.read_to_end(&mut rest).await.unwrap();
    let waited = started.elapsed();
    assert!(waited >= Duration::from_secs(29) && waited < Duration::from_secs(60), "{waited:?}");

    let started = tokio::time::Instant::now();
    let mut slow_body = connect(&w.url).await;
    let head =
        format!("POST /device/exec HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: 100\r\n\r\n{{");
    slow_body.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    slow_body.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 408") && text.contains("stalled for 20 s"), "{text}");
    let waited = started.elapsed();
    assert!(waited >= Duration::from_secs(19) && waited < Duration::from_secs(60), "{waited:?}");
    assert!(w.queue.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn promise_10_an_answer_that_nobody_reads_is_dropped() {
    let w = world().await;
    let devices: Vec<_> = (0..2000).map(|n| json!({"host": format!("h{n}")})).collect();
    let bulk = json!({"driver": "netmiko", "connection_args": {}, "command": "x".repeat(10_000), "devices": devices}).to_string();
    let mut stream = connect(&w.url).await;
    let head = format!(
        "POST /device/bulk HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{bulk}",
        bulk.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut whole = Vec::new();
    stream.read_to_end(&mut whole).await.unwrap();
    assert!(whole.starts_with(b"HTTP/1.1 201") && whole.len() > 20_000_000);

    let mut stream = connect(&w.url).await;
    stream
        .write_all(format!("GET /jobs HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(180)).await;
    let mut text = Vec::new();
    let end = stream.read_to_end(&mut text).await;
    assert!(text.len() < 20_000_000 && !text.ends_with(b"0\r\n\r\n"), "{end:?} after {} bytes", text.len());
}

#[tokio::test(start_paused = true)]
async fn promise_15_a_test_of_a_silent_device_ends() {
    let w = world().await;
    let body = json!({"driver": "netmiko", "connection_args": {"host": "192.0.2.98"}}).to_string();
    let mut stream = connect(&w.url).await;
    let head = format!(
        "POST /device/test HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(
        text.starts_with("HTTP/1.1 200")
            && text.contains("\"success\":false")
            && text.contains("within 60 s"),
        "{text}"
    );
}
