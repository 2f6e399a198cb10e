//! Which handler a request means.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use netpulse_model::ConnectionArgs;
use netpulse_model::plugin::{
    Broken, CONTRACT, Capabilities, Connect, Detached, Done, Event, Execute, Health, Kind, Leave, SessionRef,
    Tested,
};
use netpulse_model::worker::NodeInfo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::idle::Work;
use crate::kinds::{Items, ParseCall, PipelineResult, Reference, RenderCall, Way, WebhookCall};
use crate::plugin::{Handler, Plugin};
use crate::run::{self, Sessions};
use crate::{Call, Failure};

/// What a request is answered with.
pub(crate) enum Reply {
    Json(Value),
    Stream(mpsc::Receiver<Bytes>, CancellationToken),
}

/// A plugin that runs.
pub(crate) struct App {
    capabilities: Capabilities,
    handlers: Vec<Handler>,
    sessions: Vec<Option<Arc<Sessions>>>,
    configure: Option<Arc<dyn crate::Configure>>,
    pub(crate) shutdown: CancellationToken,
}

impl App {
    pub(crate) fn new(plugin: Plugin, work: &Work) -> Self {
        let sessions = plugin
            .handlers
            .iter()
            .map(|handler| match handler {
                Handler::Driver(driver) => Some(Arc::new(Sessions::new(Arc::clone(driver), work.clone()))),
                _ => None,
            })
            .collect();
        Self {
            capabilities: plugin.capabilities,
            handlers: plugin.handlers,
            sessions,
            configure: plugin.configure,
            shutdown: CancellationToken::new(),
        }
    }

    pub(crate) fn health(&self) -> Value {
        let health = Health {
            status: "ok".to_owned(),
            contract: CONTRACT.to_owned(),
            id: self.capabilities.id.clone(),
            version: self.capabilities.version.clone(),
        };
        serde_json::to_value(health).unwrap_or_default()
    }

    /// Closes every session.
    pub(crate) async fn close(&self) {
        for sessions in self.sessions.iter().flatten() {
            sessions.close().await;
        }
    }

    /// Whether anything answers that path.
    pub(crate) fn knows(&self, path: &str) -> bool {
        let has = |kind: Kind| self.capabilities.capabilities.iter().any(|c| c.kind == kind.capability());
        let can = |kind: Kind, feature: &str| {
            self.capabilities.capabilities.iter().any(|c| c.kind == kind.capability() && c.has(feature))
        };
        match path {
            "/shutdown" => true,
            "/configure" => self.configure.is_some(),
            path if path.starts_with("/driver/") => {
                const PATHS: &[&str] =
                    &["validate", "connect", "send", "config", "leave", "disconnect", "alive", "test"];
                const DETACHED: &[&str] = &["launch", "query", "kill", "list"];
                let rest = path.strip_prefix("/driver/").unwrap_or_default();
                let detached = rest
                    .strip_prefix("detached/")
                    .is_some_and(|rest| DETACHED.contains(&rest) && can(Kind::Driver, "detached"));
                has(Kind::Driver) && (PATHS.contains(&rest) || detached)
            }
            "/template/render" => has(Kind::TemplateRenderer),
            "/template/parse" => has(Kind::TemplateParser),
            "/scheduler/node_select" | "/scheduler/batch_node_select" => has(Kind::Scheduler),
            "/webhook/call" => has(Kind::Webhook),
            "/webhook/validate" => can(Kind::Webhook, "validate"),
            "/credential/get" | "/credential/validate" => has(Kind::Credential),
            "/provider/gather" => has(Kind::Provider),
            "/input/process" => has(Kind::Input),
            "/assistant/process" => has(Kind::Assistant),
            "/check/report" => has(Kind::Check),
            "/output/process" => has(Kind::Output),
            _ => false,
        }
    }

    /// The handler of that kind and name; without a name the only one.
    fn find(&self, kind: Kind, body: &Value) -> Result<usize, Failure> {
        let mut of_kind =
            self.capabilities.capabilities.iter().enumerate().filter(|(_, c)| c.kind == kind.capability());
        match body.get("name").filter(|name| !name.is_null()) {
            Some(name) => of_kind
                .find(|(_, c)| name.as_str() == Some(c.name.as_str()))
                .map(|(index, _)| index)
                .ok_or_else(|| Failure::not_found(format!("this plugin has no {kind} {name}"))),
            None => match (of_kind.next(), of_kind.next()) {
                (Some((index, _)), None) => Ok(index),
                _ => Err(Failure::bad_request(format!(
                    "`name` is required: this plugin has several of {kind}"
                ))),
            },
        }
    }

