//! Netmiko's argument names, read into what our engine knows.

use std::time::Duration;

use netpulse_model::fields::Fields;
use netpulse_model::{ConnectionArgs, FieldError};
use netpulse_session::cli::{CommandOptions, ConfigOptions};
use regex::bytes::{Regex, RegexBuilder};
use serde_json::{Map, Value};

/// Driver arguments of Netmiko that change nothing here: our engine waits for texts, not for
/// times, so there is nothing to tune.
const MEANINGLESS: &[&str] = &["delay_factor", "max_loops"];

/// What Netmiko knows for commands and configurations, beside the meaningless.
const COMMON: &[&str] =
    &["read_timeout", "strip_prompt", "strip_command", "cmd_verify", "delay_factor", "max_loops"];
/// For commands. `auto_find_prompt` and `normalize` are what our engine always does.
const COMMAND: &[&str] = &["expect_string", "auto_find_prompt", "normalize", "raise_parsing_error"];
/// For configurations.
const CONFIG: &[&str] = &[
    "exit_config_mode",
    "config_mode_command",
    "enter_config_mode",
    "error_pattern",
    "terminator",
    "bypass_commands",
];
/// Read by others in the early places.
const ELSEWHERE: &[&str] = &["save", "enable_mode"];
/// What asks for parsing; the worker reads it.
const PARSERS: &[&str] = &["use_textfsm", "textfsm_template", "use_ttp", "ttp_template", "use_genie"];

