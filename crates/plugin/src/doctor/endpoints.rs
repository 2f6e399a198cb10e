//! What a running plugin answers.

use std::time::{Duration, Instant};

use hyper::Method;
use netpulse_model::plugin::{Capabilities, Capability, Kind, header};
use netpulse_model::secret;
use serde_json::{Map, Value, json};

use super::Report;
use super::raw::{self, Raw};
use crate::adapt::gather::from as gather;
use crate::host::start::Start;
use crate::host::wire::{CallError, Location};

/// For an answer to an example.
const EXAMPLE: Duration = Duration::from_secs(20);

/// A request as the host makes it, by hand.
async fn ask(start: &Start, method: &str, path: &str, body: &str) -> Result<Raw, String> {
    let token = match &start.location {
        Location::Tcp(_, token) => token.to_string(),
        Location::Unix(_) => String::new(),
    };
    let mut headers =
        vec![(header::START, start.id.as_str()), (header::REQUEST, "424242"), (header::TIMEOUT, "10.000")];
    if !token.is_empty() {
        headers.push((header::TOKEN, token.as_str()));
    }
    let answer = raw::request(&start.location, method, path, &headers, body).await?;
    for (name, sent) in [(header::START, start.id.as_str()), (header::REQUEST, "424242")] {
        if answer.header(name) != sent {
            return Err(format!(
                "the answer to {method} {path} ({}) does not carry `{name}: {sent}` (3.4)",
                answer.status
            ));
        }
    }
    Ok(answer)
}

fn expect(answer: Result<Raw, String>, good: impl Fn(u16) -> bool, wanted: &str) -> Result<String, String> {
    match answer {
        Ok(answer) if good(answer.status) => Ok(answer.shown()),
        Ok(answer) => Err(format!("answered {}; {wanted} is right", answer.shown())),
        Err(why) => Err(why),
    }
}

/// Checks every endpoint of a start.
pub(super) async fn examine(start: &Start, capabilities: &Capabilities, report: &mut Report) {
    general(start, report).await;
    for capability in &capabilities.capabilities {
        let Ok(kind) = capability.kind.parse::<Kind>() else { continue };
        let several = capabilities.capabilities.iter().filter(|c| c.kind == capability.kind).count() > 1;
        for path in paths(kind, capability) {
            endpoint(start, capability, path, several, report).await;
        }
        if kind == Kind::Driver {
            session(start, capability, report).await;
        }
    }
}

async fn general(start: &Start, report: &mut Report) {
    let health = ask(start, "GET", "/healthz", "").await;
    report.must("2.5", "GET /healthz answers 200", expect(health, |s| s == 200, "200"));
    report.must(
        "2.5",
        "HEAD /healthz answers 200",
        expect(ask(start, "HEAD", "/healthz", "").await, |s| s == 200, "200"),
    );
    report.must(
        "2.5",
        "POST /healthz answers 405",
        expect(ask(start, "POST", "/healthz", "{}").await, |s| s == 405, "405"),
    );
    let lost = ask(start, "POST", "/no/such/path", "{}").await;
    report.must("3.1", "an unknown path answers 404", expect(lost, |s| s == 404, "404"));
    let headers = [(header::START, "00000000-0000-0000-0000-000000000000"), (header::REQUEST, "1")];
    let other = raw::request(&start.location, "GET", "/healthz", &headers, "").await;
    report.should("3.3", "another start's request is refused", expect(other, |s| s == 409, "409"));
    let garbage = raw::send(&start.location, b"\x16\x03\x01 no HTTP at all\r\n\r\n").await;
    tracing::debug!(?garbage, "what the plugin says to garbage");
    let after = ask(start, "GET", "/healthz", "").await;
    report.must("3.8", "lives on after bytes that are no HTTP", expect(after, |s| s == 200, "200"));
    let deadline = Instant::now() + Duration::from_secs(5);
    let many = (0..16).map(|_| start.exchange(Method::GET, "/healthz", Vec::new(), deadline));
    let failed = futures_util::future::join_all(many).await.into_iter().find_map(Result::err);
    let result = failed.map_or_else(|| Ok("16".to_owned()), |error| Err(error.reason()));
    report.must("3.1", "serves several connections at a time", result);
}

