//! The log: JSON lines on stderr, which the host turns into records with the plugin's id.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Writes one line. `fields` is an object, or `null`.
pub fn line(level: &str, message: &str, fields: &Value) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut record = json!({"time": now.as_secs_f64(), "level": level, "msg": message});
    if let (Value::Object(record), Value::Object(fields)) = (&mut record, fields) {
        for (key, value) in fields {
            record.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    let mut text = record.to_string();
    text.push('\n');
    // A host that does not read is gone.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// For whoever looks for a fault.
pub fn debug(message: &str) {
    line("debug", message, &Value::Null);
}

/// For the record.
pub fn info(message: &str) {
    line("info", message, &Value::Null);
}

/// Something that should be looked at.
pub fn warn(message: &str) {
    line("warn", message, &Value::Null);
}

/// Something that failed.
pub fn error(message: &str) {
    line("error", message, &Value::Null);
}