/// Which of the `driver_args` change nothing.
pub fn unused(driver_args: &Map<String, Value>, config: bool) -> Vec<String> {
    let (own, other, whose) = if config {
        (CONFIG, COMMAND, "it is for commands")
    } else {
        (COMMAND, CONFIG, "it is for `config`")
    };
    let known = [COMMON, own, PARSERS, ELSEWHERE].concat();
    // Clients send whole models: what is at its default asks for nothing.
    let idle = |key: &str| {
        let default = match key {
            "exit_config_mode" | "enter_config_mode" | "auto_find_prompt" | "normalize" => Value::Bool(true),
            "terminator" => Value::from("#"),
            _ => return false,
        };
        driver_args.get(key) == Some(&default)
    };
    let refused: Vec<(&str, &str)> = other.iter().map(|key| (*key, whose)).collect();
    let given: Map<String, Value> =
        driver_args.iter().filter(|(key, _)| !idle(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
    crate::unused::warnings(&given, "driver_args", &known, &refused)
}

/// What `driver_args` say for commands.
///
/// # Errors
/// Every wrong argument.
pub fn command_options(
    driver_args: &Map<String, Value>,
    connection: &ConnectionArgs,
) -> Result<CommandOptions, Vec<FieldError>> {
    read(driver_args, |f| {
        let defaults = CommandOptions::default();
        CommandOptions {
            expect: pattern(f, "expect_string"),
            read_timeout: read_timeout(f, connection).unwrap_or(defaults.read_timeout),
            strip_prompt: f.boolean("strip_prompt").unwrap_or(true),
            strip_command: f.boolean("strip_command").unwrap_or(true),
            ..defaults
        }
    })
}

/// What `driver_args` say for configuration, and what of it cannot be honoured.
///
/// # Errors
/// Every wrong argument.
pub fn config_options(
    driver_args: &Map<String, Value>,
    connection: &ConnectionArgs,
    save: bool,
) -> Result<(ConfigOptions, Vec<String>), Vec<FieldError>> {
    read(driver_args, |f| {
        let defaults = ConfigOptions::default();
        let mut warnings = unused(driver_args, true);
        if f.boolean("exit_config_mode") == Some(false) {
            warnings.push("`exit_config_mode` was not used: configuration mode is always left".to_owned());
        }
        if f.string("terminator").is_some_and(|t| t != "#") {
            warnings.push("`terminator` was not used: prompts are learnt".to_owned());
        }
        // The answers are judged line by line, so echo and prompt are never part of them.
        f.boolean("strip_prompt");
        f.boolean("strip_command");
        let options = ConfigOptions {
            read_timeout: read_timeout(f, connection).unwrap_or(defaults.read_timeout),
            errors: pattern(f, "error_pattern").map(|p| vec![p]),
            enter: f.string("config_mode_command").filter(|c| !c.is_empty()),
            enter_mode: f.boolean("enter_config_mode").unwrap_or(true),
            bypass: pattern(f, "bypass_commands"),
            save,
            ..defaults
        };
        (options, warnings)
    })
}

fn read<T>(
    driver_args: &Map<String, Value>,
    take: impl FnOnce(&mut Fields<'_>) -> T,
) -> Result<T, Vec<FieldError>> {
    let mut errors = Vec::new();
    let value = Value::Object(driver_args.clone());
    let taken = Fields::of(&value, vec![Value::from("driver_args")], &mut errors).map(|mut f| {
        for key in MEANINGLESS {
            f.number(key, 0.0, f64::MAX);
        }
        take(&mut f)
    });
    match taken {
        Some(taken) if errors.is_empty() => Ok(taken),
        _ => Err(errors),
    }
}

fn read_timeout(f: &mut Fields<'_>, connection: &ConnectionArgs) -> Option<Duration> {
    let own = f.number("read_timeout", 0.0, 86_400.0);
    let forced = connection
        .0
        .get("read_timeout_override")
        .and_then(Value::as_f64)
        .filter(|s| (0.0..=86_400.0).contains(s));
    // Netmiko waits for ever at 0; a job's own time limit is the end of that here.
    forced.or(own).map(|s| if s == 0.0 { Duration::from_secs(86_400) } else { Duration::from_secs_f64(s) })
}

/// A Python pattern as ours: `\Z` is `\z` here.
fn pattern(f: &mut Fields<'_>, key: &str) -> Option<Regex> {
    let text = f.string(key).filter(|t| !t.is_empty())?;
    let ours = text.replace(r"\Z", r"\z");
    match RegexBuilder::new(&ours)
        .unicode(false)
        .case_insensitive(key == "error_pattern")
        .size_limit(1 << 20)
        .build()
    {
        Ok(regex) => Some(regex),
        Err(error) => {
            let why = match error {
                regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
                other => other.to_string().lines().last().unwrap_or_default().trim().to_owned(),
            };
            f.error(
                key,
                "value_error",
                format!("Input should be a regular expression without look-around: {why}"),
            );
            None
        }
    }
}

/// What the connection arguments say beyond reaching the device.
#[derive(Debug, Clone)]
pub struct SessionArgs {
    /// The secret of the privileged mode.
    pub secret: Option<String>,
    /// From connected to the first prompt.
    pub login_timeout: Duration,
    /// Between signs of life.
    pub keepalive: Option<Duration>,
    /// What ends a line, when the client says.
    pub terminator: Option<String>,
}

/// Reads them.
///
/// # Errors
/// Every wrong argument.
pub fn session_args(args: &ConnectionArgs) -> Result<SessionArgs, Vec<FieldError>> {
    let mut errors = Vec::new();
    let value = Value::Object(args.0.clone());
    let taken = Fields::of(&value, vec![Value::from("connection_args")], &mut errors).map(|mut f| {
        if f.get("session_log").is_some_and(|v| !matches!(v, Value::Bool(false))) {
            f.error(
                "session_log",
                "value_error",
                "Session logs cannot be written to a file of the server; leave `session_log` out",
            );
        }
        SessionArgs {
            secret: f.string("secret").filter(|s| !s.is_empty()),
            login_timeout: f
                .number("session_timeout", 0.0, 3600.0)
                .filter(|s| *s > 0.0)
                .map_or(Duration::from_secs(60), Duration::from_secs_f64),
            keepalive: f.number("keepalive", 0.0, 86_400.0).filter(|s| *s > 0.0).map(Duration::from_secs_f64),
            terminator: f.string("default_enter").filter(|t| !t.is_empty()),
        }
    });
    match taken {
        Some(taken) if errors.is_empty() => Ok(taken),
        _ => Err(errors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn the_arguments_are_chosen_by_the_operation() {
        let none = ConnectionArgs::default();
        assert_eq!(command_options(&map(json!({})), &none).unwrap().read_timeout, Duration::from_secs(30));
        assert_eq!(
            config_options(&map(json!({})), &none, false).unwrap().0.read_timeout,
            Duration::from_secs(10)
        );
        let both = map(json!({"read_timeout": 3.5, "strip_prompt": false}));
        assert!(!command_options(&both, &none).unwrap().strip_prompt);
        assert_eq!(config_options(&both, &none, true).unwrap().0.read_timeout, Duration::from_millis(3500));
    }

    #[test]
    fn promise_15_a_wrong_driver_argument_is_named() {
        let none = ConnectionArgs::default();
        let wrong = map(json!({"read_timeout": "soon", "expect_string": "(?=x)", "strip_prompt": 7}));
        let text = netpulse_model::fields::sentence(&command_options(&wrong, &none).unwrap_err());
        for part in [
            "driver_args.read_timeout",
            "driver_args.expect_string",
            "look-around",
            "driver_args.strip_prompt",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let (_, warnings) =
            config_options(&map(json!({"exit_config_mode": false, "terminator": ">"})), &none, false)
                .unwrap();
        assert_eq!(warnings.len(), 2);
    }

    #[test]
    fn s4_a_session_log_is_refused() {
        let args = ConnectionArgs(map(json!({"session_log": "/etc/cron.d/x"})));
        let errors = session_args(&args).unwrap_err();
        assert_eq!(errors[0].path(), "connection_args.session_log");
        assert!(session_args(&ConnectionArgs(map(json!({"session_log": null})))).is_ok());
    }
}