    fn sessions(&self, body: &Value) -> Result<Arc<Sessions>, Failure> {
        let index = self.find(Kind::Driver, body)?;
        self.sessions
            .get(index)
            .and_then(Option::clone)
            .ok_or_else(|| Failure::internal("the driver has no sessions"))
    }

    /// Answers a POST.
    pub(crate) async fn post(
        self: &Arc<Self>,
        path: &str,
        bytes: &[u8],
        deadline: Instant,
        ndjson: bool,
    ) -> Result<Reply, Failure> {
        let body: Value = serde_json::from_slice(bytes)
            .map_err(|e| Failure::bad_request(format!("the body is no JSON: {e}")))?;
        if !body.is_object() {
            return Err(Failure::bad_request("the body must be a JSON object"));
        }
        let call = Call {
            deadline,
            stop: CancellationToken::new(),
            job: None,
            driver_args: Map::new(),
            options: Map::new(),
        };
        if let Some(rest) = path.strip_prefix("/driver/") {
            return self.driver(rest, body, call, ndjson).await;
        }
        if path == "/provider/gather" {
            return self.gather(&body, call, ndjson).await;
        }
        self.other(path, body, &call).await.map(Reply::Json)
    }

    /// Gathers, item by item where the host takes them so. What fails before the first item is an
    /// answer with its status.
    async fn gather(&self, body: &Value, call: Call, ndjson: bool) -> Result<Reply, Failure> {
        let index = self.find(Kind::Provider, body)?;
        let Some(Handler::Provider(provider)) = self.handlers.get(index) else {
            return Err(Failure::internal("a capability without a handler"));
        };
        let settings = settings(body);
        if !ndjson {
            let mut items = Items(Way::Kept(Vec::new()));
            let mut result = provider.stream(settings, &mut items, &call).await?;
            if let Way::Kept(items) = items.0
                && !items.is_empty()
            {
                result.details = Value::Array(items);
            }
            return Ok(Reply::Json(to_value(&result)));
        }
        let (sender, mut first) = mpsc::channel(1);
        let (lines, receiver) = mpsc::channel(16);
        let abandoned = CancellationToken::new();
        let (provider, token) = (Arc::clone(provider), abandoned.clone());
        let work = tokio::spawn(async move {
            let mut items = Items(Way::Out(sender));
            let work = std::panic::AssertUnwindSafe(provider.stream(settings, &mut items, &call));
            tokio::select! {
                biased;
                () = token.cancelled() => Err(Failure::unavailable("the host left")),
                done = futures_util::FutureExt::catch_unwind(work) => {
                    done.unwrap_or_else(|_| Err(Failure::internal("the provider crashed")))
                }
            }
        });
        let ended = async move |work: tokio::task::JoinHandle<_>| {
            work.await.unwrap_or_else(|_| Err(Failure::internal("the provider crashed")))
        };
        let guard = abandoned.clone().drop_guard();
        let Some(line) = first.recv().await else {
            let result: PipelineResult = ended(work).await?;
            return Ok(Reply::Json(to_value(&result)));
        };
        tokio::spawn(async move {
            // The host may leave at any line.
            let mut next = Some(line);
            while let Some(line) = next {
                if lines.send(line).await.is_err() {
                    return;
                }
                next = first.recv().await;
            }
            let last = match ended(work).await {
                Ok(result) => json!({"done": PipelineResult { details: Value::Null, ..result }}),
                Err(failure) => {
                    let broken = Broken { status: Some(failure.status), message: failure.message };
                    json!({"error": broken})
                }
            };
            let mut text = last.to_string();
            text.push('\n');
            let _ = lines.send(Bytes::from(text)).await;
        });
        Ok(Reply::Stream(receiver, guard.disarm()))
    }

