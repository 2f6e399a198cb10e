//! The driver arguments of `paramiko` (upstream's names).

use std::time::Duration;

use netpulse_model::ExecutionRequest;
use netpulse_model::fields::{FieldError, Fields};
use secrecy::SecretString;
use serde_json::{Map, Value};

/// Driver arguments, read.
#[derive(Debug, Default)]
pub(super) struct Args {
    /// For each command.
    pub(super) timeout: Option<Duration>,
    pub(super) get_pty: bool,
    pub(super) environment: Vec<(String, String)>,
    pub(super) working_directory: Option<String>,
    pub(super) sudo: bool,
    pub(super) sudo_password: Option<SecretString>,
    /// For changes: leave the rest when a line fails.
    pub(super) stop_on_error: bool,
}

/// The names that change something, and those that have nothing to change here.
const KNOWN: &[&str] = &[
    "timeout",
    "get_pty",
    "environment",
    "working_directory",
    "sudo",
    "sudo_password",
    "stop_on_error",
    "bufsize",
    "script_interpreter",
    "save",
    "enable_mode",
];

/// Which parts of a request change nothing.
pub(super) fn unused(request: &ExecutionRequest) -> Vec<String> {
    let why = "it is not available here";
    let refused: Vec<(&str, &str)> = ["expect_map", "script_content", "list_active_detached_tasks"]
        .iter()
        .map(|key| (*key, why))
        .collect();
    let mut said = crate::unused::warnings(&request.driver_args, "driver_args", KNOWN, &refused);
    for (key, why) in [
        ("enable_mode", "servers have no privileged mode; use `driver_args.sudo`"),
        ("save", "a server has no configuration to save; what commands change is there already"),
    ] {
        if request.flag(key) == Some(true) {
            said.push(format!("`{key}` was not used: {why}"));
        }
    }
    said
}

/// Reads them; unknown ones are tolerated.
pub(super) fn read(args: &Map<String, Value>) -> Result<Args, Vec<FieldError>> {
    let value = Value::Object(args.clone());
    let mut errors = Vec::new();
    let Some(mut f) = Fields::of(&value, vec![Value::from("driver_args")], &mut errors) else {
        return Err(errors);
    };
    let read = Args {
        timeout: f.number("timeout", 0.0, 86_400.0).filter(|s| *s > 0.0).map(Duration::from_secs_f64),
        get_pty: f.boolean("get_pty").unwrap_or(false),
        environment: environment(&mut f),
        working_directory: f.string("working_directory").filter(|d| !d.is_empty()),
        sudo: f.boolean("sudo").unwrap_or(false),
        sudo_password: f.string("sudo_password").filter(|p| !p.is_empty()).map(SecretString::from),
        stop_on_error: f.boolean("stop_on_error").unwrap_or(true),
    };
    if read.working_directory.as_ref().is_some_and(|d| d.contains('\0')) {
        f.error("working_directory", "value_error", "Input should be a path");
    }
    if errors.is_empty() { Ok(read) } else { Err(errors) }
}

fn environment(f: &mut Fields<'_>) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for (name, value) in f.object("environment").unwrap_or_default() {
        let sound = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let text = match value {
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            _ => None,
        };
        match text.filter(|t| sound && !t.contains('\0')) {
            Some(text) => variables.push((name, text)),
            None => f.error(
                "environment",
                "value_error",
                format!("`{name}`: a variable has a name of letters, digits and `_`, and a text"),
            ),
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sentence(value: Value) -> String {
        match read(value.as_object().unwrap()) {
            Ok(_) => String::new(),
            Err(errors) => netpulse_model::fields::sentence(&errors),
        }
    }

    #[test]
    fn promise_15_wrong_driver_arguments_are_named() {
        assert!(sentence(json!({"timeout": "soon"})).contains("driver_args.timeout"));
        assert!(
            sentence(json!({"environment": {"A;rm -rf /": "x"}}))
                .contains("driver_args.environment: `A;rm -rf /`")
        );
        assert!(sentence(json!({"environment": {"A": ["x"]}})).contains("`A`"));
        assert!(sentence(json!({"environment": "A=1"})).contains("driver_args.environment"));
        assert!(sentence(json!({"sudo": "perhaps"})).contains("driver_args.sudo"));
        assert_eq!(sentence(json!({"bufsize": -1, "expect_map": null, "anything": {}})), "");
        let args =
            read(json!({"environment": {"A": "x", "N": 7}, "timeout": "2.5"}).as_object().unwrap()).unwrap();
        assert_eq!(args.environment, [("A".into(), "x".into()), ("N".into(), "7".into())]);
        assert_eq!((args.timeout, args.stop_on_error), (Some(Duration::from_millis(2500)), true));
    }
}
