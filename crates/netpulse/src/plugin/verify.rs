//! `netpulse plugin verify`: whether the installed files are what was installed.

use std::path::PathBuf;

use clap::Args;
use netpulse_plugin::install::{Guard, Lock, Verdict};
use serde_json::{Value, json};

use super::{configured, failure, folder};
use crate::exit::{Exit, Failure, Outcome};
use crate::ui::{Text, Tone, Ui};

/// Check that installed plugins are what was installed
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse plugin verify
  netpulse plugin verify -o json
  netpulse plugin verify acme --accept

States: unchanged; changed: not the bytes that were installed, so it is never run until it is
installed again or accepted; missing: installed and gone; unlisted: put there by hand.

Exits 0 when nothing is changed or missing, 7 otherwise.")]
pub struct VerifyArgs {
    /// Only these
    #[arg(value_name = "PLUGIN")]
    names: Vec<String>,
    /// Take the files as they are now: those named, or all that are changed or unlisted
    #[arg(long)]
    accept: bool,
    /// The folder of plugins [default: plugin.directory, or ~/.config/netpulse/plugins]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub fn run(args: &VerifyArgs, ui: &Ui) -> Outcome {
    let folder = folder(args.dir.as_ref(), &configured(ui)?)?;
    let guard = if args.accept { Some(Guard::take(&folder).map_err(failure)?) } else { None };
    let mut lock = Lock::read(&folder).map_err(failure)?;
    let mut states = wanted(&lock, &args.names)?;
    if args.accept {
        let names: Vec<String> = states
            .iter()
            .filter(|(_, verdict)| matches!(verdict, Verdict::Changed { .. } | Verdict::Unlisted))
            .map(|(name, _)| name.clone())
            .collect();
        let accepted = lock.accept(&names).map_err(failure)?;
        lock.write().map_err(failure)?;
        for name in &accepted {
            ui.note(&format!("{name} is accepted as it is"));
        }
        states = wanted(&lock, &args.names)?;
    }
    drop(guard);
    show(&states, &lock, ui)?;
    let bad = states.iter().any(|(_, verdict)| !matches!(verdict, Verdict::Unchanged | Verdict::Unlisted));
    Ok(if bad { Exit::Refused } else { Exit::Ok })
}

fn wanted(lock: &Lock, names: &[String]) -> Result<Vec<(String, Verdict)>, Failure> {
    let all = lock.check_all().map_err(failure)?;
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|(known, _)| known == *name)) {
        let what = format!("{}: there is no plugin `{unknown}`", lock.folder().display());
        return Err(Failure::new(Exit::NotFound, "not_found", what));
    }
    Ok(all.into_iter().filter(|(name, _)| names.is_empty() || names.contains(name)).collect())
}

fn show(states: &[(String, Verdict)], lock: &Lock, ui: &Ui) -> Result<(), Failure> {
    if !ui.for_people() {
        let records: Vec<Value> = states
            .iter()
            .map(|(name, verdict)| {
                let entry = lock.get(name);
                let (found, why) = match verdict {
                    Verdict::Changed { found, .. } => (Some(found), None),
                    Verdict::Unreadable { why } => (None, Some(why)),
                    _ => (None, None),
                };
                json!({"plugin": name, "state": verdict.word(), "lock": entry, "found": found, "error": why})
            })
            .collect();
        return ui.document(&records);
    }
    let rows = states
        .iter()
        .map(|(name, verdict)| {
            let entry = lock.get(name);
            let tone = match verdict {
                Verdict::Unchanged => Tone::Good,
                Verdict::Unlisted => Tone::Busy,
                _ => Tone::Bad,
            };
            let said = |text: Option<&String>| text.cloned().unwrap_or_default();
            let signer = match entry {
                Some(entry) if entry.accepted => "(accepted by hand)".to_owned(),
                _ => said(entry.and_then(|entry| entry.signer.as_ref())),
            };
            vec![
                Text(name.clone(), Tone::Strong),
                Text(verdict.word().to_owned(), tone),
                said(entry.map(|entry| &entry.version)).into(),
                signer.into(),
                said(entry.map(|entry| &entry.source)).into(),
            ]
        })
        .collect();
    ui.table(&["PLUGIN", "STATE", "VERSION", "SIGNED BY", "SOURCE"], rows);
    for (name, verdict) in states {
        match verdict {
            Verdict::Changed { expected, found } => {
                ui.warn(&format!("{name} is not run: {expected} was installed, {found} is there"));
                ui.note(&format!(
                    "install it again, or take it as it is: netpulse plugin verify {name} --accept"
                ));
            }
            Verdict::Missing => {
                ui.warn(&format!("{name} was installed and is gone: install it again, or remove it"))
            }
            Verdict::Unreadable { why } => ui.warn(why),
            Verdict::Unchanged | Verdict::Unlisted => {}
        }
    }
    Ok(())
}
