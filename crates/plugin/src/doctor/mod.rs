//! Whether a program keeps the plugin contract: one finding per check, with the clause of
//! `docs/plugin-contract.md` that says so.

mod endpoints;
mod life;
mod raw;

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use netpulse_model::plugin::{Capabilities, Kind};
use serde::Serialize;
use serde_json::Value;

use crate::discovery;
use crate::host::HostSettings;
use crate::schema::Schema;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As the contract asks.
    Passed,
    /// Against a MUST.
    Failed,
    /// Against a SHOULD, or something that will bite.
    Warned,
    /// Could not be looked at.
    Skipped,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Warned => "warned",
            Self::Skipped => "skipped",
        })
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// The clause of `docs/plugin-contract.md`.
    pub clause: &'static str,
    /// How it went.
    pub verdict: Verdict,
    /// What was wrong, or seen.
    pub detail: String,
}

/// The findings so far.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Finding>);

impl Report {
    fn note(
        &mut self,
        verdict: Verdict,
        clause: &'static str,
        check: impl Into<String>,
        detail: impl Into<String>,
    ) {
        self.0.push(Finding { check: check.into(), clause, verdict, detail: detail.into() });
    }

    fn passed(&mut self, clause: &'static str, check: impl Into<String>, detail: impl Into<String>) {
        self.note(Verdict::Passed, clause, check, detail);
    }

    fn failed(&mut self, clause: &'static str, check: impl Into<String>, detail: impl Into<String>) {
        self.note(Verdict::Failed, clause, check, detail);
    }

    fn skipped(&mut self, clause: &'static str, check: impl Into<String>, detail: impl Into<String>) {
        self.note(Verdict::Skipped, clause, check, detail);
    }

    /// Passed or failed by a result.
    fn must(
        &mut self,
        clause: &'static str,
        check: impl Into<String>,
        result: Result<String, String>,
    ) -> bool {
        self.by(Verdict::Failed, clause, check, result)
    }

    /// Passed or warned by a result.
    fn should(
        &mut self,
        clause: &'static str,
        check: impl Into<String>,
        result: Result<String, String>,
    ) -> bool {
        self.by(Verdict::Warned, clause, check, result)
    }

    fn by(
        &mut self,
        bad: Verdict,
        clause: &'static str,
        check: impl Into<String>,
        result: Result<String, String>,
    ) -> bool {
        match result {
            Ok(detail) => self.note(Verdict::Passed, clause, check, detail),
            Err(detail) => {
                self.note(bad, clause, check, detail);
                return false;
            }
        }
        true
    }
}

/// Runs every check on a file. `settings` are the plugin's own, for `/configure`. Ends whatever it
/// started; takes some seconds.
pub async fn examine(file: &Path, host: &HostSettings, settings: Option<&Value>) -> Vec<Finding> {
    let mut report = Report::default();
    if !the_file(file, &mut report) {
        return report.0;
    }
    let host =
        HostSettings { start_timeout: host.start_timeout.min(Duration::from_secs(10)), ..host.clone() };
    let began = Instant::now();
    let capabilities = match discovery::capabilities(file, &host).await {
        Ok(capabilities) => {
            let detail = format!(
                "`{}` {} in {:.0} ms",
                capabilities.id,
                capabilities.version,
                began.elapsed().as_secs_f64() * 1000.0
            );
            report.passed("1.2", "says what it is within 5 s", detail);
            capabilities
        }
        Err(why) => {
            report.failed("1.2", "says what it is within 5 s", why);
            return report.0;
        }
    };
    declared(&capabilities, &mut report);
    life::examine(file, &capabilities, &host, settings, &mut report).await;
    report.0
}

fn the_file(file: &Path, report: &mut Report) -> bool {
    let check = "the file can be found and is safe to run";
    let meta = match std::fs::metadata(file) {
        Ok(meta) => meta,
        Err(error) => {
            report.failed("1.1", check, format!("{}: {error}", file.display()));
            return false;
        }
    };
    let own = rustix::process::geteuid().as_raw();
    let wrong = if !meta.is_file() {
        Some("it is no file".to_owned())
    } else if meta.mode() & 0o111 == 0 {
        Some("it is not executable (chmod +x)".to_owned())
    } else if meta.uid() != own && meta.uid() != 0 {
        Some(format!(
            "it belongs to user {}, and NetPulse would run as {own}: it would not be run",
            meta.uid()
        ))
    } else if meta.mode() & 0o002 != 0 {
        Some("everybody may write it: it would not be run (chmod o-w)".to_owned())
    } else {
        None
    };
    let sound = wrong.is_none();
    report.must("1.1", check, wrong.map_or_else(|| Ok(String::new()), Err));
    if let Some(extension) = file.extension() {
        let name = file.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let detail =
            format!("`.{}` hides it from discovery: install it as `{name}`", extension.to_string_lossy());
        report.note(Verdict::Warned, "1.1", "the file's name has no extension", detail);
    }
    sound
}

/// What stands in the capabilities.
fn declared(capabilities: &Capabilities, report: &mut Report) {
    let parts: Vec<&str> = capabilities.id.split('/').collect();
    let form = parts.len() == 4
        && parts.iter().all(|part| !part.is_empty())
        && parts
            .last()
            .and_then(|last| last.strip_prefix('v'))
            .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
    let form = if form {
        Ok(capabilities.id.clone())
    } else {
        Err(format!("`{}` is not <who>/<kind>/<name>/v<n>", capabilities.id))
    };
    report.should("1.2", "the id has its form", form);
    let mut seen = std::collections::BTreeSet::new();
    for capability in &capabilities.capabilities {
        let label = format!("{} `{}`", capability.kind, capability.name);
        let kind = capability.kind.parse::<Kind>().ok().filter(|kind| *kind != Kind::Platform);
        let result = if kind.is_none() {
            Err(format!("`{}` is no kind of this NetPulse", capability.kind))
        } else if !discovery::is_name(&capability.name) {
            Err("a name is of a-z, 0-9 and _ and begins with a letter".to_owned())
        } else if !seen.insert((capability.kind.clone(), capability.name.clone())) {
            Err("it is declared twice".to_owned())
        } else {
            Ok(capability.features.join(", "))
        };
        report.must("1.2", format!("{label} is declared well"), result);
        let Value::Object(schemas) = &capability.json_schema else { continue };
        for (argument, schema) in schemas {
            let check = format!("the schema of `{argument}` of {label}");
            match Schema::read(schema) {
                Err(why) => report.failed("6", check, why),
                Ok(Some(schema)) if !schema.unknown.is_empty() => {
                    let detail = format!("these keywords are not checked: {}", schema.unknown.join(", "));
                    report.note(Verdict::Warned, "6", check, detail);
                }
                Ok(_) => report.passed("6", check, ""),
            }
        }
    }
}
