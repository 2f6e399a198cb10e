//! How many requests a second the API takes over the embedded store, with 32 keep-alive clients in
//! the same process: durable submissions, and reads of one ended job.
//!
//! `cargo run --release -p netpulse-controller --example http_bench [seconds]`

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use netpulse_config::Config;
use netpulse_controller::{Controller, Parts, serve};
use netpulse_model::request::Strategy;
use netpulse_model::{ConnectionArgs, DeviceKey, ErrorCode, ErrorInfo, ExecutionRequest, FieldError};
use netpulse_plugin::{Driver, DriverSession, Drivers};
use netpulse_queue::{Embedded, Options, Queue};
use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const CLIENTS: u64 = 32;
const KEY: &str = "bench";

/// Accepts everything and reaches nothing.
struct NoDevice;

#[async_trait]
impl Driver for NoDevice {
    fn name(&self) -> &str {
        "netmiko"
    }

    fn default_strategy(&self) -> Strategy {
        Strategy::Pinned
    }

    fn device(&self, args: &ConnectionArgs) -> Result<DeviceKey, FieldError> {
        Ok(DeviceKey::new(args.host().unwrap_or_default(), args.port().unwrap_or(22), 22))
    }

    fn validate(&self, _: &ExecutionRequest) -> Vec<FieldError> {
        Vec::new()
    }

    fn validate_connection(&self, _: &ConnectionArgs) -> Vec<FieldError> {
        Vec::new()
    }

    async fn connect(&self, _: &ConnectionArgs) -> Result<Box<dyn DriverSession>, ErrorInfo> {
        Err(ErrorInfo::new(ErrorCode::ConnectFailed, "there is no device here"))
    }

    async fn test(&self, _: &ConnectionArgs) -> Result<Map<String, Value>, ErrorInfo> {
        Err(ErrorInfo::new(ErrorCode::ConnectFailed, "there is no device here"))
    }
}

/// One request over a kept connection; where in `buffer` the answer's body begins.
async fn call(stream: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> usize {
    stream.write_all(request).await.unwrap();
    buffer.clear();
    loop {
        stream.read_buf(buffer).await.unwrap();
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = std::str::from_utf8(&buffer[..end]).unwrap();
            let length: usize =
                head.lines().find_map(|l| l.strip_prefix("content-length: ")).unwrap().parse().unwrap();
            if buffer.len() >= end + 4 + length {
                return end + 4;
            }
        }
    }
}

async fn measure(
    name: &str,
    address: SocketAddr,
    seconds: f64,
    request: impl Fn(u64) -> Vec<u8> + Clone + Send + 'static,
) {
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let request = request.clone();
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (mut buffer, mut times) = (Vec::new(), Vec::new());
                while Instant::now() < until {
                    let bytes = request(client * 10_000_000 + times.len() as u64);
                    let started = Instant::now();
                    call(&mut stream, &bytes, &mut buffer).await;
                    assert!(buffer.starts_with(b"HTTP/1.1 20"), "{}", String::from_utf8_lossy(&buffer));
                    times.push(started.elapsed().as_secs_f64() * 1e3);
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await.unwrap());
    }
    times.sort_by(f64::total_cmp);
    let percent = |n: usize| times[(times.len() - 1) * n / 100];
    let rate = f64::from(u32::try_from(times.len()).unwrap()) / seconds;
    println!("{name}: {rate:.0}/s, p50 {:.2} ms, p99 {:.2} ms", percent(50), percent(99));
}

#[tokio::main]
async fn main() {
    let seconds: f64 = std::env::args().nth(1).map_or(5.0, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let options =
        Options { max_queued: 100_000_000, max_queued_per_device: 100_000_000, ..Options::default() };
    let queue = Embedded::open(folder.path(), options).unwrap();
    let mut config = Config::default();
    config.server.api_key = KEY.into();
    let config = Arc::new(config);
    let shutdown = CancellationToken::new();
    let controller = Controller::new(Parts {
        config: config.clone(),
        queue: queue.clone(),
        drivers: Drivers::new(vec![Arc::new(NoDevice)]),
        webhooks: Default::default(),
        templates: None,
        registry: prometheus_client::registry::Registry::default(),
        draining: CancellationToken::new(),
        credentials: netpulse_plugin::Credentials::default(),
        shutdown: shutdown.clone(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = shutdown.clone();
    let server = tokio::spawn(async move {
        serve(listener, controller.router(), &config.server, stop, Duration::from_secs(5)).await
    });

    let bare = |line: &str| format!("{line} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n\r\n").into_bytes();
    let post = |n: u64| {
        let host = format!("10.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255);
        let body = format!(
            r#"{{"driver":"netmiko","connection_args":{{"device_type":"cisco_ios","host":"{host}","username":"ops","password":"pw"}},"command":"show version","ttl":300,"enable_mode":false,"save":false,"detach":false}}"#
        );
        let length = body.len();
        format!("POST /device/exec HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
    };
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut buffer = Vec::new();
    let start = call(&mut stream, &post(0), &mut buffer).await;
    let job: Value = serde_json::from_slice(&buffer[start..]).unwrap();
    let path = format!("/jobs/{}", job["id"].as_str().unwrap());
    // Canceled, so that what is read is a job with its result.
    call(&mut stream, &bare(&format!("DELETE {path}")), &mut buffer).await;

    println!("{CLIENTS} clients in the same process, {seconds} s each");
    let (health, get) = (bare("GET /health"), bare(&format!("GET {path}")));
    measure("GET /health", address, seconds, move |_| health.clone()).await;
    measure("GET /jobs/{id} of an ended job", address, seconds, move |_| get.clone()).await;
    measure("POST /device/exec, durable", address, seconds, post).await;
    shutdown.cancel();
    server.await.unwrap().unwrap();
    queue.close().await;
}
