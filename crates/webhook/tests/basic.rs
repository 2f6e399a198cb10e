//! The kind `basic` against real servers, one of them with TLS and somebody else's code.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use netpulse_model::{Job, JobId, JobKind, JobStatus, Priority, QueueName, Timestamp};
use netpulse_plugin::{Failed, PluginError, Webhook, WebhookCall};
use netpulse_webhook::{Basic, BasicOptions};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn job() -> Job {
    Job {
        id: JobId::random(),
        status: JobStatus::Finished,
        queue: QueueName::Fifo,
        device: None,
        kind: JobKind::Query,
        priority: Priority::Normal,
        driver: "netmiko".into(),
        device_name: None,
        command: None,
        task_id: None,
        attempt: 1,
        created_at: Timestamp::now(),
        enqueued_at: None,
        started_at: None,
        ended_at: None,
        worker: None,
        result: None,
    }
}

async fn call(basic: &Basic, url: &str, timeout: f64) -> Result<(), PluginError> {
    let webhook = json!({"name": "basic", "url": url, "method": "POST", "timeout": timeout, "max_retries": 0,
        "retry_intervals": []});
    let payload: Value = json!({"id": "x"});
    let call = WebhookCall {
        webhook: &webhook,
        job: &job(),
        payload: &payload,
        delivery: uuid::Uuid::new_v4(),
        attempt: 1,
    };
    basic.call(call).await
}

fn basic(ca: Option<PathBuf>) -> Basic {
    let allow_private = vec!["127.0.0.0/8".into(), "::1".into()];
    Basic::new(BasicOptions { allow_private, secret: None, ca }).unwrap()
}

/// Python's own HTTPS server; ended by its id.
struct Https {
    child: Child,
    port: u16,
}

impl Drop for Https {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../controller/tests/data").join(name)
}

impl Https {
    fn start() -> Self {
        let script = "import http.server, ssl, sys\n\
            class Handler(http.server.BaseHTTPRequestHandler):\n\
            \x20   def do_POST(self):\n\
            \x20       self.rfile.read(int(self.headers['content-length']))\n\
            \x20       self.send_response(204)\n\
            \x20       self.end_headers()\n\
            server = http.server.HTTPServer(('127.0.0.1', 0), Handler)\n\
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
            context.load_cert_chain(sys.argv[1], sys.argv[2])\n\
            server.socket = context.wrap_socket(server.socket, server_side=True)\n\
            print(server.server_address[1], flush=True)\n\
            server.serve_forever()\n";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .args([data("loopback.pem"), data("loopback.key")])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, port: line.trim().parse().unwrap() }
    }
}

#[tokio::test]
async fn tls_trusts_the_files_certificates_and_no_stranger() {
    let server = Https::start();
    let url = format!("https://127.0.0.1:{}/hook?t0ken", server.port);
    call(&basic(Some(data("loopback.pem"))), &url, 10.0).await.unwrap();
    let error = call(&basic(None), &url, 10.0).await.unwrap_err();
    assert_eq!(error.kind, Failed::Unavailable);
    assert!(error.message.contains("certificate") && !error.message.contains("t0ken"), "{error}");
    let none = Basic::new(BasicOptions { ca: Some(data("loopback.key")), ..BasicOptions::default() });
    assert!(none.err().unwrap().to_string().contains("webhook.ca"));
}

#[tokio::test]
async fn answers_are_bounded_in_time_and_size() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                let size = stream.read(&mut buffer).await.unwrap();
                let hangs = String::from_utf8_lossy(&buffer[..size]).contains("/hang");
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
                if hangs {
                    stream.write_all(&head.as_bytes()[..20]).await.unwrap();
                    std::future::pending::<()>().await;
                }
                stream.write_all(head.as_bytes()).await.unwrap();
                // A gigabyte, unless somebody hangs up.
                while stream.write_all(&buffer).await.is_ok() {}
            });
        }
    });
    let began = Instant::now();
    call(&basic(None), &url, 20.0).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "a long answer is not read to its end");
    let error = call(&basic(None), &format!("{url}/hang"), 0.5).await.unwrap_err();
    assert!(error.message.contains("did not answer within 0.5 s"), "{error}");
    let error = call(&basic(None), "http://127.0.0.1:1/", 5.0).await.unwrap_err();
    assert!(error.message.contains("cannot be connected to"), "{error}");
    let error = call(&basic(None), "http://no-such-host.invalid/", 5.0).await.unwrap_err();
    assert_eq!(error.kind, Failed::Unavailable, "{error}");
}