/// The endpoints that a capability has.
fn paths(kind: Kind, capability: &Capability) -> Vec<&'static str> {
    match kind {
        Kind::Driver => {
            let mut paths = vec!["/driver/connect", "/driver/send", "/driver/disconnect"];
            let more = [
                ("config", "/driver/config"),
                ("keepalive", "/driver/alive"),
                ("test", "/driver/test"),
                ("validate", "/driver/validate"),
                ("stream", "/driver/leave"),
                ("detached", "/driver/detached/launch"),
                ("detached", "/driver/detached/query"),
                ("detached", "/driver/detached/kill"),
                ("detached", "/driver/detached/list"),
            ];
            paths.extend(
                more.into_iter().filter(|(feature, _)| capability.has(feature)).map(|(_, path)| path),
            );
            paths
        }
        Kind::TemplateRenderer => vec!["/template/render"],
        Kind::TemplateParser => vec!["/template/parse"],
        Kind::Scheduler => vec!["/scheduler/node_select", "/scheduler/batch_node_select"],
        Kind::Webhook if capability.has("validate") => vec!["/webhook/call", "/webhook/validate"],
        Kind::Webhook => vec!["/webhook/call"],
        Kind::Credential => vec!["/credential/get", "/credential/validate"],
        Kind::Provider => vec!["/provider/gather"],
        Kind::Input => vec!["/input/process"],
        Kind::Assistant => vec!["/assistant/process"],
        Kind::Check => vec!["/check/report"],
        Kind::Output => vec!["/output/process"],
        Kind::Platform => Vec::new(),
    }
}

/// Whether a body with a name alone lacks something. Elsewhere absent means `null`, or nothing.
fn needs_more(path: &str) -> bool {
    path.starts_with("/driver/")
        || path.starts_with("/scheduler/")
        || matches!(path, "/template/parse" | "/credential/get")
}

async fn endpoint(start: &Start, capability: &Capability, path: &str, several: bool, report: &mut Report) {
    let refused = |status: u16| (400..500).contains(&status) && status != 405;
    report.must(
        "3.1",
        format!("GET {path} answers 405"),
        expect(ask(start, "GET", path, "").await, |s| s == 405, "405"),
    );
    let broken = ask(start, "POST", path, "{\"name\":").await;
    report.must("3.6", format!("POST {path} refuses what is no JSON"), expect(broken, |s| s == 400, "400"));
    let list = ask(start, "POST", path, "[]").await;
    report.must("3.6", format!("POST {path} refuses what is no object"), expect(list, |s| s == 400, "400"));
    if path.ends_with("/process") {
        let wrong = ask(
            start,
            "POST",
            path,
            &json!({"name": capability.name, "settings": {}, "results": 7}).to_string(),
        )
        .await;
        report.must(
            "3.6",
            format!("POST {path} refuses results that are no list"),
            expect(wrong, |s| s == 400, "400"),
        );
    }
    if needs_more(path) {
        let empty = ask(start, "POST", path, &json!({"name": capability.name}).to_string()).await;
        let text = match &empty {
            Ok(answer) if answer.body.trim_start().starts_with('<') => {
                Err("the error is a page, not a sentence".to_owned())
            }
            _ => expect(empty, refused, "400 with a sentence"),
        };
        report.must("3.6", format!("POST {path} refuses a body without its fields"), text);
    }
    if several {
        let stranger = ask(start, "POST", path, &json!({"name": "no_such_name"}).to_string()).await;
        report.must(
            "3.7",
            format!("POST {path} refuses a name that it does not have"),
            expect(stranger, refused, "404"),
        );
    }
    // A session's calls need a session: they are made below.
    if matches!(
        path,
        "/driver/connect"
            | "/driver/send"
            | "/driver/config"
            | "/driver/alive"
            | "/driver/disconnect"
            | "/driver/leave"
    ) || path.starts_with("/driver/detached/")
    {
        return;
    }
    let check = format!("POST {path} answers its example with 200");
    let plain = || Map::from_iter([("name".to_owned(), Value::from(capability.name.as_str()))]);
    // Whether secrets can be given now needs no example, and may well be no.
    let body = example(capability, path).or_else(|| (path == "/credential/validate").then(plain));
    match body {
        Some(body) => {
            let result = good(start, path, &body).await.map(|mut answer| {
                if path == "/credential/get" {
                    hidden(&mut answer["values"]);
                }
                answer.to_string().chars().take(120).collect()
            });
            report.must("1.2", check, result);
            if path == "/provider/gather" {
                items(start, &body, report).await;
            }
        }
        None => report.skipped("1.2", check, "the capabilities have no example for it"),
    }
}

