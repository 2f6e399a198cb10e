//! The command line: `capabilities`, and the three start forms.

use std::time::Duration;

use netpulse_model::plugin::StartConfig;
use serde_json::Value;

/// What the program is asked to do.
#[derive(Debug)]
pub(crate) enum Asked {
    Capabilities,
    Serve(Box<StartConfig>),
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// What they should be.
pub(crate) fn read(arguments: &[String]) -> Result<Asked, String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let config = match words.as_slice() {
        ["capabilities"] => return Ok(Asked::Capabilities),
        ["server", config] | ["server", "--config", config] | ["--config", config] => config,
        _ => {
            return Err(
                "this is a NetPulse plugin: run it with `capabilities` to see what it is; NetPulse runs it \
                        with `server '<json>'`"
                    .to_owned(),
            );
        }
    };
    let config: StartConfig =
        serde_json::from_str(config).map_err(|e| format!("the start's configuration: {e}"))?;
    if config.kind != "unix" && config.kind != "tcp" {
        return Err(format!("`{}` is no way to connect: unix or tcp", config.kind));
    }
    if let Some(timeout) = &config.idle_timeout {
        duration(timeout)
            .ok_or_else(|| format!("idleTimeout: `{timeout}` is no duration (`90s`, `1h30m`)"))?;
    }
    Ok(Asked::Serve(Box::new(config)))
}

/// A duration text (`1h30m`, `1.5s`, `500ms`) or nanoseconds.
pub(crate) fn duration(value: &Value) -> Option<Duration> {
    let text = match value {
        Value::Number(nanoseconds) => return nanoseconds.as_u64().map(Duration::from_nanos),
        Value::String(text) => text.trim(),
        _ => return None,
    };
    if text.is_empty() {
        return None;
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match rest.get(..end)? {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        rest = rest.get(end..)?;
        total += number * unit;
    }
    Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_are_texts_or_nanoseconds() {
        for (value, seconds) in [
            (json!("90s"), 90.0),
            (json!("1h30m"), 5400.0),
            (json!("1.5s"), 1.5),
            (json!("500ms"), 0.5),
            (json!(3_600_000_000_000u64), 3600.0),
        ] {
            assert_eq!(duration(&value).map(|d| d.as_secs_f64()), Some(seconds), "{value}");
        }
        for bad in [json!(""), json!("1"), json!("1w"), json!("s"), json!(-1), json!(null)] {
            assert_eq!(duration(&bad), None, "{bad}");
        }
    }

    #[test]
    fn every_start_form_is_taken() {
        let config = r#"{"id":"a","type":"unix","location":"/tmp/a.sock","later":1}"#;
        for arguments in
            [vec!["server", config], vec!["server", "--config", config], vec!["--config", config]]
        {
            let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
            assert!(matches!(read(&arguments), Ok(Asked::Serve(_))), "{arguments:?}");
        }
        assert!(read(&[]).unwrap_err().contains("capabilities"));
        assert!(read(&["server".into(), "{".into()]).is_err());
    }
}
