//! `netpulse webhook-dev`: a receiver to see webhooks arrive.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use clap::Args;
use netpulse_model::Timestamp;
use netpulse_webhook::{SIGNATURE, sign};
use serde_json::{Value, json};

use crate::exit::{Exit, Failure, Outcome};
use crate::stop::Stop;
use crate::ui::{Format, Tone, Ui, short, tone_of};

/// The largest message that is taken, bytes.
const MOST_BODY: usize = 256 << 20;
/// Seconds that a signature is good for.
const FRESH: i64 = 300;

/// Receive webhooks and show them, until Ctrl-C
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse webhook-dev
  netpulse webhook-dev --secret whsec --full
  netpulse webhook-dev --fail-every 2 --delay 0.5
  curl -s http://127.0.0.1:8888/messages

Give its address as the request's webhook: {\"webhook\": {\"url\": \"http://127.0.0.1:8888/webhook\"}}. The
server calls loopback addresses only if webhook.allow_private lists 127.0.0.1 (`netpulse demo` does).

  any method /webhook     receives a message        GET  /webhook/status  that it runs, and since when
  GET  /messages          what came, newest first   GET  /stats           counts
  GET  /export            all of it as a file       POST, DELETE /clear   forgets all
  GET  /health            ok")]
pub struct WebhookDevArgs {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one
    #[arg(short, long, default_value_t = 8888)]
    port: u16,
    /// Check signatures with this key: a message without a valid one is answered with 401
    #[arg(long, value_name = "KEY", env = "NETPULSE_WEBHOOK__SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// Answer every such message with 500, to see it come again
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    fail_every: Option<u64>,
    /// Seconds to wait before each answer
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    delay: f64,
    /// Messages kept
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    keep: usize,
    /// Show each message whole
    #[arg(long)]
    full: bool,
    /// Show nothing
    #[arg(short, long)]
    quiet: bool,
}

struct Receiver {
    args: WebhookDevArgs,
    ui: Ui,
    port: u16,
    since: Instant,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    messages: VecDeque<Value>,
    total: u64,
    answers: BTreeMap<String, u64>,
    events: BTreeMap<String, u64>,
    statuses: BTreeMap<String, u64>,
    /// Times that each delivery was answered with success.
    arrived: HashMap<String, u64>,
    last: Option<Timestamp>,
}

pub fn run(args: WebhookDevArgs, ui: &Ui) -> Outcome {
    if !(0.0..=3600.0).contains(&args.delay) {
        return Err(Failure::usage("--delay takes 0 to 3600 seconds"));
    }
    let ui = *ui;
    crate::block_on(async move {
        let mut stop = Stop::listen()?;
        let at = (args.host, args.port);
        let listener = tokio::net::TcpListener::bind(at).await.map_err(|error| {
            Failure::local(format!("cannot listen on {}:{}: {error}", at.0, at.1))
                .hint("another program may listen there: choose a --port")
        })?;
        let address = listener.local_addr().map_err(|e| Failure::local(format!("no address: {e}")))?;
        let receiver = Arc::new(Receiver {
            args,
            ui,
            port: address.port(),
            since: Instant::now(),
            kept: Mutex::default(),
        });
        ui.note(&format!("Receiving webhooks at http://{address}/webhook; Ctrl-C ends."));
        let served = axum::serve(listener, router(receiver)).into_future();
        tokio::select! {
            () = stop.asked() => Ok(Exit::Ok),
            ended = served => match ended {
                Ok(()) => Ok(Exit::Ok),
                Err(error) => Err(Failure::local(format!("the receiver ended: {error}"))),
            },
        }
    })
}

fn router(receiver: Arc<Receiver>) -> Router {
    Router::new()
        .route("/webhook", any(receive))
        .route("/webhook/status", get(status))
        .route("/webhook/{*rest}", any(receive))
        .route("/messages", get(messages))
        .route("/stats", get(stats))
        .route("/export", get(export))
        .route("/clear", axum::routing::post(clear).delete(clear))
        .route("/health", get(async || Json(json!({"status": "ok"}))))
        .layer(DefaultBodyLimit::max(MOST_BODY))
        .with_state(receiver)
}

impl Receiver {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `valid`, `missing`, `wrong` or `too old`; none when no key was given.
    fn signature(&self, headers: &HeaderMap, body: &[u8]) -> Option<&'static str> {
        let secret = self.args.secret.as_ref()?;
        let Some(given) = headers.get(SIGNATURE).and_then(|value| value.to_str().ok()) else {
            return Some("missing");
        };
        let seconds = given.strip_prefix("t=").and_then(|rest| rest.split(',').next()?.parse::<i64>().ok());
        Some(match seconds {
            Some(seconds) if sign(secret, seconds, body) == given => {
                let age = Timestamp::now().0 / 1_000_000 - seconds;
                if (-FRESH..=FRESH).contains(&age) { "valid" } else { "too old" }
            }
            _ => "wrong",
        })
    }

    fn show(&self, message: &Value, failed: bool) {
        if self.args.quiet {
            return;
        }
        if self.ui.format != Format::Table {
            if let Err(failure) = self.ui.record(message) {
                self.ui.failure(&failure);
            }
            return;
        }
        let payload = &message["payload"];
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let clock = text(&message["received_at"]);
        let status = text(&payload["status"]);
        let command =
            payload["command"].as_array().and_then(|all| all.first()).map_or_else(String::new, text);
        let took = payload["duration"].as_f64().map_or_else(String::new, |s| format!(" in {s:.2} s"));
        let attempt = text(&message["attempt"]);
        let attempt =
            if attempt == "1" || attempt == "-" { String::new() } else { format!(", attempt {attempt}") };
        let signed = message["signature"].as_str().map_or_else(String::new, |s| format!(", signature {s}"));
        let answer = if failed { format!(", answered {}", message["answered"]) } else { String::new() };
        let line = format!(
            "{}  {:<14} {:<9} {:<18} {}{took}{attempt}{signed}{answer}",
            clock.get(11..19).unwrap_or(&clock),
            text(&payload["event_type"]),
            status,
            text(&payload["device_name"]),
            short(&command, 40),
        );
        self.ui.toned(line.trim_end(), if failed { Tone::Bad } else { tone_of(&status) });
        if self.args.full
            && let Ok(whole) = serde_json::to_string_pretty(payload)
        {
            self.ui.line(&whole);
        }
    }
}

