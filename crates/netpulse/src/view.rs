//! A job as a person reads it.

use netpulse_model::ErrorCode;
use serde_json::Value;

use crate::exit::Exit;
use crate::ui::{Text, Tone, Ui, plain, seconds, short, tone_of};

/// A field's text; empty when it is not there.
pub fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The columns of a list of jobs.
pub const JOB_COLUMNS: &[&str] = &["ID", "STATUS", "DEVICE", "COMMAND", "WAITED", "RAN", "CREATED", "ERROR"];

/// A job as a row under [`JOB_COLUMNS`].
pub fn job_row(job: &Value) -> Vec<Text> {
    let status = text(job, "status");
    let number = |key: &str| job.get(key).and_then(Value::as_f64).map(seconds).unwrap_or_default();
    vec![
        text(job, "id").into(),
        Text(status.to_owned(), tone_of(status)),
        device(job).into(),
        short(&commands(job).join("; "), 40).into(),
        number("queue_time").into(),
        number("duration").into(),
        Text(moment(text(job, "created_at")), Tone::Dim),
        Text(short(&error_of(job).map(|(what, _)| what).unwrap_or_default(), 60), Tone::Bad),
    ]
}

/// The device of a job: its own name with the port where the queue has one.
pub fn device(job: &Value) -> String {
    match text(job, "queue").strip_prefix("HostQ_") {
        Some(device) => device.to_owned(),
        None => text(job, "device_name").to_owned(),
    }
}

/// The commands or lines of a job.
pub fn commands(job: &Value) -> Vec<String> {
    match job.get("command") {
        Some(Value::Array(items)) => items.iter().map(plain).collect(),
        Some(Value::String(text)) => vec![text.clone()],
        _ => Vec::new(),
    }
}

/// A timestamp without its fraction and zone, as long as that is UTC.
pub fn moment(at: &str) -> String {
    match at.split_once('T') {
        Some((date, time)) => {
            let clock = time.get(..8).unwrap_or(time);
            let zone = time.find(['+', '-', 'Z']).map(|i| &time[i..]).unwrap_or_default();
            let zone = if ["Z", "+00:00"].contains(&zone) { "Z" } else { zone };
            format!("{date} {clock}{zone}")
        }
        None => at.to_owned(),
    }
}

/// Why a job failed: the sentence and its code.
pub fn error_of(job: &Value) -> Option<(String, String)> {
    let error = job.get("result")?.get("error")?.as_object()?;
    let part = |key: &str| error.get(key).map(plain).unwrap_or_default();
    Some((part("message"), part("type")))
}

/// What to do about an error code, if the catalogue knows it.
pub fn advice(code: &str) -> Option<String> {
    let known = ErrorCode::ALL.iter().find(|known| known.as_str() == code)?;
    Some(known.explain().split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The exit code that a job in its final status means.
pub fn exit_of(job: &Value) -> Exit {
    if text(job, "status") == "finished" { Exit::Ok } else { Exit::JobFailed }
}

/// The per-line results.
pub fn results(job: &Value) -> &[Value] {
    job.get("result").and_then(|r| r.get("retval")).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Prints one line's result: the command on standard error, what the device said on standard output.
pub fn print_result(ui: &Ui, index: usize, total: usize, result: &Value) {
    let count = if total > 1 { format!("[{}/{total}] ", index + 1) } else { String::new() };
    ui.note_toned(&format!("{count}{}", text(result, "command")), Tone::Strong);
    match result.get("parsed").filter(|parsed| !parsed.is_null()) {
        Some(parsed) => print_value(ui, parsed),
        None => {
            let output = result.get("stdout").unwrap_or(&Value::Null);
            match output {
                Value::String(text) if text.is_empty() => {}
                Value::String(text) => ui.line(text.trim_end_matches(['\r', '\n'])),
                Value::Null => {}
                other => print_value(ui, other),
            }
        }
    }
    let (said, status) =
        (text(result, "stderr"), result.get("exit_status").and_then(Value::as_i64).unwrap_or(0));
    if status != 0 {
        let said = if said.is_empty() { "refused" } else { said };
        ui.note_toned(&format!("exit status {status}: {said}"), Tone::Bad);
    } else if !said.is_empty() {
        ui.note(said);
    }
    if let Some(warnings) = result.get("metadata").and_then(|m| m.get("warnings")).and_then(Value::as_array) {
        warnings.iter().for_each(|warning| ui.warn(&plain(warning)));
    }
}

/// Prints structured data: a list of flat objects as a table, all else as JSON.
pub fn print_value(ui: &Ui, value: &Value) {
    let flat =
        |v: &Value| !v.is_object() && !v.as_array().is_some_and(|items| items.iter().any(Value::is_object));
    if let Some(rows) = value.as_array().filter(|rows| !rows.is_empty()) {
        let maps: Vec<_> = rows.iter().filter_map(Value::as_object).collect();
        if maps.len() == rows.len() && maps.iter().all(|map| map.values().all(flat)) {
            let mut columns: Vec<&str> = Vec::new();
            for key in maps.iter().flat_map(|map| map.keys()) {
                if !columns.contains(&key.as_str()) {
                    columns.push(key);
                }
            }
            let cell = |value: Option<&Value>| match value {
                Some(Value::Array(items)) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
                Some(value) => plain(value),
                None => String::new(),
            };
            let rows = maps
                .iter()
                .map(|map| columns.iter().map(|key| cell(map.get(*key)).into()).collect())
                .collect();
            ui.table(&columns, rows);
            return;
        }
    }
    ui.line(&serde_json::to_string_pretty(value).unwrap_or_default());
}

/// Prints how a job ended: on standard error, since it is about the result.
pub fn print_end(ui: &Ui, job: &Value) {
    let status = text(job, "status");
    let outcome = job.get("result").map(|r| text(r, "outcome")).unwrap_or_default();
    let outcome =
        if outcome.is_empty() { String::new() } else { format!(", outcome: {}", outcome.replace('_', " ")) };
    let ran = job
        .get("duration")
        .and_then(Value::as_f64)
        .map(|d| format!(" in {}", seconds(d)))
        .unwrap_or_default();
    ui.note_toned(&format!("{status}{ran}{outcome} (job {})", text(job, "id")), tone_of(status));
    if let Some((message, code)) = error_of(job) {
        ui.failure(&crate::exit::Failure {
            hint: advice(&code),
            ..crate::exit::Failure::new(Exit::JobFailed, code, message)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_job_is_one_row() {
        let job = json!({"id": "6c0e", "status": "failed", "queue": "HostQ_192.0.2.1:2222", "device_name": "192.0.2.1",
            "command": ["show clock", "show version"], "queue_time": 0.002, "duration": 1.25,
            "created_at": "2026-02-03T04:05:06.789012+00:00",
            "result": {"type": 2, "retval": null, "error": {"type": "connect_failed", "message": "no answer"}}});
        let row: Vec<String> = job_row(&job).into_iter().map(|cell| cell.0).collect();
        assert_eq!(
            row,
            [
                "6c0e",
                "failed",
                "192.0.2.1:2222",
                "show clock; show version",
                "2 ms",
                "1.2 s",
                "2026-02-03 04:05:06Z",
                "no answer"
            ]
        );
        assert_eq!(exit_of(&job), Exit::JobFailed);
        assert!(advice("connect_failed").unwrap().contains("firewall"));
    }

    #[test]
    fn zones_other_than_utc_are_kept() {
        assert_eq!(moment("2026-02-03T04:05:06.789012+08:00"), "2026-02-03 04:05:06+08:00");
        assert_eq!(moment("?"), "?");
    }
}
