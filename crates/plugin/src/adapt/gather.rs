//! Gathering from a provider that is a program of its own: item by item, if it likes to.

use std::time::Instant;

use hyper::Method;
use netpulse_model::plugin::Event;
use netpulse_model::secret;
use serde_json::Value;

use super::Plugin;
use crate::host::blame::Errand;
use crate::host::program::Unanswered;
use crate::host::start::Start;
use crate::host::wire::CallError;
use crate::kinds::PipelineResult;

const PATH: &str = "/provider/gather";

/// Asks, gives each item as it comes, and the result at the end.
pub(super) async fn gather(
    plugin: &Plugin,
    body: &Value,
    each: &mut (dyn FnMut(Value) + Send),
) -> Result<PipelineResult, CallError> {
    let program = &plugin.program;
    let errand = body.as_object().map(|body| Errand::request(PATH, body)).unwrap_or_default();
    program.admit(&errand)?;
    let _user = program.user();
    let deadline = plugin.deadline();
    let text = serde_json::to_vec(body).map_err(|e| CallError::NotSent(e.to_string()))?;
    let mut again = true;
    loop {
        let start = tokio::time::timeout_at(deadline.into(), program.running())
            .await
            .map_err(|_| CallError::NotSent("was not ready in time".to_owned()))??;
        start.voice.secrets.add(secret::collect(body));
        let unanswered = Unanswered::new(&start, program.ledger(), &errand);
        let gathered = from(&start, text.clone(), deadline, each).await;
        unanswered.settle(&gathered);
        match gathered {
            // It had ended idle under us: nothing was done.
            Err(CallError::NotSent(_)) if again && start.has_ended() => again = false,
            other => return other,
        }
    }
}

/// One question to this very start.
pub(crate) async fn from(
    start: &Start,
    body: Vec<u8>,
    deadline: Instant,
    each: &mut (dyn FnMut(Value) + Send),
) -> Result<PipelineResult, CallError> {
    let nonsense = |text: String| CallError::Nonsense(text);
    let (mut answer, returning) = start.open(Method::POST, PATH, body, deadline, true).await?;
    if !answer.streamed {
        let bytes = start.whole(&mut answer).await?;
        start.keep(returning);
        return serde_json::from_slice(&bytes).map_err(|e| {
            nonsense(format!("answered {PATH} with something else than the contract says: {e}"))
        });
    }
    let mut count = 0_u64;
    let done = loop {
        let Some(line) = start.line(&mut answer).await? else {
            return Err(nonsense(format!("ended its answer to {PATH} without `done` after {count} items")));
        };
        let line: Value = serde_json::from_slice(&line)
            .map_err(|e| nonsense(format!("streamed a line that is no JSON: {e}")))?;
        match read(line).map_err(nonsense)? {
            Line::Item(item) => {
                count += 1;
                each(item);
            }
            Line::Done(result) => break result,
            Line::Failed { status, text } => {
                let text = start.voice.secrets.clean(&text);
                return Err(CallError::Refused { status, code: None, text });
            }
        }
    };
    match start.line(&mut answer).await {
        Ok(None) => start.keep(returning),
        Ok(Some(_)) => return Err(nonsense("went on after `done`".to_owned())),
        // All was told; only the connection is lost.
        Err(error) => tracing::debug!(plugin = start.voice.id, "after `done`: {}", error.reason()),
    }
    if count > 0 && !empty(&done.details) {
        return Err(nonsense(format!("streamed {count} items and has `details` besides")));
    }
    Ok(done)
}

enum Line {
    Item(Value),
    Done(PipelineResult),
    Failed { status: u16, text: String },
}

/// One line. `done` is a result here, and not that of a driver's run.
fn read(mut line: Value) -> Result<Line, String> {
    let unknown = |e: serde_json::Error| format!("streamed a line that the contract does not know: {e}");
    if let Some(done) = line.get_mut("done").map(Value::take) {
        return serde_json::from_value(done).map(Line::Done).map_err(unknown);
    }
    match serde_json::from_value(line).map_err(unknown)? {
        Event::Item(item) => Ok(Line::Item(item)),
        Event::Error(broken) => {
            let status = broken.status.filter(|status| *status >= 400).unwrap_or(500);
            Ok(Line::Failed { status, text: broken.message })
        }
        _ => Err("streamed a line that only drivers do".to_owned()),
    }
}

fn empty(details: &Value) -> bool {
    match details {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}
