//! Asks a file what it can do: the first time that anything installed is run.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::error::{InstallError, Result, Trouble};

/// How long a plugin may think about what it can do.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read.
const ANSWER: u64 = 1024 * 1024;
/// Bytes of complaints that are shown.
const COMPLAINT: u64 = 2000;
/// What of our environment a plugin may see: no key, no password.
const ENVIRONMENT: &[&str] = &["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SystemRoot"];

/// Runs `<file> capabilities` and reads its answer.
///
/// # Errors
/// It cannot be run, takes too long, fails, or its answer is not what a plugin says.
pub async fn capabilities(file: &Path, name: &str, patience: Duration) -> Result<Value> {
    let no = |why: String| {
        let kit_is_missing = why.contains("No module named 'netpulse_plugin'");
        let error =
            InstallError::new(Trouble::NotAPlugin, format!("{name} is no plugin that can be used: {why}"));
        if !kit_is_missing {
            return error;
        }
        error.hint("plugin and kit are installed as one file: `plugins/build-python FILE OUTPUT` makes it")
    };
    let mut child = start(file).await.map_err(|e| no(format!("it cannot be run: {e}")))?;
    let out = child.stdout.take();
    let err = child.stderr.take();
    let work = async {
        let (answer, complaint, status) =
            tokio::join!(upto(out, ANSWER + 1), upto(err, COMPLAINT), child.wait());
        (answer, complaint, status)
    };
    let Ok((answer, complaint, status)) = tokio::time::timeout(patience, work).await else {
        // Dropping it kills it.
        return Err(no(format!("`capabilities` gave no answer in {} s", patience.as_secs_f32())));
    };
    let status = status.map_err(|e| no(format!("its end was lost: {e}")))?;
    let complaint = String::from_utf8_lossy(&complaint);
    let complaint: String = complaint.trim().chars().filter(|c| !c.is_control() || *c == '\n').collect();
    if !status.success() {
        let said = if complaint.is_empty() { String::new() } else { format!("; it said: {complaint}") };
        return Err(no(format!("`capabilities` ended with {status}{said}")));
    }
    if answer.len() as u64 > ANSWER {
        return Err(no(format!("`capabilities` printed more than {ANSWER} bytes")));
    }
    let value: Value = serde_json::from_slice(&answer)
        .map_err(|e| no(format!("`capabilities` printed no JSON document: {e}")))?;
    check(&value).map_err(no)?;
    Ok(value)
}

/// Whether this is what a plugin says: the form of this program, or of the contract it comes from.
fn check(value: &Value) -> std::result::Result<(), String> {
    if !value.is_object() {
        return Err("`capabilities` printed no JSON object".to_owned());
    }
    if let Some(contract) = value.get("contract").and_then(Value::as_str)
        && contract != "netpulse.plugin/v1"
    {
        return Err(format!("it speaks `{contract}`, understood is netpulse.plugin/v1"));
    }
    let by_type = value.get("type").and_then(Value::as_object).is_some_and(|types| {
        !types.is_empty() && types.values().all(|list| list.as_array().is_some_and(|list| !list.is_empty()))
    });
    let listed = value.get("capabilities").and_then(Value::as_array).is_some_and(|list| {
        !list.is_empty() && list.iter().all(|item| item.get("type").is_some_and(Value::is_string))
    });
    if by_type || listed {
        return Ok(());
    }
    Err("`capabilities` names nothing that it can do (neither `capabilities` nor `type`)".to_owned())
}

async fn start(file: &Path) -> std::io::Result<Child> {
    // A file that was just written is busy for as long as a process started meanwhile by somebody
    // else in this program still holds it: that ends by itself, at once.
    let mut busy = 0;
    loop {
        let mut command = Command::new(file);
        command.arg("capabilities").env_clear().kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in ENVIRONMENT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        match command.spawn() {
            Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy && busy < 100 => {
                busy += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            result => return result,
        }
    }
}

/// At most so many bytes; the rest is read and dropped, so that the writer is never held up.
async fn upto(stream: Option<impl AsyncRead + Unpin>, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Some(mut stream) = stream else { return bytes };
    let kept = (&mut stream).take(most).read_to_end(&mut bytes).await;
    if kept.is_ok() {
        let rest = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        if let Err(error) = rest {
            tracing::debug!(%error, "a plugin's output broke off");
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    async fn ask(script: &str, patience: Duration) -> Result<Value> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("acme");
        std::fs::write(&file, script).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        capabilities(&file, "acme", patience).await
    }

    #[tokio::test]
    async fn both_forms_of_an_answer_count() {
        for answer in [
            r#"{"type":{"acme":["driver"]}}"#,
            r#"{"capabilities":[{"type":"driver","name":"acme"}],"supportedConfigTypes":[]}"#,
        ] {
            let script = format!("#!/bin/sh\n[ \"$1\" = capabilities ] && echo '{answer}'\n");
            assert!(ask(&script, PATIENCE).await.is_ok(), "{answer}");
        }
    }

    #[tokio::test]
    async fn promise_14_what_is_no_plugin_is_told() {
        for (script, said) in [
            ("#!/bin/sh\necho hello\n", "no JSON document"),
            ("#!/bin/sh\necho '[]'\n", "no JSON object"),
            ("#!/bin/sh\necho '{}'\n", "names nothing that it can do"),
            ("#!/bin/sh\necho '{\"type\":{\"x\":[]}}'\n", "names nothing"),
            (
                "#!/bin/sh\necho '{\"contract\":\"netpulse.plugin/v9\",\"type\":{\"x\":[\"y\"]}}'\n",
                "speaks `netpulse.plugin/v9`",
            ),
            ("#!/bin/sh\necho broken >&2; exit 3\n", "exit status: 3; it said: broken"),
            ("#!/bin/sh\nyes\n", "no answer in"),
            ("#!/no/such/interpreter\n", "cannot be run"),
            ("\x7fELF", "is no plugin"),
            ("#!/bin/sh\nhead -c 2000000 /dev/zero\n", "more than 1048576 bytes"),
        ] {
            let error = ask(script, Duration::from_secs(if script.contains("yes") { 1 } else { 30 }))
                .await
                .unwrap_err();
            assert!(
                error.trouble == Trouble::NotAPlugin && error.message.contains(said),
                "{script}: {error}"
            );
        }
    }

    #[tokio::test]
    async fn promise_12_a_plugin_sees_none_of_our_environment() {
        let script = "#!/bin/sh\n[ -z \"$CARGO_MANIFEST_DIR\" ] || { echo leaked >&2; exit 9; }\necho '{\"type\":{\"x\":[\"driver\"]}}'\n";
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        ask(script, PATIENCE).await.unwrap();
    }
}
