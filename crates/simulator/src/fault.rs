//! What can go wrong on a device, switched on and off at run time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Everything that one device does wrong. The default does nothing wrong.
///
/// Times are milliseconds. Texts in `on_*` fields are matched as a substring of the line received.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Before every answer.
    pub latency_ms: u64,
    /// A random addition to `latency_ms`, up to this.
    pub jitter_ms: u64,
    /// Between the echoes of typed bytes.
    pub slow_echo_ms: u64,
    /// A log message (syslog on the VTY) is written into every n-th answer: between output and prompt and, when
    /// the output has more than one line, inside it. 0 is never.
    pub junk_every: u32,
    /// The message; the platform's own when empty.
    pub junk_text: String,
    /// Raw bytes that are no UTF-8 and NULs go in front of every prompt.
    pub junk_bytes: bool,
    /// Everything is sent in packets of this many bytes; 0 is as it comes.
    pub split: usize,
    /// The connection is cut when this many bytes of a line have been received; 0 is never.
    pub drop_mid_line: usize,
    /// The connection is cut in the middle of the answer to a line with this text.
    pub drop_mid_answer: String,
    /// The connection is cut when a line with this text was received, before it is carried out.
    pub drop_before: String,
    /// The connection is cut when a line with this text was carried out, before any answer.
    pub drop_after: String,
    /// The connection is cut after this many lines of one session; 0 is never.
    pub drop_after_lines: u64,
    /// Cuts happen this often and then no more; 0 is without end.
    pub drop_times: u32,
    /// Every login is turned away.
    pub refuse_login: bool,
    /// Before a login is answered.
    pub slow_login_ms: u64,
    /// A pager that asks for more for ever; its prompt comes back at every key.
    pub stuck_pager: bool,
    /// The prompt becomes this text after `wrong_prompt_after` lines.
    pub wrong_prompt: String,
    /// Lines before the prompt changes.
    pub wrong_prompt_after: u64,
    /// A line with this text is answered without end.
    pub flood_on: String,
    /// A line with this text is never answered.
    pub hang_on: String,
    /// Connections are accepted and nothing is ever said.
    pub half_open: bool,
    /// Typed characters do not come back.
    pub echo_off: bool,
    /// Random bytes come instead of the SSH or Telnet greeting.
    pub garbage: bool,
    /// More sessions than this at one time are turned away; 0 is without limit.
    pub vty_limit: usize,
    /// Counted up, the device has another host key.
    pub host_key: u32,
    /// Makes chance repeatable.
    pub seed: u64,
}

impl Faults {
    /// Reads `name=value,name=value`; a name alone switches on. Times may carry `ms` or `s`.
    ///
    /// # Errors
    /// A sentence that names the word and what would be right.
    pub fn parse(text: &str) -> Result<Faults, String> {
        let mut map = serde_json::Map::new();
        let known = serde_json::to_value(Faults::default()).map_err(|e| e.to_string())?;
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, "true"));
            let name = name.trim().replace('-', "_");
            let with_unit = format!("{name}_ms");
            let (name, model) = match (known.get(&name), known.get(&with_unit)) {
                (Some(model), _) => (name, model),
                (None, Some(model)) => (with_unit, model),
                (None, None) => {
                    let names: Vec<&str> =
                        known.as_object().map(|o| o.keys().map(String::as_str).collect()).unwrap_or_default();
                    return Err(format!("there is no fault '{name}'; known are: {}", names.join(", ")));
                }
            };
            let bad = |want: &str| format!("fault '{name}' wants {want}, not '{value}'");
            let value = if model.is_boolean() {
                serde_json::Value::Bool(match value {
                    "true" | "on" | "yes" | "1" => true,
                    "false" | "off" | "no" | "0" => false,
                    _ => return Err(bad("on or off")),
                })
            } else if model.is_number() {
                let number = if let Some(ms) = value.strip_suffix("ms") {
                    ms.parse::<u64>().ok()
                } else if let Some(s) = value.strip_suffix('s').filter(|_| name.ends_with("_ms")) {
                    s.parse::<f64>()
                        .ok()
                        .filter(|s| *s >= 0.0)
                        .map(|s| Duration::from_secs_f64(s.min(86_400.0)).as_millis() as u64)
                } else if value == "true" {
                    Some(1)
                } else {
                    value.parse::<u64>().ok()
                };
                serde_json::Value::from(number.ok_or_else(|| bad("a number"))?)
            } else {
                serde_json::Value::from(value)
            };
            map.insert(name, value);
        }
        serde_json::from_value(serde_json::Value::Object(map)).map_err(|e| format!("faults '{text}': {e}"))
    }

    /// True when nothing is wrong, so that the quick path may be taken.
    pub fn none(&self) -> bool {
        *self == Faults { seed: self.seed, ..Faults::default() }
    }
}