    async fn driver(
        self: &Arc<Self>,
        path: &str,
        body: Value,
        call: Call,
        ndjson: bool,
    ) -> Result<Reply, Failure> {
        let sessions = self.sessions(&body)?;
        let answer = match path {
            "connect" => {
                let request: Connect = read(body)?;
                to_value(&sessions.connect(request, &call).await?)
            }
            "send" | "config" => {
                let request: Execute = read(body)?;
                let changes = path == "config";
                if request.stream && ndjson {
                    return Ok(stream(sessions, request, changes, call));
                }
                to_value(&sessions.execute(request, changes, call, None).await?)
            }
            "leave" => {
                sessions.leave(&read::<Leave>(body)?)?;
                json!({})
            }
            "disconnect" => {
                sessions.disconnect(&read::<SessionRef>(body)?).await;
                json!({})
            }
            "detached/launch" | "detached/query" | "detached/kill" | "detached/list" => {
                let what = path.strip_prefix("detached/").unwrap_or_default();
                sessions.detached(what, read::<Detached>(body)?, call).await?
            }
            "alive" => json!({"alive": sessions.alive(&read::<SessionRef>(body)?).await?}),
            "test" => {
                let request: Connect = read(body)?;
                let tested =
                    match sessions.driver().test(&ConnectionArgs(request.connection_args), &call).await {
                        Ok(info) => Tested { success: true, info, ..Tested::default() },
                        Err(failure) if failure.status == 400 => return Err(failure),
                        Err(failure) => Tested {
                            error: Some(failure.message),
                            error_type: failure.code.map(|code| code.as_str().to_owned()),
                            ..Tested::default()
                        },
                    };
                to_value(&tested)
            }
            "validate" => {
                let request = body
                    .get("request")
                    .filter(|request| request.is_object())
                    .ok_or_else(|| Failure::bad_request("`request` is required: an object"))?;
                sessions.driver().validate(request).await?;
                json!({})
            }
            _ => return Err(Failure::not_found(format!("no endpoint /driver/{path}"))),
        };
        Ok(Reply::Json(answer))
    }

    async fn other(&self, path: &str, body: Value, call: &Call) -> Result<Value, Failure> {
        let handler = |kind: Kind| -> Result<&Handler, Failure> {
            let index = self.find(kind, &body)?;
            self.handlers.get(index).ok_or_else(|| Failure::internal("a capability without a handler"))
        };
        let nobody = || Failure::not_found(format!("no endpoint {path}"));
        Ok(match path {
            "/shutdown" => {
                self.shutdown.cancel();
                json!({})
            }
            "/configure" => {
                let configure = self.configure.as_ref().ok_or_else(nobody)?;
                let settings = body
                    .get("config")
                    .filter(|settings| settings.is_object())
                    .ok_or_else(|| Failure::bad_request("`config` is required: an object"))?;
                configure.configure(settings.clone()).await?;
                json!({})
            }
            "/template/render" => {
                let Handler::Renderer(renderer) = handler(Kind::TemplateRenderer)? else {
                    return Err(nobody());
                };
                let request: RenderCall = read(body)?;
                json!({"text": renderer.render(request, call).await?})
            }
            "/template/parse" => {
                let Handler::Parser(parser) = handler(Kind::TemplateParser)? else { return Err(nobody()) };
                let request: ParseCall = read(body)?;
                json!({"value": parser.parse(request, call).await?})
            }
            "/scheduler/node_select" => {
                #[derive(Deserialize)]
                struct One {
                    nodes: Vec<NodeInfo>,
                    host: String,
                }
                let Handler::Scheduler(scheduler) = handler(Kind::Scheduler)? else { return Err(nobody()) };
                let request: One = read(body)?;
                json!({"node": scheduler.node_select(&request.nodes, &request.host).await?})
            }
            "/scheduler/batch_node_select" => {
                #[derive(Deserialize)]
                struct Many {
                    nodes: Vec<NodeInfo>,
                    hosts: Vec<String>,
                }
                let Handler::Scheduler(scheduler) = handler(Kind::Scheduler)? else { return Err(nobody()) };
                let request: Many = read(body)?;
                json!({"nodes": scheduler.batch_node_select(&request.nodes, &request.hosts).await?})
            }
            "/webhook/call" => {
                let Handler::Webhook(webhook) = handler(Kind::Webhook)? else { return Err(nobody()) };
                let request: WebhookCall = read(body)?;
                webhook.call(request, call).await?;
                json!({})
            }
            "/webhook/validate" => {
                let Handler::Webhook(webhook) = handler(Kind::Webhook)? else { return Err(nobody()) };
                webhook.validate(body.get("request").unwrap_or(&Value::Null)).await?;
                json!({})
            }
            "/credential/get" => {
                #[derive(Deserialize)]
                struct Get {
                    reference: Reference,
                    #[serde(default)]
                    connection_args: Map<String, Value>,
                }
                let Handler::Credential(credential) = handler(Kind::Credential)? else {
                    return Err(nobody());
                };
                let request: Get = read(body)?;
                json!({"values": credential.get(request.reference, request.connection_args).await?})
            }
            "/credential/validate" => {
                let Handler::Credential(credential) = handler(Kind::Credential)? else {
                    return Err(nobody());
                };
                match credential.validate().await {
                    Ok(detail) => json!({"success": true, "detail": detail}),
                    Err(failure) => json!({"success": false, "detail": {"error": failure.message}}),
                }
            }
            "/input/process" => {
                let Handler::Input(input) = handler(Kind::Input)? else { return Err(nobody()) };
                json!({"results": input.process(settings(&body), results(&body)?, call).await?})
            }
            "/assistant/process" => {
                let Handler::Assistant(assistant) = handler(Kind::Assistant)? else { return Err(nobody()) };
                json!({"results": assistant.process(settings(&body), results(&body)?, call).await?})
            }
            "/check/report" => {
                let Handler::Check(check) = handler(Kind::Check)? else { return Err(nobody()) };
                let input = body.get("input").cloned().unwrap_or_default();
                to_value(&check.report(settings(&body), input, call).await?)
            }
            "/output/process" => {
                let Handler::Output(output) = handler(Kind::Output)? else { return Err(nobody()) };
                output.output(settings(&body), results(&body)?, call).await?;
                json!({})
            }
            _ => return Err(nobody()),
        })
    }
}