async fn receive(
    State(receiver): State<Arc<Receiver>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let received_at = Timestamp::now();
    if receiver.args.delay > 0.0 {
        tokio::time::sleep(Duration::from_secs_f64(receiver.args.delay)).await;
    }
    let payload: Value = serde_json::from_slice(&body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
    let one = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let signature = receiver.signature(&headers, &body);
    let delivery = one("x-netpulse-delivery");
    let shown: BTreeMap<String, String> = headers
        .iter()
        .map(|(name, value)| {
            let secret = matches!(*name, header::AUTHORIZATION | header::COOKIE);
            let text = if secret {
                netpulse_model::secret::MASK.into()
            } else {
                String::from_utf8_lossy(value.as_bytes())
            };
            (name.to_string(), text.into_owned())
        })
        .collect();
    let mut kept = receiver.kept();
    kept.total += 1;
    let on_purpose = receiver.args.fail_every.is_some_and(|every| kept.total % every == 0);
    let answer = match signature {
        Some("valid") | None if on_purpose => StatusCode::INTERNAL_SERVER_ERROR,
        Some("valid") | None => StatusCode::OK,
        Some(_) => StatusCode::UNAUTHORIZED,
    };
    let message = json!({
        "number": kept.total,
        "received_at": received_at,
        "delivery": delivery,
        "attempt": one("x-netpulse-attempt"),
        "method": method.as_str(),
        "path": uri.path_and_query().map(ToString::to_string),
        "headers": shown,
        "signature": signature,
        "answered": answer.as_u16(),
        "payload": payload,
    });
    let word = |key: &str| message["payload"][key].as_str().unwrap_or("none").to_owned();
    *kept.answers.entry(answer.as_u16().to_string()).or_default() += 1;
    *kept.events.entry(word("event_type")).or_default() += 1;
    *kept.statuses.entry(word("status")).or_default() += 1;
    if let (true, Some(delivery)) = (answer.is_success(), delivery) {
        *kept.arrived.entry(delivery).or_default() += 1;
    }
    kept.last = Some(received_at);
    if receiver.args.keep > 0 {
        while kept.messages.len() >= receiver.args.keep {
            kept.messages.pop_front();
        }
        kept.messages.push_back(message.clone());
    }
    drop(kept);
    receiver.show(&message, !answer.is_success());
    let word = if answer.is_success() { "received" } else { "refused" };
    (answer, Json(json!({"status": word, "number": message["number"]}))).into_response()
}

async fn status(State(receiver): State<Arc<Receiver>>) -> Json<Value> {
    let kept = receiver.kept();
    Json(json!({
        "status": "running",
        "port": receiver.port,
        "uptime_seconds": receiver.since.elapsed().as_secs(),
        "total_messages": kept.total,
        "kept_messages": kept.messages.len(),
        "last_message_at": kept.last,
    }))
}

async fn messages(
    State(receiver): State<Arc<Receiver>>,
    Query(query): Query<HashMap<String, String>>,
) -> Json<Value> {
    let number = |key: &str| query.get(key).and_then(|text| text.parse::<usize>().ok());
    let kept = receiver.kept();
    let page: Vec<&Value> = kept
        .messages
        .iter()
        .rev()
        .skip(number("offset").unwrap_or(0))
        .take(number("limit").unwrap_or(usize::MAX))
        .collect();
    Json(json!({"total": kept.total, "count": page.len(), "messages": page}))
}

async fn stats(State(receiver): State<Arc<Receiver>>) -> Json<Value> {
    let kept = receiver.kept();
    Json(json!({
        "total": kept.total,
        "answers": kept.answers,
        "events": kept.events,
        "statuses": kept.statuses,
        // Told apart by their delivery id: what came again after it had been answered with success.
        "deliveries": kept.arrived.len(),
        "repeated": kept.arrived.values().map(|times| times - 1).sum::<u64>(),
        "last_message_at": kept.last,
    }))
}

async fn export(State(receiver): State<Arc<Receiver>>) -> Response {
    let messages: Vec<Value> = receiver.kept().messages.iter().cloned().collect();
    let name = [(header::CONTENT_DISPOSITION, "attachment; filename=\"webhooks.json\"")];
    (name, Json(messages)).into_response()
}

async fn clear(State(receiver): State<Arc<Receiver>>) -> Json<Value> {
    let kept = std::mem::take(&mut *receiver.kept());
    Json(json!({"status": "cleared", "cleared": kept.messages.len()}))
}
