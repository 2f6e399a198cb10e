//! Log lines on standard error: for people or as JSON, never with a secret.

use std::fmt;
use std::io::Write;
use std::sync::LazyLock;

use regex::Regex;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::exit::Failure;

/// Begins to log. `level` is a level (`INFO`) or a filter (`info,netpulse_session=debug`), `format`
/// is `text` or `json`.
pub fn start(level: &str, format: &str) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(in_their_words(level))
        .map_err(|error| Failure::usage(format!("`{level}` is no log level or filter: {error}")))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Scrubbed)
        .with_ansi(false)
        // A line that cannot be written (the log's disk is full) is lost; complaining about it on the
        // same standard error would panic in whatever was being logged.
        .log_internal_errors(false);
    let started = match format {
        "json" => lines.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
        _ => lines.event_format(Lines).try_init(),
    };
    started.map_err(|error| Failure::local(format!("logging cannot be started: {error}")))
}

/// The levels of the Python system in the words of the library.
fn in_their_words(level: &str) -> String {
    let parts = level.split(',').map(|part| {
        let part = part.trim();
        let (target, level) = part.rsplit_once('=').map_or(("", part), |(target, level)| (target, level));
        let level = match level.to_ascii_lowercase().as_str() {
            "warning" => "warn".to_owned(),
            "critical" => "error".to_owned(),
            other => other.to_owned(),
        };
        if target.is_empty() { level } else { format!("{target}={level}") }
    });
    parts.collect::<Vec<_>>().join(",")
}

/// `time LEVEL target [job id ...] message field=value`.
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        SystemTime.format_time(&mut out)?;
        write!(out, " {:<5} {}", event.metadata().level(), event.metadata().target())?;
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            match extensions.get::<FormattedFields<N>>().filter(|fields| !fields.is_empty()) {
                Some(fields) => write!(out, " [{} {fields}]", span.name())?,
                None => write!(out, " [{}]", span.name())?,
            }
        }
        out.write_char(' ')?;
        context.field_format().format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}

/// Standard error behind the mask.
#[derive(Clone, Copy)]
struct Scrubbed;

impl MakeWriter<'_> for Scrubbed {
    type Writer = ScrubbedLine;

    fn make_writer(&self) -> Self::Writer {
        ScrubbedLine
    }
}

/// Gets one whole line per write, which is how the formatter writes.
struct ScrubbedLine;

impl Write for ScrubbedLine {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        std::io::stderr().lock().write_all(scrub(&text).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().lock().flush()
    }
}

/// A key that names a secret, then `=` or `:`, then its value: quoted (also with escaped quotes,
/// as in JSON within JSON), or bare after `=`.
static SECRET: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r#"(?xi)
        (?P<key> \b[\w-]* (?: passw(?:or)?d | token | secret(?:_id)? | private[_-]key | passphrase | community
                            | api[_-]key | pkey | key_data ) | \b key )
        (?P<sep> \\?["']? \s* [:=] \s* (?:Some\()? )
        (?P<value> \\" .*? \\" | "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' | (?P<bare> [^\s,;&\]\}\)"'\\]+ ) )
        "#,
    )
    .ok()
});

/// `line` with the values of secrets masked.
fn scrub(line: &str) -> std::borrow::Cow<'_, str> {
    let Some(pattern) = SECRET.as_ref() else {
        // Unreachable as long as the tests pass; a line that cannot be masked is not written.
        return "a log line was withheld: it could not be masked\n".into();
    };
    pattern.replace_all(line, |found: &regex::Captures<'_>| {
        let (key, sep) = (&found["key"], &found["sep"]);
        let value = &found["value"];
        // `key: word` in a sentence is prose; `password: word` is not worth the risk.
        if found.name("bare").is_some() && sep.contains(':') && key.eq_ignore_ascii_case("key") {
            return found[0].to_owned();
        }
        let quote = if value.starts_with("\\\"") {
            "\\\""
        } else if value.starts_with('"') {
            "\""
        } else if value.starts_with('\'') {
            "'"
        } else {
            ""
        };
        format!("{key}{sep}{quote}{}{quote}", netpulse_model::secret::MASK)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promise_12_no_secret_in_a_log_line() {
        for (line, expected) in [
            (r#"login password="s3cret" user=ops"#, r#"login password="******" user=ops"#),
            ("args {'password': 'it\\'s', 'port': 22}", "args {'password': '******', 'port': 22}"),
            ("password=s3cret,token=abc;x=1", "password=******,token=******;x=1"),
            (r#"{"Secret":"a b","host":"h"}"#, r#"{"Secret":"******","host":"h"}"#),
            (
                r#"{"message":"{\"password\":\"s3cret\",\"a\":1}"}"#,
                r#"{"message":"{\"password\":\"******\",\"a\":1}"}"#,
            ),
            ("sudo_password: hunter2", "sudo_password: ******"),
            ("X-API-KEY: k-1234 next", "X-API-KEY: ****** next"),
            ("community=public", "community=******"),
            ("private_key = '-----BEGIN'", "private_key = '******'"),
            ("passphrase: Some(\"x\")", "passphrase: Some(\"******\")"),
            ("host key: changed for sw1", "host key: changed for sw1"),
            ("key=abc", "key=******"),
            ("the password was wrong", "the password was wrong"),
            ("keyboard: us", "keyboard: us"),
        ] {
            assert_eq!(scrub(line), expected);
        }
    }

    /// Keeps what is written, as it would have been shown.
    #[derive(Clone, Default)]
    struct Kept(std::sync::Arc<std::sync::Mutex<String>>);

    impl Write for Kept {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().push_str(&scrub(std::str::from_utf8(line).unwrap()));
            Ok(line.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(json: bool) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let lines = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false);
        let work = || {
            let _job = tracing::info_span!("job", id = "6c0e", device = "sw1").entered();
            tracing::warn!(password = "s3cret", attempt = 2, "login failed");
        };
        if json {
            let lines = lines.json().flatten_event(true).with_current_span(true).with_span_list(false);
            tracing::subscriber::with_default(lines.finish(), work);
        } else {
            tracing::subscriber::with_default(lines.event_format(Lines).finish(), work);
        }
        let text = kept.0.lock().unwrap();
        text.clone()
    }

    #[test]
    fn lines_name_time_level_target_and_job() {
        let line = logged(false);
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.contains('T'), "{time}");
        let end =
            "logging::tests [job id=\"6c0e\" device=\"sw1\"] login failed password=\"******\" attempt=2\n";
        assert!(rest.starts_with("WARN  netpulse") && rest.ends_with(end), "{rest}");
    }

    #[test]
    fn json_lines_are_json_with_the_job() {
        let line: serde_json::Value = serde_json::from_str(&logged(true)).unwrap();
        assert_eq!(
            (&line["level"], &line["message"], &line["password"]),
            (&"WARN".into(), &"login failed".into(), &"******".into())
        );
        assert_eq!((&line["span"]["name"], &line["span"]["id"]), (&"job".into(), &"6c0e".into()));
    }

    #[test]
    fn levels_of_the_python_system_are_understood() {
        assert_eq!(in_their_words("WARNING"), "warn");
        assert_eq!(in_their_words("INFO, netpulse_session=WARNING"), "info,netpulse_session=warn");
        assert!(EnvFilter::try_new(in_their_words("CRITICAL")).is_ok());
    }
}
