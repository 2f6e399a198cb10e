//! What only a plugin itself can say about a request, asked while its client waits: quickly, or not
//! at all.

use std::time::{Duration, Instant};

use netpulse_model::FieldError;
use parking_lot::Mutex;
use serde_json::Value;

use super::Plugin;
use crate::host::blame::Errand;
use crate::host::wire::CallError;

/// For the plugin to come up and answer.
const BOUND: Duration = Duration::from_secs(2);
/// After it did not, requests are taken without asking it for so long.
const SILENCE: Duration = Duration::from_secs(30);

/// Asks, unless the plugin did not answer a moment ago.
#[derive(Debug, Default)]
pub(super) struct Examiner {
    silent_until: Mutex<Option<Instant>>,
}

impl Examiner {
    /// What the plugin finds wrong: nothing, one mistake, or nothing because it cannot be asked.
    /// `fields` are those that its sentence may begin with; a sentence that names none is about `about`.
    pub(super) async fn ask(
        &self,
        plugin: &Plugin,
        path: &str,
        body: &Value,
        secrets: Vec<String>,
        errand: &Errand,
        (fields, about): (&[&str], &str),
    ) -> Vec<FieldError> {
        let now = Instant::now();
        if self.silent_until.lock().is_some_and(|until| until > now) {
            return Vec::new();
        }
        match plugin.program.call::<Value>(path, body, now + BOUND, secrets, errand).await {
            Ok(_) => Vec::new(),
            Err(CallError::Refused { status: 400, text, .. }) => vec![mistake(&text, fields, about)],
            Err(error) => {
                *self.silent_until.lock() = Some(Instant::now() + SILENCE);
                tracing::info!(
                    target: "plugin", plugin = plugin.id(),
                    "cannot be asked about requests now, which is left to the worker: it {}", error.reason()
                );
                Vec::new()
            }
        }
    }
}

/// A sentence that may begin with the path of its field.
fn mistake(text: &str, fields: &[&str], about: &str) -> FieldError {
    let named = text.split_once(": ").filter(|(path, _)| {
        let sound = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        };
        path.split('.').all(sound) && path.split('.').next().is_some_and(|first| fields.contains(&first))
    });
    match named {
        Some((path, said)) => FieldError::new(&path.split('.').collect::<Vec<_>>(), said),
        None if text.is_empty() => FieldError::new(&[about], "The plugin refuses this"),
        None => FieldError::new(&[about], text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_names_its_field_or_is_about_the_work() {
        let said = |text: &str| mistake(text, &["driver_args", "command"], "command").to_string();
        assert_eq!(said("driver_args.depth: too deep"), "driver_args.depth: too deep");
        assert_eq!(said("no such view: reload"), "command: no such view: reload");
        assert_eq!(said("reload: not here"), "command: reload: not here");
        assert_eq!(said(""), "command: The plugin refuses this");
    }
}