/// Values are secrets, whatever they are called.
fn hidden(values: &mut Value) {
    for value in values.as_object_mut().into_iter().flat_map(Map::values_mut) {
        *value = Value::from(secret::MASK);
    }
}

/// Whether a provider gives the same item by item as at once.
async fn items(start: &Start, body: &Map<String, Value>, report: &mut Report) {
    let check = "POST /provider/gather gives the same item by item";
    let whole = match good(start, "/provider/gather", body).await {
        Ok(whole) => whole["details"].as_array().map(Vec::len),
        Err(why) => return report.failed("4.6", check, why),
    };
    let mut count = 0;
    let text = serde_json::to_vec(body).unwrap_or_default();
    let gathered = gather(start, text, Instant::now() + EXAMPLE, &mut |_| count += 1).await;
    let result = match (gathered, whole) {
        (Err(error), _) => Err(error.reason()),
        (Ok(_), Some(whole)) if count > 0 && whole != count => {
            Err(format!("gave {count} items one by one and {whole} at once"))
        }
        (Ok(_), _) if count == 0 => Ok("it does not stream".to_owned()),
        (Ok(_), _) => Ok(format!("{count} items")),
    };
    report.must("4.6", check, result);
}

fn example(capability: &Capability, path: &str) -> Option<Map<String, Value>> {
    let mut body = capability.examples.get(path)?.as_object()?.clone();
    body.entry("name").or_insert_with(|| Value::from(capability.name.as_str()));
    Some(body)
}

async fn good(start: &Start, path: &str, body: &Map<String, Value>) -> Result<Value, String> {
    let text = serde_json::to_vec(body).unwrap_or_default();
    let answer = start.exchange(Method::POST, path, text, Instant::now() + EXAMPLE).await;
    let bytes = answer.map_err(|error: CallError| error.reason())?;
    serde_json::from_slice(&bytes).map_err(|e| format!("the answer is no JSON: {e}"))
}

