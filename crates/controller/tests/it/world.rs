//! A controller on a free loopback port, with a queue in memory, drivers and engines that tests
//! can steer, and a client that shows everything.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use netpulse_config::Config;
use netpulse_controller::{Controller, Parts, serve};
use netpulse_model::request::{Strategy, TemplateCall};
use netpulse_model::{ConnectionArgs, DeviceKey, ErrorCode, ErrorInfo, ExecutionRequest, FieldError};
use netpulse_plugin::{Driver, DriverSession, Drivers};
use netpulse_plugin::{Origin, TemplateFailure, Templates};
use prometheus_client::registry::Registry;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::memory::Memory;

pub const KEY: &str = "k-demo-9f8e7d";

/// A driver that never leaves the process: hosts decide what happens.
struct Fake(&'static str, Strategy);

#[async_trait]
impl Driver for Fake {
    fn name(&self) -> &str {
        self.0
    }

    fn default_strategy(&self) -> Strategy {
        self.1
    }

    fn device(&self, args: &ConnectionArgs) -> Result<DeviceKey, FieldError> {
        let host =
            args.host().ok_or_else(|| FieldError::new(&["connection_args", "host"], "Field required"))?;
        Ok(DeviceKey::new(host, args.port().unwrap_or(22), 22))
    }

    fn validate(&self, request: &ExecutionRequest) -> Vec<FieldError> {
        self.validate_connection(&request.connection_args)
    }

    fn validate_connection(&self, args: &ConnectionArgs) -> Vec<FieldError> {
        if args.text("device_type") == Some("panic") {
            panic!("a driver's defect");
        }
        if args.text("device_type") == Some("echo") {
            let mut error = FieldError::new(&["connection_args"], "no such platform");
            error.input = Value::Object(args.0.clone());
            return vec![error];
        }
        match args.0.get("port") {
            Some(Value::Number(n)) if n.as_u64().is_some_and(|n| n > 65535) => {
                let mut error = FieldError::new(
                    &["connection_args", "port"],
                    "Input should be less than or equal to 65535",
                );
                error.kind = "less_than_equal".into();
                vec![error]
            }
            _ => Vec::new(),
        }
    }

    async fn connect(&self, _: &ConnectionArgs) -> Result<Box<dyn DriverSession>, ErrorInfo> {
        Err(ErrorInfo::new(ErrorCode::NotSupported, "the controller must not connect"))
    }

    async fn test(&self, args: &ConnectionArgs) -> Result<Map<String, Value>, ErrorInfo> {
        match args.host() {
            Some("192.0.2.99") => Err(ErrorInfo::new(
                ErrorCode::AuthenticationFailed,
                format!("Authentication failed for {:?}.", args.text("password").unwrap_or_default()),
            )),
            Some("192.0.2.98") => std::future::pending().await,
            _ => {
                let seen =
                    json!({"prompt": "sw1#", "device_type": "cisco_ios", "remote_version": "SSH-2.0-Sim"});
                Ok(seen.as_object().cloned().unwrap())
            }
        }
    }
}

struct Engines;

impl Templates for Engines {
    fn renderers(&self) -> Vec<String> {
        vec!["jinja2".into()]
    }

    fn parsers(&self) -> Vec<String> {
        vec!["textfsm".into()]
    }

    fn render(&self, call: &TemplateCall) -> Result<String, TemplateFailure> {
        let mut text = call.template.clone().unwrap();
        if text.contains("{%") {
            return Err(TemplateFailure {
                code: "template_syntax",
                message: "line 1: `{%` is never closed".into(),
            });
        }
        for (key, value) in call.context.as_ref().and_then(Value::as_object).into_iter().flatten() {
            text = text.replace(&format!("{{{{ {key} }}}}"), value.as_str().unwrap());
        }
        Ok(text)
    }

    fn parse(&self, _: &TemplateCall, text: &str, _: Option<Origin<'_>>) -> Result<Value, TemplateFailure> {
        let rows = text.lines().filter_map(|line| line.strip_prefix("Version "));
        Ok(rows.map(|v| json!({"V": v})).collect())
    }
}

pub struct World<Q = Memory> {
    pub queue: Arc<Q>,
    pub url: String,
    pub http: reqwest::Client,
    pub shutdown: CancellationToken,
    pub draining: CancellationToken,
    pub served: tokio::task::JoinHandle<()>,
}

pub fn config() -> Config {
    let mut config = Config::default();
    config.server.api_key = KEY.into();
    config
}

pub async fn world() -> World {
    world_with(config()).await
}

pub async fn world_with(config: Config) -> World {
    world_on(config, Memory::new()).await
}

pub async fn world_on<Q: netpulse_queue::Queue>(config: Config, queue: Arc<Q>) -> World<Q> {
    let shutdown = CancellationToken::new();
    let draining = CancellationToken::new();
    let config = Arc::new(config);
    let controller = Controller::new(Parts {
        config: config.clone(),
        queue: queue.clone(),
        drivers: Drivers::new(vec![
            Arc::new(Fake("netmiko", Strategy::Pinned)),
            Arc::new(Fake("paramiko", Strategy::Fifo)),
        ]),
        webhooks: Default::default(),
        templates: Some(Arc::new(Engines)),
        registry: Registry::default(),
        draining: draining.clone(),
        credentials: netpulse_plugin::Credentials::default(),
        shutdown: shutdown.clone(),
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let scheme = if config.server.tls_cert.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", listener.local_addr().unwrap());
    let served = {
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            serve(listener, controller.router(), &config.server, shutdown, Duration::from_secs(10))
                .await
                .unwrap();
        })
    };
    let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
    World { queue, url, http, shutdown, draining, served }
}

impl<Q> Drop for World<Q> {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// An answer, read.
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub async fn read(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, text: response.text().await.unwrap() }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

impl<Q> World<Q> {
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method.parse().unwrap(), format!("{}{path}", self.url)).header("X-API-KEY", KEY)
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::read(self.request("GET", path).send().await.unwrap()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        Answer::read(self.request("DELETE", path).send().await.unwrap()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::read(self.request("POST", path).json(body).send().await.unwrap()).await
    }

    /// Submits one query and gives its id.
    pub async fn submit(&self, host: &str) -> netpulse_model::JobId {
        let answer = self.post("/device/exec", &exec(host)).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json()["id"].as_str().unwrap().parse().unwrap()
    }
}

pub fn exec(host: &str) -> Value {
    json!({"driver": "netmiko", "command": "show clock",
        "connection_args": {"device_type": "cisco_ios", "host": host, "username": "ops", "password": "s3cret-pw"}})
}