/// A body as the endpoint reads it.
fn read<T: DeserializeOwned>(body: Value) -> Result<T, Failure> {
    serde_json::from_value(body).map_err(|e| Failure::bad_request(format!("the body is wrong: {e}")))
}

/// Absent and `null` are the same.
fn settings(body: &Value) -> Value {
    body.get("settings").cloned().unwrap_or_default()
}

fn results(body: &Value) -> Result<Vec<PipelineResult>, Failure> {
    match body.get("results") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(results) => serde_json::from_value(results.clone())
            .map_err(|e| Failure::bad_request(format!("`results`: {e}"))),
    }
}

fn to_value(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// Runs an execution as a stream; it ends when the host closes the connection.
fn stream(sessions: Arc<Sessions>, request: Execute, changes: bool, call: Call) -> Reply {
    let (events, receiver) = mpsc::channel(16);
    let abandoned = CancellationToken::new();
    let token = abandoned.clone();
    tokio::spawn(async move {
        let work = sessions.execute(request, changes, call, Some(events.clone()));
        let work = futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(work));
        let done = tokio::select! {
            biased;
            () = token.cancelled() => return,
            done = work => done,
        };
        let done = match done {
            Ok(Ok(done)) => done,
            Ok(Err(failure)) => failed(&failure, changes),
            Err(_panic) => failed(&Failure::internal("the driver crashed"), changes),
        };
        // The host may have left.
        let _ = events.send(run::line(&Event::Done(done))).await;
    });
    Reply::Stream(receiver, abandoned)
}

/// A run that could not be made, as the end of its stream.
fn failed(failure: &Failure, changes: bool) -> Done {
    let early = matches!(failure.status, 400 | 404 | 410);
    let code = failure.code.map_or_else(
        || if early { "bad_request" } else { "plugin_failed" }.to_owned(),
        |code| code.as_str().to_owned(),
    );
    let outcome = if early { netpulse_model::Outcome::NotApplied } else { netpulse_model::Outcome::Unknown };
    Done {
        results: None,
        error: Some(netpulse_model::plugin::WireError { code, message: failure.message.clone() }),
        outcome: changes.then_some(outcome),
        usable: Some(failure.status == 400),
        untouched: Some(early),
    }
}