/// A driver's session from its beginning to its end.
async fn session(start: &Start, capability: &Capability, report: &mut Report) {
    let check = "a session is opened, used and closed";
    let Some(connect) = example(capability, "/driver/connect") else {
        return report.skipped("4.1.1", check, "the capabilities have no example for /driver/connect");
    };
    let opened = match good(start, "/driver/connect", &connect).await {
        Ok(answer) => answer,
        Err(why) => return report.failed("4.1.1", "POST /driver/connect answers its example with 200", why),
    };
    let Some(id) = opened.get("session").and_then(Value::as_str).filter(|id| !id.is_empty()) else {
        return report.failed("4.1.1", "POST /driver/connect gives a session", format!("answered {opened}"));
    };
    report.passed("4.1.1", "POST /driver/connect gives a session", id);
    let with = |more: Value| {
        let mut body = Map::from_iter([
            ("name".to_owned(), Value::from(capability.name.as_str())),
            ("session".to_owned(), Value::from(id)),
        ]);
        body.extend(more.as_object().cloned().unwrap_or_default());
        body
    };
    if capability.has("keepalive") {
        let alive = good(start, "/driver/alive", &with(json!({}))).await;
        let alive = alive.and_then(|a| {
            if a["alive"] == json!(true) { Ok(String::new()) } else { Err(format!("answered {a}")) }
        });
        report.must("4.1.6", "the session is alive", alive);
    }
    for (path, items, clause) in [("/driver/send", "commands", "4.1.2"), ("/driver/config", "lines", "4.1.3")]
    {
        let check = format!("POST {path} gives one result per item");
        match example(capability, path) {
            None => report.skipped(clause, check, "the capabilities have no example for it"),
            Some(body) => {
                let count = body.get(items).and_then(Value::as_array).map_or(0, Vec::len);
                let mut body = body;
                body.extend(with(json!({"run": "doctor", "options": {}, "driver_args": {}})));
                let answer = good(start, path, &body).await.and_then(|answer| {
                    match answer.get("results").and_then(Value::as_array) {
                        Some(results)
                            if results.len() == count && results.iter().all(|r| r["command"].is_string()) =>
                        {
                            Ok(format!("{count}"))
                        }
                        _ => Err(format!("answered {answer}; {count} results with `command` are right")),
                    }
                });
                report.must(clause, check, answer);
            }
        }
    }
    if capability.has("stream") {
        stream(start, capability, with(json!({})), report).await;
    }
    if capability.has("detached") {
        detached(start, capability, with(json!({})), report).await;
    }
    let closed = good(start, "/driver/disconnect", &with(json!({}))).await.map(|_| String::new());
    report.must("4.1.5", "POST /driver/disconnect answers 200", closed);
    let twice = good(start, "/driver/disconnect", &with(json!({}))).await.map(|_| String::new());
    report.must("4.1.5", "disconnecting twice answers 200", twice);
    let body =
        Value::Object(with(json!({"run": "doctor2", "commands": ["x"], "options": {}, "driver_args": {}})))
            .to_string();
    let gone = ask(start, "POST", "/driver/send", &body).await;
    report.must("3.6", "a closed session answers 410", expect(gone, |s| s == 410, "410"));
}

/// Commands that go on without their session: listed, and launched where there is an example.
async fn detached(start: &Start, capability: &Capability, session: Map<String, Value>, report: &mut Report) {
    let task = "d0c70ba5e001";
    let with = |more: Value| {
        let mut body = session.clone();
        body.extend(more.as_object().cloned().unwrap_or_default());
        body
    };
    let list = good(start, "/driver/detached/list", &session).await.and_then(|answer| {
        let tasks =
            answer["tasks"].as_array().ok_or_else(|| format!("answered {answer}; `tasks` is a list"))?;
        Ok(format!("{} tasks", tasks.len()))
    });
    report.must("4.1.9", "POST /driver/detached/list gives a list", list);
    let unknown = Value::Object(with(json!({"task_id": "no-such-task", "offset": 0}))).to_string();
    let lost = ask(start, "POST", "/driver/detached/query", &unknown).await;
    report.must("4.1.9", "a task that is not known answers 404", expect(lost, |s| s == 404, "404"));
    let check = "a detached command is launched, told of and ended";
    let Some(example) = example(capability, "/driver/detached/launch") else {
        return report.skipped(
            "4.1.9",
            check,
            "the capabilities have no example for /driver/detached/launch",
        );
    };
    let mut launch = example;
    launch.extend(with(json!({"task_id": task, "job_id": null})));
    let life = async {
        let launched = good(start, "/driver/detached/launch", &launch).await?;
        if launched["task"]["task_id"] != task {
            return Err(format!("launch answered {launched}; the task `{task}` is right"));
        }
        let told =
            good(start, "/driver/detached/query", &with(json!({"task_id": task, "offset": 0}))).await?;
        if !told["output"].is_string() || !told["next_offset"].is_u64() || told["task"]["task_id"] != task {
            return Err(format!("query answered {told}"));
        }
        let ended = good(start, "/driver/detached/kill", &with(json!({"task_id": task}))).await?;
        if ended["killed"].is_boolean() { Ok(String::new()) } else { Err(format!("kill answered {ended}")) }
    };
    let life = life.await;
    report.must("4.1.9", check, life);
}

