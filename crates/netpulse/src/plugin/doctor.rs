//! `netpulse plugin doctor`: does a program keep the plugin contract?

use std::path::PathBuf;

use clap::Args;
use netpulse_config::{LoadOptions, Loaded};
use netpulse_plugin::doctor::{Verdict, examine};
use serde_json::Value;

use crate::exit::{Exit, Failure, Outcome};
use crate::plugins;
use crate::ui::{Text, Tone, Ui};

/// Check a plugin's file against the contract: starts it, asks it everything, ends it in every way
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The plugin's file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Its own settings: a JSON or YAML file, for plugins that need some to start
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Only what is not as it should be
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(args: &DoctorArgs, ui: &Ui) -> Outcome {
    let wrong =
        |path: &PathBuf, e: &dyn std::fmt::Display| Failure::usage(format!("{}: {e}", path.display()));
    // Not resolved: a link's own name is the one that it is run under.
    let file = std::path::absolute(&args.file).map_err(|e| wrong(&args.file, &e))?;
    let settings: Option<Value> = match &args.settings {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| wrong(path, &e))?;
            Some(yaml_serde::from_str(&text).map_err(|_| wrong(path, &"is neither JSON nor YAML"))?)
        }
        None => None,
    };
    let host = plugins::host(&Loaded::read(LoadOptions::from_process()).config)?;
    let mut findings = crate::block_on(async { Ok(examine(&file, &host, settings.as_ref()).await) })?;
    let count = |verdict: Verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (passed, failed, warned, skipped) =
        (count(Verdict::Passed), count(Verdict::Failed), count(Verdict::Warned), count(Verdict::Skipped));
    if args.quiet {
        findings.retain(|finding| matches!(finding.verdict, Verdict::Failed | Verdict::Warned));
    }
    if ui.for_people() {
        let rows = findings.iter().map(|finding| {
            let tone = match finding.verdict {
                Verdict::Passed => Tone::Good,
                Verdict::Failed => Tone::Bad,
                Verdict::Warned => Tone::Busy,
                Verdict::Skipped => Tone::Dim,
            };
            vec![
                Text(finding.verdict.to_string(), tone),
                Text(finding.clause.to_owned(), Tone::Dim),
                Text(finding.check.clone(), Tone::Plain),
                Text(finding.detail.clone(), Tone::Plain),
            ]
        });
        ui.table(&["", "CLAUSE", "CHECK", ""], rows.collect());
        ui.note(&format!(
            "{passed} passed, {failed} failed, {warned} warned, {skipped} skipped; the clauses stand in docs/plugin-contract.md"
        ));
    } else {
        ui.document(&findings)?;
    }
    Ok(if failed > 0 { Exit::JobFailed } else { Exit::Ok })
}