/// How long a plugin without leave is watched for sending all the same.
const WATCHED: Duration = Duration::from_millis(200);

/// Whether a streamed change waits for leave, line by line, and stops without it.
async fn stream(start: &Start, capability: &Capability, mut body: Map<String, Value>, report: &mut Report) {
    let check = "a streamed run sends no line without leave";
    let path = if capability.has("config") { "/driver/config" } else { "/driver/send" };
    let items = if capability.has("config") { "lines" } else { "commands" };
    let Some(first) = example(capability, path).and_then(|e| e.get(items)?.as_array()?.first().cloned())
    else {
        return report.skipped("4.1.4", check, format!("the capabilities have no example for {path}"));
    };
    let run = "doctor-stream";
    body.insert(items.to_owned(), json!([first, first]));
    body.extend(
        json!({"run": run, "options": {}, "driver_args": {}, "stream": true, "granted": 1})
            .as_object()
            .cloned()
            .unwrap_or_default(),
    );
    let result = streamed(start, path, &body, run).await;
    report.must("4.1.4", check, result);
}

async fn streamed(start: &Start, path: &str, body: &Map<String, Value>, run: &str) -> Result<String, String> {
    let deadline = Instant::now() + EXAMPLE;
    let text = serde_json::to_vec(body).unwrap_or_default();
    let opened = start.open(Method::POST, path, text, deadline, true).await;
    let (mut answer, _connection) = opened.map_err(|error| error.reason())?;
    if !answer.streamed {
        return Err("the answer is not application/x-ndjson".to_owned());
    }
    for wanted in [json!({"sending": 0}), json!({"result": {}}), json!({"sending": 1})] {
        let line = start
            .line(&mut answer)
            .await
            .map_err(|error| error.reason())?
            .ok_or("the stream ended before `done`")?;
        let line: Value = serde_json::from_slice(&line).map_err(|e| format!("a line is no JSON: {e}"))?;
        let key = wanted.as_object().and_then(|w| w.keys().next().cloned()).unwrap_or_default();
        if line.get(&key).is_none() || (key == "sending" && line != wanted) {
            return Err(format!("streamed {line} where {wanted} was due"));
        }
    }
    if let Ok(early) = tokio::time::timeout(WATCHED, start.line(&mut answer)).await {
        let early = early
            .ok()
            .flatten()
            .map(|line| String::from_utf8_lossy(&line).trim().to_owned())
            .unwrap_or_default();
        return Err(format!("went on without leave: {early}"));
    }
    let leave = Map::from_iter([
        ("name".to_owned(), body.get("name").cloned().unwrap_or_default()),
        ("run".to_owned(), Value::from(run)),
        ("index".to_owned(), Value::from(1)),
        ("leave".to_owned(), Value::from(false)),
    ]);
    good(start, "/driver/leave", &leave).await?;
    loop {
        let line = start
            .line(&mut answer)
            .await
            .map_err(|error| error.reason())?
            .ok_or("the stream ended without `done`")?;
        let line: Value = serde_json::from_slice(&line).map_err(|e| format!("a line is no JSON: {e}"))?;
        let Some(done) = line.get("done") else {
            let sent =
                line.get("result").is_some_and(|result| result["exit_status"].as_i64().unwrap_or(0) == 0);
            if sent {
                return Err("sent line 1 though leave was refused".to_owned());
            }
            continue;
        };
        let results = done["results"].as_array().cloned().unwrap_or_default();
        let accepted = results.iter().filter(|r| r["exit_status"].as_i64().unwrap_or(0) == 0).count();
        if accepted > 1 {
            return Err(format!("says that both lines were sent: {done}"));
        }
        if path == "/driver/config" && done["outcome"] == json!("applied") {
            return Err(format!("says that the whole change was applied: {done}"));
        }
        return Ok(format!("outcome {}", done["outcome"]));
    }
}
